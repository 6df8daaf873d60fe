/// A step from the spellings of tokens back to text.
indirect enum Decoder: Sendable {
    case sequence([Decoder])
    case byteLevel
    case wordPiece(prefix: [UInt8], cleansUp: Bool)
    case metaspace(Metaspace)
    case bpe(suffix: [UInt8])
    case ctc(padding: [UInt8], delimiter: [UInt8], cleansUp: Bool)
    case byteFallback
    case fuse
    case strip(UnicodeScalar, start: Int, stop: Int)
    case replace(TextPattern, [UInt8])
    case sentencePiece(SentencePieceDecoder)

    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] {
        switch self {
        case .sequence(let steps): return steps.reduce(tokens) { $1.decode($0) }
        case .byteLevel:
            var bytes: [UInt8] = []
            for token in tokens {
                let isInAlphabet = token.withUnsafeBufferPointer { ByteAlphabet.appendBytes(of: $0, to: &bytes) }
                if !isInAlphabet { bytes += token }
            }
            return [Array(String(decoding: bytes, as: UTF8.self).utf8)]
        case .wordPiece(let prefix, let cleansUp):
            return tokens.enumerated().map { index, token in
                var text = token
                if index > 0 {
                    if text.starts(with: prefix) { text.removeFirst(prefix.count) } else { text.insert(0x20, at: 0) }
                }
                return cleansUp ? Self.cleanedUp(text) : text
            }
        case .metaspace(let metaspace):
            return tokens.enumerated().map { index, token in
                let isDropped = index == 0 && metaspace.scheme != .never
                return Self.replacing(metaspace.replacement, in: token, with: isDropped ? [] : [0x20])
            }
        case .bpe(let suffix):
            return tokens.enumerated().map { index, token in
                Self.replacing(suffix, in: token, with: index == tokens.count - 1 ? [] : [0x20])
            }
        case .ctc(let padding, let delimiter, let cleansUp):
            var result: [[UInt8]] = []
            for (index, token) in tokens.enumerated() where index == 0 || token != tokens[index - 1] {
                var text = Self.replacing(padding, in: token, with: [])
                if cleansUp { text = Self.replacing(delimiter, in: Self.cleanedUp(text), with: [0x20]) }
                if !text.isEmpty { result.append(text) }
            }
            return result
        case .byteFallback: return Self.joinBytes(tokens)
        case .sentencePiece(let decoder): return [decoder.decode(tokens)]
        case .fuse: return [Array(tokens.joined())]
        case .strip(let scalar, let start, let stop): return tokens.map { Self.stripped($0, scalar, start, stop) }
        case .replace(let pattern, let content):
            return tokens.map { token in
                var text = AlignedText(token, origin: 0, isTracked: false)
                // A pattern that is too slow on a token leaves the token as it is: decoding has no way to fail.
                try? text.replace(pattern, with: content)
                return text.bytes
            }
        }
    }

    static func replacing(_ wanted: [UInt8], in text: [UInt8], with content: [UInt8]) -> [UInt8] {
        guard !wanted.isEmpty, text.count >= wanted.count else { return text }
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var position = 0
        while position < text.count {
            if text[position] == wanted[0], text[position...].starts(with: wanted) {
                result += content
                position += wanted.count
            } else {
                result.append(text[position])
                position += 1
            }
        }
        return result
    }

    private static let cleanUps: [([UInt8], [UInt8])] = [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ].map { (Array($0.0.utf8), Array($0.1.utf8)) }

    /// What `clean_up_tokenization_spaces` of `tokenizer_config.json` does: all of these but one.
    static let configuredCleanUps = cleanUps.filter { $0.0 != Array(" do not".utf8) }

    static func cleanedUp(_ text: [UInt8], by cleanUps: [([UInt8], [UInt8])] = cleanUps) -> [UInt8] {
        cleanUps.reduce(text) { replacing($1.0, in: $0, with: $1.1) }
    }

    /// Joins runs of `<0xHH>` tokens; a run that is not valid UTF-8 as a whole becomes one U+FFFD for each byte.
    private static func joinBytes(_ tokens: [[UInt8]]) -> [[UInt8]] {
        var result: [[UInt8]] = []
        var run: [UInt8] = []
        func finishRun() {
            guard !run.isEmpty else { return }
            if String(validating: run, as: UTF8.self) != nil {
                result.append(run)
            } else {
                result += [[UInt8]](repeating: Array("\u{FFFD}".utf8), count: run.count)
            }
            run.removeAll()
        }
        for token in tokens {
            if let byte = fallbackByte(token) {
                run.append(byte)
            } else {
                finishRun()
                result.append(token)
            }
        }
        finishRun()
        return result
    }

    static func fallbackByte(_ token: [UInt8]) -> UInt8? {
        guard token.count == 6, token.starts(with: [0x3C, 0x30, 0x78]), token[5] == 0x3E else { return nil }
        // The reference reads a plus sign as a number's sign here.
        let digits = token[3] == 0x2B ? token[4...4] : token[3...4]
        return UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
    }

    private static func stripped(_ token: [UInt8], _ scalar: UnicodeScalar, _ start: Int, _ stop: Int) -> [UInt8] {
        let scalars = Array(String(decoding: token, as: UTF8.self).unicodeScalars)
        let first = scalars.prefix(start).prefix { $0 == scalar }.count
        let last = scalars.suffix(stop).reversed().prefix { $0 == scalar }.count
        guard first + last < scalars.count else { return [] }
        return scalars[first..<scalars.count - last].flatMap { Array(UTF8Scanner.encode($0.value)) }
    }
}

extension Decoder {
    init(_ node: JSONNode, at place: String) throws {
        let fields = try FieldReader(node, at: place)
        func bytes(_ name: StaticString) throws -> [UInt8] { Array(try fields.string(name).utf8) }
        switch try fields.string("type") {
        case "Sequence":
            self = .sequence(
                try fields.array("decoders").enumerated().map {
                    try Decoder($0.element, at: "\(place).decoders[\($0.offset)]")
                })
        case "ByteLevel": self = .byteLevel
        case "WordPiece":
            self = .wordPiece(prefix: try bytes("prefix"), cleansUp: try fields.bool("cleanup", default: true))
        case "Metaspace": self = .metaspace(try Metaspace(fields))
        case "BPEDecoder": self = .bpe(suffix: try bytes("suffix"))
        case "CTC":
            self = .ctc(
                padding: try bytes("pad_token"), delimiter: try bytes("word_delimiter_token"),
                cleansUp: try fields.bool("cleanup", default: true))
        case "ByteFallback": self = .byteFallback
        case "Fuse": self = .fuse
        case "Strip":
            self = .strip(
                try fields.scalar("content"), start: try fields.count("start"), stop: try fields.count("stop"))
        case "Replace":
            self = .replace(try TextPattern(node["pattern"], at: "\(place).pattern"), try bytes("content"))
        case let type: throw TokenizerError(.unsupported, "\(place): unknown decoder \(type)")
        }
    }
}
