/// SentencePiece's own decoding of pieces (`sentencepiece_processor.cc`).
struct SentencePieceDecoder: Sendable {
    let unknown: [UInt8]
    let unknownSurface: [UInt8]
    /// Whether `<0xHH>` pieces are bytes.
    let hasBytes: Bool
    let dropsFirstBlank: Bool
    let dropsLeadingBlanks: Bool

    init(_ model: SentencePieceModel) {
        unknown = model.pieces[model.unknownID].spelling
        unknownSurface = model.unknownSurface
        hasBytes = model.pieces.contains { $0.type == .byte }
        dropsFirstBlank = model.addsDummyPrefix || model.removesExtraWhitespace
        dropsLeadingBlanks = model.removesExtraWhitespace
    }

    func decode(_ tokens: [[UInt8]]) -> [UInt8] {
        var text: [UInt8] = []
        var run: [UInt8] = []
        var expectsBlank = true
        var hasSeenBlank = false
        for token in tokens {
            if hasBytes, let byte = Decoder.fallbackByte(token) {
                run.append(byte)
                continue
            }
            Self.appendCharacters(of: run, to: &text)
            run.removeAll(keepingCapacity: true)
            if hasSeenBlank || !text.isEmpty { expectsBlank = false }
            hasSeenBlank = false
            if token == unknown {
                text += unknownSurface
                continue
            }
            var piece = token[...]
            if expectsBlank, dropsFirstBlank, piece.starts(with: SentencePieceNormalizer.mark) {
                piece = piece.dropFirst(SentencePieceNormalizer.mark.count)
                hasSeenBlank = !dropsLeadingBlanks
            }
            text += Decoder.replacing(SentencePieceNormalizer.mark, in: Array(piece), with: [0x20])
        }
        Self.appendCharacters(of: run, to: &text)
        return text
    }

    /// Bytes that are no part of a character become one U+FFFD each.
    private static func appendCharacters(of bytes: [UInt8], to text: inout [UInt8]) {
        var position = 0
        while position < bytes.count {
            let end = position + UTF8Scanner.length(of: bytes[position])
            if end <= bytes.count, String(validating: bytes[position..<end], as: UTF8.self) != nil {
                text += bytes[position..<end]
                position = end
            } else {
                text += Array("\u{FFFD}".utf8)
                position += 1
            }
        }
    }
}
