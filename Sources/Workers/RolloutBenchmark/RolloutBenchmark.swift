import Models
import RolloutCore
public import RolloutEngine
public import TensorCore

/// Generation at full size on weights that are drawn, not loaded; `fledge bench rollout` prints it.
public enum RolloutBenchmark {
    /// What comes before the runs that count.
    public enum WarmUp: String, Sendable, CaseIterable {
        case none
        /// The case with its first few tokens only.
        case small
        case same
    }

    /// The engine's settings, as the command line has them; nil is the engine's own choice.
    public struct EngineSettings: Sendable, Hashable {
        /// Sequences that decode at a time; nil: all of the case.
        public var maxNumSeqs: Int?
        public var maxNumBatchedTokens: Int?
        public var cudaGraphs = true
        public var prefixCaching = false
        public var gpuMemoryUtilization: Double?
        public var blockSize: Int?
        /// nil: the model's type.
        public var cacheDType: DType?
        public init() {}

        /// - Throws: ``WorkerError`` for a setting that no engine can have.
        func options(rows: Int) throws -> RolloutEngine.Options {
            var options = RolloutEngine.Options(
                maxRows: maxNumSeqs ?? rows, prefixCaching: prefixCaching, usesGraphs: cudaGraphs)
            if let maxNumBatchedTokens { options.maxStepTokens = maxNumBatchedTokens }
            options.cacheDType = cacheDType
            if let gpuMemoryUtilization { options.memoryFraction = gpuMemoryUtilization }
            if let blockSize {
                guard blockSize.nonzeroBitCount == 1 else {
                    throw WorkerError(.badSetting, "--block-size \(blockSize) is not a power of two")
                }
                options.blockSize = blockSize
            }
            return options
        }
    }

    public struct Settings: Sendable, Hashable {
        public var cases: [RolloutCase]
        /// Answers of each prompt.
        public var samples = 1
        /// How many of a prompt's tokens are the same in every prompt.
        public var sharedPrefix = 0
        public var warmUp = WarmUp.small
        public var repeats = 1
        public var profile: ProfileScope?
        public var seed: UInt64 = 0
        public var engine = EngineSettings()
        public init(cases: [RolloutCase]) { self.cases = cases }
    }

    /// What one case did.
    public struct Measurement: Sendable {
        public var work: RolloutCase
        public var samples: Int
        /// Of each run that counts: the whole call, prefill included, until the device is idle.
        public var seconds: [Double]
        public var limit: RolloutLimit
        public var decodeSteps, prefilledTokens: Int
        /// What the cache of keys and values takes.
        public var cacheBytes: Int
        /// The most that was allocated on the device (CPU: resident in the process) during the case.
        public var peakBytes: Int
        /// Freeing the engine's memory when all is done, and taking it again.
        public var sleep = MemoryChange()
        public var wake = MemoryChange()

        public var profile: RolloutProfile?

        public var newTokens: Int { work.prompts * samples * work.output }
        public var bestSeconds: Double { seconds.min() ?? .nan }
        public var tokensPerSecond: Double { Double(newTokens) / bestSeconds }
        public var limitTokensPerSecond: Double { Double(newTokens) / limit.seconds }
        /// How much of the limit's rate was reached.
        public var efficiency: Double { limit.seconds / bestSeconds }
    }

    public struct Report: Sendable {
        public var weightBytes: Int
        public var machine: MachineSpeed
        /// From the start of the process to an engine that is ready to generate.
        public var readySeconds: Double
        /// From the same to the end of a first call, one token for one short prompt: kernels are compiled or read, libraries warm.
        public var firstTokenSeconds: Double
        public var measurements: [Measurement]
    }

    /// Runs every case on a model of the shape. Everything happens on the calling thread.
    /// - Throws: `RolloutError` for cases that the model or the engine cannot run, `TorchError`.
    public static func run(
        _ shape: BenchmarkShape, dtype: DType, device: Device, settings: Settings
    ) throws -> Report {
        // Read before it is needed: where the kernel does not tell, the first use counts as the start.
        let start = ProcessStart.instant
        let model = try shape.model(dtype: dtype, device: device, seed: settings.seed)
        var engine: RolloutEngine? = try settings.cases.first.map { work in
            RolloutEngine(model: model, options: try settings.engine.options(rows: work.prompts * settings.samples))
        }
        try device.synchronize()
        let readySeconds = (ContinuousClock.now - start) / .seconds(1)
        if let engine {
            _ = try engine.generate(
                requests(RolloutCase(prompts: 1, input: 8, output: 1), settings, vocabulary: shape.vocabulary))
        }
        try device.synchronize()
        let firstTokenSeconds = (ContinuousClock.now - start) / .seconds(1)
        let machine = try MachineSpeed.measure(device, dtype: dtype)
        var measurements: [Measurement] = []
        for work in settings.cases {
            let options = try settings.engine.options(rows: work.prompts * settings.samples)
            // The old engine's cache first: two may not fit.
            func renew() throws -> RolloutEngine {
                engine = nil
                try device.emptyCache()
                let made = RolloutEngine(model: model, options: options)
                engine = made
                return made
            }
            let ready = measurements.isEmpty ? engine : nil
            var result = try measure(
                work, ready ?? renew(), shape: shape, machine: machine, settings: settings)
            if let scope = settings.profile {
                result.profile = try profile(
                    work, limit: result.limit, shape: shape, scope: scope, settings: settings, device, renew)
            }
            measurements.append(result)
        }
        return Report(
            weightBytes: model.parameters.reduce(0) { $0 + $1.tensor.byteCount }, machine: machine,
            readySeconds: readySeconds, firstTokenSeconds: firstTokenSeconds, measurements: measurements)
    }

    private static func measure(
        _ work: RolloutCase, _ engine: RolloutEngine, shape: BenchmarkShape, machine: MachineSpeed, settings: Settings
    ) throws -> Measurement {
        let device = engine.model.device
        let requests = requests(work, settings, vocabulary: shape.vocabulary)
        try warmUp(work, engine, shape: shape, settings: settings)
        try device.resetPeakMemory()
        var seconds: [Double] = []
        for _ in 0..<settings.repeats {
            let start = ContinuousClock.now
            let answers = try engine.generate(requests)
            try device.synchronize()
            seconds.append((ContinuousClock.now - start) / .seconds(1))
            let tokens = answers.reduce(0) { $0 + $1.reduce(0) { $0 + $1.tokens.count } }
            guard tokens == work.prompts * settings.samples * work.output else {
                throw WorkerError(.badData, "\(work): \(tokens) tokens came; an answer ended early")
            }
        }
        var sizes = shape.decoder
        sizes.bytesPerElement = engine.model.parameters[0].tensor.byteCount / engine.model.parameters[0].tensor.count
        sizes.cacheBytesPerElement = engine.options.cacheDType?.size ?? sizes.bytesPerElement
        let rows = work.prompts * settings.samples
        var result = Measurement(
            work: work, samples: settings.samples, seconds: seconds,
            limit: RolloutLimit(
                work, samples: settings.samples, maxRows: settings.engine.maxNumSeqs ?? rows, sizes: sizes,
                machine: machine), decodeSteps: engine.statistics.decodeSteps,
            prefilledTokens: engine.statistics.prefilledTokens, cacheBytes: engine.statistics.cacheBytes,
            peakBytes: try device.memory().peakAllocated)
        result.sleep = try engine.sleep()
        result.wake = try engine.wake()
        return result
    }

    static func warmUp(
        _ work: RolloutCase, _ engine: RolloutEngine, shape: BenchmarkShape, settings: Settings
    ) throws {
        var first = work
        switch settings.warmUp {
        case .none: return
        case .same: break
        case .small: first.output = min(work.output, 8)
        }
        _ = try engine.generate(requests(first, settings, vocabulary: shape.vocabulary))
        try engine.model.device.synchronize()
    }

    /// Random tokens, the same in every run; nothing ends an answer before its last token.
    static func requests(_ work: RolloutCase, _ settings: Settings, vocabulary: Int) -> [RolloutRequest] {
        (0..<work.prompts).map { prompt in
            RolloutRequest(
                prompt: (0..<work.input).map { position in
                    let owner = position < settings.sharedPrefix ? UInt64.max : UInt64(prompt)
                    return Int32(SplitMix64.seed(settings.seed, owner, UInt64(position)) % UInt64(vocabulary))
                },
                sampling: SamplingParameters(
                    n: settings.samples, temperature: 1, maxTokens: work.output,
                    seed: SplitMix64.seed(settings.seed, UInt64(prompt))))
        }
    }
}
