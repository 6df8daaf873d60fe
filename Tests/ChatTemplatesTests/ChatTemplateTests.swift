import ChatTemplates
import Testing

@Suite struct ChatTemplateTests {
    static let chatML = """
        {% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}
        {% generation %}
        {{ message.content }}{% endgeneration %}
        {% else %}{{ message.content }}{% endif %}
        {% endfor %}
        {% if add_generation_prompt %}<|assistant|>{% endif %}
        """

    @Test func rendersPlainMessages() throws {
        let template = try ChatTemplate(Self.chatML)
        let rendered = try template.render([.system("a"), .user("b")], addGenerationPrompt: true)
        #expect(rendered.text == "<|system|>a<|user|>b<|assistant|>")
        #expect(rendered.generationSpans.isEmpty)
    }

    @Test func spansCoverWhatTheAssistantWrote() throws {
        let template = try ChatTemplate(Self.chatML)
        #expect(template.marksGeneration)
        let rendered = try template.render([.user("é😀"), .assistant("ja, é"), .user("b"), .assistant("c")])
        let bytes = Array(rendered.text.utf8)
        let texts = rendered.generationSpans.map { String(decoding: bytes[$0], as: UTF8.self) }
        #expect(texts == ["ja, é", "c"])
        let scalars = Array(rendered.text.unicodeScalars)
        let again = rendered.generationSpansInCodePoints.map { span in
            var view = String.UnicodeScalarView()
            view.append(contentsOf: scalars[span])
            return String(view)
        }
        #expect(again == texts)
        #expect(rendered.unplacedGenerations == 0)
    }

    @Test func aGenerationThatMovedIsCountedNotMisplaced() throws {
        let template = try ChatTemplate("{% set x %}{% generation %}b{% endgeneration %}{% endset %}aaa{{ x }}")
        let rendered = try template.render(variables: [:])
        #expect(rendered.text == "aaab")
        #expect(rendered.generationSpans.isEmpty)
        #expect(rendered.unplacedGenerations == 1)
    }

    @Test func errorsNameLineAndColumn() {
        let source = "line one\n{% if true %}\n  é{{ messages[0].nope.deeper }}\n{% endif %}"
        let error = #expect(throws: TemplateError.self) { try ChatTemplate(source).render([.user("x")]) }
        #expect(error?.code == .undefined)
        #expect(error?.line == 3)
        #expect(error?.column == 23)
        let syntax = #expect(throws: TemplateError.self) { try ChatTemplate("a\n b {{ x y }}") }
        #expect(syntax?.code == .syntax)
        #expect(syntax?.line == 2)
        #expect(syntax?.column == 9)
    }

    @Test(arguments: [
        // What each should give was taken from Jinja2 3.1.6.
        ("{% for i in l %}{% set x %}a{% break %}{% endset %}b{% endfor %}|{{ x }}", "|"),
        ("{% for i in l %}{% continue %}{% else %}e{% endfor %}", "e"),
        ("{{ 1 + 2 ~ 3 if false else 2 ** 3 ** 2 }} {{ -1|abs }} {{ 2.5|round }} {{ 1e16 }}", "64 1 2.0 1e+16"),
        ("{{ ('<'|e) + '<' }}{{ '<'|e ~ '<' }}", "&lt;&lt;&lt;<"),
        ("{% if false %}{{ 1|nofilter }}{% endif %}k", "k"),
        (
            "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
            "1/2False 2/2True "
        ),
        ("{{ 'ΑΣ'|lower }} {{ 'ß'|upper }} {{ 'e\\u0301'|length }} {{ l[::-1] }}", "ας SS 2 [3, 2, 1]"),
        ("{{ '%5.1f|%-3s|%r' % (2.25, 'a', 'b') }} {{ '{:>4}{:,}'.format('x', 1234) }}", "  2.2|a  |'b'    x1,234"),
        ("{{ d|tojson(indent=2) }} {{ d }}", "{\n  \"a\": 1.0\n} {'a': 1.0}"),
    ])
    func speaksJinja(_ source: String, _ expected: String) throws {
        let text = try ChatTemplate(source).render(variables: ["l": [1, 2, 3], "d": ["a": 1.0]]).text
        #expect(text.utf8.elementsEqual(expected.utf8), "\(source): \(text)")
    }

    @Test func theTemplatesOwnMessageIsKept() {
        let error = #expect(throws: TemplateError.self) {
            try ChatTemplate("{{ raise_exception('only ' ~ 2) }}").render([])
        }
        #expect(error?.code == .raised)
        #expect(error?.message == "only 2")
    }

    @Test func reasoningGetsEveryName() {
        let message: TemplateValue = ["role": "assistant", "reasoning": "r"]
        #expect(
            message.withReasoningAliases
                == ["thinking": "r", "role": "assistant", "reasoning": "r", "reasoning_content": "r"])
        let plain: TemplateValue = ["role": "user", "content": "x"]
        #expect(plain.withReasoningAliases == plain)
    }

    @Test func composedAndDecomposedKeysStayApart() throws {
        let object: TemplateObject = ["e\u{301}": 1, "\u{e9}": 2]
        #expect(object.count == 2)
        let text = try ChatTemplate("{{ o|tojson }}{{ 'e\u{301}' == '\u{e9}' }}").render(variables: [
            "o": .object(object)
        ])
        #expect(text.text.utf8.elementsEqual("{\"e\u{301}\": 1, \"\u{e9}\": 2}False".utf8))
    }

    @Test func variablesWinOverTheUsualOnes() throws {
        let template = try ChatTemplate("{{ tools is none }}{{ documents }}{{ bos_token }}")
        #expect(try template.render([], variables: ["documents": 3, "bos_token": "<s>"]).text == "True3<s>")
    }

    @Test func theClockIsInjected() throws {
        let template = try ChatTemplate("{{ strftime_now('%A %-d %B %Y, week %V, day %j, %H:%M') }}")
        let time = TemplateTime(year: 2024, month: 12, day: 30, hour: 7, minute: 5)
        #expect(try template.render([], clock: { time }).text == "Monday 30 December 2024, week 01, day 365, 07:05")
    }
}

@Suite struct TemplateJSONTests {
    @Test func keepsIntegersAndOrder() throws {
        let value = try TemplateValue(
            json: #"{"b": 9007199254740993, "a": [1.0, -0, 1e2, "\ud83d\ude00\n", null, true]}"#)
        #expect(value == ["b": 9_007_199_254_740_993, "a": [1.0, 0, 100.0, "😀\n", nil, true]])
        guard case .object(let object) = value else { return }
        #expect(object.keys == ["b", "a"])
    }

    @Test(arguments: [
        "", "{", "[1,]", "{\"a\"}", "01", "1.", "-", "\"\\x\"", "\"\\ud800\"", "\"a", "nul", "[1] 2", "'a'", "\"\t\"",
        "99999999999999999999", "{1:2}", "+1", ".5", "\"\\u12g4\"",
    ])
    func refuses(_ text: String) {
        let error = #expect(throws: TemplateError.self) { try TemplateValue(json: text) }
        #expect(error?.code == .data)
    }

    @Test func deepNestingIsRefused() {
        #expect(throws: TemplateError.self) { try TemplateValue(json: String(repeating: "[", count: 100_000)) }
    }

    @Test func wrongUTF8IsRefused() {
        #expect(throws: TemplateError.self) { try TemplateValue(json: [0x22, 0xFF, 0x22]) }
    }
}
