public import Collectives
public import Models
import TensorCore

extension PolicyTrainer {
    /// A trainer of this rank's part of `model` in `mesh`: the parameters shared out, the optimizer on this rank's rows of what is
    /// trained. The model has its adapter by now, and the same weights on all ranks; its own tensors are empty afterwards, see
    /// ``ShardedParameters/withWholeWeights(_:)``. Every rank of the mesh calls it.
    public static func sharded(
        _ model: any CausalLanguageModel, over mesh: DeviceMesh, sharding: ShardingOptions = .init(),
        optimizer: AdamW.Settings = .init(), schedule: LearningRateSchedule, settings: Settings = .init(),
        axes: (Parameter) -> GradientAxes = { _ in .replicated }
    ) throws -> PolicyTrainer {
        var sharding = sharding
        sharding.gradDType = optimizer.gradDType
        let parallel = try DataParallel(
            model, trained: model.trainableParameters, mesh: mesh, sharding: sharding, axes: axes)
        return PolicyTrainer(
            model: model, optimizer: try parallel.optimizer(optimizer), schedule: schedule, settings: settings,
            parallel: parallel)
    }

    /// The log-probabilities and entropies of sequences that all ranks have: each computes its share, and all get all.
    public func scoreShared(
        _ sequences: [TrainingSequence]
    ) throws -> (logProbs: [[Float]], entropies: [[Float]]) {
        guard let parallel else { return try score(sequences) }
        let share = parallel.share(of: sequences, sharesPrefixes: settings.sharesPrefixes)
        let own = try score(share.map { sequences[$0] })
        return (
            try parallel.joined(own.logProbs, of: share, total: sequences.count),
            try parallel.joined(own.entropies, of: share, total: sequences.count)
        )
    }

    /// Σπ² of sequences that all ranks have.
    public func sumsPiSquaredShared(_ sequences: [TrainingSequence]) throws -> [[Float]] {
        guard let parallel else { return try sumsPiSquared(sequences) }
        let share = parallel.share(of: sequences, sharesPrefixes: settings.sharesPrefixes)
        return try parallel.joined(
            sumsPiSquared(share.map { sequences[$0] }), of: share, total: sequences.count)
    }

    /// One optimizer step on a mini-batch that all ranks have: each computes its share.
    public func updateShared(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PolicyStepReport {
        try enqueueShared(samples, loss: loss).report()
    }

    /// The same without waiting for the device at the end.
    public func enqueueShared(_ samples: [PolicySample], loss: PolicyLossFunction) throws -> PendingPolicyStep {
        guard let parallel else { return try enqueue(samples, loss: loss) }
        let share = parallel.share(of: samples.map(\.sequence), sharesPrefixes: settings.sharesPrefixes)
        return try enqueue(share.map { samples[$0] }, loss: loss)
    }
}

extension DataParallel {
    /// AdamW on this rank's rows of what is trained; its gradients' norm is that of all ranks.
    public func optimizer(_ settings: AdamW.Settings) throws -> AdamW {
        let decaying = try parameters.optimizerParameters { settings.decaysVectors || $0.tensor.rank > 1 }
        let optimizer = try AdamW(decaying, settings: settings)
        optimizer.completeSquares = parameters.completeSquares
        return optimizer
    }
}
