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
        /// Whether moments stay in pinned host memory; CUDA only.
        public var offloadsMoments = false
        public var logitsChunk: Int?
        public var kernels = AttentionPlan.Kernels.fastest
        public var warmUp = 2
        public var steps = 4
        /// Whether one step more is traced.
        public var profile = false
        public var seed: UInt64 = 0
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
        public var lastLoss: Double
        /// What computes attention of the first micro-batch.
        public var attention: String
        public var profile: TimeBreakdown?

        public var medianSeconds: Double { seconds.sorted()[seconds.count / 2] }
        public var tokensPerSecond: Double { Double(cost.tokens) / medianSeconds }
        /// Useful operations a second.
        public var usefulRate: Double { cost.useful / medianSeconds }
        /// The same, what is computed again counted too.
        public var hardwareRate: Double { cost.computed / medianSeconds }
    }

    /// Everything happens on the calling thread.
    /// - Throws: `TorchError`, ``WorkerError`` for settings that do not go together.
    public static func run(
        _ shape: BenchmarkShape, dtype: DType, device: Device, settings: Settings
    ) throws -> Report {
        let model = try shape.model(dtype: dtype, device: device, seed: settings.seed)
        // What drawing took besides does not count; before it the device has no peak to reset.
        try device.resetPeakMemory()
        model.checkpointing = settings.checkpointing
        if settings.offloadsActivations, device.isCUDA {
            model.activationOffload = try ActivationOffload(device: device)
        }
        let step = try TrainingBenchmarkStep(model, settings)
        var seconds: [Double] = [], loss = 0.0
        for index in 0..<settings.warmUp + settings.steps {
            try device.synchronize()
            let start = ContinuousClock.now
            loss = try step.run()
            try device.synchronize()
            if index >= settings.warmUp { seconds.append((ContinuousClock.now - start) / .seconds(1)) }
        }
        let peak = try device.memory().peakAllocated
        return Report(
            parameterCount: model.parameterCount, seconds: seconds,
            cost: TrainingCost(shape.decoder, settings), computedTokens: step.computedTokens,
            microBatches: step.micros.count, peakBytes: peak, lastLoss: loss, attention: try step.attention(),
            profile: settings.profile && device.isCUDA ? try profile(device, step) : nil)
    }

    private static func profile(_ device: Device, _ step: TrainingBenchmarkStep) throws -> TimeBreakdown {
        try device.synchronize()
        try DeviceTrace.start()
        do {
            try DeviceTrace.clear()
            _ = try step.run()
            try device.synchronize()
        } catch {
            _ = try? DeviceTrace.stop()
            throw error
        }
        return TimeBreakdown(try DeviceTrace.stop())
    }
}
