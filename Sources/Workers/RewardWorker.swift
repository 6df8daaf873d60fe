public import Config
import Config
public import Flow
public import OrderedCollections
public import PolicyAlgorithms
public import Rewards
import Telemetry

/// Scores answers with a reward and settles what becomes of those it failed on.
public struct RewardWorker: RewardGroup {
    public let reward: any Reward
    public let policy: RewardFailurePolicy
    public let maxResponseTokens: Int
    /// What answers over several turns are worth.
    public let episodes: EnvironmentSettings.Score
    /// What overlong answers lose in training; held-out ones never do.
    public private(set) var overlong: OverlongPenalty?

    public init(
        reward: any Reward, policy: RewardFailurePolicy, maxResponseTokens: Int,
        episodes: EnvironmentSettings.Score = .sum
    ) {
        self.reward = reward
        self.policy = policy
        self.maxResponseTokens = maxResponseTokens
        self.episodes = episodes
    }

    /// This worker with the punishment of overlong answers that the configuration asks for.
    /// - Throws: `AlgorithmError` for a buffer longer than an answer.
    func punishing(_ buffer: OverlongBufferSettings) throws -> RewardWorker {
        var worker = self
        worker.overlong =
            buffer.enable
            ? try OverlongPenalty(
                maxLength: maxResponseTokens, buffer: buffer.length, penalty: buffer.penaltyFactor) : nil
        return worker
    }

    public func score(
        _ trajectories: [Trajectory]
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let outcomes = await outcomes(trajectories)
        let scores = try policy.resolve(outcomes, groups: trajectories.map(\.prompt.group))
        var scored = trajectories
        for index in scored.indices {
            // An episode in which nothing was drawn has nothing to learn, whatever the policy.
            let isEmpty = scored[index].episode != nil && scored[index].response.isEmpty
            scored[index].score = isEmpty ? nil : scores[index]
            scored[index].spreadScore(environments: episodes != .answer)
            if case .scored(_, let details) = outcomes[index] {
                for (name, value) in details { scored[index].scoreDetails[name] = value }
            }
        }
        let statistics = RewardStatistics(outcomes)
        var metrics: PhaseMetrics = ["reward/failed": Double(statistics.failed)]
        if let overlong {
            var penalties: [Double] = []
            for index in scored.indices {
                guard let score = scored[index].score else { continue }
                let penalty = overlong(length: scored[index].response.count)
                scored[index].score = score + penalty
                penalties.append(penalty)
            }
            let count = Double(max(1, penalties.count))
            metrics["reward/overlong/mean"] = penalties.reduce(0, +) / count
            metrics["reward/overlong_ratio/mean"] = Double(penalties.count { $0 < 0 }) / count
        }
        for kind in RewardFailure.Kind.allCases {
            if let count = statistics.failures[kind] {
                metrics[try MetricName("reward/failed_" + kind.rawValue)] = Double(count)
            }
        }
        metrics["reward/dropped_samples"] = Double(scored.count { $0.score == nil })
        return (scored, metrics)
    }

    /// One outcome for each answer. Episodes that failed are not sent to the reward.
    func outcomes(_ trajectories: [Trajectory]) async -> [RewardOutcome] {
        var outcomes = trajectories.map { trajectory -> RewardOutcome? in
            guard let episode = trajectory.episode else { return nil }
            if let failure = episode.failure { return .failed(RewardFailure(failure)) }
            return episodes == .environment ? .checked(episode.reward) : nil
        }
        let open = outcomes.indices.filter { outcomes[$0] == nil }
        let given = await reward.score(requests(open.map { trajectories[$0] }))
        for (index, outcome) in zip(open, given) {
            guard case .scored(let score, let details) = outcome, episodes == .sum,
                let episode = trajectories[index].episode
            else {
                outcomes[index] = outcome
                continue
            }
            outcomes[index] = .checked(score + episode.reward, details: details)
        }
        return outcomes.map { $0 ?? .failed(RewardFailure(.garbage, "the reward gave no outcome")) }
    }

    func requests(_ trajectories: [Trajectory]) -> [RewardRequest] {
        trajectories.enumerated().map { index, trajectory in
            RewardRequest(
                id: index, dataSource: trajectory.prompt.dataSource, prompt: trajectory.prompt.text,
                messages: trajectory.prompt.messages.map { .init(role: $0.role, content: $0.content) },
                response: trajectory.episode?.answer ?? trajectory.text, groundTruth: trajectory.prompt.groundTruth,
                groundTruthJSON: trajectory.prompt.groundTruthJSON, extraInfoJSON: trajectory.prompt.extraInfoJSON,
                responseTokens: trajectory.response.count, maximumResponseTokens: maxResponseTokens)
        }
    }
}

extension Trajectory {
    /// Puts the score where it was earned: what an environment gave at its turns, the rest at the last token.
    fileprivate mutating func spreadScore(environments count: Bool) {
        guard let rewards = tokenRewards, !rewards.isEmpty else { return }
        guard let score, count, episode?.failure == nil, let last = rewards.indices.last,
            rewards.dropLast().contains(where: { $0 != 0 })
        else {
            // All of it is at the last token, which is what no list of rewards says.
            tokenRewards = nil
            return
        }
        let earned = rewards.reduce(0) { $0 + Double($1) }
        tokenRewards?[last] += Float(score - earned)
    }
}

extension RewardFailure {
    init(_ failure: EpisodeOutcome.Failure) {
        let kind: Kind =
            switch failure.kind {
            case "timed_out": .timedOut
            case "garbage": .garbage
            case "died": .workerDied
            default: .raised
            }
        self.init(kind, "episode: \(failure.message)")
    }
}
