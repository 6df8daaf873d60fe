public import Collectives
public import Config
import TensorCore
public import TrainingEngine

/// How a number of ranks share training and sampling out among them, from `actor.fsdp_config`, `actor.megatron`,
/// `actor.ulysses_sequence_parallel_size` and `rollout.tensor_model_parallel_size`, or from those of `train`.
public struct ShardingPlan: Sendable, Hashable {
    /// Of training. Ranks that share no sequence and no part of the model divide the batches: sets of them, each with all of the
    /// states, along `dp`, the ranks of a set along `fsdp`.
    public let mesh: MeshShape
    public let options: ShardingOptions
    /// Whether ranks along `tp` share the tokens too.
    public let splitsTokens: Bool
    /// Of sampling: ranks along `tp` sample together, along `dp` each their own share.
    public let rollout: MeshShape
    /// What the sizes of training are settings of.
    let section: String

    /// Whether a rank's part of the model, brought together along `fsdp`, is what it samples from.
    public var samplesFromTrained: Bool {
        [.pipeline, .expert, .tensor].allSatisfy { mesh[$0] == 1 } && rollout[.tensor] == 1
    }

    /// - Parameter samples: whether these ranks sample too.
    /// - Throws: ``WorkerError`` when the sizes do not make up the ranks.
    public init(
        _ actor: ActorSettings, _ rollout: RolloutSettings, ranks: Int, samples: Bool = true
    ) throws(WorkerError) {
        let shares = TrainingShares(actor)
        (mesh, options, splitsTokens) = try Self.training(shares, ranks: ranks)
        section = shares.section
        self.rollout = try samples ? Self.sampling(rollout, ranks: ranks) : MeshShape([.replicate: ranks])
    }

    /// Of ranks that learn from rows; where they sample, each does its own share.
    public init(_ train: SupervisedTrainSettings, ranks: Int) throws(WorkerError) {
        let shares = TrainingShares(train)
        (mesh, options, splitsTokens) = try Self.training(shares, ranks: ranks)
        section = shares.section
        rollout = MeshShape([.replicate: ranks])
    }

    private static func training(
        _ shares: TrainingShares, ranks: Int
    ) throws(WorkerError) -> (mesh: MeshShape, options: ShardingOptions, splitsTokens: Bool) {
        let settings = shares.fsdp, megatron = shares.megatron, section = shares.section
        let shared: [(name: String, axis: MeshAxis, size: Int)] = [
            ("\(section).megatron.pipeline_model_parallel_size", .pipeline, megatron.pipelineSize),
            ("\(section).megatron.expert_model_parallel_size", .expert, megatron.expertSize),
            ("\(section).ulysses_sequence_parallel_size", .sequence, shares.ulyssesSize),
            ("\(section).megatron.tensor_model_parallel_size", .tensor, megatron.tensorSize),
        ]
        let set = shared.reduce(1) { $0 * $1.size }
        guard ranks % set == 0 else {
            let named = shared.filter { $0.size > 1 }.map { "\($0.name) \($0.size)" }.joined(separator: ", ")
            throw WorkerError(
                .badSetting,
                "\(named): \(Self.counted(ranks)) not divide into sets of \(set); make trainer.n_gpus_per_node a multiple of \(set), or the sizes less"
            )
        }
        let batches = ranks / set
        let size = settings.fsdpSize == -1 ? batches : settings.fsdpSize
        guard size > 0, batches % size == 0 else {
            let left = set == 1 ? Self.counted(ranks) : "the \(batches) that divide the batches of \(ranks) ranks do"
            throw WorkerError(
                .badSetting,
                "\(section).fsdp_config.fsdp_size: \(left) not divide into sets of \(size); make it a divisor of \(batches), or -1"
            )
        }
        var sizes = Dictionary(uniqueKeysWithValues: shared.map { ($0.axis, $0.size) })
        sizes[.replicate] = batches / size
        sizes[.shard] = size
        let options = ShardingOptions(
            mode: size == 1 ? .noShard : settings.reshardAfterForward ? .fullShard : .shardGradOp,
            reduceDType: settings.reduceDType == .float32 ? .float32 : .bfloat16,
            gradDType: settings.gradDType == .float32 ? .float32 : .bfloat16, prefetches: settings.forwardPrefetch)
        return (MeshShape(sizes), options, megatron.sequenceParallel && megatron.tensorSize > 1)
    }

    /// Of ranks that sample and do not train.
    public init(sampling rollout: RolloutSettings, ranks: Int) throws(WorkerError) {
        self.rollout = try Self.sampling(rollout, ranks: ranks)
        mesh = self.rollout
        section = "rollout"
        options = ShardingOptions(mode: .noShard)
        splitsTokens = false
    }

    private static func sampling(_ rollout: RolloutSettings, ranks: Int) throws(WorkerError) -> MeshShape {
        let together = rollout.engine.tensorParallelSize
        guard ranks % together == 0 else {
            throw WorkerError(
                .badSetting,
                "rollout.tensor_model_parallel_size: \(counted(ranks)) not divide into sets of \(together); make it a divisor of \(ranks)"
            )
        }
        return MeshShape([.replicate: ranks / together, .tensor: together])
    }

    private static func counted(_ ranks: Int) -> String { ranks == 1 ? "1 rank does" : "\(ranks) ranks do" }
}
