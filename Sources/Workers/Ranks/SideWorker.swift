import Checkpoints
import Collectives
import Flow
import Foundation
import Models
import TensorCore
import TrainingEngine

/// A rank's critic and reference, wherever they are.
protocol SideRoles: Actor {
    func referenceLogProbs(_ trajectories: [Trajectory]) throws -> [[Float]]
    func values(_ trajectories: [Trajectory]) throws -> [[Float]]
    func updateCritic(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics
}

extension PolicyWorker: SideRoles {}

/// The critic, the reference, or both, on ranks of a pool that has no policy: no optimizer of the policy's, no sampler.
actor SideWorker: SideRoles {
    struct Plan: Sendable {
        /// Of the policy, which the reference is before training.
        var modelPath: String
        var dtype: DType
        var device: Device
        var checkpointing = ActivationCheckpointing.none
        var members: PoolMembers
        var layout: ShardingPlan
    }

    private struct Parts {
        let source: ModelSource
        let mesh: DeviceMesh
        let parallel: ParallelContext
        let shape: ModelShape
    }

    private let executor: TensorExecutor
    private let plan: Plan
    private var parts: Parts?
    private var critic: CriticParts?
    private var reference: ReferenceModel?
    /// Where the critic is trained: its part of the run's checkpoints.
    private var store: ShardedCheckpointStore?
    private var savers: ProcessGroup?

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ plan: Plan, executor: TensorExecutor = TensorExecutor()) {
        self.plan = plan
        self.executor = executor
    }

    /// Opens the device and finds the pool's other ranks; the models come with ``prepare(_:)``.
    /// - Returns: the most tokens of a prompt with its answer.
    func load() throws -> Int {
        try plan.device.makeCurrent()
        let source = try ModelSource.open(plan.modelPath)
        let mesh = plan.members.mesh(plan.layout.mesh, device: plan.device)
        let shape = try ModelRegistry.outline(source.config, architecture: source.architecture).shape
        parts = Parts(
            source: source, mesh: mesh,
            parallel: try ParallelContext(mesh, sequenceParallel: plan.layout.splitsTokens), shape: shape)
        return shape.maxPositions
    }

    /// - Parameter training: asks for what is to be here.
    /// - Returns: what there is to say of it.
    func prepare(_ training: TrainingPlan) throws -> [String] {
        let parts = try loaded(), training = try training.agreed(over: parts.mesh)
        var notes: [String] = [], turns: [RoleTurns] = []
        if training.needsReference {
            let reference = try ReferenceModel(
                parts.source, dtype: plan.dtype, device: plan.device, parallel: parts.parallel, mesh: parts.mesh,
                sharding: plan.layout.options, settings: .init(training, try PolicyObjective(training)),
                rests: training.rests.reference)
            self.reference = reference
            turns.append(reference.turns)
        }
        func note() -> [String] { training.rests.note(bytes: turns.reduce(0) { $0 + $1.byteCount }).map { [$0] } ?? [] }
        guard training.hasCritic else { return notes + note() }
        let critic = try CriticParts(
            training, source: parts.source,
            .init(
                dtype: plan.dtype, device: plan.device, parallel: parts.parallel, mesh: parts.mesh,
                sharding: plan.layout.options, checkpointing: plan.checkpointing, vocabulary: parts.shape.vocabulary))
        self.critic = critic
        turns.append(critic.turns)
        notes.append("critic: " + critic.trainer.optimizer.summary)
        savers = try plan.members.savers(parts.mesh)
        store = try training.checkpointFolder.map {
            try ShardedCheckpointStore(
                folder: $0, keepLast: training.checkpointsKept ?? Int.max, group: savers, device: plan.device)
        }
        return notes + note()
    }

    private func loaded() throws -> Parts {
        guard let parts else { throw WorkerError(.badSetting, "a worker was used before load()") }
        return parts
    }

    private func trained() throws -> CriticParts {
        guard let critic else { throw WorkerError(.badSetting, "no critic is on this pool") }
        return critic
    }

    // MARK: - Reference and critic

    func referenceLogProbs(_ trajectories: [Trajectory]) throws -> [[Float]] {
        guard let reference else { throw WorkerError(.badSetting, "no reference model is on this pool") }
        return try reference.logProbs(trajectories.map(\.sequence))
    }

    func values(_ trajectories: [Trajectory]) throws -> [[Float]] { try trained().values(trajectories) }

    func updateCritic(_ trajectories: [Trajectory], seed: UInt64) throws -> PhaseMetrics {
        try trained().update(trajectories, seed: seed)
    }

    // MARK: - Checkpoints

    var criticSteps: Int? { critic?.trainer.optimizer.stepCount }

    /// This rank's part of the run's checkpoint, which the policy's ranks write with it: whole with all parts, or not at all.
    func savePart(step: Int) throws {
        guard let store, let critic else { return }
        var contents = ShardedCheckpointStore.Contents(
            step: step, mesh: try loaded().mesh.shape, model: [], modelDType: plan.dtype)
        try critic.turns.reading {
            contents.states = try CriticTensors.shards(critic.trainer)
            try store.save(contents)
        }
    }

    /// Puts the critic back as the policy's ranks put back the policy.
    func restore(from path: String?) throws {
        guard let critic else { return }
        var checkpoint: CheckpointStore.Checkpoint?
        if let path {
            checkpoint = try ShardedCheckpointStore.checkpoint(at: path, group: savers, device: plan.device)
        } else if let store {
            checkpoint = try store.latest().checkpoint
        }
        guard let checkpoint else { return }
        let saved = try JSONDecoder().decode(SavedState.self, from: Data(checkpoint.state))
        try critic.turns.restoring { try CriticTensors.restore(critic.trainer, saved, checkpoint) }
    }

    func forgetCheckpoints() throws { try store?.removeAll() }
    func settleCheckpoints() throws { try store?.settle() }
}
