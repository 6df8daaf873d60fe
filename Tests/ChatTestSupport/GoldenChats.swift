public import ChatTemplates
public import Conversations
public import Foundation
import TestSupport
import Testing
public import Tokenizers

/// The golden chat templates with tokenizers that know their special tokens.
public enum GoldenChats {
    public struct Case: Sendable {
        public let name: String
        public let messages: [ChatMessage]
        public var tools: TemplateValue
        public let variables: [String: TemplateValue]
        public let addGenerationPrompt: Bool
        public let rendered: String
    }

    public static let names: [String] = {
        guard let folder = Golden.directory("chat_templates")?.appending(path: "cases") else { return [] }
        let all = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        return all.filter { $0.pathExtension == "jsonl" }.map { $0.deletingPathExtension().lastPathComponent }.sorted()
    }()

    public static func folder() throws -> URL { try #require(Golden.directory("chat_templates")) }

    public static func source(_ name: String) throws -> String {
        String(decoding: try Data(contentsOf: folder().appending(path: "templates/\(name).jinja")), as: UTF8.self)
    }

    public static let markers = ["{%- generation", "{% generation"]

    /// The cases that render.
    public static func cases(_ name: String) throws -> [Case] {
        let text = try String(contentsOf: folder().appending(path: "cases/\(name).jsonl"), encoding: .utf8)
        return try text.split(separator: "\n").compactMap { line in
            let record = try TemplateValue(json: line.utf8)
            guard let rendered = record["rendered"]?.string, case .array(let messages)? = record["messages"] else {
                return nil
            }
            var variables: [String: TemplateValue] = [:]
            if case .object(let object)? = record["kwargs"] {
                for (key, value) in object.pairs { variables[key] = value }
            }
            // Messages without content are none that `ChatMessage` can be.
            guard messages.allSatisfy({ $0["content"] != nil }) else { return nil }
            let prompt = variables.removeValue(forKey: "add_generation_prompt")
            return Case(
                name: record["name"]?.string ?? "?", messages: messages.compactMap(message),
                tools: record["tools"] ?? .null, variables: variables, addGenerationPrompt: prompt == .bool(true),
                rendered: rendered)
        }
    }

    private static func message(_ value: TemplateValue) -> ChatMessage? {
        guard case .object(let object) = value, let role = object["role"]?.string else { return nil }
        var message = ChatMessage(role: role, content: object["content"] ?? .null)
        for (key, value) in object.pairs where key != "role" && key != "content" { message.extra[key] = value }
        return message
    }

    /// What a template writes between angle brackets, and a few more, as special tokens.
    public static func specials(_ source: String) -> [String] {
        var found: Set<String> = ["[INST]", "[/INST]", "[TOOL_CALLS]", "<s>", "</s>", "<eos>", "<bos>"]
        for match in source.matches(of: /<[\|｜]?[A-Za-z_\/▁]{1,40}[\|｜]?>/) { found.insert(String(match.output)) }
        return found.sorted()
    }

    public static let ends = [
        "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<end_of_turn>", "<turn|>", "</s>", "<|end|>",
        "<|return|>",
        "<|call|>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
    ]

    public static func format(_ golden: Case, _ source: String, _ tokenizer: Tokenizer) throws -> ChatFormat {
        let ends = Set(Self.ends.compactMap { tokenizer.id(for: $0) })
        return try ChatFormat(
            template: ChatTemplate(source), tokenizer: tokenizer, endOfTurnIDs: ends, variables: golden.variables,
            tools: golden.tools, time: TemplateTime(year: 2025, month: 3, day: 14, hour: 15, minute: 9, second: 26))
    }

    /// What the template writes as the last turn, up to the token that ends it.
    public static func reply(_ index: Int, _ messages: [ChatMessage], _ format: ChatFormat) throws -> [Int32]? {
        let turns = try format.assistantTurns(Array(messages[...index]))
        guard case .found(_, let tokens)? = turns.last?.place else { return nil }
        let whole = try format.encode(format.render(messages[...index], addGenerationPrompt: false).text)
        guard let end = whole[tokens].firstIndex(where: format.endOfTurnIDs.contains) else { return nil }
        return Array(whole[tokens.lowerBound...end])
    }
}
