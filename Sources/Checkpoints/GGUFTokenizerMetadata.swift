internal import OrderedCollections

/// The tokenizer inside a GGUF file, as stored.
public struct GGUFTokenizerMetadata: Sendable, Hashable {
    /// `tokenizer.ggml.model`: "gpt2" is byte-level BPE, "llama" SentencePiece.
    public var model: String
    /// `tokenizer.ggml.pre`, the pre-tokenizer's name; empty when absent.
    public var pre: String
    /// Tokens as bytes, by id. For "gpt2" in the byte-to-printable alphabet.
    public var tokens: [[UInt8]]
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; empty when absent.
    public var types: [Int]
    /// Merges as "left right", by rank; empty when absent.
    public var merges: [[UInt8]]
    /// Scores by id; empty when absent.
    public var scores: [Float]
    public var bosID: Int?
    public var eosID: Int?
    public var padID: Int?
    public var unknownID: Int?
    /// nil when the file does not say.
    public var addsBOS: Bool?
    public var addsEOS: Bool?
    public var addsSpacePrefix: Bool?
    public var chatTemplate: String?

    /// - Throws: `CheckpointError.configuration` when the file holds no tokenizer, `malformed` when lists differ in length or an
    ///   id is outside of the vocabulary.
    public init(_ file: GGUFFile) throws {
        func value(_ key: String) -> GGUFValue? { file.metadata["tokenizer.ggml." + key] }
        guard let model = value("model")?.stringValue, let tokens = value("tokens")?.arrayValue?.strings else {
            throw CheckpointError(
                .configuration, file.path, "the file holds no tokenizer (tokenizer.ggml.model and .tokens)")
        }
        self.model = model
        self.tokens = tokens
        pre = value("pre")?.stringValue ?? ""
        types = value("token_type")?.arrayValue?.integers ?? []
        merges = value("merges")?.arrayValue?.strings ?? []
        scores = value("scores")?.arrayValue?.floats ?? []
        func id(_ name: String) throws -> Int? {
            guard let value = value(name) else { return nil }
            guard let id = value.intValue, id >= 0, id < tokens.count else {
                throw CheckpointError(
                    .malformed, file.path, "tokenizer.ggml.\(name) is no id of a vocabulary of \(tokens.count)")
            }
            return id
        }
        bosID = try id("bos_token_id")
        eosID = try id("eos_token_id")
        padID = try id("padding_token_id")
        unknownID = try id("unknown_token_id")
        addsBOS = value("add_bos_token")?.boolValue
        addsEOS = value("add_eos_token")?.boolValue
        addsSpacePrefix = value("add_space_prefix")?.boolValue
        chatTemplate = file.metadata["tokenizer.chat_template"]?.stringValue
        for (name, count) in [("token_type", types.count), ("scores", scores.count)]
        where count != 0 && count != tokens.count {
            throw CheckpointError(
                .malformed, file.path, "tokenizer.ggml.\(name) has \(count) entries for \(tokens.count) tokens")
        }
    }
}
