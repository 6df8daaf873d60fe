import Environments
import Flow
import Synchronization
import Telemetry

/// A pool that answers prompts by playing episodes. Each turn is a request of its own to the samplers, which draw it when it comes, with
/// whatever else they draw: no episode waits for another. What a turn draws depends on the group's seed, the sample and the turn alone.
struct EpisodePool: RolloutPool {
    let samplers: any RolloutPool
    let stage: EpisodeStage
    private let places: EpisodePlaces

    init(_ samplers: any RolloutPool, _ stage: EpisodeStage) {
        self.samplers = samplers
        self.stage = stage
        places = EpisodePlaces(stage.limits.concurrency)
    }

    func answer(
        _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat?
    ) async throws -> [Trajectory] {
        let turns = PoolTurns(samplers, settings, seat: seat ?? PoolSeat()), rollout = try stage.rollout(turns)
        let results = try await withThrowingTaskGroup(of: [EpisodeResult].self) { group in
            for task in try stage.tasks([prompt], settings) {
                group.addTask {
                    try await places.take()
                    defer { places.giveBack() }
                    return try await rollout.run([task], seed: settings.seed)
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        return results.sorted { $0.task.id < $1.task.id }.map { result in
            result.trajectory(of: prompt, (0, turns.digest(of: result.oldestWeights)))
        }
    }

    func install(version: Int) async throws -> PhaseMetrics { try await samplers.install(version: version) }

    func work() async -> PoolWork { await samplers.work() }
}

/// Turns of one prompt's episodes, as requests to a pool.
private final class PoolTurns: ContinuationSampler {
    private let pool: any RolloutPool
    private let settings: RolloutRequestSettings
    /// All that these turns begin with lies in one sampler's cache.
    private let seat: PoolSeat
    /// Of the weights that drew, by their versions.
    private let digests = Mutex<[Int: String]>([:])

    init(_ pool: any RolloutPool, _ settings: RolloutRequestSettings, seat: PoolSeat) {
        self.pool = pool
        self.settings = settings
        self.seat = seat
    }

    func sample(_ request: ContinuationRequest) async throws -> SampledContinuation {
        var settings = settings
        settings.n = 1
        settings.seed = request.seed
        settings.maxTokens = request.maxTokens
        let prompt = PromptTask(group: 0, tokens: request.prefix, text: "", dataSource: "", groundTruth: "")
        let answers = try await pool.answer(prompt, settings, seat: seat)
        guard let answer = answers.first, answers.count == 1 else {
            throw EnvironmentError(.badContinuation, "the samplers gave \(answers.count) answers to one request")
        }
        digests.withLock { $0[answer.weightVersion] = answer.weightDigest }
        return SampledContinuation(
            tokens: answer.response, logProbs: answer.rolloutLogProbs, isTruncated: answer.isTruncated,
            weightVersions: [Int32](repeating: Int32(answer.weightVersion), count: answer.response.count))
    }

    /// Empty where they drew nothing.
    func digest(of version: Int) -> String { digests.withLock { $0[version] ?? "" } }
}
