import Flow
import TensorCore

/// Advantages of whole batches, which take microseconds and no model: the controller makes them itself, on the host.
actor HostEstimation {
    private let executor = TensorExecutor()
    private let estimation: BatchEstimation

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ plan: TrainingPlan) throws {
        estimation = try BatchEstimation(
            plan.algorithm, rewardWeights: plan.rewardWeights, bypassesOldLogProbs: plan.bypassesOldLogProbs)
    }

    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) throws -> AdvantageEstimate {
        try estimation(trajectories, klCoefficient: klCoefficient)
    }
}
