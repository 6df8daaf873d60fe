/// `rollout`: how responses are sampled.
public struct RolloutSettings: Hashable, Sendable {
    public let n: Int
    public let temperature: Double
    /// -1 for all tokens.
    public let topK: Int
    public let topP: Double
    public let minP: Double
    public let maxNumSeqs: Int
    public let stop: [String]
    public let ignoreEOS: Bool
    public let calculateLogProbs: Bool
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
        maxNumSeqs = section.int(
            "max_num_seqs", default: 1024, in: 1...1_048_576, doc: "Responses in flight at once: the bound on memory.")
        stop = section.strings("stop", doc: "Texts that end a response.")
        ignoreEOS = section.bool(
            "ignore_eos", default: false, doc: "Go on to max_response_length past the end token; for measurements.")
        calculateLogProbs = section.bool(
            "calculate_log_probs", default: true,
            doc: "Record the sampler's log-probabilities, and report how far the trainer's are from them.")
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
