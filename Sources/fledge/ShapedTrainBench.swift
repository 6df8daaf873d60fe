import ArgumentParser
import Cluster
import Models
import Telemetry
import TensorCore
import Workers

extension TrainBench {
    /// What measures a known shape with random weights.
    struct ShapedOptions: ParsableArguments {
        @Option(help: "The model: \(BenchmarkShape.names.joined(separator: ", ")).") var shape: String?
        @Option(help: "Where the weights come from: random.") var weights = "random"
        @Option(help: "Rows of a batch, or prompts.") var rows = 8
        @Option(name: .customLong("seq"), help: "Tokens of a row.") var length = 4096
        @Option(help: "Tokens of a prompt, in place of --seq.") var prompt: Int?
        @Option(help: "Tokens of an answer.") var answer: Int?
        @Option(help: "Answers of each prompt.") var answers = 8
        @Flag(inversion: .prefixedNo, help: "Compute a prompt once for all its answers.") var sharedPrefix = true
        @Option(help: "likelihood, policy (logits computed again in backward) or score (forward only).")
        var objective = "likelihood"
        @Flag(help: "The same as --objective score.") var forwardOnly = false
        @Option(
            help:
                "Of the optimizer: bf16 (no masters), float32 (masters too), int8 (moments, with masters) or none (no step)."
        )
        var states = "bf16"
        @Flag(help: "Keep what checkpointed layers keep in pinned host memory.") var offloadActivations = false
        @Option(help: "The share of the optimizer's moments to keep in pinned host memory.") var offloadMoments = 0.0
        @Option(help: "What may compute attention on CUDA: fastest or flash.") var attention = "fastest"
        @Option(help: "Steps that do not count.") var warmup = 2
        @Option(help: "Steps that count; their mean gives the rate.") var steps = 4
        @Option(help: "The device's peak in TFLOP/s, which utilization refers to.") var peak = 989.0
        @Flag(help: "Trace one step more and tell where its time goes.") var profile = false
        @Option(help: "Decides weights and tokens.") var seed: UInt64 = 0
        @Flag(help: "Print JSON.") var json = false

        func validate() throws {
            guard let shape else { return }
            if BenchmarkShape.known[shape] == nil {
                throw ValidationError(
                    "--shape '\(shape)' is not known; known are \(BenchmarkShape.names.joined(separator: ", "))")
            }
            if weights != "random" { throw ValidationError("--weights '\(weights)' is not random") }
            if (prompt == nil) != (answer == nil) { throw ValidationError("--prompt and --answer go together") }
            for (name, value, least) in [
                ("--rows", rows, 1), ("--seq", length, 2), ("--prompt", prompt ?? 1, 1), ("--answer", answer ?? 1, 1),
                ("--answers", answers, 1), ("--warmup", warmup, 0), ("--steps", steps, 1),
            ] where value < least { throw ValidationError("\(name) \(value) is less than \(least)") }
            if !(0...1 ~= offloadMoments) {
                throw ValidationError("--offload-moments \(offloadMoments) is not a share from 0 to 1")
            }
            if !(peak > 0) { throw ValidationError("--peak \(peak) is not above 0") }
            _ = try settings()
        }

        func settings() throws -> TrainingBenchmark.Settings {
            var settings = TrainingBenchmark.Settings()
            settings.rows = rows
            settings.length = length
            if let prompt, let answer { settings.groups = .init(prompt: prompt, answer: answer, answers: answers) }
            settings.sharesPrefixes = sharedPrefix
            settings.objective =
                forwardOnly ? .score : try TrainBench.choice("--objective", objective)
            settings.states = try TrainBench.choice("--states", states)
            switch attention {
            case "fastest": settings.kernels = .fastest
            case "flash": settings.kernels = .flash
            default: throw ValidationError("--attention '\(attention)' is none of fastest, flash")
            }
            settings.warmUp = warmup
            settings.steps = steps
            settings.profile = profile
            settings.seed = seed
            return settings
        }

        func run(_ bench: TrainBench) async throws {
            guard let shape, let known = BenchmarkShape.known[shape] else { return }
            guard bench.ranks.areSeveral else {
                let (device, dtype) = try bench.compute.place.open()
                let settings = try settings(of: bench)
                let report = try TrainingBenchmark.run(known, dtype: dtype, device: device, settings: settings)
                return try say(report, device, dtype, settings, nil)
            }
            let reference = try bench.ranks.reference(shape)
            try await bench.ranks.run(bench.compute.place.device, threads: bench.threads) { place, members, device in
                let dtype = try bench.compute.place.dtype(on: device), settings = try settings(of: bench)
                let report = try TrainingBenchmark.run(
                    known, dtype: dtype, device: device, settings: settings,
                    sharing: bench.ranks.sharing(settings.states.sumDType(of: dtype)), members: members)
                if place.rank == 0 { try say(report, device, dtype, settings, reference) }
            }
        }

        private func settings(of bench: TrainBench) throws -> TrainingBenchmark.Settings {
            var settings = try settings()
            settings.microBatchTokens = bench.microBatchTokens
            settings.logitsChunk = bench.logitsChunk
            settings.checkpointing = try bench.kept.choice ?? .full
            settings.offloadsActivations = offloadActivations
            settings.offloadedMoments = offloadMoments
            return settings
        }

        private func say(
            _ report: TrainingBenchmark.Report, _ device: Device, _ dtype: DType,
            _ settings: TrainingBenchmark.Settings, _ reference: Double?
        ) throws {
            let text = TrainingReport(
                shape: shape ?? "", device: device, dtype: dtype, settings: settings, report: report,
                peak: peak * 1e12, reference: reference ?? report.ranks?.aloneMean)
            Console.say(try json ? text.json() : text.table())
        }
    }
}
