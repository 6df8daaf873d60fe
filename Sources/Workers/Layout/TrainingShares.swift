public import Config

/// What a configuration asks of ranks that train together, and what its settings are called.
public struct TrainingShares: Sendable, Hashable {
    /// The section of these settings: `actor`, `train`.
    public var section: String
    public var fsdp: ShardingSettings
    public var megatron: ModelParallelSettings
    /// Ranks that share each sequence's tokens.
    public var ulyssesSize: Int

    public init(_ actor: ActorSettings) {
        section = "actor"
        (fsdp, megatron, ulyssesSize) = (actor.fsdp, actor.megatron, actor.ulyssesSize)
    }

    public init(_ train: SupervisedTrainSettings) {
        section = "train"
        (fsdp, megatron, ulyssesSize) = (train.fsdp, train.megatron, train.ulyssesSize)
    }
}
