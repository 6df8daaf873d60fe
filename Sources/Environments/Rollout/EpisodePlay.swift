import ChatTemplates
import Conversations
import Datasets
import OrderedCollections

/// One episode under way.
struct EpisodePlay {
    private let rollout: MultiTurnRollout
    private let task: EpisodeTask
    private let seed: UInt64
    private var result: EpisodeResult
    private var score = 0.0

    init(_ rollout: MultiTurnRollout, _ task: EpisodeTask, seed: UInt64) {
        self.rollout = rollout
        self.task = task
        self.seed = seed
        result = EpisodeResult(task: task, ending: .done)
    }

    private var limits: EpisodeLimits { rollout.limits }

    /// - Throws: what ends the whole rollout.
    mutating func run() async throws -> EpisodeResult {
        let opening: EpisodeOpening
        do {
            opening = try await timed(limits.resetTime, "reset", late: { await $0.episode.close() }) {
                [rollout, task] in
                try await rollout.environment.reset(task)
            }
        } catch {
            result.ending = try ending(of: error)
            return result
        }
        do {
            result.ending = try await turns(opening)
            result.score = score
        } catch {
            // What the episode holds is given up in either case.
            do { result.ending = try ending(of: error) } catch {
                await close(opening.episode)
                throw error
            }
        }
        await close(opening.episode)
        result.record = result.conversation?.record
        return result
    }

    /// An episode that does not let go holds up nobody. One that is given up is closed as well as any other.
    private func close(_ episode: any Episode) async {
        let limit = limits.stepTime
        await Task { try? await TimeLimit.run(limit, "close") { await episode.close() } }.value
    }

    private func ending(of error: any Error) throws -> EpisodeEnding {
        switch error {
        case let failure as EpisodeFailure: return .failed(failure)
        case let ended as RolloutEnd: throw ended.error
        case is CancellationError where Task.isCancelled: throw error
        default: return .failed(EpisodeFailure(.raised, "\(error)"))
        }
    }

    /// Marks an error of the sampler among those of the environment.
    private struct RolloutEnd: Error {
        let error: any Error
    }

    private mutating func timed<Value: Sendable>(
        _ limit: Duration, _ what: String, late: @escaping @Sendable (Value) async -> Void = { _ in },
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let start = ContinuousClock.now
        defer { result.environmentTime += ContinuousClock.now - start }
        let left = limits.episodeTime - result.environmentTime
        guard left > limit else {
            return try await TimeLimit.run(max(left, .zero), "the episode, in \(what),", late: late, body)
        }
        return try await TimeLimit.run(limit, what, late: late, body)
    }

    // MARK: - Turns

    private mutating func turns(_ opening: EpisodeOpening) async throws -> EpisodeEnding {
        var talk: Conversation
        do { talk = try Conversation(rollout.format, opening.messages) } catch {
            throw EpisodeFailure(.template, "the opening messages cannot be rendered: \(error)")
        }
        result.conversation = talk
        let prompt = talk.tokens.count
        guard prompt <= limits.promptTokens else {
            throw EpisodeFailure(
                .garbage, "the opening messages are \(prompt) tokens, of at most \(limits.promptTokens)")
        }
        for turn in 0..<limits.turns {
            let room = min(
                limits.contextTokens - talk.tokens.count, limits.responseTokens - (talk.tokens.count - prompt))
            guard room > 0 else { return try await cutOff(.tokenLimit, nil, opening.episode) }
            let (reply, isTruncated) = try await draw(&talk, turn, min(room, limits.turnTokens))
            result.conversation = talk
            result.turns = turn + 1
            if isTruncated {
                return try await cutOff(
                    room <= limits.turnTokens ? .tokenLimit : .truncatedReply, reply, opening.episode)
            }
            let step = try await timed(limits.stepTime, "step \(turn)") { try await opening.episode.step(reply) }
            try count(step)
            if step.isDone { return .done }
            if turn + 1 == limits.turns { break }
            try show(step.messages, reply, &talk)
            result.conversation = talk
        }
        return try await cutOff(.turnLimit, nil, opening.episode)
    }

    private mutating func cutOff(
        _ ending: EpisodeEnding, _ reply: EpisodeReply?, _ episode: any Episode
    ) async throws -> EpisodeEnding {
        let step = try await timed(limits.stepTime, "the end") { try await episode.cutOff(ending, reply) }
        try count(step)
        return ending
    }

    /// Draws a reply and adds it as it is.
    private mutating func draw(
        _ talk: inout Conversation, _ turn: Int, _ room: Int
    ) async throws -> (reply: EpisodeReply, isTruncated: Bool) {
        do {
            let drawn = try await rollout.sampler.sample(
                ContinuationRequest(
                    episode: task.id, turn: turn, prefix: talk.tokens, maxTokens: room,
                    seed: Self.seed(seed, task.id, turn)))
            guard drawn.tokens.count <= room else {
                throw EnvironmentError(
                    .badContinuation,
                    "episode \(task.id), turn \(turn): \(drawn.tokens.count) tokens, of at most \(room)")
            }
            try talk.appendSampled(drawn.tokens, logProbs: drawn.logProbs)
            for version in drawn.weightVersions.map(Int.init) {
                result.oldestWeights = result.oldestWeights < 0 ? version : min(result.oldestWeights, version)
                result.newestWeights = max(result.newestWeights, version)
            }
            let sampled = talk.turns[talk.turns.count - 1]
            let text = rollout.format.spell(talk.tokens[sampled.tokens].dropLast(sampled.isComplete ? 1 : 0))
            let parsed = rollout.replies(text)
            try talk.readReply(as: parsed.message)
            result.answer = parsed.calls.isEmpty ? parsed.content : ""
            let reply = EpisodeReply(text: text, parsed: parsed, turn: turn, tokens: drawn.tokens.count)
            return (reply, drawn.isTruncated && !sampled.isComplete)
        } catch {
            throw RolloutEnd(error: error)
        }
    }

    private mutating func count(_ step: EpisodeStep) throws {
        guard step.reward.isFinite else { throw EpisodeFailure(.garbage, "the reward is \(step.reward)") }
        if let bad = step.details.first(where: { !$0.value.isFinite }) {
            throw EpisodeFailure(.garbage, "the detail '\(bad.key)' is \(bad.value)")
        }
        score += step.reward
        result.details.merge(step.details) { $0 + $1 }
        guard step.reward != 0, let record = result.conversation?.record else { return }
        let token = record.response.count - 1
        if result.turnRewards.last?.token == token {
            result.turnRewards[result.turnRewards.count - 1].reward += step.reward
        } else {
            result.turnRewards.append(.init(token: token, reward: step.reward))
        }
    }

    /// Adds what the environment said, as the template writes it.
    private func show(_ messages: [ChatMessage], _ reply: EpisodeReply, _ talk: inout Conversation) throws {
        guard !messages.isEmpty else {
            throw EpisodeFailure(.garbage, "a step that is not the last says nothing to the model")
        }
        if let own = messages.first(where: { $0.role == "assistant" || $0.role.isEmpty }) {
            throw EpisodeFailure(.garbage, "an environment's message cannot have the role '\(own.role)'")
        }
        do {
            let said =
                rollout.separatesSpecialTokens
                ? try rollout.format.separatingSpecialTokens(in: messages) : messages
            do { try talk.append(said) } catch let error as TemplateError {
                // Some templates refuse a tool's message where no call stands before it, as after a malformed one.
                guard talk.messages.last?.extra["tool_calls"] == nil, said.contains(where: { $0.role == "tool" }) else {
                    throw error
                }
                try talk.append(said.map { $0.role == "tool" ? ChatMessage(role: "user", content: $0.content) : $0 })
            }
        } catch {
            throw EpisodeFailure(.template, "turn \(reply.turn) cannot be answered: \(error)")
        }
    }

    static func seed(_ seed: UInt64, _ episode: Int, _ turn: Int) -> UInt64 {
        var episodes = SplitMix64(seed: seed, part: UInt64(bitPattern: Int64(episode)))
        var turns = SplitMix64(seed: episodes.next(), part: UInt64(turn))
        return turns.next()
    }
}
