import Flow
import Logging
import OrderedCollections
import Rewards
import Synchronization
import Telemetry

/// Every part of the loop without a tensor in it: it notes what it is asked, and its numbers say who made them.
final class FakeWorkers: PromptProvider, RolloutGroup, RewardGroup, ActorGroup, ReferenceGroup, Evaluator, LoopObserver
{
    struct Notes {
        var events: [String] = []
        var batch = 0
        var steps: [StepMetrics] = []
        var scoredAdvantages: [[[Float]]] = []
    }
    private let notes = Mutex(Notes())
    /// The score of each answer; nil where the reward failed.
    let scores: @Sendable (_ batch: Int) -> [Double?]
    /// The step after which a stop is asked for.
    let stopsAfter: Int?

    init(stopsAfter: Int? = nil, scores: @escaping @Sendable (_ batch: Int) -> [Double?] = { _ in [1, 0] }) {
        self.scores = scores
        self.stopsAfter = stopsAfter
    }

    var events: [String] { notes.withLock { $0.events } }
    var steps: [StepMetrics] { notes.withLock { $0.steps } }
    func note(_ event: String) { notes.withLock { $0.events.append(event) } }

    func loop(
        _ steps: Int, saveEvery: Int = 0, evaluateEvery: Int = 0, recomputes: Bool = false,
        critic: (any CriticGroup)? = nil,
        criticWarmup: Int = 0
    ) -> PolicyLoop {
        let rollout = RolloutRequestSettings(n: 2, temperature: 1, maxTokens: 4, seed: 0)
        return PolicyLoop(
            settings: .init(
                totalSteps: steps, rollout: rollout, seed: 3, saveEvery: saveEvery, evaluateEvery: evaluateEvery,
                learning: .init(recomputesOldLogProbs: recomputes, criticWarmup: criticWarmup), samplesLogged: 1),
            prompts: self, rollout: self, reward: self, actor: self, critic: critic, reference: nil, evaluator: self,
            observer: self,
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    // MARK: Prompts

    func nextBatch() -> [PromptTask]? {
        notes.withLock { $0.batch += 1 }
        return [PromptTask(group: 0, tokens: [1], text: "p", dataSource: "d", groundTruth: "g")]
    }
    func state() -> String { notes.withLock { "\($0.batch)" } }
    func restore(_ state: String) { notes.withLock { $0.batch = Int(state) ?? -1 } }

    // MARK: Workers

    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        note("generate")
        let answers = prompts.flatMap { prompt in
            (0..<settings.n).map { answer in
                Trajectory(
                    prompt: prompt, response: [Int32(answer)], text: "\(answer)", rolloutLogProbs: [-1],
                    isTruncated: false, weightVersion: 0, weightDigest: "")
            }
        }
        return (answers, ["rollout/seed": Double(settings.seed % 1024)])
    }

    func score(_ trajectories: [Trajectory]) -> (trajectories: [Trajectory], metrics: PhaseMetrics) {
        let scores = scores(notes.withLock { $0.batch })
        var scored = trajectories
        for index in scored.indices { scored[index].score = scores[index] }
        return (scored, [:])
    }

    func logProbs(_ trajectories: [Trajectory]) -> [[Float]] {
        note("logProbs of \(trajectories.count)")
        return trajectories.map { $0.response.map { _ in -2 } }
    }
    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) -> AdvantageEstimate {
        if let klCoefficient { note("kl \(klCoefficient)") }
        let scores = trajectories.map { [Float($0.score ?? .nan)] }
        return AdvantageEstimate(advantages: scores, returns: scores, klCoefficient: (klCoefficient ?? 1) / 2)
    }
    func update(_ trajectories: [Trajectory], seed: UInt64) -> PhaseMetrics {
        note("update with \(trajectories.map(\.text).joined(separator: " "))")
        return ["actor/samples": Double(trajectories.count)]
    }
    func save(step: Int, state: LoopState) { note("save \(step) at batch \(state.promptState)") }
    func restore() -> LoopState? { nil }
    func evaluate() -> PhaseMetrics {
        note("evaluate")
        return ["val/exact_match": 0.5, "time/val_s": 1]
    }

    // MARK: Observer

    var wantsToStop: Bool { stopsAfter.map { steps.count >= $0 } ?? false }
    func phaseBegins(_ phase: Phase) {}
    func stepEnded(_ metrics: StepMetrics, samples: [Sample]) { notes.withLock { $0.steps.append(metrics) } }
    func evaluated(_ name: String, _ metrics: PhaseMetrics) { note("evaluated \(name)") }
    func willSave(_ state: LoopState) { note("flush") }
}
