import ChatTemplates
import ChatTestSupport
import Conversations
import Foundation
import TestSupport
import Testing
import Tokenizers

@Suite struct GoldenMaskTests {
    /// A mask derived without the generation blocks is the blocks' mask, but for what the block takes of the prompt
    /// that opens the turn; or it is refused.
    @Test func derivedMasksAgreeWithGenerationBlocks() throws {
        var agreed: [String: Int] = [:], refused: [String: Int] = [:]
        for name in GoldenChats.names {
            let source = try GoldenChats.source(name)
            guard GoldenChats.markers.contains(where: source.contains) else { continue }
            let tokenizer = try TinyChats.tokenizer(specials: GoldenChats.specials(source))
            let bare = source.replacing(/\{%(-?) *generation/) { "{%\($0.output.1) if true" }
                .replacing(/\{%(-?) *endgeneration/) { "{%\($0.output.1) endif" }
            for golden in try GoldenChats.cases(name) where golden.messages.contains(where: { $0.role == "assistant" })
            {
                let format = try GoldenChats.format(golden, source, tokenizer)
                guard
                    let rendered = try? format.render(golden.messages, addGenerationPrompt: golden.addGenerationPrompt),
                    rendered.text.utf8.elementsEqual(golden.rendered.utf8)
                else {
                    Issue.record("\(name)/\(golden.name) is rendered otherwise")
                    continue
                }
                let blocks = try format.masked(golden.messages, addGenerationPrompt: golden.addGenerationPrompt)
                #expect(blocks.source == .generationBlocks)
                let without = try GoldenChats.format(golden, bare, tokenizer)
                #expect(!without.template.marksGeneration)
                do {
                    let derived = try without.masked(
                        golden.messages, addGenerationPrompt: golden.addGenerationPrompt)
                    #expect(derived.text.utf8.elementsEqual(golden.rendered.utf8))
                    #expect(derived.ids == blocks.ids)
                    expectSame(derived, blocks, without, golden.messages, "\(name)/\(golden.name)")
                    agreed[name, default: 0] += 1
                } catch let error as ConversationError {
                    #expect(error.code == .mask)
                    refused[name, default: 0] += 1
                }
            }
        }
        guard !GoldenChats.names.isEmpty else { return }
        // A check that refused everything would check nothing.
        #expect(agreed.values.reduce(0, +) > refused.values.reduce(0, +), "agreed \(agreed), refused \(refused)")
        #expect(agreed.count >= 5, "agreed \(agreed), refused \(refused)")
    }

    private func expectSame(
        _ derived: MaskedChat, _ blocks: MaskedChat, _ format: ChatFormat, _ messages: [ChatMessage], _ place: String
    ) {
        var expected = blocks.mask
        for span in derived.spans {
            // What the prompt for generation holds is not the model's, though some blocks begin before its end.
            guard let block = blocks.spans.last(where: { $0.lowerBound <= span.lowerBound }) else { continue }
            let header = String(decoding: Array(blocks.text.utf8)[block.lowerBound..<span.lowerBound], as: UTF8.self)
            guard !header.isEmpty else { continue }
            let prompts = messages.indices.compactMap { index in
                messages[index].role == "assistant"
                    ? try? format.render(messages[..<index], addGenerationPrompt: true).text : nil
            }
            #expect(prompts.contains { $0.utf8.count == span.lowerBound && $0.hasSuffix(header) }, "\(place)")
            #expect(header.utf8.count <= "<｜Assistant｜><think>\n".utf8.count, "\(place): \(header)")
            guard
                let before = try? format.encode(
                    String(decoding: Array(blocks.text.utf8)[..<block.lowerBound], as: UTF8.self)),
                let after = try? format.encode(
                    String(decoding: Array(blocks.text.utf8)[..<span.lowerBound], as: UTF8.self))
            else { continue }
            for index in before.count..<after.count { expected[index] = 0 }
        }
        #expect(derived.mask == expected, "\(place): \(derived.spans) against \(blocks.spans)")
    }

    struct Fixture: Decodable {
        var tokenizer, template, `case`: String
        var tokens: Int
        /// Where the mask turns on and off.
        var runs: [Int]
    }

    /// Masks of `return_assistant_tokens_mask` with real tokenizers (`scripts/peers/assistant_masks.py`).
    @Test func tokenMasksAreThoseOfTransformers() throws {
        guard let tokenizers = Golden.directory("tokenizers"), !GoldenChats.names.isEmpty else { return }
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/masks.jsonl")
        let fixtures = try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map {
            try JSONDecoder().decode(Fixture.self, from: Data($0.utf8))
        }
        #expect(fixtures.count > 90)
        var loaded: [String: Tokenizer] = [:], cases: [String: [GoldenChats.Case]] = [:]
        for fixture in fixtures {
            let tokenizer =
                try loaded[fixture.tokenizer]
                ?? Tokenizer(contentsOf: tokenizers.appending(path: fixture.tokenizer + "/tokenizer.json"))
            loaded[fixture.tokenizer] = tokenizer
            let list = try cases[fixture.template] ?? GoldenChats.cases(fixture.template)
            cases[fixture.template] = list
            let golden = try #require(list.first { $0.name == fixture.case })
            let format = try GoldenChats.format(golden, GoldenChats.source(fixture.template), tokenizer)
            let chat = try format.masked(golden.messages, addGenerationPrompt: golden.addGenerationPrompt)
            let place = "\(fixture.tokenizer), \(fixture.template)/\(fixture.case)"
            #expect(chat.ids.count == fixture.tokens, "\(place)")
            let changes = (chat.mask + [0]).enumerated().reduce(into: (runs: [Int](), last: UInt8(0))) { state, next in
                if next.element != state.last { state.runs.append(next.offset) }
                state.last = next.element
            }
            #expect(changes.runs == fixture.runs, "\(place)")
        }
    }
}

@Suite struct GoldenConversationTests {
    /// Each golden conversation grown turn by turn, with replies sampled as the template would write them last: either
    /// that gives what rendering at once gives, or the difference is reported, and sampled tokens stay in any case.
    @Test(arguments: GoldenChats.names) func growsAsTheTemplateRenders(_ name: String) throws {
        let source = try GoldenChats.source(name)
        let tokenizer = try TinyChats.tokenizer(specials: GoldenChats.specials(source))
        for golden in try GoldenChats.cases(name) {
            let format = try GoldenChats.format(golden, source, tokenizer)
            try grow(golden, format, "\(name)/\(golden.name)")
        }
    }

    private func grow(_ golden: GoldenChats.Case, _ format: ChatFormat, _ place: String) throws {
        let messages = golden.messages
        for index in messages.indices where messages[index].role == "assistant" && index > 0 {
            guard let reply = try? GoldenChats.reply(index, messages, format) else { continue }
            let next = messages[(index + 1)...].firstIndex { $0.role == "assistant" } ?? messages.endIndex
            let new = Array(messages[(index + 1)..<next])
            var talk = try Conversation(format, Array(messages[..<index]))
            let start = talk.tokens.count
            try talk.appendSampled(reply)
            try talk.readReply(as: messages[index])
            guard !new.isEmpty else { continue }
            do { try talk.append(new) } catch {
                // Whatever cannot be continued must say so, and never for want of trying the plain templates.
                #expect(error is ConversationError || error is TemplateError, "\(place): \(error)")
                #expect(!Self.plain.contains(where: place.hasPrefix), "\(place): \(error)")
                continue
            }
            #expect(Array(talk.tokens[start..<start + reply.count]) == reply, "\(place)")
            let whole = try format.render(messages[..<next], addGenerationPrompt: true).text
            let drift = try talk.drift()
            if drift == nil { #expect(talk.tokens == (try format.encode(whole)), "\(place)") }
            #expect(format.spell(talk.tokens).utf8.suffix(8).elementsEqual(whole.utf8.suffix(8)), "\(place)")
            if let drift {
                // The reply was rendered by the template itself: only later messages can have changed it.
                let kinds: [Drift.Kind] = [.rewritesHistory, .endOfTurn, .otherText]
                #expect(kinds.contains(drift.kind), "\(place): \(drift)")
                #expect(!Self.faithful.contains { place.hasPrefix($0 + "/") }, "\(place): \(drift)")
            }
        }
    }

    /// Templates that render turns alike wherever they stand.
    private static let faithful = ["smollm2", "qwen2_5", "llama3", "qwen3_instruct_2507", "qwen3_training", "gemma"]
    private static let plain = faithful + ["qwen3", "phi3", "mistral_gen_v3_spm", "llama3_1"]
}
