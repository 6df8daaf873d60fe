/// How a family of models writes tool calls. One file each, and one line in ``ToolCallRegistry``.
public protocol ToolCallSyntax: Sendable {
    /// Whether its templates want arguments as JSON text in `tool_calls`.
    var argumentsAsText: Bool { get }
    /// A reader of one reply.
    func reader(_ limits: ToolCallLimits) -> any ToolCallReader
}

/// Reads one reply as it comes. However the text is cut into pieces, the parts are the same, but for text, which comes
/// in pieces too: a reader keeps back only what may turn out to be a call.
public protocol ToolCallReader {
    mutating func push(_ text: String) -> [ReplyPart]
    /// What was kept back, and what is wrong with a call that was not closed.
    mutating func finish() -> [ReplyPart]
}

extension ToolCallSyntax {
    /// A whole reply's parts: no text next to text, and none that is empty.
    public func parts(of reply: String, limits: ToolCallLimits = ToolCallLimits()) -> [ReplyPart] {
        var reader = reader(limits)
        let pushed = reader.push(reply)
        return (pushed + reader.finish()).joined
    }
}

extension [ReplyPart] {
    /// The same parts with neighbouring texts as one.
    public var joined: [ReplyPart] {
        var result: [ReplyPart] = []
        for part in self {
            if case .text(let more) = part {
                if more.isEmpty { continue }
                if case .text(let text)? = result.last {
                    result[result.count - 1] = .text(text + more)
                    continue
                }
            }
            result.append(part)
        }
        return result
    }
}

/// The syntaxes by name.
public struct ToolCallRegistry: Sendable {
    public struct Entry: Sendable {
        public let name: String
        /// One line for help texts.
        public let summary: String
        public let syntax: any ToolCallSyntax

        public init(_ name: String, _ summary: String, _ syntax: any ToolCallSyntax) {
            self.name = name
            self.summary = summary
            self.syntax = syntax
        }
    }

    public var entries: [Entry]

    public init(_ entries: [Entry]) { self.entries = entries }

    public static let builtIn = ToolCallRegistry([
        Entry("hermes", "Hermes and Qwen: <tool_call>{json}</tool_call>", HermesToolCalls()),
        Entry("llama3", "Llama 3: {\"name\": …, \"parameters\": …}, <|python_tag|>", Llama3ToolCalls()),
        Entry("deepseek", "DeepSeek V3, R1, V3.1: <｜tool▁calls▁begin｜>…", DeepSeekToolCalls()),
    ])

    /// - Throws: ``ConversationError`` with code `toolSyntax` that lists the known names.
    public func syntax(_ name: String) throws -> any ToolCallSyntax {
        guard let entry = entries.first(where: { $0.name == name }) else {
            throw ConversationError(
                .toolSyntax,
                "no tool-call syntax is called '\(name)'; known are \(entries.map(\.name).joined(separator: ", "))")
        }
        return entry.syntax
    }

    /// The name of the syntax that a template's text shows; nil when it shows none of them.
    public static func name(forTemplate source: String) -> String? {
        if source.divided(at: DeepSeekToolCalls.opening).after != nil { return "deepseek" }
        if source.divided(at: HermesToolCalls.opening).after != nil, source.divided(at: "\"arguments\"").after != nil {
            return "hermes"
        }
        if source.divided(at: Llama3ToolCalls.tag).after != nil { return "llama3" }
        return nil
    }
}

extension ConversationError.Code {
    /// Tool calls cannot be read or tools described as asked.
    public static let toolSyntax = ConversationError.Code("tool syntax")
}
