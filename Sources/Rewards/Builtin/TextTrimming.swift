extension StringProtocol {
    /// Without white space at both ends.
    var trimmed: Substring.UnicodeScalarView.SubSequence {
        var scalars = Substring(self).unicodeScalars[...]
        while let first = scalars.first, first.properties.isWhitespace { scalars.removeFirst() }
        while let last = scalars.last, last.properties.isWhitespace { scalars.removeLast() }
        return scalars
    }
}
