import ChatTemplates
public import Conversations
import Tokenizers

/// Plays episodes: a model's replies and an environment's answers in turn, token in and token out.
///
/// Tokens that were drawn are kept as they are; what an environment says is added as the difference that the chat template
/// makes, by ``Conversation``. The response mask is 1 on drawn tokens and 0 on all others. An episode that fails is cut off,
/// named and counted; it never holds up the others.
public struct MultiTurnRollout: Sendable {
    public let environment: any Environment
    /// With the environment's tools.
    public let format: ChatFormat
    public let replies: ToolReplyParser
    public let sampler: any ContinuationSampler
    public let limits: EpisodeLimits
    /// Whether special tokens in what an environment says are taken apart, so that a tool's result cannot forge the end of
    /// a turn or the beginning of another.
    public var separatesSpecialTokens = true

    /// - Parameters:
    ///   - format: its tools and parser are replaced by the environment's and `replies`.
    ///   - replies: how the model writes tool calls.
    /// - Throws: ``EnvironmentError`` when a limit is not above 0.
    public init(
        _ environment: any Environment, format: ChatFormat, replies: ToolReplyParser,
        sampler: any ContinuationSampler, limits: EpisodeLimits = EpisodeLimits()
    ) throws {
        try limits.check()
        var format = format
        format.tools = environment.tools.templateValue
        format.parser = replies.replyParser
        self.environment = environment
        self.format = format
        self.replies = replies
        self.sampler = sampler
        self.limits = limits
    }

    /// Plays an episode for each task.
    /// - Parameter seed: with an episode's id and turn it decides the draws.
    /// - Returns: the results in the tasks' order.
    /// - Throws: what the sampler throws, ``EnvironmentError`` for tokens of it that cannot be, `CancellationError`.
    public func run(
        _ tasks: [EpisodeTask], seed: UInt64, onEnd: @escaping @Sendable (EpisodeResult) -> Void = { _ in }
    ) async throws -> [EpisodeResult] {
        var results = [EpisodeResult?](repeating: nil, count: tasks.count)
        try await withThrowingTaskGroup(of: (Int, EpisodeResult).self) { group in
            let first = min(limits.concurrency, tasks.count)
            await sampler.episodesBegan(first)
            func play(_ index: Int) {
                group.addTask {
                    var play = EpisodePlay(self, tasks[index], seed: seed)
                    do {
                        let result = try await play.run()
                        await sampler.episodeEnded()
                        return (index, result)
                    } catch {
                        await sampler.episodeEnded()
                        throw error
                    }
                }
            }
            for index in 0..<first { play(index) }
            var next = first
            for try await (index, result) in group {
                results[index] = result
                onEnd(result)
                guard next < tasks.count else { continue }
                await sampler.episodesBegan(1)
                play(next)
                next += 1
            }
        }
        return results.compactMap(\.self)
    }
}

extension ChatFormat {
    /// Messages whose text holds no special token: a blank behind such a token's first character makes it plain text.
    func separatingSpecialTokens(in messages: [ChatMessage]) throws -> [ChatMessage] {
        try messages.map { message in
            guard let text = message.content.string else { return message }
            var message = message
            message.content = .string(try separatingSpecialTokens(in: text))
            return message
        }
    }

    private func separatingSpecialTokens(in text: String) throws -> String {
        var text = text
        // Taking tokens apart makes no new ones, but for vocabularies that were made to do so.
        for _ in 0..<8 {
            let encoding = try tokenizer.encoding(text)
            let found = encoding.ids.indices.filter {
                tokenizer.isSpecial(encoding.ids[$0]) && !encoding.byteOffsets[$0].isEmpty
            }
            if found.isEmpty { return text }
            var rest = Array(text.utf8)[...], separated: [UInt8] = []
            for index in found {
                var place = encoding.byteOffsets[index].lowerBound + 1
                while place < rest.endIndex, rest[place] & 0xC0 == 0x80 { place += 1 }
                separated += rest[..<place] + [UInt8(ascii: " ")]
                rest = rest[place...]
            }
            text = String(decoding: separated + rest, as: UTF8.self)
        }
        throw EpisodeFailure(.garbage, "the special tokens in the environment's text cannot be taken apart")
    }
}
