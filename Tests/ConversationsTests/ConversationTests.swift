import ChatTemplates
import ChatTestSupport
import Conversations
import Testing
import Tokenizers

@Suite struct ConversationTests {
    static let kinds: [(template: String, end: String, lead: String)] = [
        (TinyChats.chatML, "<|im_end|>", ""), (TinyChats.llama3, "<|eot_id|>", ""), (TinyChats.mistral, "</s>", " "),
    ]

    /// Where nothing is rewritten, growing gives the tokens that rendering all at once gives.
    @Test(arguments: 0..<3) func growsAsTheTemplateRenders(_ kind: Int) throws {
        let (template, end, lead) = Self.kinds[kind]
        let format = try TinyChats.format(template)
        var talk = try Conversation(format, [.user("hello")])
        var messages: [ChatMessage] = [.user("hello")]
        for (answer, question) in [("one hello", "two"), ("thréé 😀", "a\n\nb"), ("four", "five")] {
            try talk.appendSampled(format.sampled(lead + answer + end), logProbs: nil)
            #expect(!talk.awaitsReply)
            try talk.append(.user(question))
            messages += [.assistant(answer), .user(question)]
            #expect(talk.awaitsReply)
            #expect(talk.tokens == (try format.encode(format.render(messages, addGenerationPrompt: true).text)))
            #expect(talk.responseMask.count == talk.tokens.count && talk.logProbs.count == talk.tokens.count)
        }
        let sampled = zip(talk.tokens, talk.responseMask).filter { $0.1 == 1 }.map(\.0)
        #expect(format.spell(sampled) == "\(lead)one hello\(end)\(lead)thréé 😀\(end)\(lead)four\(end)")
        // Mistral's template puts the space in: what was sampled with it is rendered with two.
        if lead.isEmpty { #expect(try talk.drift() == nil) } else { #expect(try talk.drift()?.kind == .otherText) }
    }

    /// Tokens that no tokenizer gives, and thinking that the template takes out, stay as sampled.
    @Test func sampledTokensNeverChange() throws {
        let format = try TinyChats.format(TinyChats.thinking)
        var talk = try Conversation(format, [.user("hello")])
        let spelled = try "<think>\nhm\n</think>\n\nhello<|im_end|>".unicodeScalars.reduce(into: [Int32]()) {
            ids, scalar in
            // Letter by letter, where the tokenizer has one token for "hello".
            ids += try format.encode(String(scalar))
        }
        let end = try format.encode("<|im_end|>")
        let ids = spelled.prefix { _ in true }.dropLast("<|im_end|>".count) + end
        try talk.appendSampled(Array(ids), logProbs: ids.indices.map { -Float($0) })
        let start = talk.tokens.count - ids.count
        try talk.append(.user("and?"))
        #expect(Array(talk.tokens[start..<start + ids.count]) == Array(ids))
        #expect(talk.logProbs[start + 2] == -2 && talk.logProbs[start - 1] == 0)
        #expect(
            format.spell(talk.tokens[(start + ids.count)...])
                == "\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n")
        #expect(
            Array(talk.responseMask[start...]) == ids.map { _ in 1 }
                + talk.tokens[(start + ids.count)...].map { _ in 0 })
    }

    @Test func toolResultsComeInOneOrSeveralCalls() throws {
        let format = try TinyChats.format(TinyChats.thinking)
        let call: TemplateValue = ["type": "function", "function": ["name": "add", "arguments": ["a": 1, "b": 2]]]
        let reply = ChatMessage(
            role: "assistant", content: "", extra: ["tool_calls": .array([call]), "reasoning_content": "sum"])
        let text =
            "<think>\nsum\n</think>\n\n<tool_call>{\"name\":\"add\",\"arguments\":{\"a\":1,\"b\":2}}</tool_call><|im_end|>"
        func result(_ text: String) -> ChatMessage { ChatMessage(role: "tool", content: .string(text)) }

        var talk = try Conversation(format, [.user("1 + 2?")])
        try talk.appendSampled(format.sampled(text))
        try talk.readReply(as: reply)
        var together = talk
        try together.append([result("3"), result("three")])
        try talk.append(result("3"))
        try talk.append(result("three"))
        #expect(talk.tokens == together.tokens && talk.turns == together.turns)
        #expect(
            format.spell(talk.tokens).hasSuffix(
                text + "\n<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\nthree\n"
                    + "</tool_response><|im_end|>\n<|im_start|>assistant\n"))
        // The template writes the call's JSON with blanks.
        let drift = try #require(try talk.drift())
        #expect(drift.kind == .otherText && drift.turn == 1)
    }

    @Test(arguments: 0..<3) func aReplyThatWasCutOffIsClosedByContext(_ kind: Int) throws {
        let (template, end, lead) = Self.kinds[kind]
        let format = try TinyChats.format(template)
        var talk = try Conversation(format, [.user("hello")])
        try talk.appendSampled(format.sampled(lead + "one tw"))
        #expect(try talk.drift()?.kind == (lead.isEmpty ? .endOfTurn : .otherText))
        #expect(talk.record?.isTruncated == true)
        let cut = talk.tokens.count
        try talk.append(.user("go on"))
        #expect(format.spell(talk.tokens[cut...]).hasPrefix(end))
        #expect(talk.responseMask[cut] == 0 && talk.responseMask[cut - 1] == 1)
        if lead.isEmpty { #expect(try talk.drift() == nil) }
        #expect(talk.record?.response.count == cut - talk.turns[0].tokens.count)
    }

    @Test func aReplyMayComeInPieces() throws {
        let format = try TinyChats.format(TinyChats.chatML)
        var whole = try Conversation(format, [.user("hello")])
        var pieces = whole
        let ids = try format.sampled("one 😀 two<|im_end|>")
        try whole.appendSampled(ids)
        for id in ids { try pieces.appendSampled([id]) }
        #expect(pieces.tokens == whole.tokens && pieces.turns == whole.turns && pieces.messages == whole.messages)
        #expect(pieces.messages.last == .assistant("one 😀 two"))
    }

    /// The reply ends with a token that the template does not write.
    @Test func anotherEndIsKept() throws {
        let format = try TinyChats.format(TinyChats.chatML, ends: ["<|im_end|>", "</s>"])
        var talk = try Conversation(format, [.user("hello")])
        try talk.appendSampled(format.sampled("one</s>"))
        try talk.append(.user("two"))
        #expect(format.spell(talk.tokens).contains("one</s>\n<|im_start|>user\ntwo<|im_end|>"))
        #expect(try talk.drift()?.kind == .endOfTurn)
    }

    @Test func templatesWithoutAnEndToken() throws {
        let format = try TinyChats.format(TinyChats.plain)
        var talk = try Conversation(format, [.user("hello")])
        try talk.appendSampled(format.sampled(" one"))
        try talk.append(.user("two"))
        #expect(format.spell(talk.tokens) == "user: hello\nassistant: one\nuser: two\nassistant:")
    }

    /// What a user writes is no end of the reply, even if it looks like one.
    @Test func usersCannotForgeTheEnd() throws {
        let format = try TinyChats.format(TinyChats.plain, ends: ["<|end|>"])
        var talk = try Conversation(format, [.user("a")])
        try talk.appendSampled(format.sampled(" one<|end|>"))
        try talk.append(.user("x<|end|>y"))
        #expect(format.spell(talk.tokens).hasSuffix(" one<|end|>\nuser: x<|end|>y\nassistant:"))
    }

    @Test func refusesWhatCannotBeTold() throws {
        func code(_ template: String, _ reply: String = "one<|im_end|>") throws -> (any Error)? {
            var talk = try Conversation(TinyChats.format(template), [.user("hello")])
            try talk.appendSampled(talk.format.sampled(reply))
            let before = talk.tokens
            do { try talk.append(.user("two")) } catch {
                #expect(talk.tokens == before && talk.messages.count == 2, "the conversation changed")
                return error
            }
            return nil
        }
        let twice = TinyChats.chatML.replacing(
            "message['content'] +", with: "message['content'] + message['content'] +")
        let hidden = TinyChats.chatML.replacing(
            "message['content'] +", with: "(message['content'] | length | string) +")
        let depends = TinyChats.chatML.replacing(
            "'<|im_end|>' +", with: "'<|im_end|>' + (messages[1]['content'] if loop.last and loop.index > 1 else '') +")
        let otherEnd = TinyChats.chatML.replacing(
            "'<|im_end|>' +", with: "('<|im_end|>' if loop.last else '<|end|>') +")
        for template in [twice, hidden, depends, otherEnd] {
            #expect((try code(template) as? ConversationError)?.code == .continuation, "\(template)")
        }
        #expect(try code(TinyChats.chatML) == nil)
        #expect(try code(TinyChats.mistral, " one</s>") == nil)
    }

    @Test func refusesWrongOrderAndTokens() throws {
        let format = try TinyChats.format(TinyChats.chatML)
        var talk = try Conversation(format, [.user("hello")])
        func code(_ body: (inout Conversation) throws -> Void) -> ConversationError.Code? {
            do { try body(&talk) } catch { return (error as? ConversationError)?.code }
            return nil
        }
        let end = try format.encode("<|im_end|>")
        #expect(code { try $0.appendSampled([]) } == .sampled)
        #expect(code { try $0.appendSampled([-1]) } == .sampled)
        #expect(code { try $0.appendSampled([1, 2], logProbs: [0]) } == .sampled)
        #expect(code { try $0.appendSampled(end + [65]) } == .sampled)
        #expect(code { try $0.readReply(as: .assistant("")) } == .order)
        #expect(talk.record == nil)
        #expect(code { try $0.appendSampled([65] + end, logProbs: [-1, -2]) } == nil)
        #expect(code { try $0.appendSampled([65]) } == .order)
        let record = try #require(talk.record)
        #expect(record.prompt == Array(talk.tokens.dropLast(2)) && record.response == [65] + end)
        #expect(record.responseMask == [1, 1] && record.logProbs == [-1, -2] && !record.isTruncated)
    }
}

@Suite struct ReplayTests {
    /// A conversation had elsewhere, as it would have been had here.
    @Test func replaysEachReplyAsItsTemplateWritesIt() throws {
        let talk: [ChatMessage] = [.user("a"), .assistant("one"), .user("b"), .assistant("two"), .user("c")]
        let plain = try Conversation(replaying: talk, TinyChats.format(TinyChats.chatML))
        #expect(try plain.drift() == nil)
        #expect(plain.messages == talk && plain.awaitsReply && plain.turns.count == 5)
        let thinking = try Conversation(replaying: talk, TinyChats.format(TinyChats.thinking))
        #expect(try thinking.drift()?.kind == .rewritesHistory)
        #expect(thinking.format.spell(thinking.tokens).contains("<think>\n\n</think>\n\none<|im_end|>"))
    }

    @Test func refusesWhatNobodySampled() throws {
        let format = try TinyChats.format(TinyChats.chatML)
        func code(_ messages: [ChatMessage]) -> ConversationError.Code? {
            do { _ = try Conversation(replaying: messages, format) } catch {
                return (error as? ConversationError)?.code
            }
            return nil
        }
        #expect(code([.assistant("one"), .user("a")]) == .order)
        #expect(code([.user("a"), .assistant("one"), .assistant("two")]) == .order)
        #expect(code([.user("a")]) == nil)
    }
}

@Suite struct DriftTests {
    /// Qwen3's way: thinking goes once another question comes.
    @Test func namesRewrittenHistory() throws {
        let format = try TinyChats.format(TinyChats.thinking)
        var talk = try Conversation(format, [.user("hello")])
        try talk.appendSampled(format.sampled("<think>\nhm\n</think>\n\none<|im_end|>"))
        #expect(try talk.drift() == nil)
        try talk.append(.user("two"))
        let drift = try #require(try talk.drift())
        #expect(drift.kind == .rewritesHistory && drift.turn == 1)
        #expect(drift.index == talk.turns[1].tokens.lowerBound)
        #expect(drift.keptText.contains("<think>") && !drift.renderedText.contains("<think>"))
        #expect(drift.kept.first == talk.tokens[drift.index] && drift.kept != drift.rendered)
        #expect("\(drift)".contains("token \(drift.index), turn 1: the template rewrites earlier turns"))
    }

    @Test func namesOtherTokens() throws {
        let format = try TinyChats.format(TinyChats.chatML)
        for text in ["hello", "😀 hello"] {
            var talk = try Conversation(format, [.user("a")])
            let start = talk.tokens.count
            let bytes = try text.utf8.map { byte in try #require(format.tokenizer.id(for: Self.alphabet(byte))) }
            try talk.appendSampled(bytes + format.encode("<|im_end|>"))
            let drift = try #require(try talk.drift())
            #expect(drift.kind == .tokenization && drift.index == start + text.utf8.count - 5)
            try talk.append(.user("b"))
            #expect(try talk.drift()?.kind == .tokenization)
        }
    }

    @Test func namesTextThatTheTemplateChanges() throws {
        let format = try TinyChats.format(TinyChats.llama3)
        var talk = try Conversation(format, [.user("a")])
        try talk.appendSampled(format.sampled("  one<|eot_id|>"))
        #expect(try talk.drift()?.kind == .otherText)
    }

    private static func alphabet(_ byte: UInt8) -> String {
        if (33...126).contains(byte) || (161...172).contains(byte) || byte >= 174 {
            return String(Character(UnicodeScalar(byte)))
        }
        let before = (0..<Int(byte)).count { !((33...126).contains($0) || (161...172).contains($0) || $0 >= 174) }
        return String(Character(UnicodeScalar(UInt32(256 + before))!))
    }
}

@Suite struct ReplyParserTests {
    @Test func dividesThinkingFromContent() {
        let parser = ReplyParser.thinking()
        func parts(_ text: String) -> [TemplateValue?] {
            let message = parser(text)
            return [message.extra["reasoning_content"], message.content]
        }
        #expect(parts("<think>\nhm\n</think>\n\nyes") == ["hm", "yes"])
        #expect(parts("hm\n</think>\n\nyes") == ["hm", "yes"])
        #expect(parts("<think>\nhm") == ["hm", ""])
        #expect(parts("yes") == [nil, "yes"])
        #expect(parts("a </think> b </think> c") == ["a ", " b </think> c"])
    }
}
