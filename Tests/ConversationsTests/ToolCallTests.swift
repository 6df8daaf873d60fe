import ChatTemplates
import ChatTestSupport
import Conversations
import Foundation
import TestSupport
import Testing
import Tokenizers

@Suite struct ToolCallTests {
    static func call(_ name: String, _ arguments: TemplateObject = [:]) -> ReplyPart {
        .call(ToolCall(name: name, arguments: arguments))
    }

    static func problem(_ parts: [ReplyPart]) -> String? {
        parts.lazy.compactMap { if case .malformed(let problem) = $0 { problem.problem } else { nil } }.first
    }

    @Test func hermes() {
        let syntax = HermesToolCalls()
        let reply = """
            Let me see.
            <tool_call>
            {"name": "add", "arguments": {"a": 1, "b": 9007199254740993, "c": 1.0}}
            </tool_call>
            <tool_call>{"arguments": {}, "name": "now"}</tool_call> done
            """
        #expect(
            syntax.parts(of: reply) == [
                .text("Let me see.\n"), Self.call("add", ["a": 1, "b": 9_007_199_254_740_993, "c": 1.0]), .text("\n"),
                Self.call("now"), .text(" done"),
            ])
        #expect(syntax.parts(of: "no call <tool_cal> at all") == [.text("no call <tool_cal> at all")])
        #expect(syntax.parts(of: "") == [])
    }

    /// What models write when they get it wrong, and the words that the complaint must have.
    @Test(arguments: [
        (#"<tool_call>{"name": "f", "arguments": {}}"#, "not closed"),
        (#"<tool_call>{"name": "f", "arguments": {}</tool_call>"#, "no JSON"),
        (#"<tool_call>{'name': 'f', 'arguments': {}}</tool_call>"#, "double quotes"),
        (#"<tool_call>{"name": "f", "arguments": "{}"}</tool_call>"#, "no JSON object"),
        (#"<tool_call>{"name": "f"}</tool_call>"#, "\"arguments\" is no JSON object"),
        (#"<tool_call>{"name": 3, "arguments": {}}</tool_call>"#, "no \"name\""),
        (#"<tool_call>{"name": "", "arguments": {}}</tool_call>"#, "no \"name\""),
        (#"<tool_call>{"name": "f", "arguments": {}, "why": 1}</tool_call>"#, "\"why\""),
        (#"<tool_call>[{"name": "f", "arguments": {}}]</tool_call>"#, "no JSON object"),
        (#"<tool_call>{"name": "f", "arguments": {}} {}</tool_call>"#, "something follows"),
        ("<tool_call></tool_call>", "no JSON"),
        (#"<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>"#, "no JSON"),
        (#"<tool_call>{"name": "f", "arguments": {"x": 99999999999999999999}}</tool_call>"#, "64 bits"),
    ]) func malformedHermesCallsAreNamed(_ reply: String, _ words: String) throws {
        let parts = HermesToolCalls().parts(of: reply)
        let problem = try #require(Self.problem(parts), "\(parts)")
        #expect(problem.contains(words))
        #expect(parts.count == 1)
    }

    @Test func limitsHold() throws {
        let limits = ToolCallLimits(callBytes: 200, calls: 2, depth: 4)
        func parts(_ reply: String) -> [ReplyPart] { HermesToolCalls().parts(of: reply, limits: limits) }
        func call(_ arguments: String) -> String {
            "<tool_call>{\"name\": \"f\", \"arguments\": \(arguments)}</tool_call>"
        }
        #expect(parts(call("{}") + call("{}")).count == 2)
        let many = parts(String(repeating: call("{}"), count: 50))
        #expect(many.count == 3 && Self.problem(many) == "a reply may hold at most 2 calls")
        #expect(
            Self.problem(parts(call("{\"x\": \"\(String(repeating: "y", count: 200))\"}")))?.contains("longer") == true)
        #expect(Self.problem(parts(call("{\"x\": [[[[[1]]]]]}")))?.contains("nested") == true)
    }

    @Test func llama3() {
        let syntax = Llama3ToolCalls()
        #expect(syntax.parts(of: #"{"name": "f", "parameters": {"a": "x;y"}}"#) == [Self.call("f", ["a": "x;y"])])
        #expect(
            syntax.parts(
                of:
                    "\n{\"name\": \"f\", \"parameters\": {}}; {\"type\": \"function\", \"name\": \"g\", \"parameters\": {\"b\": 1}};"
            )
                == [Self.call("f"), Self.call("g", ["b": 1])])
        #expect(syntax.parts(of: #"<|python_tag|>{"name": "f", "arguments": {}}"#) == [Self.call("f")])
        #expect(
            syntax.parts(of: "I will.<|python_tag|>import math\nprint(math.pi)")
                == [.text("I will."), Self.call("python", ["code": "import math\nprint(math.pi)"])])
        #expect(
            syntax.parts(of: #"<|python_tag|>brave_search.call(query="a, b", n="2")"#)
                == [Self.call("brave_search", ["query": "a, b", "n": "2"])])
        // JSON that is no call is an answer; text that begins like a call is meant as one.
        #expect(syntax.parts(of: #"{"answer": 5}"#) == [.text(#"{"answer": 5}"#)])
        #expect(syntax.parts(of: "5 {\"name\": 1}") == [.text("5 {\"name\": 1}")])
        for (reply, words) in [
            (#"{"name": "f", "parameters": {"#, "no JSON"), (#"{"name": "f"}"#, "\"parameters\""),
            (#"{"name": "f", "parameters": {}, "arguments": {}}"#, "both"), ("<|python_tag|>", "nothing follows"),
            (#"<|python_tag|>{"x": 1}"#, "no \"name\""), (#"<|python_tag|>f.call(x="1""#, "not closed with )"),
            (#"<|python_tag|>f.call(x=1)"#, "key="),
        ] {
            #expect(
                Self.problem(syntax.parts(of: reply))?.contains(words) == true, "\(reply): \(syntax.parts(of: reply))")
        }
    }

    @Test func deepSeek() {
        let syntax = DeepSeekToolCalls()
        let v3 = """
            Ok.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add
            ```json
            {"a": 1}
            ```<｜tool▁call▁end｜>
            <｜tool▁call▁begin｜>function<｜tool▁sep｜>now
            ```json
            {}
            ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
            """
        #expect(syntax.parts(of: v3) == [.text("Ok."), Self.call("add", ["a": 1]), Self.call("now")])
        let v31 =
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        #expect(syntax.parts(of: v31) == [Self.call("add", ["a": 1])])
        for (reply, words) in [
            ("<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>", "expected <｜tool▁call▁begin｜>"),
            ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "<｜tool▁sep｜>"),
            ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}", "not closed with <｜tool▁call▁end｜>"),
            (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                "not closed with <｜tool▁calls▁end｜>"
            ),
            ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "no name"),
            (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                "```"
            ),
        ] {
            #expect(
                Self.problem(syntax.parts(of: reply))?.contains(words) == true, "\(reply): \(syntax.parts(of: reply))")
        }
    }

    @Test func registryNamesItsSyntaxes() throws {
        _ = try ToolCallRegistry.builtIn.syntax("hermes")
        do {
            _ = try ToolCallRegistry.builtIn.syntax("hermit")
            Issue.record("an unknown syntax was found")
        } catch let error as ConversationError {
            #expect(error.code == .toolSyntax && error.message.contains("hermes, llama3, deepseek"))
        }
    }

    // MARK: - Streaming

    static let replies = [
        "Sum: <tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": \"é😀\"}}\n</tool_call> é <tool_call>{}</tool_call>",
        "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call></tool_call>", "<<<tool_call>x",
        "a <tool_",
        "{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\": \"g\"}", "  {\"x\": 1}", "é<|python_tag|>print('é')",
        "<|python_<|python_tag|>{\"name\": \"f\", \"parameters\": {}}",
        "x<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"é\": \"｜\"}\n```<｜tool▁call▁end｜>"
            + "\n<｜tool▁calls▁end｜> y <｜tool▁calls▁begin｜>z<｜tool▁calls▁end｜>w",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call",
    ]

    static func parts(_ pieces: some Sequence<String>, _ syntax: any ToolCallSyntax) -> [ReplyPart] {
        var reader = syntax.reader(ToolCallLimits())
        var parts: [ReplyPart] = []
        for piece in pieces { parts += reader.push(piece) }
        return (parts + reader.finish()).joined
    }

    @Test(arguments: ToolCallRegistry.builtIn.entries.map(\.name)) func piecesMakeNoDifference(_ name: String) throws {
        let syntax = try ToolCallRegistry.builtIn.syntax(name)
        for reply in Self.replies {
            let whole = syntax.parts(of: reply)
            let scalars = reply.unicodeScalars.map { String($0) }
            #expect(Self.parts(scalars, syntax) == whole, "\(reply)")
            for cut in scalars.indices {
                let pieces = [scalars[..<cut].joined(), scalars[cut...].joined()]
                #expect(Self.parts(pieces, syntax) == whole, "\(reply) cut at \(cut)")
            }
            for size in [2, 3, 7] {
                let pieces = stride(from: 0, to: scalars.count, by: size).map {
                    scalars[$0..<min($0 + size, scalars.count)].joined()
                }
                #expect(Self.parts(pieces, syntax) == whole, "\(reply) in pieces of \(size)")
            }
        }
    }

    /// Text must not wait for the end: only what may become a mark is kept back.
    @Test func textComesAtOnce() {
        var hermes = HermesToolCalls().reader(ToolCallLimits())
        #expect(hermes.push("one < two <tool") == [.text("one < two ")])
        #expect(hermes.push("s>") == [.text("<tools>")])
        var llama = Llama3ToolCalls().reader(ToolCallLimits())
        #expect(llama.push("one <|py") == [.text("one ")])
    }

    /// Random damage to calls: never a crash, never another reading in pieces.
    @Test func damagedRepliesAreRead() {
        var state: UInt64 = 7
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        for round in 0..<300 {
            var scalars = Array(Self.replies[round % Self.replies.count].unicodeScalars)
            for _ in 0...next(4) {
                let place = next(scalars.count)
                switch next(3) {
                case 0: scalars.remove(at: place)
                case 1: scalars.insert(contentsOf: Array("<{\"｜;".unicodeScalars), at: place)
                default: scalars.swapAt(place, next(scalars.count))
                }
                if scalars.isEmpty { scalars = ["{"] }
            }
            let reply = String(String.UnicodeScalarView(scalars))
            for entry in ToolCallRegistry.builtIn.entries {
                let whole = entry.syntax.parts(of: reply)
                #expect(Self.parts(scalars.map { String($0) }, entry.syntax) == whole, "\(entry.name): \(reply)")
            }
        }
    }
}

@Suite struct ToolReplyTests {
    @Test func readsMessagesForTheTemplate() {
        let parser = ToolReplyParser(HermesToolCalls(), reasoning: .thinking())
        let reply = parser(
            "<think>\nmaybe <tool_call>{}</tool_call>\n</think>\n\nYes.\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>"
        )
        #expect(reply.content == "Yes." && reply.calls == [.success(ToolCall(name: "f", arguments: ["a": 1]))])
        #expect(reply.message.extra["reasoning_content"] == "maybe <tool_call>{}</tool_call>")
        #expect(
            reply.message.extra["tool_calls"] == [
                ["type": "function", "id": "call00000", "function": ["name": "f", "arguments": ["a": 1]]]
            ])
        #expect(reply.message.content == "Yes.")
        #expect(parser("Yes.").message == .assistant("Yes."))
        let text = ToolReplyParser(DeepSeekToolCalls())(
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [1]}<｜tool▁call▁end｜><｜tool▁calls▁end｜>")
        guard case .array(let calls)? = text.message.extra["tool_calls"] else {
            Issue.record("no calls in \(text.message)")
            return
        }
        #expect(calls.first?["function"]?["arguments"] == "{\"a\": [1]}")
    }

    /// One malformed call keeps the reply as it was written, and runs none of it.
    @Test func malformedCallsKeepTheText() {
        let text = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call><tool_call>{</tool_call>"
        let reply = ToolReplyParser(HermesToolCalls())(text)
        #expect(reply.message == .assistant(text) && reply.calls.count == 2)
    }

    @Test func jsonTextReadsBack() throws {
        for text in [
            #"{"a": "\"\\\n\u0001é😀", "b": [1, -2.5, 1e+300, true, null, {}], "": []}"#, "1.0", "0.1", "\"\u{7F}\"",
        ] {
            let value = try TemplateValue(json: text)
            #expect(try TemplateValue(json: value.jsonText) == value)
        }
        #expect(TemplateValue.object(["a": 1, "b": [1.0, "x\n"]]).jsonText == #"{"a": 1, "b": [1.0, "x\n"]}"#)
        #expect(TemplateValue.double(.nan).jsonText == "null")
    }
}

@Suite struct ToolSchemaTests {
    static let tool = """
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 5},
        "s": {"type": ["string", "null"], "minLength": 1, "maxLength": 3}, "kind": {"enum": ["a", 2]},
        "list": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "maxItems": 2},
        "o": {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"], "additionalProperties": false},
        "any": {"anyOf": [{"type": "string"}, {"type": "boolean"}]}}, "required": ["n"],
        "additionalProperties": {"type": "string"}}
        """

    @Test(
        arguments: [
            (#"{"n": 1}"#, nil),
            (#"{"n": 3.0, "s": null, "kind": 2.0, "list": [0.5, 1], "o": {"x": 1}, "any": true}"#, nil),
            (#"{"n": 1, "other": "text"}"#, nil), (#"{}"#, "lack \"n\""),
            (#"{"n": "1"}"#, "must be of type integer, not string"),
            (#"{"n": 1.5}"#, "integer"), (#"{"n": 0}"#, "at least 1"), (#"{"n": 6}"#, "at most 5"),
            (#"{"n": 1, "s": ""}"#, "at least 1 characters"), (#"{"n": 1, "s": "éééé"}"#, "at most 3 characters"),
            (#"{"n": 1, "kind": "b"}"#, "one of [\"a\", 2]"), (#"{"n": 1, "list": [1, 0]}"#, "above 0"),
            (#"{"n": 1, "list": [1, 1, 1]}"#, "at most 2 items"), (#"{"n": 1, "o": {}}"#, "lack \"x\""),
            (#"{"n": 1, "o": {"x": 2}}"#, "must be 1"), (#"{"n": 1, "o": {"x": 1, "y": 1}}"#, "no \"y\""),
            (#"{"n": 1, "any": 1}"#, ", or "), (#"{"n": 1, "other": 1}"#, "\"other\" must be of type string"),
            (#"{"n": true}"#, "not boolean"),
        ] as [(String, String?)]) func checksArguments(_ arguments: String, _ problem: String?) throws
    {
        let tool = try ToolDefinition(
            name: "f", description: "", parameters: TemplateValue(json: Self.tool.replacing("\n", with: " ")))
        guard case .object(let object) = try TemplateValue(json: arguments) else { return }
        let found = tool.parameters.problem(with: object)
        if let problem {
            #expect(found?.contains(problem) == true, "\(found ?? "no problem")")
        } else {
            #expect(found == nil)
        }
    }

    @Test(arguments: [
        #"{"type": "string"}"#, #"{"type": "object", "properties": {"a": {"pattern": "x"}}}"#,
        #"{"type": "object", "properties": {"a": {"type": "text"}}}"#, #"{"type": "object", "required": ["a"]}"#,
        #"{"type": "object", "properties": {"a": {"$ref": "x"}}}"#, #"{"type": "object", "properties": {"a": 1}}"#,
        "[]",
        #"{"type": "object", "properties": {"a": {"minLength": -1}}}"#,
    ]) func refusesSchemasThatItCannotCheck(_ schema: String) throws {
        let value = try TemplateValue(json: schema)
        #expect(throws: ConversationError.self) { try ToolDefinition(name: "f", description: "", parameters: value) }
    }

    @Test func takesToolsAsTemplatesDo() throws {
        let tool = try ToolDefinition(name: "f", description: "d", parameters: ["type": "object", "properties": [:]])
        #expect(try ToolDefinition(tool.value) == tool)
        #expect(throws: ConversationError.self) { try ToolDefinition(["function": ["description": "x"]]) }
        #expect(throws: ConversationError.self) { try ToolDefinition(["name": "a b"]) }
        #expect([ToolDefinition]().templateValue == .null)
    }
}

@Suite struct GoldenToolCallTests {
    static let syntaxes = [
        ("qwen2_5", "hermes"), ("qwen2_5_training", "hermes"), ("qwen3", "hermes"), ("qwen3_instruct_2507", "hermes"),
        ("qwen3_training", "hermes"), ("llama3_1", "llama3"), ("deepseekv3", "deepseek"),
    ]

    /// Calls that real templates write are read as the calls that they were given.
    @Test(arguments: syntaxes) func readsWhatTemplatesWrite(_ name: String, _ syntaxName: String) throws {
        guard Golden.directory("chat_templates") != nil else { return }
        let source = try GoldenChats.source(name)
        #expect(ToolCallRegistry.name(forTemplate: source) == syntaxName)
        let syntax = try ToolCallRegistry.builtIn.syntax(syntaxName)
        let parser = ToolReplyParser(syntax, reasoning: .thinking())
        let tokenizer = try TinyChats.tokenizer(specials: GoldenChats.specials(source))
        var count = 0
        for golden in try GoldenChats.cases(name) {
            let format = try GoldenChats.format(golden, source, tokenizer)
            for (index, message) in golden.messages.enumerated() where index > 0 && message.role == "assistant" {
                guard case .array(let wanted)? = message.extra["tool_calls"], !wanted.isEmpty,
                    let text = try Self.text(of: index, golden.messages, format)
                else { continue }
                let reply = parser(text)
                count += 1
                let isText = wanted.contains { ($0["function"] ?? $0)["arguments"]?.string != nil }
                // Some templates write arguments that are text as a JSON string, which no call has.
                if isText, reply.calls.contains(where: { (try? $0.get()) == nil }) { continue }
                let calls = reply.calls.compactMap { try? $0.get() }
                #expect(calls.count == wanted.count && reply.calls.count == wanted.count, "\(golden.name): \(reply)")
                for (call, value) in zip(calls, wanted) {
                    let function = value["function"] ?? value
                    #expect(function["name"] == .string(call.name), "\(golden.name)")
                    let arguments = function["arguments"]
                    let expected = try arguments?.string.map { try TemplateValue(json: $0) } ?? arguments
                    #expect(expected == .object(call.arguments), "\(golden.name)")
                }
            }
        }
        #expect(count > 0)
    }

    /// A reply as the template writes it, without its end.
    private static func text(of index: Int, _ messages: [ChatMessage], _ format: ChatFormat) throws -> String? {
        if let ids = try? GoldenChats.reply(index, messages, format) { return format.spell(ids.dropLast()) }
        // DeepSeek's template opens a turn for generation otherwise than one that is there.
        guard let whole = try? format.render(messages[...index], addGenerationPrompt: false).text else { return nil }
        return whole.components(separatedBy: "<｜Assistant｜>").last?.components(separatedBy: "<｜end▁of▁sentence｜>").first
    }
}
