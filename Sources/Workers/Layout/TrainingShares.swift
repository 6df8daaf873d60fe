public import Config
import Models
import TensorCore
import TrainingEngine

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

extension TrainingShares {
    /// Two stages step an embedding that is the head too, and must round it alike.
    func checkTied(_ model: any SequenceModel, _ optimizer: AdamW.Settings) throws(WorkerError) {
        guard let stages = model as? DecoderModel, stages.stage.count > 1, stages.tiesEmbeddings,
            model.dtype != .float32, !optimizer.keepsMasters, optimizer.roundsStochastically
        else { return }
        throw WorkerError(
            .badSetting,
            "\(section).megatron.pipeline_model_parallel_size: the embedding is the head too, on another stage, where chance would round "
                + "it otherwise; make model.param_dtype float32, or \(section).optim.stochastic_rounding false")
    }
}
