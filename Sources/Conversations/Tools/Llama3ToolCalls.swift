import ChatTemplates

/// Llama 3.1 to 3.3: a reply that is JSON, `{"name": …, "parameters": {…}}`, several with `;` between them; or, behind
/// `<|python_tag|>`, such JSON, a built-in tool's `name.call(key="value")`, or Python code.
///
/// A reply that begins with `{` is held back to its end: only then is it known to be a call. JSON without a `name` is
/// text. What follows the tag is always meant as a call.
public struct Llama3ToolCalls: ToolCallSyntax {
    static let tag = "<|python_tag|>"

    /// The tool that Python code behind the tag is for, and its parameter.
    public var codeTool: String
    public var codeParameter: String

    public init(codeTool: String = "python", codeParameter: String = "code") {
        self.codeTool = codeTool
        self.codeParameter = codeParameter
    }

    public var argumentsAsText: Bool { false }
    public func reader(_ limits: ToolCallLimits) -> any ToolCallReader { Reader(self, limits) }

    private struct Reader: ToolCallReader {
        private enum Place { case start, text, json, tagged }

        private let syntax: Llama3ToolCalls
        private var text = MarkedText()
        private var place = Place.start
        private var counter: CallCounter

        init(_ syntax: Llama3ToolCalls, _ limits: ToolCallLimits) {
            self.syntax = syntax
            counter = CallCounter(limits)
        }

        mutating func push(_ more: String) -> [ReplyPart] {
            text.append(more)
            if place == .start {
                guard text.count > text.leadingSpace else { return [] }
                var rest = text
                rest.drop(text.leadingSpace)
                place = rest.begins(with: "{") == true ? .json : .text
            }
            guard place == .text else { return [] }
            if let before = text.take(upTo: tag) {
                place = .tagged
                return [ReplyPart.text(before)].joined
            }
            return [ReplyPart.text(text.takeSafe(before: tag))].joined
        }

        mutating func finish() -> [ReplyPart] {
            let rest = text.takeAll(), place = place
            self.place = .start
            switch place {
            case .start, .text: return [ReplyPart.text(rest)].joined
            case .json: return calls(rest) ?? [.text(rest)]
            case .tagged:
                let body = rest.trimmingSpace
                guard !body.isEmpty else {
                    return counter.admit(.malformed(MalformedToolCall("nothing follows \(tag)", in: rest)), rest)
                }
                if body.utf8.first == UInt8(ascii: "{") { return calls(body) ?? notCall(body) }
                return counter.admit(syntax.builtIn(body, counter.limits), body)
            }
        }

        private mutating func notCall(_ body: String) -> [ReplyPart] {
            counter.admit(CallJSON.call(body, argumentKeys: Llama3ToolCalls.keys, limits: counter.limits), body)
        }

        /// nil when it is JSON of another kind.
        private mutating func calls(_ body: String) -> [ReplyPart]? {
            let texts = Llama3ToolCalls.divided(body)
            // A text that is no JSON is meant as a call when it begins like one.
            guard texts.contains(where: Llama3ToolCalls.looksLikeCall) else { return nil }
            return texts.flatMap { text in
                counter.admit(
                    CallJSON.call(text, argumentKeys: Llama3ToolCalls.keys, limits: counter.limits), text)
            }
        }
    }

    static let keys = ["parameters", "arguments"]

    private static func looksLikeCall(_ text: String) -> Bool {
        if case .object(let object)? = try? TemplateValue(json: text, depth: 256) { return object["name"] != nil }
        let start = text.utf8.filter { !MarkedText.isSpace($0) }.prefix(8)
        return start.starts(with: "{\"name\"".utf8) || start.starts(with: "{\"type\"".utf8)
    }

    /// The texts between semicolons that stand outside of JSON's strings and brackets.
    static func divided(_ text: String) -> [String] {
        var texts: [String] = [], current: [UInt8] = []
        var depth = 0, isString = false, isEscaped = false
        for byte in text.utf8 {
            if isString {
                if isEscaped {
                    isEscaped = false
                } else if byte == UInt8(ascii: "\\") {
                    isEscaped = true
                } else if byte == UInt8(ascii: "\"") {
                    isString = false
                }
            } else {
                switch byte {
                case UInt8(ascii: "\""): isString = true
                case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
                case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
                case UInt8(ascii: ";") where depth == 0:
                    texts.append(String(decoding: current, as: UTF8.self).trimmingSpace)
                    current = []
                    continue
                default: break
                }
            }
            current.append(byte)
        }
        texts.append(String(decoding: current, as: UTF8.self).trimmingSpace)
        if texts.count > 1, texts.last == "" { texts.removeLast() }
        return texts
    }

    /// `name.call(key="value", …)`, else code. The template writes values between quotes as they are.
    func builtIn(_ body: String, _ limits: ToolCallLimits) -> ReplyPart {
        guard body.utf8.count <= limits.callBytes else {
            return .malformed(MalformedToolCall("the call is longer than \(limits.callBytes) bytes", in: body))
        }
        let parts = body.divided(at: ".call(")
        guard let after = parts.after, Self.isName(parts.before) else {
            return .call(ToolCall(name: codeTool, arguments: TemplateObject([(codeParameter, .string(body))])))
        }
        guard after.utf8.last == UInt8(ascii: ")") else {
            return .malformed(MalformedToolCall("the call is not closed with )", in: body))
        }
        var rest = String(after.dropLast()), arguments = TemplateObject()
        while !rest.isEmpty {
            let pair = rest.divided(at: "=\"")
            guard let value = pair.after, Self.isName(pair.before) else {
                return .malformed(MalformedToolCall("expected key=\"value\"", in: rest))
            }
            let next = value.divided(at: "\", ")
            if let more = next.after, Self.isName(more.divided(at: "=\"").before) {
                arguments[pair.before] = .string(next.before)
                rest = more
            } else {
                guard value.utf8.last == UInt8(ascii: "\"") else {
                    return .malformed(MalformedToolCall("a value is not closed with \"", in: rest))
                }
                arguments[pair.before] = .string(String(value.dropLast()))
                rest = ""
            }
        }
        return .call(ToolCall(name: parts.before, arguments: arguments))
    }

    private static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return text.utf8.allSatisfy {
            (0x61...0x7A).contains($0 | 0x20) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "_")
        }
    }
}
