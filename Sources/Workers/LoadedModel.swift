public import ChatTemplates
public import Checkpoints
public import Conversations
import Foundation
public import Models
public import TensorCore
public import Tokenizers

/// The torch-free half of a checkpoint: how text becomes tokens and back.
public struct TextProcessor: Sendable {
    public let tokenizer: Tokenizer
    public let template: ChatTemplate?
    /// Ids that end an answer.
    public let endOfTurnIDs: Set<Int32>
    private let specials: [String: TemplateValue]
    private let addsBOS: Bool
    private let bosID: Int32?
    private let path: String

    /// Reads tokenizer and template beside a checkpoint's weights, or inside its GGUF file.
    /// - Parameter templatePath: a Jinja file in place of the checkpoint's own template.
    public init(_ source: ModelSource, templatePath: String? = nil) throws {
        try self.init(path: source.folder ?? source.path, gguf: source.gguf, templatePath: templatePath)
    }

    /// Reads tokenizer and template at `path` and leaves the weights alone: a folder may be without any.
    public init(at path: String, templatePath: String? = nil) throws {
        if FileManager.default.fileExists(atPath: path + "/tokenizer.json") {
            try self.init(path: path, gguf: nil, templatePath: templatePath)
        } else {
            try self.init(ModelSource.open(path), templatePath: templatePath)
        }
    }

    private init(path: String, gguf: GGUFFile?, templatePath: String?) throws {
        self.path = path
        var template: String?
        var specials: [String: TemplateValue] = [:]
        if let file = gguf {
            let metadata = try GGUFTokenizerMetadata(file)
            tokenizer = try Tokenizer(gguf: GGUFVocabulary(metadata))
            template = metadata.chatTemplate
            endOfTurnIDs = Set([metadata.eosID].compactMap { $0.map(Int32.init) })
            for (name, id) in [
                ("bos_token", metadata.bosID), ("eos_token", metadata.eosID), ("pad_token", metadata.padID),
            ] {
                if let id, let text = tokenizer.token(for: Int32(id)) { specials[name] = .string(text) }
            }
            addsBOS = metadata.startsWithBOS
            bosID = metadata.bosID.map(Int32.init)
        } else {
            let folder = try TokenizerFolder(URL(fileURLWithPath: path, isDirectory: true))
            tokenizer = folder.tokenizer
            template = folder.config.chatTemplate
            endOfTurnIDs = Set(folder.endOfTurnIDs)
            for (name, text) in folder.config.specialTokensByName { specials[name] = .string(text) }
            // The tokenizer's own post-processor says whether plain text begins with BOS.
            addsBOS = false
            bosID = nil
        }
        if let templatePath {
            guard let text = try? String(contentsOfFile: templatePath, encoding: .utf8) else {
                throw WorkerError(.noTemplate, "model.chat_template: cannot read '\(templatePath)' as UTF-8 text")
            }
            template = text
        }
        self.specials = specials
        self.template = try template.map { try ChatTemplate($0) }
    }

    /// The id of a token that the tokenizer's configuration names: `eos_token`, `pad_token` …; nil where it names none.
    func specialID(_ name: String) -> Int32? {
        guard case .string(let text)? = specials[name] else { return nil }
        return tokenizer.id(for: text)
    }

    /// A conversation as the model expects it, ending with what opens the assistant's turn.
    /// - Parameter variables: what the template reads beside the special tokens; they win over those.
    /// - Throws: ``WorkerError`` with code `noTemplate` when the checkpoint has no chat template.
    public func encode(
        _ messages: [ChatMessage], tools: TemplateValue = .null, variables: [String: TemplateValue] = [:]
    ) throws -> [Int32] {
        let text = try neededTemplate().render(
            messages, tools: tools, addGenerationPrompt: true,
            variables: specials.merging(variables) { _, given in given }
        ).text
        return try tokenizer.encode(text)
    }

    private func neededTemplate() throws -> ChatTemplate {
        guard let template else {
            throw WorkerError(
                .noTemplate,
                "\(path): the tokenizer has no chat template; give one with model.chat_template=FILE (--chat-template FILE "
                    + "on the command line), or use plain-text prompts")
        }
        return template
    }

    /// How conversations with this checkpoint are written.
    /// - Parameter variables: what the template reads beside the special tokens; they win over those.
    /// - Throws: ``WorkerError`` with code `noTemplate` when the checkpoint has no chat template.
    public func chatFormat(
        tools: TemplateValue = .null, variables: [String: TemplateValue] = [:], parser: ReplyParser = .verbatim
    ) throws -> ChatFormat {
        try ChatFormat(
            template: neededTemplate(), tokenizer: tokenizer, endOfTurnIDs: endOfTurnIDs,
            variables: specials.merging(variables) { _, given in given }, tools: tools, parser: parser)
    }

    /// Plain text to go on from.
    public func encode(_ text: String) throws -> [Int32] {
        let ids = try tokenizer.encode(text, addSpecialTokens: true)
        if addsBOS, let bosID, ids.first != bosID { return [bosID] + ids }
        return ids
    }

    public func decode(_ ids: [Int32]) -> String { tokenizer.decode(ids, skipSpecialTokens: true) }
}

extension GGUFTokenizerMetadata {
    /// Files with a SentencePiece vocabulary that do not say want BOS, as in llama.cpp.
    fileprivate var startsWithBOS: Bool { addsBOS ?? (model == "llama") }
}

extension GGUFVocabulary {
    init(_ metadata: GGUFTokenizerMetadata) {
        self.init(
            model: metadata.model, pre: metadata.pre, tokens: metadata.tokens,
            tokenTypes: metadata.types.map(Int32.init), merges: metadata.merges,
            scores: metadata.scores.isEmpty ? nil : metadata.scores, bosID: metadata.bosID, eosID: metadata.eosID,
            padID: metadata.padID, unknownID: metadata.unknownID, addsBOS: metadata.startsWithBOS,
            addsEOS: metadata.addsEOS ?? false, addsSpacePrefix: metadata.addsSpacePrefix ?? true)
    }
}

/// Something that the workers cannot do with what they were given.
public struct WorkerError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        public static let noTemplate = Code("noTemplate")
        public static let badData = Code("badData")
        public static let badSetting = Code("badSetting")
        public static let badCheckpoint = Code("badCheckpoint")
        public static let device = Code("device")
        /// A run needs more memory than its device has.
        public static let memory = Code("memory")
        /// Ranks that should agree do not.
        public static let ranks = Code("ranks")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}
