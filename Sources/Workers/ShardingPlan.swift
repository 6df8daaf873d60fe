public import Collectives
public import Config
import TensorCore
public import TrainingEngine

/// `actor.fsdp_config` on a number of ranks.
public struct ShardingPlan: Sendable, Hashable {
    /// Sets of ranks, each with all of the states, along `dp`; the ranks of a set along `fsdp`.
    public let mesh: MeshShape
    public let options: ShardingOptions

    /// The sampler's captured graphs read weights where they lay when they were captured, and weights that are shared out come and go.
    static let unusable = WorkerError(
        .badSetting,
        "actor.fsdp_config.fsdp_size: a run samples from the tensors that it trains, which cannot be shared out among ranks yet; make it 1"
    )

    /// - Throws: ``WorkerError`` when the ranks do not divide into sets of `fsdp_size`.
    public init(_ actor: ActorSettings, ranks: Int) throws(WorkerError) {
        let settings = actor.fsdp
        let size = settings.fsdpSize == -1 ? ranks : settings.fsdpSize
        guard size > 0, ranks % size == 0 else {
            throw WorkerError(
                .badSetting,
                "actor.fsdp_config.fsdp_size: \(ranks) ranks do not divide into sets of \(size); make it a divisor of \(ranks), or -1"
            )
        }
        mesh = MeshShape([.replicate: ranks / size, .shard: size])
        options = ShardingOptions(
            mode: size == 1 ? .noShard : settings.reshardAfterForward ? .fullShard : .shardGradOp,
            reduceDType: settings.reduceDType == .float32 ? .float32 : .bfloat16,
            gradDType: settings.gradDType == .float32 ? .float32 : .bfloat16, prefetches: settings.forwardPrefetch)
    }
}
