internal import Synchronization

/// Text to token ids and back, as a `tokenizer.json` or a GGUF file's vocabulary says.
///
/// The behaviour is that of the `tokenizers` library, which models were trained with; where that library's documentation
/// and its code differ, its code. A tokenizer can be used from many threads at once.
public final class Tokenizer: Sendable {
    let normalizer: Normalizer?
    let preTokenizer: PreTokenizer?
    let model: Model
    let postProcessor: PostProcessor?
    let decoder: Decoder?
    let truncation: Truncation?
    let padding: Padding?
    let addedTokens: [AddedToken]
    /// Decoding takes the blanks before punctuation away. Never with BPE, whose own blanks they are.
    let cleansUpSpaces: Bool
    let addedByID: [Int32: AddedToken]
    let addedBySpelling: ByteTable
    let rawFinder: TokenFinder
    let normalizedFinder: TokenFinder
    let specialIDs: Set<Int32>
    /// How `decode` spells added tokens: normalized ones as the normalizer leaves them. It skips special tokens by that
    /// spelling, as the reference does, so a special token that the normalizer changes is not skipped.
    let decodedSpellings: [Int32: [UInt8]]
    let skippedIDs: Set<Int32>
    /// Pieces reach the model as bytes instead of in the byte alphabet, which saves writing and looking that up.
    let keepsRawBytes: Bool
    let lacksBytes: Bool
    /// Offsets must be kept even if nobody asks for them, because a step asks where the text begins.
    let alwaysTracks: Bool
    private let scratches = Mutex<[EncoderScratch]>([])

    init(_ parts: TokenizerParts) throws {
        normalizer = parts.normalizer
        preTokenizer = parts.preTokenizer
        postProcessor = parts.postProcessor
        decoder = parts.decoder
        truncation = parts.truncation
        padding = parts.padding
        var model = parts.model
        var keepsRawBytes = false
        var lacksBytes = false
        if case .bpe(var bpe) = model, bpe.canTakeRawBytes, parts.preTokenizer?.endsInByteLevel == true {
            bpe.takeRawBytes()
            lacksBytes = bpe.lacksBytes
            model = .bpe(bpe)
            keepsRawBytes = true
        }
        self.model = model
        self.keepsRawBytes = keepsRawBytes
        self.lacksBytes = lacksBytes
        if case .bpe = model { cleansUpSpaces = false } else { cleansUpSpaces = parts.cleansUpSpaces }
        alwaysTracks = parts.normalizer != nil && parts.preTokenizer?.asksForTextStart == true

        let placed = Self.placed(parts.addedTokens, behind: model.vocabulary)
        addedTokens = placed
        var byID: [Int32: AddedToken] = [:]
        var bySpelling = ByteTable(capacity: placed.count)
        for token in placed {
            byID[token.id] = token
            token.content.withUnsafeBufferPointer { bySpelling.set($0, to: token.id) }
        }
        addedByID = byID
        addedBySpelling = bySpelling
        specialIDs = Set(placed.filter(\.isSpecial).map(\.id))
        // Special tokens come first: of two with one spelling, the first is found.
        let found = placed.filter(\.isFound)
        let ordered = found.filter(\.isSpecial) + found.filter { !$0.isSpecial }
        let raw = ordered.filter { !$0.isNormalized }
        rawFinder = TokenFinder(raw, spelledAs: raw.map(\.content))
        let normalized = ordered.filter(\.isNormalized)
        let spellings = try normalized.map { token in
            var text = AlignedText(token.content, origin: 0, isTracked: false)
            try parts.normalizer?.normalize(&text)
            return text.bytes
        }
        normalizedFinder = TokenFinder(normalized, spelledAs: spellings)
        var decoded = byID.mapValues(\.content)
        for (token, spelling) in zip(normalized, spellings) { decoded[token.id] = spelling }
        decodedSpellings = decoded
        let specials = Set(placed.filter(\.isSpecial).map(\.content))
        skippedIDs = Set(decoded.filter { specials.contains($0.value) }.keys)
        for id in postProcessor?.specialIDs ?? [] where spelling(of: id) == nil {
            throw TokenizerError(
                .invalidField,
                "post_processor: id \(id) is not in the vocabulary, whose ids end at \(vocabularyCount - 1)")
        }
    }

    /// The tokens with the ids that the library gives them: the vocabulary's own, else the next free ones in the order
    /// of the file. The ids written in the file do not count.
    private static func placed(_ tokens: [AddedToken], behind vocabulary: Vocabulary) -> [AddedToken] {
        var result: [AddedToken] = []
        var seen = ByteTable(capacity: tokens.count)
        var indexOf: [Int32: Int] = [:]
        var largest: Int32 = -1
        for var token in tokens where !token.content.isEmpty {
            if let known = seen.value(for: token.content) ?? vocabulary.id(token.content) {
                token.id = known
            } else {
                let size = Int32(vocabulary.count)
                token.id = largest >= size || size == 0 ? largest + 1 : size
            }
            largest = max(largest, token.id)
            token.content.withUnsafeBufferPointer { seen.set($0, to: token.id) }
            if let index = indexOf[token.id] {
                result[index] = token
            } else {
                indexOf[token.id] = result.count
                result.append(token)
            }
        }
        return result
    }

    /// Lends the working memory of one thread.
    func withScratch<Result>(_ body: (EncoderScratch) throws -> Result) rethrows -> Result {
        let scratch = scratches.withLock { $0.popLast() } ?? EncoderScratch()
        defer { scratches.withLock { $0.append(scratch) } }
        return try body(scratch)
    }

    // MARK: - Vocabulary

    /// One more than the largest id: at least so many rows an embedding needs.
    public var vocabularyCount: Int {
        max(model.vocabulary.idBound, Int(addedTokens.map(\.id).max() ?? -1) + 1)
    }

    /// The spelling of an id in the vocabulary (byte-level tokens in the byte alphabet), or nil if there is none.
    public func token(for id: Int32) -> String? {
        spelling(of: id).map { String(decoding: $0, as: UTF8.self) }
    }

    func spelling(of id: Int32) -> ArraySlice<UInt8>? {
        if let added = addedByID[id] { return added.content[...] }
        return model.vocabulary.spelling(id)
    }

    /// The id of a token by its spelling in the vocabulary, compared byte by byte.
    public func id(for token: String) -> Int32? { id(for: Array(token.utf8)) }

    public func id(for spelling: [UInt8]) -> Int32? {
        addedBySpelling.value(for: spelling) ?? model.vocabulary.id(spelling)
    }

    /// The ids that `decode` leaves out when told to skip special tokens, in ascending order.
    public var specialTokens: [Int32] { specialIDs.sorted() }

    public func isSpecial(_ id: Int32) -> Bool { specialIDs.contains(id) }

    /// The same tokenizer without the truncation and padding that its file may ask for.
    public func withoutTruncationAndPadding() throws -> Tokenizer {
        var parts = TokenizerParts(model: model)
        parts.normalizer = normalizer
        parts.preTokenizer = preTokenizer
        parts.postProcessor = postProcessor
        parts.decoder = decoder
        parts.addedTokens = addedTokens
        parts.cleansUpSpaces = cleansUpSpaces
        return try Tokenizer(parts)
    }
}

/// What a tokenizer is put together from.
struct TokenizerParts {
    var model: Model
    var normalizer: Normalizer?
    var preTokenizer: PreTokenizer?
    var postProcessor: PostProcessor?
    var decoder: Decoder?
    var truncation: Truncation?
    var padding: Padding?
    var addedTokens: [AddedToken] = []
    var cleansUpSpaces = false

    init(model: Model) { self.model = model }
}
