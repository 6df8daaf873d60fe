import Checkpoints
import Collectives
import Models
import TensorCore

/// The models of a rank: its part of the one that is trained, and the one that it samples from, which is the same where both layouts
/// agree.
struct RankModels {
    /// Of ranks that only sample, the one they sample from.
    let trained: any CausalLanguageModel
    let sampled: any CausalLanguageModel
    /// The ranks that train together; nil for one alone.
    let mesh: DeviceMesh?
    /// Holds ``sampled``'s weights where it is a model of its own.
    let copy: ReshardedModel?

    /// Where and for what models are read.
    struct Place {
        var dtype: DType
        var device: Device
        /// The ranks that work together, and how; nil for this one alone.
        var members: PoolMembers?
        var layout: ShardingPlan?
        var trains = true, samples = true
    }

    /// Reads the checkpoint's weights: of the trained model this rank's part alone.
    init(_ plan: Place, _ source: ModelSource) throws {
        guard let members = plan.members, let layout = plan.layout else {
            trained = try ModelRegistry.load(source, dtype: plan.dtype, device: plan.device)
            (sampled, mesh, copy) = (trained, nil, nil)
            return
        }
        guard plan.trains else {
            let mesh = members.mesh(layout.rollout, device: plan.device, name: "rollout")
            trained = try ModelRegistry.load(
                source, dtype: plan.dtype, device: plan.device, parallel: ParallelContext(mesh))
            (sampled, self.mesh, copy) = (trained, mesh, nil)
            return
        }
        let (mesh, own) = try layout.training(members, plan.device)
        self.mesh = mesh
        if layout.samplesFromTrained || !plan.samples {
            copy = nil
        } else {
            // First, for its memory is free again before the other takes its own.
            let rollout = members.mesh(layout.rollout, device: plan.device, name: "rollout")
            let model = try ModelRegistry.load(
                source, dtype: plan.dtype, device: plan.device, parallel: ParallelContext(rollout))
            copy = try ReshardedModel(model)
        }
        trained = try ModelRegistry.load(source, dtype: plan.dtype, device: plan.device, parallel: own)
        sampled = copy?.model ?? trained
        try layout.check(trained, source)
    }
}

extension ShardingPlan {
    /// The ranks that train together, and what a model makes of them.
    func training(
        _ members: PoolMembers, _ device: Device
    ) throws -> (mesh: DeviceMesh, parallel: ParallelContext) {
        let mesh = members.mesh(self.mesh, device: device)
        return (mesh, try ParallelContext(mesh, sequenceParallel: splitsTokens))
    }

    /// - Throws: ``WorkerError`` for experts that are to be shared out and are not there.
    func check(_ model: any SequenceModel, _ source: ModelSource) throws(WorkerError) {
        guard mesh[.expert] > 1, model.experts == nil else { return }
        throw WorkerError(
            .badSetting,
            "\(section).megatron.expert_model_parallel_size: \(source.path) has no experts to share out; make it 1")
    }
}
