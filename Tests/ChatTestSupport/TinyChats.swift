import ChatTemplates
public import Conversations
import Foundation
public import Tokenizers

/// Small templates of each kind, written for the tests, and tokenizers that know their special tokens.
public enum TinyChats {
    public static let chatML = """
        {% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
        """

    public static let llama3 = """
        {{ '<|begin_of_text|>' }}{% for message in messages %}\
        {{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
        """

    /// Thinking is taken out of every turn but those after the last question, as Qwen3 does; tool results are turns of
    /// the user, several in one.
    public static let thinking = """
        {% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}\
        {% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}\
        {% set content = m.content %}{% set thought = m.reasoning_content or '' %}\
        {% if '</think>' in content %}{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}\
        {% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}\
        {% if loop.index0 > ns.last %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}{{ content }}\
        {% for call in m.tool_calls or [] %}{% set call = call.function %}\
        {{ '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + call.arguments | tojson + '}\\n</tool_call>' }}\
        {% endfor %}{{ '<|im_end|>\\n' }}{% elif m.role == 'tool' %}\
        {% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}\
        {{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}\
        {% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}\
        {% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
        """

    /// No prompt of its own for generation, turns that must alternate, and a space that the template puts in.
    public static let mistral = """
        {{ '<s>' }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}\
        {{ '[INST] ' + m.content + '[/INST]' }}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}
        """

    /// No special token anywhere.
    public static let plain = """
        {% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}
        """

    public static let specials = [
        "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
        "<s>", "</s>", "[INST]", "[/INST]", "<think>", "</think>", "<|end|>",
    ]

    /// Llama 3's and Qwen's way: line breaks stay together, whatever follows.
    private static let split = #"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

    /// Byte-level BPE with a few merges: "hello" is one token, and so are two line breaks.
    public static func tokenizer(specials: [String] = specials) throws -> Tokenizer {
        var next: UInt32 = 256
        let bytes = (UInt32(0)..<256).map { byte in
            let isPrintable = (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
            if !isPrintable { next += 1 }
            return String(Character(UnicodeScalar(isPrintable ? byte : next - 1)!))
        }
        let merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ċ", "Ċ"), ("Ġ", "a"), (":", "Ġ")]
        var spellings = bytes + merges.map { $0.0 + $0.1 }
        let vocabulary = Dictionary(uniqueKeysWithValues: spellings.enumerated().map { ($1, $0) })
        let added = specials.enumerated().map { index, content -> [String: Any] in
            [
                "id": spellings.count + index, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            ]
        }
        spellings += specials
        let json: [String: Any] = [
            "version": "1.0", "added_tokens": added,
            "pre_tokenizer": [
                "type": "Sequence",
                "pretokenizers": [
                    ["type": "Split", "pattern": ["Regex": split], "behavior": "Isolated", "invert": false],
                    ["type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false],
                ] as [[String: Any]],
            ] as [String: Any],
            "decoder": ["type": "ByteLevel"],
            "model": ["type": "BPE", "vocab": vocabulary, "merges": merges.map { "\($0.0) \($0.1)" }] as [String: Any],
        ]
        return try Tokenizer(jsonData: JSONSerialization.data(withJSONObject: json))
    }

    public static func format(
        _ template: String, ends: [String] = ["<|im_end|>", "<|eot_id|>", "</s>"], parser: ReplyParser = .verbatim
    ) throws -> ChatFormat {
        let tokenizer = try tokenizer()
        return try ChatFormat(
            template: ChatTemplate(template), tokenizer: tokenizer,
            endOfTurnIDs: Set(ends.compactMap { tokenizer.id(for: $0) }), parser: parser)
    }
}

extension ChatFormat {
    /// One turn's text as tokens, as a model might have sampled it.
    public func sampled(_ text: String) throws -> [Int32] { try encode(text) }
}
