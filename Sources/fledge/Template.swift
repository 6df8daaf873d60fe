import ArgumentParser
import ChatTemplates
import Conversations
import Telemetry
import Workers

struct Template: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show a conversation as a model's chat template renders it, and which tokens are the assistant's.",
        discussion: """
            EXAMPLES
              fledge template models/smollm2-135m-instruct
              fledge template DIR --messages talk.json --tools tools.json --generation-prompt
              fledge template DIR --messages - --no-thinking --set date_string="1 May 2026" --json < talk.json
            The messages are a JSON list as in the OpenAI API, or an object with `messages` and `tools`. The text alone
            goes to standard output; what the assistant wrote is green in a terminal.
            """)

    @Argument(help: "A Hugging Face folder (the tokenizer's files will do) or a .gguf file.", completion: .directory)
    var model: String

    @Option(help: "A JSON file of messages; - is standard input. A short example without it.")
    var messages: String?

    @Option(help: "A JSON file with a list of tools.", completion: .file())
    var tools: String?

    @Flag(inversion: .prefixedNo, help: "Sets enable_thinking, which templates of reasoning models read.")
    var thinking: Bool?

    @Option(help: "key=value: a variable of the template; the value is JSON, or else text.")
    var set: [String] = []

    @Flag(help: "End with what opens the assistant's turn.")
    var generationPrompt = false

    @Option(help: "A Jinja file in place of the model's own chat template.", completion: .file())
    var chatTemplate: String?

    @Flag(help: "Print the ids too, the assistant's in brackets.")
    var ids = false

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        try Failures.reported {
            var given = try messages.map { try ChatFile($0) } ?? ChatFile.example
            if let tools { given.tools = try Input.json(tools) }
            let format = try TextProcessor(at: model, templatePath: chatTemplate)
                .chatFormat(tools: given.tools, variables: variables())
            let shown = try TemplateView(given.messages, format, addGenerationPrompt: generationPrompt)
            if json { Console.say(shown.json) } else { show(shown) }
        }
    }

    private func variables() throws -> [String: TemplateValue] {
        var variables: [String: TemplateValue] = [:]
        if let thinking { variables["enable_thinking"] = .bool(thinking) }
        for setting in set {
            guard let mark = setting.firstIndex(of: "="), mark != setting.startIndex else {
                throw InputError("--set '\(setting)': expected key=value")
            }
            let text = String(setting[setting.index(after: mark)...])
            variables[String(setting[..<mark])] = (try? TemplateValue(json: text)) ?? .string(text)
        }
        return variables
    }

    private func show(_ view: TemplateView) {
        let paint = Paint(descriptor: 1)
        let isTerminal = TerminalTraits.detect(descriptor: 1).isInteractive
        var output = ""
        for (text, isAssistant) in view.pieces {
            let text = isTerminal ? Paint.harmless(text) : text
            output += isAssistant ? paint.green(text) : text
        }
        Console.stream(output)
        if isTerminal, !output.hasSuffix("\n") { Console.stream("\n") }
        if ids {
            let list = zip(view.ids, view.mask ?? view.ids.map { _ in 0 }).map {
                $1 == 1 ? paint.green("[\($0)]") : "\($0)"
            }
            Console.say(list.joined(separator: " "))
        }
        for note in view.notes { Console.note(note) }
    }
}

/// Messages and tools as files hold them.
struct ChatFile {
    var messages: [ChatMessage]
    var tools = TemplateValue.null

    static let example = ChatFile(messages: [
        .user("Hello!"), .assistant("Hi! What can I do for you?"), .user("What is 2 + 2?"), .assistant("2 + 2 is 4."),
    ])

    init(messages: [ChatMessage]) { self.messages = messages }

    init(_ path: String) throws {
        let root = try Input.json(path)
        guard case .array(let values) = root["messages"] ?? root else {
            throw InputError("\(path): expected a list of messages, or an object with 'messages'")
        }
        tools = root["tools"] ?? .null
        messages = try values.enumerated().map { index, value in
            guard let message = ChatMessage(value) else {
                throw InputError("\(path): messages[\(index)]: expected an object with a role")
            }
            return message
        }
    }
}

/// Everything that the command says of one conversation.
struct TemplateView {
    let text: String
    let ids: [Int32]
    private let masked: MaskedChat?
    private let refusal: String?
    private let drift: Drift?
    private let driftRefusal: String?
    private let hasReplies: Bool

    init(_ messages: [ChatMessage], _ format: ChatFormat, addGenerationPrompt: Bool) throws {
        do {
            let chat = try format.masked(messages, addGenerationPrompt: addGenerationPrompt)
            (text, ids, masked, refusal) = (chat.text, chat.ids, chat, nil)
        } catch let error as ConversationError {
            text = try format.render(messages, addGenerationPrompt: addGenerationPrompt).text
            ids = try format.encode(text)
            (masked, refusal) = (nil, error.message)
        }
        hasReplies = messages.contains { $0.role == "assistant" }
        do {
            drift = try Conversation(replaying: messages, format).drift()
            driftRefusal = nil
        } catch {
            drift = nil
            driftRefusal = (error as? ConversationError)?.message ?? "\(error)"
        }
    }

    var mask: [UInt8]? { masked?.mask }

    /// The text cut where the assistant's begins and ends.
    var pieces: [(text: String, isAssistant: Bool)] {
        let bytes = Array(text.utf8)
        var pieces: [(String, Bool)] = [], end = 0
        for span in masked?.spans ?? [] where span.lowerBound >= end {
            pieces.append((String(decoding: bytes[end..<span.lowerBound], as: UTF8.self), false))
            pieces.append((String(decoding: bytes[span], as: UTF8.self), true))
            end = span.upperBound
        }
        return pieces + [(String(decoding: bytes[end...], as: UTF8.self), false)]
    }

    var notes: [String] {
        var notes: [String] = []
        if let masked {
            let count = masked.mask.count { $0 == 1 }
            notes.append("\(ids.count) tokens, \(count) of them the assistant's (found by \(masked.source.rawValue))")
        } else {
            notes.append("\(ids.count) tokens. No assistant mask: \(refusal ?? "")")
        }
        guard hasReplies else { return notes }
        if let drift {
            notes.append("drift: had turn by turn, this conversation has other tokens. \(drift)")
        } else {
            notes.append(driftRefusal.map { "drift: not checked: \($0)" } ?? "drift: none")
        }
        return notes
    }

    var json: String {
        var writer = JSONWriter(style: .pretty)
        writer.object { object in
            object.member("text") { $0.value(text) }
            object.member("count") { $0.value(ids.count) }
            object.member("ids") { $0.values(ids) }
            object.member("assistant_mask") { if let mask { $0.values(mask) } else { $0.null() } }
            object.member("assistant_mask_source") { $0.value(masked?.source.rawValue) }
            object.member("assistant_mask_refused") { $0.value(refusal) }
            object.member("drift_unchecked") { $0.value(driftRefusal) }
            object.member("drift") { member in
                guard let drift else { return member.null() }
                member.object { object in
                    object.member("kind") { $0.value(drift.kind.description) }
                    object.member("token") { $0.value(drift.index) }
                    object.member("turn") { $0.value(drift.turn) }
                    object.member("kept_ids") { $0.values(drift.kept) }
                    object.member("rendered_ids") { $0.values(drift.rendered) }
                    object.member("kept_text") { $0.value(drift.keptText) }
                    object.member("rendered_text") { $0.value(drift.renderedText) }
                }
            }
        }
        return writer.text
    }
}
