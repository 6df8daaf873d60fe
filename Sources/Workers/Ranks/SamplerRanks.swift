import Flow
import OrderedCollections
import RolloutCore
import Synchronization
import Telemetry

/// Ranks that sample prompt by prompt, each for itself, while others learn.
struct SamplerRanks: Sendable {
    let group: WorkerGroup<RankWorker>
    let text: TextProcessor
    private let loads: Loads

    /// Samples that each has under way.
    private final class Loads: Sendable {
        let counts: Mutex<[Int]>
        init(_ count: Int) { counts = Mutex(Array(repeating: 0, count: count)) }
    }

    init(_ group: WorkerGroup<RankWorker>, _ text: TextProcessor) {
        self.group = group
        self.text = text
        loads = Loads(group.count)
    }

    /// - Parameters:
    ///   - settings: its seed decides every draw of the group.
    ///   - seat: of requests that one rank answers.
    func answer(
        _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat? = nil
    ) async throws -> [Trajectory] {
        let place = loads.counts.withLock { counts in
            let least = counts.indices.min { counts[$0] < counts[$1] } ?? 0
            let place = seat?.place { least } ?? least
            counts[place] += settings.n
            return place
        }
        defer { loads.counts.withLock { $0[place] -= settings.n } }
        let answer = try await group.call(
            AnswerPrompt(prompt: prompt.tokens, settings: settings), .only(place), .first)
        let responses = answer.responses.rows, logProbs = answer.logProbs.rows
        return responses.indices.map { index in
            Trajectory(
                prompt: prompt, response: responses[index], text: text.decode(responses[index]),
                rolloutLogProbs: logProbs[index], isTruncated: answer.isTruncated[index],
                weightVersion: answer.weightVersions[index], weightDigest: answer.weightDigest)
        }
    }

    /// Those to many, each with the draws that its place decides, as in one batch.
    func answers(_ prompts: [PromptTask], _ settings: RolloutRequestSettings) async throws -> [Trajectory] {
        try await withThrowingTaskGroup(of: (Int, [Trajectory]).self) { tasks in
            for (index, prompt) in prompts.enumerated() {
                var own = settings
                own.seed = SplitMix64.seed(settings.seed, UInt64(index))
                tasks.addTask { [own] in (index, try await answer(prompt, own)) }
            }
            var all = [[Trajectory]](repeating: [], count: prompts.count)
            for try await (index, found) in tasks { all[index] = found }
            return all.flatMap { $0 }
        }
    }
}

/// Samplers on a pool of ranks, for the loops in which sampling runs ahead.
struct RankedSamplerPool: RolloutPool {
    let samplers: SamplerRanks
    let delivery: Delivery
    /// nil where samplers are lost with the others.
    let restarts: SamplerRestarts?

    func answer(
        _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat?
    ) async throws -> [Trajectory] {
        guard let restarts else { return try await samplers.answer(prompt, settings, seat: seat) }
        return try await restarts.surviving { try await samplers.answer(prompt, settings, seat: seat) }
    }

    func install(version: Int) async throws -> PhaseMetrics {
        guard let restarts else { return try await installed(version) }
        return try await restarts.surviving { try await installed(version) }
    }

    private func installed(_ version: Int) async throws -> PhaseMetrics {
        var metrics = try await delivery.install(version: version)
        metrics["rollout/weight_version"] = Double(version)
        return metrics
    }

    func work() async -> PoolWork {
        // A rank that does not answer is told of by the next call that counts.
        let done = (try? await samplers.group.call(TakeWork())) ?? [PoolWork(samplers: samplers.group.count)]
        return done.reduce(into: PoolWork(samplers: 0)) { $0 += $1 }
    }
}
