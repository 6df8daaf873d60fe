import ChatTemplates
import ChatTestSupport
import Conversations
import Testing
import Tokenizers

@Suite struct ChatSessionTests {
    @Test func undoTakesBackQuestionAndAnswer() throws {
        let format = try TinyChats.format(TinyChats.chatML)
        var session = ChatSession(format, system: "be brief")
        let first = try session.ask("hello")
        #expect(
            format.spell(first)
                == "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
        let answer = try format.sampled("one<|im_end|>")
        try session.answer(answer, logProbs: answer.map { _ in -1 })
        let before = session.conversation?.tokens
        let second = try session.ask("two")
        #expect(second.starts(with: first + answer))
        try session.answer([65], logProbs: [-1])
        #expect(session.questions == 2)
        #expect(session.undo() && session.conversation?.tokens == before && session.questions == 1)
        #expect(try session.ask("two") == second)
        // An answer that was stopped before its first token.
        try session.answer([], logProbs: [])
        #expect(session.conversation?.tokens == before)
        #expect(session.undo() && session.conversation == nil && !session.undo())
        session.setSystem("")
        #expect(format.spell(try session.ask("a")) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")
        session.reset()
        #expect(session.questions == 0)
    }

    @Test func aQuestionThatCannotBeRenderedIsNotAsked() throws {
        let format = try TinyChats.format(TinyChats.mistral)
        var session = ChatSession(format, system: "no system turns here")
        #expect(throws: TemplateError.self) { _ = try session.ask("hello") }
        #expect(session.questions == 0 && session.conversation == nil)
    }

    @Test func readsCommands() {
        #expect(ChatCommand("hello /reset") == .say("hello /reset"))
        #expect(ChatCommand("//etc is a folder") == .say("/etc is a folder"))
        #expect(ChatCommand("/reset") == .reset)
        #expect(ChatCommand("/system") == .system(nil))
        #expect(ChatCommand("/system  be brief ") == .system("be brief "))
        #expect(ChatCommand("/system -") == .system(""))
        #expect(ChatCommand("/temperature 0.7") == .temperature(0.7))
        #expect(ChatCommand("/temperature") == .temperature(nil))
        #expect(ChatCommand("/save a b.json") == .save("a b.json"))
        #expect(ChatCommand("/undo") == .undo)
        #expect(ChatCommand("/quit") == .quit)
        for line in ["/temperature warm", "/temperature -1", "/temperature nan", "/save", "/frobnicate", "/"] {
            guard case .mistake = ChatCommand(line) else {
                Issue.record("\(line)")
                continue
            }
        }
    }
}

@Suite struct TokenListingTests {
    @Test func listsTokensWithTheirPlaces() throws {
        let tokenizer = try TinyChats.tokenizer()
        let listing = try TokenListing(encoding: "hello é<|im_end|>", by: tokenizer, addSpecialTokens: false)
        #expect(listing.rows.map(\.text) == ["hello", " ", "\u{FFFD}", "\u{FFFD}", "<|im_end|>"])
        #expect(listing.rows.map(\.bytes).first == 0..<5 && listing.rows.last?.characters == 7..<17)
        #expect(listing.rows.map(\.isSpecial) == [false, false, false, false, true])
        #expect(listing.ids == (try tokenizer.encode("hello é<|im_end|>")))
        let decoded = TokenListing(decoding: listing.ids + [99_999], by: tokenizer, skipSpecialTokens: true)
        #expect(decoded.text == "hello é" && decoded.rows.count == 6 && decoded.unknownIDs == [99_999])
    }

    @Test func showsWhatCannotBeSeen() {
        #expect(TokenListing.visible("a b\n\t\u{1B}[1m\u{7F}\u{A0}\u{202E}é") == "a·b⏎⇥␛[1m␡\\u{A0}\\u{202E}é")
    }
}
