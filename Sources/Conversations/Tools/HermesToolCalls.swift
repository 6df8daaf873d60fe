/// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as many as the model likes, with text between them: Hermes 2
/// Pro, Qwen 2.5, Qwen 3 and many after them.
public struct HermesToolCalls: ToolCallSyntax {
    static let opening = "<tool_call>", closing = "</tool_call>"

    public init() {}
    public var argumentsAsText: Bool { false }
    public func reader(_ limits: ToolCallLimits) -> any ToolCallReader { Reader(limits) }

    private struct Reader: ToolCallReader {
        private var text = MarkedText()
        private var isInCall = false
        private var counter: CallCounter

        init(_ limits: ToolCallLimits) { counter = CallCounter(limits) }

        mutating func push(_ more: String) -> [ReplyPart] {
            text.append(more)
            var parts: [ReplyPart] = []
            while true {
                if !isInCall {
                    guard let before = text.take(upTo: opening) else {
                        parts.append(.text(text.takeSafe(before: opening)))
                        return parts.joined
                    }
                    parts.append(.text(before))
                    isInCall = true
                }
                guard let body = text.take(upTo: closing) else { return parts.joined }
                isInCall = false
                let call = body.trimmingSpace
                parts += counter.admit(CallJSON.call(call, limits: counter.limits), call)
            }
        }

        mutating func finish() -> [ReplyPart] {
            let rest = text.takeAll()
            guard isInCall else { return [ReplyPart.text(rest)].joined }
            isInCall = false
            return counter.admit(
                .malformed(MalformedToolCall("the call is not closed with \(closing)", in: rest.trimmingSpace)), rest)
        }
    }
}
