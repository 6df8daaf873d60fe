import ChatTemplates
import Checkpoints
import Foundation
import Tokenizers

extension ModelInspection {
    /// What turns text into tokens, beside the weights.
    mutating func inspectText(folder: String, names: Set<String>, config: ModelConfig?) {
        attempt("tokenizer") { inspection in
            inspection.text.kind = try Self.kind(folder, names)
            if inspection.text.kind == nil {
                inspection.add(.error, "tokenizer", "there is no tokenizer: no tokenizer.json; fetch the model again")
            }
        }
        attempt("config") { _ in
            // Read for its errors: who samples by it should not be the first to see them.
            if names.contains("generation_config.json") {
                _ = try ModelConfig(path: folder + "/generation_config.json")
            }
        }
        let url = URL(fileURLWithPath: folder, isDirectory: true)
        var settings = TokenizerConfig()
        attempt("tokenizer") { _ in settings = try TokenizerConfig(folder: url) }
        text.templateNames = settings.namedChatTemplates.keys.sorted()
        var tokenizer: Tokenizer?
        if text.kind != nil { attempt("tokenizer") { _ in tokenizer = try TokenizerFolder(url).tokenizer } }
        let roles = [
            ("bos", settings.bosToken), ("eos", settings.eosToken), ("pad", settings.padToken),
            ("unk", settings.unknownToken),
        ]
        for (role, token) in roles {
            guard let token else { continue }
            let id = tokenizer?.id(for: token).map { Int($0) }
            text.specialTokens.append((role, token, id))
            if let tokenizer, id == nil {
                add(
                    .warning, "tokens",
                    "the \(role) token '\(token)' is not one of the tokenizer's \(tokenizer.vocabularyCount) tokens")
            }
        }
        guard let tokenizer else { return inspectTemplate(settings.chatTemplate, nil) }
        checkTokens(tokenizer, endOfTurn: settings.endOfTurnIDs(in: tokenizer).map { Int($0) })
        if let config, let ids = try? config.ints("eos_token_id"), !ids.isEmpty {
            let missing = ids.filter { id in !text.endOfTurn.contains { $0.id == id } }
            if !missing.isEmpty {
                add(
                    .info, "tokens",
                    "config.json names end tokens \(missing) that generation_config.json and the tokenizer do not: not used"
                )
            }
        }
        inspectTemplate(settings.chatTemplate, tokenizer)
    }

    /// The tokenizer and template inside a GGUF file.
    mutating func inspectText(_ file: GGUFFile) {
        attempt("tokenizer") { inspection in
            let metadata = try GGUFTokenizerMetadata(file)
            let kinds = ["gpt2": "BPE", "llama": "SentencePiece BPE", "t5": "Unigram", "bert": "WordPiece"]
            inspection.text.kind = kinds[metadata.model] ?? metadata.model
            let ids = [
                ("bos", metadata.bosID), ("eos", metadata.eosID), ("pad", metadata.padID), ("unk", metadata.unknownID),
            ]
            for (role, id) in ids {
                guard let id else { continue }
                let token = String(decoding: metadata.tokens[id], as: UTF8.self)
                inspection.text.specialTokens.append((role, token, id))
            }
            var tokenizer: Tokenizer?
            inspection.attempt("tokenizer") { _ in tokenizer = try Tokenizer(gguf: GGUFVocabulary(metadata)) }
            if let tokenizer { inspection.checkTokens(tokenizer, endOfTurn: [metadata.eosID].compactMap { $0 }) }
            inspection.inspectTemplate(metadata.chatTemplate, tokenizer)
        }
    }

    /// The model in `tokenizer.json`, or the file that is there in its place; nil when there is none.
    private static func kind(_ folder: String, _ names: Set<String>) throws -> String? {
        if names.contains("tokenizer.json") {
            let file = try ModelConfig(path: folder + "/tokenizer.json")
            guard let model = try file.nested("model") else {
                throw WorkerError(.badCheckpoint, "\(file.path): there is no object 'model'")
            }
            // Old files leave the type out; only BPE has merges.
            return try model.optionalString("type") ?? (model.has("merges") ? "BPE" : "of no stated type")
        }
        if names.contains("tokenizer.model") { return "SentencePiece" }
        return names.contains { $0.hasSuffix(".tiktoken") } ? "tiktoken" : nil
    }

    private mutating func checkTokens(_ tokenizer: Tokenizer, endOfTurn: [Int]) {
        text.vocabulary = tokenizer.vocabularyCount
        text.endOfTurn = endOfTurn.map { id in
            (id, Int32(exactly: id).flatMap { tokenizer.token(for: $0) } ?? "")
        }
        if endOfTurn.isEmpty {
            add(.warning, "tokens", "no token ends a turn: answers go on until the token limit")
        }
        guard let rows = shape?.vocabulary else { return }
        if tokenizer.vocabularyCount > rows {
            add(
                .error, "tokens",
                "the tokenizer has \(tokenizer.vocabularyCount) tokens, the embedding only \(rows) rows: some ids cannot be fed"
            )
        } else if tokenizer.vocabularyCount < rows {
            add(.info, "tokens", "\(rows - tokenizer.vocabularyCount) rows of the embedding have no token (padding)")
        }
        for id in endOfTurn where id < 0 || id >= rows {
            add(.error, "tokens", "the end token \(id) is outside of the embedding's \(rows) rows")
        }
    }

    private mutating func inspectTemplate(_ source: String?, _ tokenizer: Tokenizer?) {
        guard let source else {
            add(.warning, "template", "no chat template: chat and recipes with messages need model.chat_template=FILE")
            return
        }
        text.hasTemplate = true
        attempt("template") { inspection in
            let template = try ChatTemplate(source)
            inspection.text.templateMarksGeneration = template.marksGeneration
            inspection.text.templateTakesTools = source.contains("tools")
            inspection.text.templateTakesThinking =
                source.contains("enable_thinking") || source.contains("reasoning_content") || source.contains("<think>")
            if !template.marksGeneration {
                inspection.add(
                    .info, "template",
                    "the template has no generation tags: which tokens are the assistant's has to be derived")
            }
            inspection.renderSample(template, tokenizer)
        }
    }

    /// Renders a short conversation, and looks at what ends the assistant's turn in it.
    private mutating func renderSample(_ template: ChatTemplate, _ tokenizer: Tokenizer?) {
        let variables = Dictionary(
            text.specialTokens.map { ("\($0.role)_token", TemplateValue.string($0.text)) },
            uniquingKeysWith: { a, _ in a })
        let answer = "fledge-inspect-answer"
        do {
            let rendered = try template.render([.user("Hello"), .assistant(answer)], variables: variables).text
            guard let tokenizer, let end = rendered.range(of: answer, options: .backwards)?.upperBound else { return }
            let ids = try tokenizer.encode(String(rendered[end...]), addSpecialTokens: false)
            guard let first = ids.first(where: { tokenizer.isSpecial($0) }),
                !text.endOfTurn.contains(where: { $0.id == Int(first) })
            else { return }
            add(
                .warning, "tokens",
                "the template ends a turn with '\(tokenizer.token(for: first) ?? "\(first)")' (\(first)), which is not among "
                    + "the end tokens: answers may run on; add it to eos_token_id in generation_config.json")
        } catch {
            add(.warning, "template", "it cannot render a user's and an assistant's message: \(error)")
        }
    }
}
