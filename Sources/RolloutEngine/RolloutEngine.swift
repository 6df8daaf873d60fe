public import Models
public import RolloutCore
public import TensorCore

/// Batched generation on the trainer's own weights: continuous batching over a paged cache. Not `Sendable`: it lives on the
/// executor of its model's tensors.
public final class RolloutEngine {
    public struct Options: Sendable, Hashable {
        public enum Preemption: Sendable, Hashable {
            /// What had to yield is computed again.
            case recompute
            /// It waits in this much host memory.
            case swap(bytes: Int)
        }
        /// Sequences that run at a time.
        public var maxRows: Int
        /// Tokens that one step computes, prompts' and decoding ones together.
        public var maxStepTokens: Int
        /// The most tokens of one prompt in a step; nil: as many as fit.
        public var prefillChunk: Int?
        /// Tokens of a block of the cache, a power of two.
        public var blockSize: Int
        /// Whether prompts share what they begin with. The samples of one prompt always do.
        public var prefixCaching: Bool
        /// On CUDA, whether decoding steps are captured as graphs.
        public var usesGraphs: Bool
        /// How much of the device's memory this process may hold, the cache included.
        public var memoryFraction: Double
        /// Blocks of the cache; nil: as many as the requests need and memory allows.
        public var cacheBlocks: Int?
        public var preemption: Preemption
        /// Samples from weights with the model's adapter folded in: faster, and in bfloat16 rounded otherwise than in training.
        public var mergesAdapter: Bool
        /// Samples from copies of the weights rounded to few bits, made anew for every weight version; nil: from the weights.
        public var quantization: WeightQuantization?
        /// How keys and values are stored, float8e4m3 or the model's type; nil: the latter.
        public var cacheDType: DType?

        public init(
            maxRows: Int = 256, maxStepTokens: Int = 8192, prefillChunk: Int? = nil, blockSize: Int = 16,
            prefixCaching: Bool = true, usesGraphs: Bool = true, memoryFraction: Double = 0.85,
            cacheBlocks: Int? = nil, preemption: Preemption = .recompute, mergesAdapter: Bool = false,
            quantization: WeightQuantization? = nil
        ) {
            self.maxRows = maxRows
            self.maxStepTokens = maxStepTokens
            self.prefillChunk = prefillChunk
            self.blockSize = blockSize
            self.prefixCaching = prefixCaching
            self.usesGraphs = usesGraphs
            self.memoryFraction = memoryFraction
            self.cacheBlocks = cacheBlocks
            self.preemption = preemption
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
    private var runner: ModelRunner?
    private var hostCache: KeyValueCache?

    public init(model: any CausalLanguageModel, options: Options = Options()) {
        precondition(
            options.blockSize > 0 && options.blockSize.nonzeroBitCount == 1,
            "a block of \(options.blockSize) tokens: a power of two is needed")
        self.model = model
        self.options = options
    }

    // MARK: - Memory

    /// Frees the key-value cache, the graphs and the weights' decoding layout until the next `generate`.
    public func sleep() throws(TorchError) {
        runner = nil
        hostCache = nil
        model.unpackProjections()
        packedVersion = nil
        try model.device.emptyCache()
    }

    public var isAsleep: Bool { runner == nil }
    public var graphCount: Int { runner?.graphCount ?? 0 }

    private func runner(blocks: Int) throws -> ModelRunner {
        if let runner, runner.cache.slotCount >= (blocks + 1) * options.blockSize { return runner }
        runner = nil
        try model.device.emptyCache()
        let longest = model.shape.maxPositions, rows = options.maxRows
        let made = ModelRunner(
            model: model,
            // One block more: what fills up a batch writes there.
            cache: try KeyValueCache(for: model, slots: (blocks + 1) * options.blockSize, dtype: options.cacheDType),
            blockSize: options.blockSize,
            buffer: try StepBuffer(
                capacity: 6 * stepTokens + 12 * rows + rows * (longest / options.blockSize + 1), draws: rows,
                device: model.device),
            longest: longest, usesGraphs: options.usesGraphs, largestBatch: rows)
        runner = made
        return made
    }

    private var stepTokens: Int { max(options.maxStepTokens, options.maxRows) }

    /// Blocks that memory allows, of those wanted.
    private func blocks(wanted: Int) throws -> Int {
        if let fixed = options.cacheBlocks { return fixed }
        guard model.device.isCUDA else { return wanted }
        let bytes = KeyValueCache.bytesPerToken(model, dtype: options.cacheDType) * options.blockSize
        if let runner {
            return max(min(wanted, try available(bytes, runner)), runner.cache.slotCount / options.blockSize - 1)
        }
        return min(wanted, try available(bytes, nil))
    }

    private func available(_ blockBytes: Int, _ runner: ModelRunner?) throws -> Int {
        let memory = try model.device.memory(), shape = model.shape
        // A step's widest layer, about eight times as wide as the residual stream, and a few rows of logits for each sequence.
        let activations =
            stepTokens * shape.hidden * 48 + options.maxRows * shape.vocabulary * 8 + 256 << 20
        let held = memory.allocated - (runner?.cache.byteCount ?? 0)
        let free = min(
            Int(Double(memory.total) * options.memoryFraction) - held,
            memory.free + memory.reserved - held)
        let blocks = (free - activations) / blockBytes - 1
        guard blocks > 0 else {
            throw RolloutError(
                .outOfSlots,
                "no memory is left for the key-value cache: \(held >> 20) of \(memory.total >> 20) MiB are in use, "
                    + "\(activations >> 20) MiB are kept for activations, and rollout.gpu_memory_utilization is "
                    + "\(options.memoryFraction); raise it, or lower rollout.max_num_batched_tokens or max_num_seqs")
        }
        return blocks
    }

    // MARK: - Generation

    /// A session whose cache has room for `wanted` blocks, or as many as memory allows.
    ///
    /// - Parameters:
    ///   - longest: tokens of the longest sequence to come.
    ///   - sharesPrefixes: off for requests that want their prompts' log-probabilities.
    public func session(wantedBlocks: Int, longest: Int, sharesPrefixes: Bool = true) throws -> RolloutSession {
        let runner = try runner(blocks: blocks(wanted: wantedBlocks))
        let blocks = runner.cache.slotCount / options.blockSize - 1
        var preemption = SchedulerLimits.Preemption.recompute
        if case .swap(let bytes) = options.preemption {
            let count = bytes / (KeyValueCache.bytesPerToken(model, dtype: options.cacheDType) * options.blockSize)
            if hostCache == nil, count > 0 {
                hostCache = try KeyValueCache(
                    for: model, slots: count * options.blockSize, dtype: options.cacheDType, device: .cpu,
                    pinned: model.device.isCUDA)
            }
            if count > 0 { preemption = .swap(hostBlocks: count) }
        }
        return try RolloutSession(
            engine: self, runner: runner, hostCache: hostCache,
            limits: SchedulerLimits(
                blocks: blocks, blockSize: options.blockSize, tokensPerStep: stepTokens,
                runningSequences: options.maxRows, prefillChunk: options.prefillChunk ?? .max,
                prefixCaching: sharesPrefixes && options.prefixCaching && model.shape.sharesRotary(upTo: longest),
                preemption: preemption))
    }

    /// Samples every request; results in the order of `requests`, each with its n samples in order. `onToken` sees every token
    /// as it is read and ends its sequence by giving false; `onSample` sees every sample as it finishes.
    public func generate(
        _ requests: [RolloutRequest], onToken: ((GeneratedToken) -> Bool)? = nil,
        onSample: ((_ request: Int, _ sample: Int, GeneratedSample) -> Void)? = nil
    ) throws -> [[GeneratedSample]] {
        for (index, request) in requests.enumerated() { try check(request, "request \(index)") }
        let session = try session(
            wantedBlocks: blocksNeeded(requests),
            longest: requests.map { $0.prompt.count + $0.sampling.maxTokens }.max() ?? 0,
            sharesPrefixes: requests.allSatisfy { $0.sampling.promptLogProbs == nil })
        var results: [[GeneratedSample?]] = requests.map { Array(repeating: nil, count: $0.sampling.n) }
        session.onToken = onToken
        session.onSample = { request, sample, finished in
            results[request][sample] = finished
            onSample?(request, sample, finished)
        }
        for (index, request) in requests.enumerated() { try session.add(request, id: index) }
        try prepare(
            rows: requests.reduce(0) { $0 + $1.sampling.n }, steps: requests.map(\.sampling.maxTokens).max() ?? 0)
        // A copy of the weights takes the adapter in; where there is none the weights do, for the call's time.
        if options.mergesAdapter, model.adapter != nil, model.device.isCUDA, options.quantization == nil {
            try withNoGrad { try model.mergeAdapter() }
            let run = Result { while try session.advance() {} }
            try withNoGrad { try model.unmergeAdapter() }
            try run.get()
        } else {
            while try session.advance() {}
        }
        firstToken = firstToken ?? session.firstToken
        statistics = session.statistics
        return results.map { $0.map { sample in sample! } }
    }

    /// Blocks with which nobody has to wait for another's end, but for the limit on running sequences.
    private func blocksNeeded(_ requests: [RolloutRequest]) -> Int {
        let size = options.blockSize
        let costs = requests.map { request in
            let shared = request.prompt.count / size
            let whole = (request.prompt.count + request.sampling.maxTokens + size - 1) / size
            return (rows: request.sampling.n, blocks: shared + request.sampling.n * (whole - shared) + 1)
        }
        // The widest window of requests in order that the limit admits.
        var widest = 0, rows = 0, blocks = 0, start = 0
        for cost in costs {
            rows += cost.rows
            blocks += cost.blocks
            while start < costs.count, rows - costs[start].rows >= options.maxRows {
                rows -= costs[start].rows
                blocks -= costs[start].blocks
                start += 1
            }
            widest = max(widest, blocks)
        }
        return widest + 1
    }

    // MARK: - The weights' copies

    /// What to expect: sequences at a time, and tokens of each.
    private var expected = (rows: 0, steps: 0)

    /// Quantises the weights, or on the CPU lays them out for decoding where so many tokens are worth the copy.
    public func prepare(rows: Int, steps: Int) throws {
        expected = (min(rows, options.maxRows), steps)
        try renewCopies()
    }

    /// Makes the copies of the weights as they are now, where there are none.
    func renewCopies() throws(TorchError) {
        let merges = options.mergesAdapter && model.adapter != nil
        let isCurrent = packedVersion == weightVersion
        if let scheme = options.quantization {
            guard !isCurrent || !model.isQuantized else { return }
            // Graphs hold the addresses of the copies before.
            runner?.forgetGraphs()
            try withNoGrad { () throws(TorchError) in
                try model.quantizeProjections(scheme, rows: expected.rows, merging: merges)
            }
        } else {
            guard !model.device.isCUDA, !isCurrent || !model.isPacked else { return }
            guard merges || expected.rows * expected.steps >= Self.worthPacking else { return }
            try withNoGrad { () throws(TorchError) in
                try model.packProjections(rows: expected.rows, merging: merges)
            }
        }
        packedVersion = weightVersion
    }

    /// Runs a step on the weights, or on their copies.
    func sampling<Result>(_ body: () throws -> Result) throws -> Result {
        options.quantization == nil ? try body() : try model.samplingQuantized(body)
    }

    /// Tokens to decode from which on the copy has paid for itself.
    private static let worthPacking = 256
}
