public import Models
public import RolloutCore
public import TensorCore

/// Batched generation on the trainer's own weights: continuous batching over a paged cache. Not `Sendable`: it lives on the
/// executor of its model's tensors.
public final class RolloutEngine {
    public let model: any CausalLanguageModel
    public let options: Options
    /// Which weights the model holds. Where a trainer changes the very tensors that the engine samples from, nothing is copied: it
    /// sets another version once its step is done, before the next `generate` or ``RolloutSession/advance()``, which drops what was
    /// made of the weights before (copies for decoding, prefixes found by content) and stamps the tokens that follow. Weights from
    /// elsewhere come by ``updateWeights(version:from:digests:)``, which sets it itself.
    public var weightVersion = 0 {
        didSet {
            model.unpackProjections()
            packedVersion = nil
        }
    }
    var packedVersion: Int?
    /// Why the weights are of no version: an update that failed after its first tensors.
    var brokenUpdate: String?
    public private(set) var statistics = GenerationStatistics()
    /// When this engine drew its first token.
    public private(set) var firstToken: ContinuousClock.Instant?
    /// Gives a function that turns one row's tokens into text piece by piece; needed for stop texts.
    public var makeDetokenizer: (() -> (Int32) -> String)?
    var runner: ModelRunner?
    var hostCache: KeyValueCache?
    /// Blocks of the cache that went to sleep.
    var sleptBlocks: Int?
    /// What it took when cache and buffers were last made, by ``wake()`` or by a call that found none or too little.
    public internal(set) var lastWake = MemoryChange()
    /// The newest one, as long as its caller keeps it.
    private(set) weak var newestSession: RolloutSession?

    public init(model: any CausalLanguageModel, options: Options = Options()) {
        precondition(
            options.blockSize > 0 && options.blockSize.nonzeroBitCount == 1,
            "a block of \(options.blockSize) tokens: a power of two is needed")
        self.model = model
        self.options = options
    }

    // MARK: - Generation

    /// A session whose cache has room for `wanted` blocks, or as many as memory allows.
    ///
    /// - Parameters:
    ///   - longest: tokens of the longest sequence to come.
    ///   - sharesPrefixes: off for requests that want their prompts' log-probabilities.
    public func session(wantedBlocks: Int, longest: Int, sharesPrefixes: Bool = true) throws -> RolloutSession {
        try checkWeights()
        let runner = try runner(blocks: blocks(wanted: wantedBlocks))
        let made = try RolloutSession(
            engine: self, runner: runner, hostCache: hostCache,
            limits: SchedulerLimits(
                blocks: runner.blockCount, blockSize: options.blockSize, tokensPerStep: stepTokens,
                runningSequences: options.maxRows, prefillChunk: options.prefillChunk ?? .max,
                cutsPrompts: options.cutsPrompts,
                prefixCaching: sharesPrefixes && options.prefixCaching && model.shape.sharesRotary(upTo: longest),
                preemption: hostCache.map { .swap(hostBlocks: $0.slotCount / options.blockSize) } ?? .recompute,
                speculation: options.speculation))
        newestSession = made
        return made
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
        try run(session)
        return results.map { $0.map { sample in sample! } }
    }

    /// Advances a session until it has nothing left to do; more may be added then.
    public func run(_ session: RolloutSession) throws {
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
        try checkWeights()
        return options.quantization == nil ? try body() : try model.samplingQuantized(body)
    }

    /// Tokens to decode from which on the copy has paid for itself.
    private static let worthPacking = 256
}
