public import Collectives
public import Models
import TensorCore

extension SupervisedTrainer {
    /// A trainer of this rank's part of a network in `mesh`: as ``PolicyTrainer/sharded(_:over:sharding:optimizer:schedule:settings:axes:)``.
    /// Every rank of the mesh calls it.
    public static func sharded(
        _ network: SupervisedNetwork, over mesh: DeviceMesh, sharding: ShardingOptions = .init(),
        objective: any SupervisedObjective, optimizer: AdamW.Settings = .init(), schedule: LearningRateSchedule,
        settings: Settings = .init()
    ) throws -> SupervisedTrainer {
        var sharding = sharding
        sharding.gradDType = optimizer.gradDType
        let parallel = try DataParallel(
            network.model, trained: network.model.trainableParameters, mesh: mesh, sharding: sharding,
            axes: { GradientAxes($0) })
        return SupervisedTrainer(
            network: network, objective: objective, optimizer: try parallel.optimizer(optimizer), schedule: schedule,
            settings: settings, parallel: parallel)
    }
}

extension SupervisedExample {
    /// What a pass over it costs, whatever other examples it is packed with.
    func cost(_ work: SequenceWork, sharesPrefixes: Bool) -> Double {
        let all = sequences.map(\.tokens)
        return Bundle.byPrompt(all).reduce(0) { sum, bundle in
            sum
                + work.group(
                    prompt: all[bundle.indices[0]].prompt.count,
                    answers: bundle.indices.map { all[$0].response.count + 1 }, sharesPrompt: sharesPrefixes)
        }
    }
}

extension MicroBatches {
    /// The examples that this rank computes, each whole, divided among the ranks by estimated work: places in `examples`, which all
    /// ranks have, in micro-batches. Alone, all of them in their order.
    static func ofShare(
        _ examples: [SupervisedExample], tokenBudget: Int, sharesPrefixes: Bool, over parallel: DataParallel?
    ) throws(TorchError) -> [[Int]] {
        guard let parallel, parallel.count > 1 else {
            return split(examples, tokenBudget: tokenBudget, sharesPrefixes: sharesPrefixes).map { Array($0) }
        }
        let costs = examples.map { $0.cost(parallel.work, sharesPrefixes: sharesPrefixes) }
        let own = Balance.partition(costs, into: parallel.count)[parallel.rank]
        let cuts = split(own.map { examples[$0] }, tokenBudget: tokenBudget, sharesPrefixes: sharesPrefixes)
        // Ranks wait for one another in every layer: theirs are as many as those of the rank that has most, and of about equal work.
        let count = try parallel.greatest(cuts.count)
        let even = evenly(
            own, of: examples, costs: costs, into: count, tokenBudget: tokenBudget, sharesPrefixes: sharesPrefixes)
        return even ?? cuts.map { cut in cut.map { own[$0] } }
    }

    /// `places` in `count` micro-batches of about equal work, heaviest first; nil where one would be over the budget.
    private static func evenly(
        _ places: [Int], of examples: [SupervisedExample], costs: [Double], into count: Int, tokenBudget: Int,
        sharesPrefixes: Bool
    ) -> [[Int]]? {
        guard count > 1, places.count >= count else { return nil }
        var weighed: [(cost: Double, micro: [Int])] = []
        for part in Balance.partition(places.map { costs[$0] }, into: count) {
            let micro = part.map { places[$0] }
            let tokens = micro.reduce(0) { $0 + examples[$1].computedTokens(sharesPrefixes: sharesPrefixes) }
            guard !micro.isEmpty, micro.count == 1 || tokens <= tokenBudget else { return nil }
            weighed.append((micro.reduce(0) { $0 + costs[$1] }, micro))
        }
        return weighed.sorted { $0.cost > $1.cost }.map(\.micro)
    }
}
