public import Models
public import TensorCore
public import TrainingEngine

/// Training at full size on weights that are drawn, not loaded; `fledge bench train --shape` prints it.
public enum TrainingBenchmark {
    /// What is computed of a batch.
    public enum Objective: String, Sendable, CaseIterable {
        /// Likelihood of every token but the first: the head's gradient is known beforehand, logits are computed once.
        case likelihood
        /// A policy gradient whose loss needs the log-probabilities first: logits are computed again in backward.
        case policy
        /// Log-probabilities and entropies, forward only.
        case score
    }

    /// Weights that the optimizer keeps, and its two moments.
    public enum States: String, Sendable, CaseIterable {
        /// Both as the model's bfloat16, no master weights; gradients too.
        case bf16
        /// float32 masters, gradient sums and moments.
        case float32
        /// float32 masters and gradient sums, moments of 8 bits.
        case int8
        /// No optimizer step: forward and backward alone.
        case none

        /// The type in which gradients of weights of a type are summed.
        public func sumDType(of weights: DType) -> DType {
            self == .bf16 && weights == .bfloat16 ? .bfloat16 : .float32
        }

        /// nil: no optimizer.
        var optimizer: AdamW.Settings? {
            var settings = AdamW.Settings(weightDecay: 0)
            switch self {
            case .none: return nil
            case .float32: break
            case .int8: settings.moments = .int8
            case .bf16:
                settings.moments = .bfloat16
                settings.keepsMasters = false
                settings.gradDType = .bfloat16
            }
            return settings
        }
    }

    /// Groups of answers to one prompt, in place of independent rows.
    public struct Groups: Sendable, Hashable {
        public var prompt, answer, answers: Int
        public init(prompt: Int, answer: Int, answers: Int) {
            self.prompt = prompt
            self.answer = answer
            self.answers = answers
        }
    }

    public struct Settings: Sendable, Hashable {
        public var rows = 8
        public var length = 4096
        /// Answers instead of rows; `rows` then counts prompts and `length` is unused.
        public var groups: Groups?
        /// Whether each prompt is computed once for all its answers.
        public var sharesPrefixes = true
        /// nil: all of the batch at once.
        public var microBatchTokens: Int?
        public var objective = Objective.likelihood
        public var states = States.bf16
        public var checkpointing = ActivationCheckpointing.full
        /// Whether what checkpointed layers keep waits in pinned host memory; CUDA only.
        public var offloadsActivations = false
        /// The share of the optimizer's moments that stays in pinned host memory, on CUDA.
        public var offloadedMoments = 0.0
        public var logitsChunk: Int?
        public var kernels = AttentionPlan.Kernels.fastest
        public var warmUp = 2
        public var steps = 4
        /// Whether one step more is traced.
        public var profile = false
        public var seed: UInt64 = 0
        /// Whether a weight is the same whichever rank draws it.
        var drawsByName = false
        public init() {}

        var sequenceCount: Int { groups.map { rows * $0.answers } ?? rows }
        var sequenceLength: Int { groups.map { $0.prompt + $0.answer } ?? length }
        /// Tokens of the batch, each sequence counted whole.
        public var tokens: Int { sequenceCount * sequenceLength }
    }

    public struct Report: Sendable {
        public var parameterCount: Int
        /// Of each step that counts.
        public var seconds: [Double]
        public var cost: TrainingCost
        /// Tokens that a step's passes computed: shared ones count once.
        public var computedTokens, microBatches: Int
        /// The most that was allocated on the device (CPU: resident in the process), the model's weights included.
        public var peakBytes: Int
        /// The same with what the allocator kept for later.
        public var peakReservedBytes: Int
        public var lastLoss: Double
        /// What computes attention of the first micro-batch.
        public var attention: String
        public var profile: TimeBreakdown?
        /// Where several devices did it together: then seconds are the slowest one's, tokens and operations those of all, the peak the
        /// highest.
        public var ranks: RankReport?

        /// A mean: a step's own end is seen late where launching the next one waits for the device, but never the last one's.
        public var stepSeconds: Double { seconds.reduce(0, +) / Double(seconds.count) }
        public var tokensPerSecond: Double { Double(cost.tokens) / stepSeconds }
        /// Useful operations a second.
        public var usefulRate: Double { cost.useful / stepSeconds }
        /// The same, what is computed again counted too.
        public var hardwareRate: Double { cost.computed / stepSeconds }
    }

    /// Everything happens on the calling thread.
    /// - Throws: `TorchError`, ``WorkerError`` for settings that do not go together.
    public static func run(
        _ shape: BenchmarkShape, dtype: DType, device: Device, settings: Settings
    ) throws -> Report {
        let model = try shape.model(
            dtype: dtype, device: device, seed: settings.seed, byName: settings.drawsByName)
        return try measure(model, shape, settings)
    }

    /// - Parameter prepare: runs before each step, whose number it is given, and does not count.
    static func measure(
        _ model: any CausalLanguageModel, _ shape: BenchmarkShape, _ settings: Settings, parallel: DataParallel? = nil,
        prepare: (Int) throws -> Void = { _ in }
    ) throws -> Report {
        let device = model.device
        // What drawing took besides does not count; before it the device has no peak to reset.
        try device.resetPeakMemory()
        model.checkpointing = settings.checkpointing
        if settings.offloadsActivations, device.isCUDA {
            model.activationOffload = try ActivationOffload(device: device)
        }
        let step = try TrainingBenchmarkStep(model, settings, parallel)
        // One step is launched while the device works on the one before, as in a run; a step ends when the next one's work begins.
        var ends: [ContinuousClock.Instant] = [], last: TrainingBenchmarkStep.Pending?
        for index in 0..<settings.warmUp + settings.steps {
            try prepare(index)
            if index == settings.warmUp {
                try device.synchronize()
                ends.append(.now)
            }
            let next = try step.enqueue()
            if index > settings.warmUp {
                try last?.wait()
                ends.append(.now)
            }
            last = next
        }
        try device.synchronize()
        ends.append(.now)
        let loss = try last?.loss() ?? .nan
        let seconds = zip(ends, ends.dropFirst()).map { ($1 - $0) / .seconds(1) }
        let memory = try device.memory()
        if settings.profile { try prepare(settings.warmUp + settings.steps) }
        return Report(
            parameterCount: model.parameterCount, seconds: seconds,
            cost: TrainingCost(shape.decoder, settings), computedTokens: step.computedTokens,
            microBatches: step.micros.count, peakBytes: memory.peakAllocated, peakReservedBytes: memory.peakReserved,
            lastLoss: loss, attention: try step.attention(),
            profile: settings.profile && device.isCUDA ? try profile(device, step) : nil)
    }

    private static func profile(_ device: Device, _ step: TrainingBenchmarkStep) throws -> TimeBreakdown {
        try device.synchronize()
        try DeviceTrace.start()
        do {
            try DeviceTrace.clear()
            _ = try step.enqueue().loss()
            try device.synchronize()
        } catch {
            _ = try? DeviceTrace.stop()
            throw error
        }
        return TimeBreakdown(try DeviceTrace.stop())
    }
}
