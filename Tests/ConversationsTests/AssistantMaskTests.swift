import ChatTemplates
import ChatTestSupport
import Conversations
import Testing

@Suite struct AssistantMaskTests {
    static let talk: [ChatMessage] = [
        .user("hello"), .assistant("one hello"), .user("two"), .assistant("thréé 😀"),
    ]

    /// What the mask marks, piece by piece.
    private func marked(_ chat: MaskedChat, _ format: ChatFormat) -> [String] {
        var pieces: [[Int32]] = [], previous: UInt8 = 0
        for (id, mask) in zip(chat.ids, chat.mask) {
            if mask == 1 {
                if previous == 0 { pieces.append([]) }
                pieces[pieces.count - 1].append(id)
            }
            previous = mask
        }
        return pieces.map { format.spell($0) }
    }

    @Test func findsTurnsByPrefixes() throws {
        let kinds = [
            (TinyChats.chatML, ["one hello<|im_end|>\n", "thréé 😀<|im_end|>\n"]),
            (TinyChats.llama3, ["one hello<|eot_id|>", "thréé 😀<|eot_id|>"]),
            (TinyChats.mistral, [" one hello</s>", " thréé 😀</s>"]),
        ]
        for (template, expected) in kinds {
            let format = try TinyChats.format(template)
            let chat = try format.masked(Self.talk)
            #expect(chat.source == .prefixes && marked(chat, format) == expected)
            #expect(chat.ids == (try format.encode(chat.text)) && chat.mask.count == chat.ids.count)
            let open = try format.masked(Self.talk + [.user("end")], addGenerationPrompt: true)
            #expect(marked(open, format) == expected)
        }
    }

    @Test func generationBlocksWin() throws {
        let source = TinyChats.chatML.replacing(
            "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}",
            with: """
                {{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}\
                {% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}\
                {% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}
                """)
        let format = try TinyChats.format(source)
        let chat = try format.masked(Self.talk)
        #expect(chat.source == .generationBlocks)
        #expect(marked(chat, format) == ["one hello<|im_end|>", "thréé 😀<|im_end|>"])
    }

    /// Turns of the prompt stay unmarked, by blocks as by prefixes.
    @Test func turnsOfThePromptAreNotMarked() throws {
        let blocks = TinyChats.chatML.replacing(
            "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}",
            with: """
                {{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}\
                {% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}\
                {% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}
                """)
        for (template, expected) in [(TinyChats.chatML, "thréé 😀<|im_end|>\n"), (blocks, "thréé 😀<|im_end|>")] {
            let format = try TinyChats.format(template)
            #expect(marked(try format.masked(Self.talk, from: 3), format) == [expected])
            #expect(marked(try format.masked(Self.talk, from: 2), format) == [expected])
            #expect(try format.masked(Self.talk, from: 4).mask.allSatisfy { $0 == 0 })
        }
        // A history that later turns rewrite does no harm where it is the prompt's.
        let format = try TinyChats.format(TinyChats.thinking)
        let talk: [ChatMessage] = [
            .user("hello"), .assistant("<think>\nx\n</think>\n\none"), .user("two"),
            .assistant("<think>\ny\n</think>\n\nthree"),
        ]
        #expect(throws: ConversationError.self) { try format.masked(talk) }
        #expect(marked(try format.masked(talk, from: 3), format) == ["<think>\ny\n</think>\n\nthree<|im_end|>\n"])
    }

    private func refusal(_ template: String, _ messages: [ChatMessage] = talk, turn: Int = 0) throws -> MaskRefusal
        .Reason?
    {
        let format = try TinyChats.format(template)
        let turns = try format.assistantTurns(messages)
        guard case .refused(let refusal) = turns[turn].place else { return nil }
        let error = #expect(throws: ConversationError.self) { _ = try format.masked(messages) }
        #expect(error?.code == .mask && error?.message.contains("\(refusal.reason)") == true, "\(turns)")
        return refusal.reason
    }

    @Test func saysWhyItCannot() throws {
        // The last turn of a template that takes thinking out is sure; the earlier one is not.
        #expect(try refusal(TinyChats.thinking) == .rewritesHistory)
        let turns = try TinyChats.format(TinyChats.thinking).assistantTurns(Self.talk)
        guard case .found(_, let tokens) = turns[1].place else {
            Issue.record("\(turns)")
            return
        }
        #expect(!tokens.isEmpty)
        #expect(
            try refusal(TinyChats.chatML.replacing("'<|im_start|>assistant\\n' }}{% endif", with: "'x' }}{% endif"))
                == .otherPrompt)
        let raising = "{% if messages | length < 2 %}{{ raise_exception('too short') }}{% endif %}" + TinyChats.chatML
        #expect(try refusal(raising) == .cannotRender)
        // The prompt ends with a line break and the answer begins with one: they are one token.
        let broken: [ChatMessage] = [.user("a"), .assistant("\nb")]
        #expect(try refusal(TinyChats.chatML, broken) == .tokensMerge)
        let unplaced = "{% set x %}{% generation %}a{% endgeneration %}{% endset %}" + TinyChats.thinking + "{{ x }}"
        let format = try TinyChats.format(unplaced)
        let error = #expect(throws: ConversationError.self) { _ = try format.masked(Self.talk) }
        #expect(error?.message.contains("\(MaskRefusal.Reason.unplacedBlocks)") == true)
    }

    /// A token of two turns, and no special token to keep them apart.
    @Test func refusesTokensOfTwoTurns() throws {
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        #expect(try refusal(template, [.user("x"), .assistant("he"), .user("llo")]) == .tokensMerge)
        #expect(try refusal(template, [.user("x "), .assistant("he"), .user("y")]) == nil)
    }
}
