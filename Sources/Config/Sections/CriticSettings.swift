/// `critic`: the model that foresees returns, for `algorithm.adv_estimator: gae`.
public struct CriticSettings: Hashable, Sendable {
    /// nil: where the estimator needs one.
    public let enable: Bool?
    public let sharesTrunk: Bool
    public let modelPath: String?
    public let valueLossCoefficient: Double
    public let clipRangeValue: Double
    public let lossAggregation: ActorSettings.LossAggregation
    public let ppoMiniBatchSize: Int?
    public let ppoEpochs: Int?
    public let ppoMaxTokenLenPerGPU: Int?
    public let gradClip: Double?
    public let shuffle: Bool?
    public let optim: OptimizerSettings

    init(_ section: inout SectionReader) {
        enable = section.optionalBool(
            "enable", doc: "Whether there is a critic; null: where algorithm.adv_estimator needs one (gae).")
        sharesTrunk = section.bool(
            "shares_trunk", default: false,
            doc:
                "Read values off the policy's own last layer by a head of one number, and train both in one pass: no second "
                + "model. On one device.")
        valueLossCoefficient = section.number(
            "vf_coef", default: 0.5, in: .nonNegative,
            doc: "With shares_trunk: the value loss's weight beside the policy's.")
        clipRangeValue = section.number(
            "cliprange_value", default: 0.5, in: .positive,
            doc: "How far a value may move from the one before the update before its loss is held back.")
        lossAggregation = section.choice(
            "loss_agg_mode", default: .tokenMean,
            doc: "How the tokens' losses become one number; see actor.loss_agg_mode.")
        ppoMiniBatchSize = section.optionalInt(
            "ppo_mini_batch_size", in: 1...1_048_576,
            doc: "Prompts an optimizer step; null for actor.ppo_mini_batch_size.")
        ppoEpochs = section.optionalInt(
            "ppo_epochs", in: 1...1024, doc: "Passes over each batch of samples; null for actor.ppo_epochs.")
        ppoMaxTokenLenPerGPU = section.optionalInt(
            "ppo_max_token_len_per_gpu", in: 1...134_217_728,
            doc: "The most tokens of a micro-batch; null for actor.ppo_max_token_len_per_gpu.")
        gradClip = section.optionalNumber(
            "grad_clip", default: 1, in: .positive, doc: "The greatest norm of a gradient; null for no clipping.")
        shuffle = section.optionalBool(
            "shuffle", doc: "Shuffle a batch before it is cut into mini-batches; null for actor.shuffle.")
        modelPath = section.section("model", doc: "Its model, in model.dtype, with a new head of one number a token.") {
            $0.optionalString(
                "path", doc: "A language model's or a value model's folder or GGUF file; null for model.path.")
        }
        optim = section.section("optim", doc: "AdamW and the learning rate's schedule; see actor.optim.") {
            OptimizerSettings(&$0, lr: 1e-5)
        }
    }
}
