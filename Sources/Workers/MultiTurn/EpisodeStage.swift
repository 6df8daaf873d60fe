import ChatTemplates
import Config
import Conversations
import Environments
import Flow
import OrderedCollections
import RolloutCore

/// What a run's episodes are played with: the world, how its model's replies are read, and what ends an episode.
struct EpisodeStage: Sendable {
    let environment: any Environment
    let format: ChatFormat
    let replies: ToolReplyParser
    let limits: EpisodeLimits

    /// - Parameter contextLength: the most tokens of a prompt with all that follows.
    /// - Throws: ``WorkerError`` when the template does not show how the model calls tools and `format` is `auto`.
    init(_ config: RunConfig, _ environment: any Environment, _ text: TextProcessor, contextLength: Int) throws {
        let settings = config.rollout.multiTurn
        self.environment = environment
        format = try text.chatFormat(tools: environment.tools.templateValue)
        replies = ToolReplyParser(
            try Self.syntax(settings.format, text, hasTools: !environment.tools.isEmpty),
            reasoning: settings.thinking ? .thinking() : .verbatim)
        limits = EpisodeLimits(
            turns: settings.turns, promptTokens: config.data.maxPromptLength,
            turnTokens: settings.maxTurnLength ?? config.data.maxResponseLength,
            responseTokens: config.data.maxResponseLength, contextTokens: contextLength,
            resetTime: .seconds(settings.resetTimeoutSeconds), stepTime: .seconds(settings.stepTimeoutSeconds),
            episodeTime: .seconds(settings.episodeTimeoutSeconds), concurrency: settings.maxConcurrentEpisodes)
    }

    private static func syntax(
        _ format: MultiTurnSettings.Format, _ text: TextProcessor, hasTools: Bool
    ) throws -> any ToolCallSyntax {
        guard format == .auto else { return try ToolCallRegistry.builtIn.syntax(format.rawValue) }
        if let name = ToolCallRegistry.name(forTemplate: text.template?.source ?? "") {
            return try ToolCallRegistry.builtIn.syntax(name)
        }
        guard !hasTools else {
            throw WorkerError(
                .noTemplate,
                "rollout.multi_turn.format: the chat template shows no tool call; name what the model writes, as hermes, and show "
                    + "it tools and calls in data.system_prompt and data.few_shot")
        }
        return HermesToolCalls()
    }

    func rollout(_ sampler: any ContinuationSampler) throws -> MultiTurnRollout {
        try MultiTurnRollout(environment, format: format, replies: replies, sampler: sampler, limits: limits)
    }

    /// A prompt's episodes have one seed for their environment, as they are compared with each other.
    func tasks(_ prompts: [PromptTask], _ settings: RolloutRequestSettings) throws -> [EpisodeTask] {
        try prompts.enumerated().flatMap { index, prompt in
            guard !prompt.messages.isEmpty else {
                throw WorkerError(
                    .badData, "rollout.multi_turn: a prompt of plain text has no turns; give messages: \(prompt.text)")
            }
            return (0..<settings.n).map { sample in
                EpisodeTask(
                    id: index * settings.n + sample, group: prompt.group,
                    seed: SplitMix64.seed(settings.seed, UInt64(index)),
                    messages: prompt.messages.map { ChatMessage(role: $0.role, content: .string($0.content)) },
                    dataSource: prompt.dataSource, groundTruth: prompt.groundTruth,
                    groundTruthJSON: prompt.groundTruthJSON, extraInfoJSON: prompt.extraInfoJSON)
            }
        }
    }
}

extension EpisodeResult {
    private var toolCalls: Int { Int(details["tool_calls"] ?? 0) }

    private var toolErrors: Double {
        details.reduce(details["malformed_calls"] ?? 0) { $0 + ($1.key.hasPrefix("tool_failed_") ? $1.value : 0) }
    }

    /// As training takes it: what the model drew is learned, what the environment said is read.
    /// - Parameter weights: those of an episode in which nothing was drawn, and the digest of all.
    func trajectory(of prompt: PromptTask, _ weights: (version: Int, digest: String)) -> Trajectory {
        var prompt = prompt
        if let record { prompt.tokens = record.prompt }
        var trajectory = Trajectory(
            prompt: prompt, response: record?.response ?? [], text: text, rolloutLogProbs: record?.logProbs ?? [],
            isTruncated: record?.isTruncated ?? false || ending == .tokenLimit,
            weightVersion: oldestWeights >= 0 ? oldestWeights : weights.version, weightDigest: weights.digest)
        trajectory.responseMask = record?.responseMask.map { $0 == 1 }
        if let record, !turnRewards.isEmpty {
            var rewards = [Float](repeating: 0, count: record.response.count)
            for earned in turnRewards { rewards[earned.token] += Float(earned.reward) }
            trajectory.tokenRewards = rewards
        }
        trajectory.episode = EpisodeOutcome(
            ending: ending.name, answer: answer, reward: score ?? 0,
            failure: ending.failure.map { .init(kind: $0.kind.rawValue, message: $0.message) }, turns: turns,
            toolCalls: toolCalls, toolErrors: toolErrors,
            details: Dictionary(uniqueKeysWithValues: details.map { ($0.key, $0.value) }),
            environmentSeconds: environmentTime / .seconds(1))
        return trajectory
    }
}
