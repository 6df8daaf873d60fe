import Flow

/// The policy of a run, in this process alone or over all ranks.
protocol TrainedPolicy: RolloutGroup, ActorGroup, ReferenceGroup {
    /// Makes the optimizer and what else training needs.
    func prepare(_ plan: TrainingPlan, totalSteps: Int) async throws
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
    func finish() async throws
}

extension PolicyWorker: TrainedPolicy {
    func prepare(_ plan: TrainingPlan, totalSteps: Int) throws { try prepare(plan) }
    func finish() {}
}

extension RankedPolicy: TrainedPolicy {}
