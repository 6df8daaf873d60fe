public import Models
public import RolloutCore
public import TensorCore

/// One sampled answer.
public struct GeneratedSample: Sendable, Hashable {
    /// The new tokens, the stop id included.
    public var tokens: [Int32]
    /// log-probability of each at the sampling temperature, before any filter.
    public var logProbs: [Float]
    public var finishReason: FinishReason
    /// The version of the weights that sampled it.
    public var weightVersion: Int
}

/// Tokens as they come, for streaming.
public struct GeneratedToken: Sendable, Hashable {
    public var request, sample: Int
    public var token: Int32
    public var finishReason: FinishReason?
}

/// What one `generate` call did.
public struct GenerationStatistics: Sendable, Hashable {
    public var promptTokens = 0
    /// Prompt tokens that were really computed: shared ones count once.
    public var prefilledTokens = 0
    public var generatedTokens = 0
    public var decodeSteps = 0
    public var prefills = 0
    public var cacheBytes = 0
}

/// Batched generation on the trainer's own weights: one prefill for all samples of a prompt, one decode step for all running
/// rows, finished rows leave the batch. Not `Sendable`: it lives on the executor of its model's tensors.
public final class RolloutEngine {
    public struct Options: Sendable, Hashable {
        public var maxRows: Int
        public var maxPrefillTokens: Int
        /// Samples from weights with the model's adapter folded in: faster, and in bfloat16 rounded otherwise than in training.
        public var mergesAdapter: Bool
        /// Samples from copies of the weights rounded to few bits, made anew for every weight version; nil: from the weights.
        public var quantization: WeightQuantization?
        public init(
            maxRows: Int = 256, maxPrefillTokens: Int = 4096, mergesAdapter: Bool = false,
            quantization: WeightQuantization? = nil
        ) {
            self.maxRows = maxRows
            self.maxPrefillTokens = maxPrefillTokens
            self.mergesAdapter = mergesAdapter
            self.quantization = quantization
        }
    }

    public let model: any CausalLanguageModel
    public let options: Options
    /// Counted up by whoever changes the weights; they must tell by this before the next `generate`.
    public var weightVersion = 0 {
        didSet {
            model.unpackProjections()
            packedVersion = nil
        }
    }
    private var packedVersion: Int?
    public private(set) var statistics = GenerationStatistics()
    /// When this engine drew its first token.
    public private(set) var firstToken: ContinuousClock.Instant?
    /// Gives a function that turns one row's tokens into text piece by piece; needed for stop texts.
    public var makeDetokenizer: (() -> (Int32) -> String)?
    private var cache: KeyValueCache?

    public init(model: any CausalLanguageModel, options: Options = Options()) {
        self.model = model
        self.options = options
    }

    /// Frees the key-value cache and the weights' decoding layout until the next `generate`.
    public func sleep() throws(TorchError) {
        cache = nil
        model.unpackProjections()
        packedVersion = nil
        try model.device.emptyCache()
    }

    /// Samples every request; results in the order of `requests`, each with its n samples in order. `onToken` sees every token
    /// as it is drawn and ends its sequence by giving false.
    public func generate(
        _ requests: [RolloutRequest], onToken: ((GeneratedToken) -> Bool)? = nil
    ) throws -> [[GeneratedSample]] {
        try check(requests)
        statistics = GenerationStatistics()
        statistics.promptTokens = requests.reduce(0) { $0 + $1.prompt.count * $1.sampling.n }
        let limits = RolloutScheduler.Limits(maxRows: options.maxRows, maxPrefillTokens: options.maxPrefillTokens)
        let cache = try cache(slots: RolloutScheduler.slotsNeeded(requests, limits: limits))
        let run = GenerationRun(
            model: model, cache: cache, weightVersion: weightVersion,
            scheduler: RolloutScheduler(
                requests: requests, limits: limits, slots: cache.slotCount,
                sharesPrefix: !model.shape.straddlesRotarySwitch(requests.map(\.prompt.count))),
            makeDetokenizer: makeDetokenizer, onToken: onToken)
        let samples = try withNoGrad {
            // A copy of the weights takes the adapter in; where there is none the weights do, for the call's time.
            let merges = options.mergesAdapter && model.adapter != nil
            try pack(for: requests, merging: merges)
            if options.quantization != nil { return try model.samplingQuantized { try run.finishAll() } }
            guard merges, model.device.isCUDA else { return try run.finishAll() }
            try model.mergeAdapter()
            let samples = Result { try run.finishAll() }
            try model.unmergeAdapter()
            return try samples.get()
        }
        firstToken = firstToken ?? run.firstToken
        statistics.prefilledTokens = run.prefilledTokens
        statistics.generatedTokens = run.generatedTokens
        statistics.decodeSteps = run.decodeSteps
        statistics.prefills = run.prefills
        statistics.cacheBytes = cache.byteCount
        return samples
    }

    /// Quantises the weights, or lays them out for decoding, where the decode steps to come are worth the copy.
    private func pack(for requests: [RolloutRequest], merging: Bool) throws(TorchError) {
        if let scheme = options.quantization {
            guard packedVersion != weightVersion || !model.isQuantized else { return }
            try model.quantizeProjections(scheme, rows: min(options.maxRows, requests.count), merging: merging)
            packedVersion = weightVersion
            return
        }
        guard !model.device.isCUDA, packedVersion != weightVersion || !model.isPacked else { return }
        let rows = min(options.maxRows, requests.reduce(0) { $0 + $1.sampling.n })
        let steps = requests.map(\.sampling.maxTokens).max() ?? 0
        guard merging || rows * steps >= Self.worthPacking else { return }
        try model.packProjections(rows: rows, merging: merging)
        packedVersion = weightVersion
    }

    /// Tokens to decode from which on the copy has paid for itself.
    private static let worthPacking = 256

    private func check(_ requests: [RolloutRequest]) throws(RolloutError) {
        for (index, request) in requests.enumerated() {
            let sampling = request.sampling
            if request.prompt.isEmpty {
                throw RolloutError(.emptyPrompt, "request \(index) has no prompt tokens; give it at least one")
            }
            if sampling.n < 1 || sampling.maxTokens < 1 {
                throw RolloutError(
                    .badRequest,
                    "request \(index): n is \(sampling.n), maxTokens \(sampling.maxTokens); both must be 1 or more")
            }
            let longest = request.prompt.count + sampling.maxTokens
            if longest > model.shape.maxPositions {
                throw RolloutError(
                    .tooLong,
                    "request \(index): \(request.prompt.count) prompt + \(sampling.maxTokens) new tokens exceed the model's "
                        + "\(model.shape.maxPositions) positions; shorten the prompt or lower maxTokens")
            }
            if let limit = model.shape.rotarySwitch, request.prompt.count <= limit, longest > limit {
                throw RolloutError(
                    .tooLong,
                    "request \(index): \(request.prompt.count) prompt + \(sampling.maxTokens) new tokens cross \(limit), "
                        + "where the model's rotary frequencies change for the whole sequence, its cached keys included; "
                        + "lower maxTokens to \(limit - request.prompt.count)")
            }
            if let bad = request.prompt.first(where: { $0 < 0 || $0 >= model.shape.vocabulary }) {
                throw RolloutError(
                    .badRequest,
                    "request \(index): token id \(bad) is outside the vocabulary of \(model.shape.vocabulary)")
            }
            if !sampling.stop.isEmpty, makeDetokenizer == nil {
                throw RolloutError(
                    .badRequest, "request \(index) has stop texts, but the engine was given no tokenizer")
            }
        }
    }

    private func cache(slots: Int) throws(TorchError) -> KeyValueCache {
        if let cache, cache.slotCount >= slots { return cache }
        cache = nil
        let made = try KeyValueCache(for: model, slots: slots)
        cache = made
        return made
    }
}

/// A request that cannot be run.
public struct RolloutError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        public static let emptyPrompt = Code("emptyPrompt")
        public static let badRequest = Code("badRequest")
        public static let tooLong = Code("tooLong")
        public static let outOfSlots = Code("outOfSlots")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { "generation: \(message)" }
}
