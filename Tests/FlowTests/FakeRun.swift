import Flow
import Logging
import OrderedCollections
import Synchronization
import Telemetry

/// A loop's surroundings without a tensor: prompts are numbers, answers carry the version that drew them, and a pool answers when the
/// test lets it.
final class FakeRun: PromptProvider, RewardGroup, ActorGroup, RolloutGroup, RolloutPool, LoopObserver {
    struct Notes {
        var next = 0
        var version = 0
        var underWay: [String] = []
        var learned: [[Trajectory]] = []
        var steps: [StepMetrics] = []
        var installs: [(version: Int, underWay: Int)] = []
        var answeredAt: [String: Int] = [:]
        var given = 0
        var saves: [LoopState] = []
        var slow: [String: CheckedContinuation<Void, any Error>] = [:]
        var outcomes: [String: Result<Void, any Error>] = [:]
    }
    let notes = Mutex(Notes())
    let batch: Int
    /// Prompts that are answered only when ``release(_:)`` says so.
    let slow: Set<String>
    let stopsAfter: Int?
    let unscored: Set<String>
    /// Fails in place of answering.
    let broken: String?
    /// Called when a step begins to learn.
    let onLearn: @Sendable (FakeRun, Int) async -> Void

    init(
        batch: Int, slow: Set<String> = [], stopsAfter: Int? = nil, unscored: Set<String> = [], broken: String? = nil,
        onLearn: @escaping @Sendable (FakeRun, Int) async -> Void = { _, _ in }
    ) {
        self.batch = batch
        self.slow = slow
        self.stopsAfter = stopsAfter
        self.unscored = unscored
        self.broken = broken
        self.onLearn = onLearn
    }

    func loop(_ steps: Int, _ overlap: OverlapSettings, saveEvery: Int = 0) -> OverlappedLoop {
        let rollout = RolloutRequestSettings(n: 2, temperature: 1, maxTokens: 4, seed: 0)
        let base = PolicyLoop(
            settings: .init(totalSteps: steps, rollout: rollout, seed: 3, saveEvery: saveEvery), prompts: self,
            rollout: self, reward: self, actor: self, observer: self,
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        return OverlappedLoop(base, pool: self, overlap: overlap)
    }

    /// The prompts of each step's learning, in order.
    var learnedPrompts: [[String]] {
        notes.withLock { notes in
            notes.learned.map { step in
                step.map(\.prompt.text).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
            }
        }
    }
    func values(_ name: MetricName) -> [Double?] { notes.withLock { $0.steps.map { $0[name] } } }
    var saves: [LoopState] { notes.withLock { $0.saves } }

    func release(_ prompt: String) { end(prompt, .success(())) }

    /// Whichever comes first, the answer's wait or this, the other finds it.
    private func end(_ prompt: String, _ result: Result<Void, any Error>) {
        let caller = notes.withLock { notes in
            notes.outcomes[prompt] = notes.outcomes[prompt] ?? result
            return notes.slow.removeValue(forKey: prompt)
        }
        caller?.resume(with: result)
    }

    private func wait(_ prompt: String) async throws {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (caller: CheckedContinuation<Void, any Error>) in
                let outcome = notes.withLock { notes in
                    if notes.outcomes[prompt] == nil { notes.slow[prompt] = caller }
                    return notes.outcomes[prompt]
                }
                if let outcome { caller.resume(with: outcome) }
            }
        } onCancel: {
            end(prompt, .failure(CancellationError()))
        }
    }

    // MARK: Prompts

    func nextBatch() -> [PromptTask]? {
        notes.withLock { notes in
            defer { notes.next += 1 }
            return (0..<batch).map {
                PromptTask(
                    group: $0, tokens: [1], text: "\(notes.next * batch + $0)", dataSource: "d", groundTruth: "g")
            }
        }
    }
    func state() -> String { notes.withLock { "\($0.next)" } }
    func restore(_ state: String) { notes.withLock { $0.next = Int(state) ?? -1 } }

    // MARK: Pool

    func answer(
        _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat?
    ) async throws -> [Trajectory] {
        let version = notes.withLock { notes in
            notes.underWay.append(prompt.text)
            return notes.version
        }
        defer { notes.withLock { notes in notes.underWay.removeAll { $0 == prompt.text } } }
        if prompt.text == broken { throw Broken() }
        if slow.contains(prompt.text) {
            try await wait(prompt.text)
        }
        return (0..<settings.n).map { answer in
            Trajectory(
                prompt: prompt, response: [Int32(answer)], text: "\(settings.seed)", rolloutLogProbs: [-1],
                isTruncated: false, weightVersion: version, weightDigest: "")
        }
    }

    func install(version: Int) -> PhaseMetrics {
        notes.withLock { notes in
            notes.version = version
            notes.installs.append((version, notes.underWay.count))
        }
        return [:]
    }

    func work() -> PoolWork { PoolWork(samplers: 1) }

    struct Broken: Error {}

    // MARK: Others

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) -> (trajectories: [Trajectory], metrics: PhaseMetrics) { ([], [:]) }

    func score(_ trajectories: [Trajectory]) -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        var scored = trajectories
        for index in scored.indices where !unscored.contains(scored[index].prompt.text) {
            scored[index].score = Double(index)
        }
        return (scored, ["reward/failed": 0, "reward/groups": 1, "reward/baseline/mean": 0.25])
    }
    func logProbs(_ trajectories: [Trajectory]) -> [[Float]] { trajectories.map { $0.response.map { _ in -2 } } }
    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) -> AdvantageEstimate {
        AdvantageEstimate(advantages: trajectories.map { _ in [1] })
    }
    func update(_ trajectories: [Trajectory], seed: UInt64) async -> PhaseMetrics {
        let step = notes.withLock { notes in
            notes.learned.append(trajectories)
            return notes.learned.count
        }
        await onLearn(self, step)
        return ["actor/samples": Double(trajectories.count)]
    }
    func save(step: Int, state: LoopState) { notes.withLock { $0.saves.append(state) } }
    func restore() -> LoopState? { nil }

    var wantsToStop: Bool { stopsAfter.map { limit in notes.withLock { $0.steps.count } >= limit } ?? false }
    func phaseBegins(_ phase: Phase) {}
    func stepEnded(_ metrics: StepMetrics, samples: [Sample]) { notes.withLock { $0.steps.append(metrics) } }
    func evaluated(_ name: String, _ metrics: PhaseMetrics) {}
    func willSave(_ state: LoopState) {}
}
