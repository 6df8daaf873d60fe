extension Tokenizer {
    /// The text of token ids. Ids that the vocabulary has not are left out, as in the reference.
    ///
    /// Bytes that are no UTF-8 become U+FFFD.
    public func decode(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool = true) -> String {
        String(decoding: decodedBytes(ids, skipSpecialTokens: skipSpecialTokens), as: UTF8.self)
    }

    func decodedBytes(_ ids: some Sequence<Int32>, skipSpecialTokens: Bool) -> [UInt8] {
        if case .byteLevel = decoder {
            var bytes: [UInt8] = []
            for id in ids { appendBytes(of: id, skipSpecialTokens: skipSpecialTokens, to: &bytes) }
            return bytes
        }
        var tokens: [[UInt8]] = []
        for id in ids where !(skipSpecialTokens && skippedIDs.contains(id)) {
            if let spelling = decodedSpelling(of: id) { tokens.append(Array(spelling)) }
        }
        let text = decoder.map { Array($0.decode(tokens).joined()) } ?? Array(tokens.joined(separator: [0x20]))
        return cleansUpSpaces ? Decoder.cleanedUp(text, by: Decoder.configuredCleanUps) : text
    }

    private func decodedSpelling(of id: Int32) -> ArraySlice<UInt8>? {
        if let added = decodedSpellings[id] { return added[...] }
        return model.vocabulary.spelling(id)
    }

    /// Appends the bytes that a token stands for under a byte-level decoder.
    func appendBytes(of id: Int32, skipSpecialTokens: Bool, to bytes: inout [UInt8]) {
        if skipSpecialTokens, skippedIDs.contains(id) { return }
        guard let spelling = decodedSpelling(of: id) else { return }
        let isInAlphabet = spelling.withUnsafeBufferPointer { ByteAlphabet.appendBytes(of: $0, to: &bytes) }
        if !isInAlphabet { bytes += spelling }
    }
}
