extension JSONDocument {
    /// Bytes of all patterns of one file. The largest real ones have about three thousand.
    static let largestPatterns = 1 << 14

    /// Each class of a pattern takes up to nine kilobytes as a table: a file of a few megabytes of them would take gigabytes.
    ///
    /// - Throws: `TokenizerError` (`invalidPattern`) where the file's patterns are longer together than any use has.
    func checkPatterns() throws {
        let name = Array("Regex".utf8)
        var total = 0
        for index in entries.indices.dropLast() where entries[index].kind == .string {
            let key = entries[index], value = entries[index + 1]
            guard Int(key.end - key.start) == name.count, value.kind == .string || value.kind == .escapedString,
                bytes[Int(key.start)..<Int(key.end)].elementsEqual(name)
            else { continue }
            total += Int(value.end - value.start)
        }
        guard total <= Self.largestPatterns else {
            throw TokenizerError(
                .invalidPattern, "the file's patterns have \(total) bytes, more than \(Self.largestPatterns) together")
        }
    }
}
