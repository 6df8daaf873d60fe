import PolicyAlgorithms
public import Models
import RolloutCore
import RolloutEngine
public import TensorCore
import TrainingEngine

/// A whole GRPO step at full size on weights that are drawn: sample, compute the log-probabilities again, update; `fledge bench step`
/// prints it. Answers have exactly the length asked for, and advantages are drawn, so that the work is the same in every run.
public enum StepBenchmark {
    public struct Settings: Sendable, Hashable {
        public var prompts = 32
        public var samples = 8
        public var input = 256
        public var output = 1024
        /// Tokens of a micro-batch, in the update and in the log-probability pass.
        public var microBatchTokens = 16384
        public var logitsChunk: Int?
        public var checkpointing = ActivationCheckpointing.none
        public var states = TrainingBenchmark.States.float32
        /// Whether log-probabilities are computed before the update, as for several optimizer steps on one batch.
        public var recomputesLogProbs = true
        public var sharesPrefixes = true
        /// Whether the engine's cache is freed for the update and taken again after.
        public var freesCache = true
        /// Steps that count, after one that does not.
        public var steps = 3
        public var seed: UInt64 = 0
        public init() {}
    }

    public enum Phase: String, Sendable, CaseIterable {
        case generate
        case sleep
        case logProbs = "log_probs"
        case update
        case wake
    }

    /// Seconds of one step.
    public struct Step: Sendable {
        public var seconds: [Phase: Double] = [:]
        /// Mean and greatest difference between what the sampler recorded and what training computes.
        public var meanDifference = 0.0
        public var greatestDifference = 0.0
        public var gradNorm = 0.0
        public var total: Double { seconds.values.reduce(0, +) }
    }

    public struct Report: Sendable {
        public var steps: [Step]
        public var weightBytes: Int
        public var cacheBytes: Int
        public var peakBytes: Int
        /// Tokens that the update's forward passes computed, and tokens of all sequences.
        public var computedTokens: Int
        public var sequenceTokens: Int

        /// The step that took the median time.
        public var median: Step {
            let sorted = steps.sorted { $0.total < $1.total }
            return sorted[sorted.count / 2]
        }
    }

    /// - Throws: `RolloutError` for sizes that the model or the engine cannot run, `TorchError`.
    public static func run(
        _ shape: BenchmarkShape, dtype: DType, device: Device, settings: Settings
    ) throws -> Report {
        let model = try shape.model(dtype: dtype, device: device, seed: settings.seed)
        model.checkpointing = settings.checkpointing
        let rows = settings.prompts * settings.samples
        let engine = RolloutEngine(model: model, options: RolloutEngine.Options(maxRows: rows))
        var trainerSettings = PolicyTrainer.Settings(
            microBatchTokens: settings.microBatchTokens, sharesPrefixes: settings.sharesPrefixes)
        if let logitsChunk = settings.logitsChunk { trainerSettings.logitsChunk = logitsChunk }
        let trainer = PolicyTrainer(
            model: model,
            optimizer: try AdamW(parameters: model.trainableParameters, settings: settings.states.optimizer ?? .init()),
            schedule: LearningRateSchedule(peak: 1e-6), settings: trainerSettings)
        let objective = PolicyObjective(
            policyLoss: PPOClipLoss(),
            aggregation: LossAggregation(.tokenMean), entropyCoefficient: 0, kl: nil)
        let work = RolloutCase(prompts: settings.prompts, input: settings.input, output: settings.output)
        var rollout = RolloutBenchmark.Settings(cases: [work])
        rollout.samples = settings.samples
        var report = Report(
            steps: [], weightBytes: model.parameters.reduce(0) { $0 + $1.tensor.byteCount }, cacheBytes: 0,
            peakBytes: 0, computedTokens: 0, sequenceTokens: rows * (settings.input + settings.output - 1))
        for index in 0...settings.steps {
            if index == 1 { try device.resetPeakMemory() }
            rollout.seed = SplitMix64.seed(settings.seed, UInt64(index))
            let requests = RolloutBenchmark.requests(work, rollout, vocabulary: shape.vocabulary)
            let step = try run(requests, engine, trainer, objective, settings, &report)
            if index > 0 { report.steps.append(step) }
        }
        report.peakBytes = try device.memory().peakAllocated
        return report
    }

    private static func run(
        _ requests: [RolloutRequest], _ engine: RolloutEngine, _ trainer: PolicyTrainer, _ objective: PolicyObjective,
        _ settings: Settings, _ report: inout Report
    ) throws -> Step {
        let device = engine.model.device
        var step = Step()
        func timed<Result>(_ phase: Phase, _ body: () throws -> Result) throws -> Result {
            let start = ContinuousClock.now
            let result = try body()
            try device.synchronize()
            step.seconds[phase] = (ContinuousClock.now - start) / .seconds(1)
            return result
        }
        let answers = try timed(.generate) { try engine.generate(requests) }
        report.cacheBytes = engine.statistics.cacheBytes
        if settings.freesCache { _ = try timed(.sleep) { try engine.sleep() } }

        var samples: [PolicySample] = []
        for (request, group) in zip(requests, answers) {
            for (index, answer) in group.enumerated() {
                // Half of a group did well: advantages of plus and minus one.
                let advantage: Float = index % 2 == 0 ? 1 : -1
                samples.append(
                    PolicySample(
                        sequence: TrainingSequence(prompt: request.prompt, response: answer.tokens),
                        advantages: Array(repeating: advantage, count: answer.tokens.count),
                        rolloutLogProbs: answer.logProbs))
            }
        }
        if settings.recomputesLogProbs {
            let old = try timed(.logProbs) { try trainer.score(samples.map(\.sequence)).logProbs }
            for index in samples.indices { samples[index].oldLogProbs = old[index] }
        }
        let update = try timed(.update) { try trainer.update(samples) { try objective($0) } }
        engine.weightVersion += 1
        if settings.freesCache { _ = try timed(.wake) { try engine.wake() } }

        for metric in update.metrics {
            switch metric.name {
            case "training/rollout_logprobs_diff_mean": step.meanDifference = metric.value
            case "training/rollout_logprobs_diff_max": step.greatestDifference = metric.value
            default: break
            }
        }
        step.gradNorm = update.gradNorm
        report.computedTokens = update.computedTokens
        return step
    }
}
