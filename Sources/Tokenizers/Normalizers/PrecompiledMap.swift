/// The `Precompiled` normalizer: SentencePiece's table of replacements, a double-array trie over UTF-8.
struct PrecompiledMap: Sendable {
    private let units: [UInt32]
    private let replacements: [UInt8]
    /// Bytes; the longest in use has 33.
    static let largestReplacement = 256

    init(base64: [UInt8], at place: String) throws {
        guard let bytes = Base64.decode(base64) else {
            throw TokenizerError(.invalidField, "\(place): expected base64 text of a charsmap")
        }
        try self.init(bytes: bytes, at: place)
    }

    /// - Parameter bytes: the trie's length, the trie, the replacements, each of these ended by a zero.
    init(bytes: [UInt8], at place: String) throws {
        guard bytes.count >= 4 else {
            throw TokenizerError(.invalidField, "\(place): a charsmap of \(bytes.count) bytes")
        }
        func word(at offset: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32($1 * 8) }
        }
        let size = Int(word(at: 0))
        guard size % 4 == 0, size <= bytes.count - 4 else {
            throw TokenizerError(
                .invalidField, "\(place): the charsmap is cut: \(size) bytes of trie in \(bytes.count)")
        }
        units = (0..<size / 4).map { word(at: 4 + $0 * 4) }
        replacements = Array(bytes[(4 + size)...])
        guard String(validating: replacements, as: UTF8.self) != nil else {
            throw TokenizerError(.invalidField, "\(place): the charsmap's replacements are not UTF-8")
        }
        guard replacements.split(separator: 0).allSatisfy({ $0.count <= Self.largestReplacement }) else {
            throw TokenizerError(
                .invalidField, "\(place): a replacement of over \(Self.largestReplacement) bytes for one character")
        }
    }

    /// The replacement of the shortest entry that `text` begins with.
    private func replacement(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
        guard var unit = units.first else { return nil }
        var node = Self.offset(unit)
        for byte in text {
            guard byte != 0 else { return nil }
            node ^= Int(byte)
            guard node < units.count else { return nil }
            unit = units[node]
            guard unit & (1 << 31 | 0xFF) == UInt32(byte) else { return nil }
            node ^= Self.offset(unit)
            guard unit >> 8 & 1 == 1 else { continue }
            guard node < units.count else { return nil }
            let start = Int(units[node] & 0x7FFF_FFFF)
            guard start <= replacements.count else { return nil }
            let end = replacements[start...].firstIndex(of: 0) ?? replacements.count
            return replacements[start..<end]
        }
        return nil
    }

    /// The replacement of the longest entry that the text begins with at `start`, and the entry's length.
    @inline(__always)
    func longestReplacement(
        in text: UnsafeBufferPointer<UInt8>, at start: Int
    ) -> (replacement: ArraySlice<UInt8>, length: Int)? {
        guard var unit = units.first else { return nil }
        var node = Self.offset(unit)
        var found: (start: Int, length: Int)?
        var position = start
        while position < text.count, text[position] != 0 {
            node ^= Int(text[position])
            guard node < units.count else { break }
            unit = units[node]
            guard unit & (1 << 31 | 0xFF) == UInt32(text[position]) else { break }
            position += 1
            node ^= Self.offset(unit)
            guard unit >> 8 & 1 == 1 else { continue }
            guard node < units.count else { break }
            found = (Int(units[node] & 0x7FFF_FFFF), position - start)
        }
        guard let found, found.start <= replacements.count else { return nil }
        let end = replacements[found.start...].firstIndex(of: 0) ?? replacements.count
        return (replacements[found.start..<end], found.length)
    }

    private static func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 1 << 9) >> 6) }

    func normalize(_ text: inout AlignedText) {
        var changes: [ScalarChange] = []
        var isModified = false
        func replace(_ oldCount: Int, _ new: ArraySlice<UInt8>) {
            isModified = true
            let scalars = String(decoding: new, as: UTF8.self).unicodeScalars
            let difference = scalars.count - oldCount
            changes.append(contentsOf: scalars.map { ScalarChange(scalar: $0.value, change: 0) })
            if difference > 0 {
                for index in max(0, changes.count - difference)..<changes.count { changes[index].change = 1 }
            } else if difference < 0, !changes.isEmpty {
                changes[changes.count - 1].change += difference
            }
        }
        for grapheme in String(decoding: text.bytes, as: UTF8.self) {
            let bytes = Array(grapheme.utf8)
            if bytes.count < 6, let new = replacement(bytes[...]) {
                replace(grapheme.unicodeScalars.count, new)
                continue
            }
            for scalar in grapheme.unicodeScalars {
                if let new = replacement(Array(UTF8Scanner.encode(scalar.value))[...]) {
                    replace(1, new)
                } else {
                    changes.append(ScalarChange(scalar: scalar.value, change: 0))
                }
            }
        }
        if isModified { text.transform(changes) }
    }
}
