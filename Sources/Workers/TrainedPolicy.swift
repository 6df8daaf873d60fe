import Collectives
import Flow
import Telemetry

/// The policy of a run, in this process alone or over all ranks.
protocol TrainedPolicy: RolloutGroup, ActorGroup, ReferenceGroup {
    /// Makes the optimizer and what else training needs.
    /// - Returns: what there is to say of it.
    func prepare(_ plan: TrainingPlan, totalSteps: Int) async throws -> [String]
    /// Goes on from the checkpoint at `path`, or from the newest whole one of the run's own folder.
    /// - Returns: its state, and what was passed over because it is damaged.
    func restore(from path: String?) async throws -> (state: LoopState?, skipped: [String])
    /// Removes the checkpoints of an earlier run in the same folder, so that a later resume cannot take one of them.
    func forgetCheckpoints() async throws
    /// Log-probabilities under the model as it was before training.
    nonisolated var reference: any ReferenceGroup { get }
    /// What foresees returns, where one was asked for.
    nonisolated var critic: any CriticGroup { get }
    /// The run is over.
    /// - Returns: seconds from this process's start to the first token drawn; nil where none was.
    func finish() async throws -> Double?
}

extension PolicyWorker: TrainedPolicy {
    func prepare(_ plan: TrainingPlan, totalSteps: Int) throws -> [String] {
        try prepare(plan)
        return try trainingNotes()
    }

    /// What is trained, and what the optimizer keeps.
    func trainingNotes() throws -> [String] { (try adapterSummary().map { [$0] } ?? []) + optimizerSummary() }

    func finish() -> Double? { secondsToFirstToken(since: ProcessStart.instant) }
}

extension RankedPolicy: TrainedPolicy {}

/// Is told where a run is.
protocol PhaseListener: Sendable {
    func enter(_ place: RankProgress.Place)
}

extension RankProgress: PhaseListener {}
