import ChatTemplates
import Config
import Conversations
import Environments
import Flow
import Logging
import OrderedCollections
import RolloutCore
import Telemetry

/// Answers prompts by playing episodes: the policy's replies and an environment's answers in turn.
struct EpisodeRollout: RolloutGroup {
    let drawing: any EpisodeDrawing
    let environment: any Environment
    let format: ChatFormat
    let replies: ToolReplyParser
    let limits: EpisodeLimits
    /// nil: a turn's replies are drawn when all episodes that go on are there.
    let patience: Duration?
    let log: Logger

    /// - Throws: ``WorkerError`` when the template does not show how the model calls tools and `format` is `auto`.
    init(
        _ config: RunConfig, drawing: any EpisodeDrawing, environment: any Environment, text: TextProcessor,
        log: Logger
    ) async throws {
        let settings = config.rollout.multiTurn
        self.drawing = drawing
        self.environment = environment
        self.log = log
        format = try text.chatFormat(tools: environment.tools.templateValue)
        replies = ToolReplyParser(
            try Self.syntax(settings.format, text, hasTools: !environment.tools.isEmpty),
            reasoning: settings.thinking ? .thinking() : .verbatim)
        patience = settings.patienceSeconds.map { .seconds($0) }
        limits = EpisodeLimits(
            turns: settings.turns, promptTokens: config.data.maxPromptLength,
            turnTokens: settings.maxTurnLength ?? config.data.maxResponseLength,
            responseTokens: config.data.maxResponseLength, contextTokens: try await drawing.contextLength(),
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

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let tasks = try tasks(prompts, settings)
        let prompt = min(limits.promptTokens, prompts.map(\.tokens.count).max() ?? 1)
        try await drawing.beginEpisodes(
            tasks.count, tokens: min(limits.contextTokens, prompt + limits.responseTokens))
        let results: [EpisodeResult]
        do {
            results = try await play(tasks, settings)
        } catch {
            _ = try? await drawing.endEpisodes()
            throw error
        }
        let draws = try await drawing.endEpisodes()
        let trajectories = results.map { result in
            result.trajectory(of: prompts[result.task.id / settings.n], draws)
        }
        return (trajectories, draws.metrics.merging(try metrics(results)) { $1 })
    }

    /// A prompt's episodes have one seed for their environment, as they are compared with each other.
    private func tasks(_ prompts: [PromptTask], _ settings: RolloutRequestSettings) throws -> [EpisodeTask] {
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

    private func play(_ tasks: [EpisodeTask], _ settings: RolloutRequestSettings) async throws -> [EpisodeResult] {
        let sampler = GatheringSampler(patience: patience) { [drawing] in try await drawing.draw($0, settings) }
        let rollout = try MultiTurnRollout(
            environment, format: format, replies: replies, sampler: sampler, limits: limits)
        guard patience == nil else { return try await rollout.run(tasks, seed: settings.seed) }
        // Who takes a free place would depend on the clock: the same episodes begin together in every run.
        var results: [EpisodeResult] = []
        for start in stride(from: 0, to: tasks.count, by: limits.concurrency) {
            let wave = tasks[start..<min(start + limits.concurrency, tasks.count)]
            results += try await rollout.run(Array(wave), seed: settings.seed)
        }
        return results
    }

    private func metrics(_ results: [EpisodeResult]) throws -> PhaseMetrics {
        let statistics = EpisodeStatistics(results)
        for (kind, message) in statistics.examples {
            let count = results.count { $0.ending.failure?.kind == kind }
            log.warning("\(count) of \(results.count) episodes failed (\(kind.rawValue)), one so: \(message)")
        }
        var metrics: PhaseMetrics = [:]
        for ending in [EpisodeEnding.done, .turnLimit, .tokenLimit, .truncatedReply] {
            metrics[try MetricName("episode/ended/" + ending.name)] = 0
        }
        for (name, value) in statistics.values {
            metrics[try MetricName(Self.metric(name))] = value
        }
        let count = Double(max(1, results.count))
        metrics["episode/tool_calls/mean"] = results.reduce(0) { $0 + Double($1.toolCalls) } / count
        metrics["episode/tool_errors/mean"] = results.reduce(0) { $0 + $1.toolErrors } / count
        return metrics
    }

    /// What an environment calls its numbers becomes a metric's name, and what depends on the clock stands with its like.
    private static func metric(_ name: String) -> String {
        let clocked = "episode/environment_seconds"
        let place = name.hasPrefix(clocked) ? "perf/environment_seconds" + name.dropFirst(clocked.count) : name
        return String(place.unicodeScalars.map { $0 == "/" ? "/" : MetricName.isPlain($0) ? Character($0) : "_" })
    }
}

extension MetricName {
    /// Whether a name may hold it.
    fileprivate static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || ("0"..."9").contains(scalar)
            || "_-.@=".unicodeScalars.contains(scalar)
    }
}

extension EpisodeResult {
    var toolCalls: Int { Int(details["tool_calls"] ?? 0) }

    /// Calls that failed, and malformed ones.
    var toolErrors: Double {
        details.reduce(details["malformed_calls"] ?? 0) { $0 + ($1.key.hasPrefix("tool_failed_") ? $1.value : 0) }
    }

    /// As training takes it: what the model drew is learned, what the environment said is read.
    func trajectory(of prompt: PromptTask, _ draws: EpisodeDraws) -> Trajectory {
        var prompt = prompt
        if let record { prompt.tokens = record.prompt }
        var trajectory = Trajectory(
            prompt: prompt, response: record?.response ?? [], text: text, rolloutLogProbs: record?.logProbs ?? [],
            isTruncated: record?.isTruncated ?? false || ending == .tokenLimit,
            weightVersion: oldestWeights >= 0 ? oldestWeights : draws.weightVersion, weightDigest: draws.weightDigest)
        trajectory.responseMask = record?.responseMask.map { $0 == 1 }
        if let record, !turnRewards.isEmpty {
            var rewards = [Float](repeating: 0, count: record.response.count)
            for earned in turnRewards { rewards[earned.token] += Float(earned.reward) }
            trajectory.tokenRewards = rewards
        }
        trajectory.episode = EpisodeOutcome(
            ending: ending.name, answer: answer, reward: score ?? 0,
            failure: ending.failure.map { .init(kind: $0.kind.rawValue, message: $0.message) }, turns: turns,
            toolCalls: toolCalls)
        return trajectory
    }
}
