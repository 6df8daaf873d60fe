/// `rollout`: how responses are sampled.
public struct RolloutSettings: Hashable, Sendable {
    public let n: Int
    public let temperature: Double
    /// -1 for all tokens.
    public let topK: Int
    public let topP: Double
    public let minP: Double
    /// 1 for none.
    public let repetitionPenalty: Double
    /// 0 for none, as for frequency.
    public let presencePenalty: Double
    public let frequencyPenalty: Double
    public let minTokens: Int
    public let stop: [String]
    public let ignoreEOS: Bool
    public let calculateLogProbs: Bool
    /// Devices that only sample, beside those that train; nil: the same.
    public let gpusPerNode: Int?
    /// How often samplers on a pool of their own are started anew, while the others go on.
    public let maxRestarts: Int
    public let overSampleRate: Double
    public let stragglerShare: Double?
    public let stragglerTokens: Int
    public let engine: RolloutEngineKeys
    public let speculative: SpeculativeSettings
    public let multiTurn: MultiTurnSettings
    public let valKwargs: ValidationSamplingSettings

    init(_ section: inout SectionReader) {
        n = section.int("n", default: 8, in: 1...65_536, doc: "Samples a prompt: the group of GRPO.")
        temperature = section.number(
            "temperature", default: 1, in: .nonNegative, doc: "The sampling temperature; 0 is greedy.")
        topK = section.int("top_k", default: -1, in: -1...16_777_216, doc: "Sample among the k likeliest; -1 for all.")
        topP = section.number(
            "top_p", default: 1, in: .fraction,
            doc: "Sample among the likeliest that make up this probability; 1 for all.")
        minP = section.number(
            "min_p", default: 0, in: .unit, doc: "Sample among tokens at least this likely, relative to the likeliest.")
        repetitionPenalty = section.number(
            "repetition_penalty", default: 1, in: .positive,
            doc:
                "Divides positive logits of tokens that prompt or response hold, and multiplies negative ones; 1 for none."
        )
        presencePenalty = section.number(
            "presence_penalty", default: 0, in: NumberRange(lower: -2, upper: 2),
            doc: "Taken off the logits of tokens that the response holds.")
        frequencyPenalty = section.number(
            "frequency_penalty", default: 0, in: NumberRange(lower: -2, upper: 2),
            doc: "Taken off them as many times as it holds them.")
        minTokens = section.int(
            "min_tokens", default: 0, in: 0...16_777_216, doc: "No response ends before it has so many tokens.")
        stop = section.strings("stop", doc: "Texts that end a response.")
        ignoreEOS = section.bool(
            "ignore_eos", default: false, doc: "Go on to max_response_length past the end token; for measurements.")
        calculateLogProbs = section.bool(
            "calculate_log_probs", default: true,
            doc: "Record the sampler's log-probabilities, and report how far the trainer's are from them.")
        gpusPerNode = section.optionalInt(
            "n_gpus_per_node", in: 1...64,
            doc:
                "GPUs that only sample, beside the one that trains (on the CPU, samplers with weights of their own); null to sample "
                + "where training is.")
        maxRestarts = section.int(
            "max_restarts", default: 3, in: 0...1_048_576,
            doc:
                "How often, when one of the samplers on a pool of their own is lost, they are started anew while the other ranks go "
                + "on; after that, or with 0, what trainer.max_restarts says.")
        overSampleRate = section.number(
            "over_sample_rate", default: 0, in: NumberRange(lower: 0, upper: 4),
            doc:
                "Prompts beyond train_batch_size that are begun, as a share of it; when so many groups are whole, the slowest are "
                + "given up and counted.")
        stragglerShare = section.optionalNumber(
            "straggler_share", in: .unit,
            doc:
                "When this share of a step's samples has ended, the others may draw straggler_tokens more; null: no bound."
        )
        stragglerTokens = section.int(
            "straggler_tokens", default: 256, in: 0...16_777_216,
            doc: "The tokens that stragglers may draw yet; what they have then counts as cut off.")
        engine = RolloutEngineKeys(&section)
        speculative = section.section(
            "speculative", doc: "Guessing several tokens at a time.", SpeculativeSettings.init)
        multiTurn = section.section(
            "multi_turn", doc: "Episodes of several turns.", MultiTurnSettings.init)
        valKwargs = section.section(
            "val_kwargs", doc: "Sampling in validation.", ValidationSamplingSettings.init)
    }
}

/// `rollout.val_kwargs`.
public struct ValidationSamplingSettings: Hashable, Sendable {
    public let n: Int
    public let doSample: Bool
    public let temperature: Double
    public let topP: Double
    public let topK: Int

    init(_ section: inout SectionReader) {
        n = section.int("n", default: 1, in: 1...65_536, doc: "Samples a prompt; their mean score counts.")
        doSample = section.bool(
            "do_sample", default: false, doc: "false is greedy, whatever the three settings below say.")
        temperature = section.number(
            "temperature", default: 1, in: .nonNegative, doc: "The sampling temperature with do_sample.")
        topP = section.number("top_p", default: 1, in: .fraction, doc: "As rollout.top_p, with do_sample.")
        topK = section.int("top_k", default: -1, in: -1...16_777_216, doc: "As rollout.top_k, with do_sample.")
    }
}
