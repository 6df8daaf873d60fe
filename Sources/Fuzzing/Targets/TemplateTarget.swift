internal import ChatTemplates

/// A chat template: compiled, and rendered for conversations with tools, parts and reasoning.
public struct TemplateTarget: FuzzTarget {
    public static let name = "template"
    public static let fileSuffixes = [".jinja"]

    /// Tight, so that a template that runs to its limits takes little time; every so often the defaults.
    private let limits = TemplateLimits(
        steps: 200_000, outputBytes: 4 << 20, allocatedBytes: 64 << 20, recursionDepth: 400)
    private let conversations: [[String: TemplateValue]]

    public init() throws {
        conversations = [Self.plain, Self.withTools].map { messages in
            [
                "messages": messages, "tools": Self.tools, "add_generation_prompt": true, "bos_token": "<s>",
                "eos_token": "</s>", "enable_thinking": true, "documents": .null, "x": "text", "n": 3,
            ]
        }
    }

    private static let plain: TemplateValue = [
        ["role": "system", "content": "Be brief. \u{1F600} e\u{301}"],
        ["role": "user", "content": "What is <b>1 + 1</b>?"],
        ["role": "assistant", "content": "<think>\nsum\n</think>\n\n2", "reasoning_content": "sum"],
        ["role": "user", "content": [["type": "text", "text": "And 2 + 2?"], ["type": "image"]]],
    ]
    private static let withTools: TemplateValue = [
        ["role": "user", "content": "Weather in Paris?"],
        [
            "role": "assistant", "content": nil,
            "tool_calls": [
                [
                    "id": "call123ab", "type": "function",
                    "function": ["name": "weather", "arguments": ["city": "Paris", "days": 2, "exact": 0.5]],
                ]
            ],
        ],
        ["role": "tool", "tool_call_id": "call123ab", "name": "weather", "content": "{\"temperature\": 21}"],
        ["role": "assistant", "content": "21 degrees."],
    ]
    private static let tools: TemplateValue = [
        [
            "type": "function",
            "function": [
                "name": "weather", "description": "The weather.",
                "parameters": [
                    "type": "object", "required": ["city"],
                    "properties": ["city": ["type": "string", "description": "A city"], "days": ["type": "integer"]],
                ],
            ],
        ]
    ]

    public func seeds() -> [[UInt8]] {
        [
            """
            {{- bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message.content
            | string | trim + ' [/INST]' }}{% elif message.role == 'assistant' %}{% generation %}{{ message.content }}
            {%- endgeneration %}{{ eos_token }}{% else %}{{ message | tojson(indent=2) }}{% endif %}{% endfor %}
            {%- if add_generation_prompt %}{{ "<|assistant|>\\n" }}{% endif %}
            """,
            """
            {%- set ns = namespace(last=-1, found=false) %}{%- macro show(m, depth=0) -%}
            {%- if m is mapping %}{% for k, v in m | dictsort %}{{ '  ' * depth }}{{ k }}: {{ show(v, depth + 1) }}
            {% endfor %}{% elif m is iterable and m is not string %}{% for v in m[::-1] %}{{ show(v, depth + 1) }}
            {%- endfor %}{% else %}{{ '%s' % m if m is defined else 'none' }}{% endif %}{%- endmacro -%}
            {%- for m in messages[:-1] if m.role != 'none' %}{% set ns.last = loop.index %}{{ show(m) | indent(2) }}
            {%- if loop.last %}{% break %}{% else %}{% continue %}{% endif %}{% endfor %}
            {{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}
            {{ strftime_now('%d %b %Y') }}{% if not tools %}{{ raise_exception('no tools') }}{% endif %}
            {{ (ns.last * 3 - 1) // 2 ** 2 % 5 ~ "x" }}{% set text %}{% filter upper %}a{{ x }}{% endfilter %}{% endset %}
            {{ text.split('A')[-1].strip('x').replace('T', 't', 1) | default('no', true) | e }}
            """,
            "{# note #}{% raw %}{{ x }}{% endraw %}{%+ if n > 2 and n in [1, 2, 3] -%} {{ '%05.1f|{:>8}' % 1.25 }} {%- endif %}",
        ].map { Array($0.utf8) }
    }

    public func mutate(_ input: inout [UInt8], splicing other: [UInt8], _ random: inout FuzzRandom) {
        if random.chance(percent: 80) {
            input = TemplateMutator.mutated(input, splicing: other, &random)
        } else {
            ByteMutator.mutate(&input, splicing: other, &random)
        }
    }

    public func run(_ input: [UInt8]) throws {
        let source = String(decoding: input, as: UTF8.self)
        let isDefault = input.count % 509 == 7
        let template = try isDefault ? ChatTemplate(source) : ChatTemplate(source, limits: limits)
        var failure: (any Error)?
        for conversation in conversations {
            do {
                let chat = try template.render(variables: conversation) {
                    TemplateTime(year: 2026, month: 2, day: 28, hour: 23, minute: 59, second: 58)
                }
                let bytes = chat.text.utf8.count
                try require(bytes <= template.limits.outputBytes, "\(bytes) bytes were rendered, past the limit")
                for span in chat.generationSpans { try require(span.upperBound <= bytes, "a span leaves the text") }
                let length = chat.text.unicodeScalars.count
                for span in chat.generationSpansInCodePoints {
                    try require(span.upperBound <= length, "a span leaves the text's code points")
                }
            } catch let error as BrokenProperty {
                throw error
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }
}
