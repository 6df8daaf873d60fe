import ChatTemplates
import ChatTestSupport
import Conversations
import Datasets
import Environments
import Foundation
import Synchronization
import TestSupport
import Testing
import Tokenizers

/// Draws given tokens, and notes what it drew from.
final class TokenSampler: ContinuationSampler {
    private let drawn: [[Int32]]
    private let seen = Mutex<[[Int32]]>([])

    init(_ drawn: [[Int32]]) { self.drawn = drawn }

    var prefixes: [[Int32]] { seen.withLock { $0 } }

    func sample(_ request: ContinuationRequest) -> SampledContinuation {
        seen.withLock { $0.append(request.prefix) }
        let tokens = drawn[request.turn]
        return SampledContinuation(
            tokens: tokens, logProbs: tokens.map { -Float($0 % 97) / 16 - 0.5 }, isTruncated: false)
    }
}

/// Rollouts under real models' templates.
@Suite struct GoldenRolloutTests {
    /// Templates that render turns alike wherever they stand, and those that only take thinking out of earlier ones.
    private static let sure = ["smollm2", "qwen2_5", "llama3", "qwen3_instruct_2507", "qwen3_training", "qwen3"]

    /// A golden conversation as an episode: the environment says what the others say in it.
    @Test(arguments: GoldenChats.names) func masksAreOneOnDrawnTokensAndNowhereElse(_ name: String) async throws {
        let source = try GoldenChats.source(name)
        let tokenizer = try TinyChats.tokenizer(specials: GoldenChats.specials(source))
        var generator = SplitMix64(seed: 11)
        var played = 0
        for golden in try GoldenChats.cases(name) where played < 8 {
            let messages = golden.messages
            let replies = messages.indices.filter { messages[$0].role == "assistant" && $0 > 0 }
            guard let first = replies.first, replies.last != first || messages.count > first + 1 else { continue }
            var golden = golden
            golden.tools = .null
            let format = try GoldenChats.format(golden, source, tokenizer)
            var written: [[Int32]] = []
            for index in replies {
                guard let ids = try? GoldenChats.reply(index, messages, format), !ids.isEmpty else { break }
                written.append(ids)
            }
            guard let end = format.endOfTurnIDs.min() else { continue }
            let random = replies.map { _ in
                (0..<1 + generator.next(below: 12)).map { _ in
                    Int32(generator.next(below: UInt64(tokenizer.vocabularyCount)))
                }.filter { !format.endOfTurnIDs.contains($0) } + [end]
            }
            played += 1
            let place = "\(name)/\(golden.name)"
            if !written.isEmpty {
                let ending = try await play(golden.messages, replies, written, format, place)
                let isSure = Self.sure.contains(name) && written.count == replies.count
                if isSure { #expect(ending == .done, "\(place): \(ending)") }
            }
            _ = try await play(golden.messages, replies, random, format, place + ", random tokens")
        }
    }

    private func play(
        _ messages: [ChatMessage], _ replies: [Int], _ drawn: [[Int32]], _ format: ChatFormat, _ place: String
    ) async throws -> EpisodeEnding {
        let environment = ScriptedEnvironment { _, reply in
            let index = replies[reply.turn]
            let next = messages[(index + 1)...].firstIndex { $0.role == "assistant" } ?? messages.endIndex
            let said = Array(messages[(index + 1)..<next])
            return EpisodeStep(messages: said, reward: 1, isDone: reply.turn + 1 == drawn.count || said.isEmpty)
        }
        let sampler = TokenSampler(drawn)
        let syntax = try ToolCallRegistry.builtIn.syntax(
            ToolCallRegistry.name(forTemplate: format.template.source) ?? "hermes")
        var rollout = try MultiTurnRollout(
            environment, format: format, replies: ToolReplyParser(syntax), sampler: sampler,
            limits: EpisodeLimits(turns: 32, responseTokens: 1 << 20))
        rollout.separatesSpecialTokens = false
        let task = EpisodeTask(id: 0, messages: Array(messages[..<replies[0]]))
        let result = try #require(try await rollout.run([task], seed: 1).first)
        if case .failed(let failure) = result.ending { #expect(failure.kind == .template, "\(place): \(failure)") }
        let prefixes = sampler.prefixes
        guard let record = result.record else {
            #expect(prefixes.isEmpty && result.ending != .done, "\(place): \(result.ending)")
            return result.ending
        }
        // The response is what was drawn, turn for turn, with what was shown between.
        var expected: [UInt8] = [], all = record.prompt
        #expect(prefixes.first == record.prompt, "\(place)")
        for (turn, prefix) in prefixes.enumerated() {
            #expect(prefix.starts(with: all), "\(place): the prompt of turn \(turn) does not go on from the last one")
            expected += [UInt8](repeating: 0, count: prefix.count - all.count)
            all = prefix + drawn[turn]
            expected += [UInt8](repeating: 1, count: drawn[turn].count)
        }
        #expect(record.prompt + record.response == all, "\(place)")
        #expect(record.responseMask == expected, "\(place)")
        for (index, mask) in record.responseMask.enumerated() {
            let logProb = mask == 1 ? -Float(record.response[index] % 97) / 16 - 0.5 : 0
            #expect(record.logProbs[index] == logProb, "\(place)")
        }
        return result.ending
    }
}
