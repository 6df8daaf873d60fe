import ArgumentParser
import Cluster
import Foundation
import Telemetry
import TensorCore
import TrainingEngine
import Workers

extension TrainBench {
    /// How several devices train a known shape together.
    struct RankOptions: ParsableArguments {
        @Option(help: "GPUs of this host, or on the CPU processes, each with --rows rows of its own.") var devices = 1
        @Option(help: "What they share out: full (all), grad-op (gradients and states) or none.") var sharding = "full"
        @Option(help: "Devices that share one copy of weights and states; by default all, but for --tp.")
        var fsdpSize: Int?
        @Option(help: "Devices that share each matrix, and the same rows.") var tp = 1
        @Flag(help: "With --tp: share tokens too, where layers work on each for itself.") var sequenceParallel = false
        @Option(help: "The type that gradients travel in: float32 or bfloat16; by default the type they are summed in.")
        var reduceDtype: String?
        @Flag(inversion: .prefixedNo, help: "Bring the next layer's weights together while a layer runs.")
        var prefetch = true
        @Flag(help: "Measure each device alone first, by which the rate together is judged.") var alone = false
        @Option(
            help: "What to judge by instead: what this command printed by --json for one device.", completion: .file())
        var against: String?
        @Option(help: "Seconds that devices wait for one that does nothing.") var timeout = 300.0

        var areSeveral: Bool { devices > 1 }

        func validate() throws {
            for (name, value) in [("--devices", devices), ("--tp", tp), ("--fsdp-size", fsdpSize ?? 1)]
            where value < 1 { throw ValidationError("\(name) \(value) is less than 1") }
            if timeout < 1 { throw ValidationError("--timeout \(timeout) is less than 1") }
            if alone, against != nil { throw ValidationError("give either --alone or --against") }
            if sequenceParallel, tp == 1 {
                throw ValidationError("--sequence-parallel shares among the devices of --tp")
            }
            if devices == 1, alone || against != nil || tp > 1 || fsdpSize ?? 1 > 1 {
                throw ValidationError("--alone, --against, --tp and --fsdp-size are for --devices of 2 and more")
            }
            _ = try sharing(.float32)
        }

        func sharing(_ summed: DType) throws -> TrainingBenchmark.Sharing {
            let modes: [String: ShardingMode] = ["full": .fullShard, "grad-op": .shardGradOp, "none": .noShard]
            guard let mode = modes[sharding] else {
                throw ValidationError("--sharding '\(sharding)' is none of full, grad-op, none")
            }
            let types: [String: DType] = ["float32": .float32, "bfloat16": .bfloat16]
            guard let reduced = reduceDtype.map({ types[$0] }) ?? summed else {
                throw ValidationError("--reduce-dtype '\(reduceDtype ?? "")' is not float32 or bfloat16")
            }
            do {
                var sharing = try TrainingBenchmark.Sharing(
                    devices: devices, mode: mode, size: fsdpSize, tensor: tp, reduceDType: reduced)
                sharing.options.prefetches = prefetch
                sharing.sequenceParallel = sequenceParallel
                sharing.measuresAlone = alone
                return sharing
            } catch { throw ValidationError(error.message) }
        }

        /// Tokens a second of one device, from what it printed.
        func reference(_ shape: String) throws -> Double? {
            guard let against else { return nil }
            guard let bytes = FileManager.default.contents(atPath: against) else {
                throw ValidationError("--against '\(against)' is not there")
            }
            let json = try JSONValue(parsing: Array(bytes), path: against)
            guard json["case"]?.string == "train", json["shape"]?.string == shape, json["devices"] == nil,
                let rate = json["tokens_per_second"]?.double, rate > 0
            else { throw ValidationError("--against '\(against)' is not what one device printed for \(shape)") }
            return rate
        }

        /// Runs `body` in each rank.
        func run(
            _ device: String, _ body: (RankEnvironment, RankMembership, Device) throws -> Void
        ) async throws {
            let ranks = try RankedCommand(
                count: RankedCommand.count(devices: devices, on: device), deadline: .seconds(timeout), remedy: "")
            guard ranks.count == devices else {
                throw ValidationError("--devices \(devices): this process is one of \(ranks.count)")
            }
            try await ranks.run { place, members in
                guard let place, let members else { return }
                try body(place, members, RankedCommand.device(device, of: place))
            }
        }
    }
}
