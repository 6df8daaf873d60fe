public import Foundation

/// The ranks of a tiktoken file: a line for each token, its bytes in base64, a blank, its rank, which is also its id.
public struct TiktokenRanks: Sendable {
    public struct Token: Sendable {
        public var bytes: [UInt8]
        public var rank: Int
    }

    /// In the order of the file.
    public private(set) var tokens: [Token] = []

    /// Reads a file.
    ///
    /// - Throws: `TokenizerError`, with the file and the line.
    public init(contentsOf file: URL) throws {
        self = try TokenizerFile.read(file) { try TiktokenRanks(bytes: $0) }
    }

    /// - Throws: `TokenizerError` (`invalidModel`) with the line.
    public init(bytes: [UInt8]) throws {
        var seen = ByteTable(capacity: bytes.count / 16)
        var line = 0
        var start = 0
        var usedRanks: Set<Int> = []
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: 0x0A) ?? bytes.count
            var text = bytes[start..<end]
            start = end + 1
            line += 1
            while let last = text.last, last == 0x0D || last == 0x20 { text = text.dropLast() }
            if text.isEmpty { continue }
            func failure(_ what: String) -> TokenizerError {
                TokenizerError(.invalidModel, "line \(line): \(what)")
            }
            guard let blank = text.firstIndex(of: 0x20), let token = Base64.decode(text[..<blank]), !token.isEmpty,
                let rank = Self.number(text[(blank + 1)...])
            else { throw failure("expected a token in base64, a blank and a rank") }
            guard rank <= Vocabulary.maximumID else { throw failure("rank \(rank) is above \(Vocabulary.maximumID)") }
            guard usedRanks.insert(rank).inserted else { throw failure("rank \(rank) stands twice") }
            guard seen.value(for: token) == nil else { throw failure("the token stands twice") }
            token.withUnsafeBufferPointer { seen.set($0, to: Int32(rank)) }
            tokens.append(Token(bytes: token, rank: rank))
        }
        guard !tokens.isEmpty else { throw TokenizerError(.invalidModel, "no ranks in the file") }
        for byte in UInt8.min...UInt8.max where seen.value(for: [byte]) == nil {
            throw TokenizerError(.invalidModel, "byte \(byte) has no rank: such a file cannot encode every text")
        }
    }

    private static func number(_ text: ArraySlice<UInt8>) -> Int? {
        guard !text.isEmpty, text.count <= 9 else { return nil }
        var value = 0
        for byte in text {
            guard (0x30...0x39).contains(byte) else { return nil }
            value = value * 10 + Int(byte - 0x30)
        }
        return value
    }

    /// One more than the largest rank, where special tokens usually begin.
    public var idBound: Int { (tokens.map(\.rank).max() ?? -1) + 1 }

    /// Whether a file's bytes look like ranks: Llama 3's `tokenizer.model` is one in spite of its name.
    static func looksLikeRanks(_ bytes: [UInt8]) -> Bool {
        let line = bytes.prefix(4096).prefix { $0 != 0x0A }
        guard let blank = line.firstIndex(of: 0x20), blank > 0 else { return false }
        let rank = line[(blank + 1)...].filter { $0 != 0x0D }
        return Base64.decode(line[..<blank]) != nil && number(rank[...]) != nil
    }
}
