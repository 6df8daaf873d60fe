/// DeepSeek's special tokens around calls.
///
/// V3 and R1: `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, a fenced block of JSON and
/// `<｜tool▁call▁end｜>`, as often as there are calls, then `<｜tool▁calls▁end｜>`. V3.1 writes the name before the
/// separator and bare JSON behind it. Nothing but white space may stand between calls.
public struct DeepSeekToolCalls: ToolCallSyntax {
    static let opening = "<｜tool▁calls▁begin｜>", closing = "<｜tool▁calls▁end｜>"
    static let callOpening = "<｜tool▁call▁begin｜>", callClosing = "<｜tool▁call▁end｜>"
    static let separator = "<｜tool▁sep｜>"

    public init() {}
    public var argumentsAsText: Bool { true }
    public func reader(_ limits: ToolCallLimits) -> any ToolCallReader { Reader(limits) }

    private struct Reader: ToolCallReader {
        private enum Place { case text, list, call }

        private var text = MarkedText()
        private var place = Place.text
        private var counter: CallCounter

        init(_ limits: ToolCallLimits) { counter = CallCounter(limits) }

        mutating func push(_ more: String) -> [ReplyPart] {
            text.append(more)
            var parts: [ReplyPart] = []
            while step(&parts) {}
            return parts.joined
        }

        /// False when more text is needed.
        private mutating func step(_ parts: inout [ReplyPart]) -> Bool {
            switch place {
            case .text:
                guard let before = text.take(upTo: opening) else {
                    parts.append(.text(text.takeSafe(before: opening)))
                    return false
                }
                parts.append(.text(before))
                place = .list
            case .list:
                text.drop(text.leadingSpace)
                let begins = text.begins(with: callOpening), ends = text.begins(with: closing)
                if begins == true {
                    text.drop(callOpening.utf8.count)
                    place = .call
                } else if ends == true {
                    text.drop(closing.utf8.count)
                    place = .text
                } else {
                    guard begins == false, ends == false else { return false }
                    // Something else stands where a call should: all up to the next mark is wrong.
                    guard let wrong = text.take(upTo: closing) else { return false }
                    place = .text
                    parts += counter.admit(
                        .malformed(MalformedToolCall("expected \(callOpening) or \(closing)", in: wrong)), wrong)
                }
            case .call:
                guard let body = text.take(upTo: callClosing) else { return false }
                place = .list
                parts += counter.admit(Self.call(body, counter.limits), body)
            }
            return true
        }

        mutating func finish() -> [ReplyPart] {
            let rest = text.takeAll(), place = place
            self.place = .text
            switch place {
            case .text: return [ReplyPart.text(rest)].joined
            case .list:
                return counter.admit(
                    .malformed(MalformedToolCall("the calls are not closed with \(closing)", in: rest)), rest)
            case .call:
                return counter.admit(
                    .malformed(MalformedToolCall("the call is not closed with \(callClosing)", in: rest)), rest)
            }
        }

        private static func call(_ body: String, _ limits: ToolCallLimits) -> ReplyPart {
            let parts = body.divided(at: separator)
            guard let after = parts.after else {
                return .malformed(MalformedToolCall("the call has no \(separator)", in: body))
            }
            var name = parts.before.trimmingSpace, json = after.trimmingSpace
            let fenced = after.divided(at: "```json")
            if name == "function", let block = fenced.after {
                name = fenced.before.trimmingSpace
                let inner = block.trimmingSpace
                guard inner.hasSuffix("```") else {
                    return .malformed(MalformedToolCall("the block of JSON is not closed with ```", in: body))
                }
                json = String(inner.dropLast(3)).trimmingSpace
            }
            guard !name.isEmpty else { return .malformed(MalformedToolCall("the call has no name", in: body)) }
            do throws(MalformedToolCall) {
                return .call(ToolCall(name: name, arguments: try CallJSON.arguments(json, limits: limits)))
            } catch {
                return .malformed(error)
            }
        }
    }
}
