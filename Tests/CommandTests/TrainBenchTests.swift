import Foundation
import Telemetry
import Testing

extension CommandSuites {
    @Suite struct TrainBenchTests {
        private func run(_ arguments: [String]) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                ["bench", "train", "--device", "cpu"] + arguments, in: FileManager.default.temporaryDirectory)
        }

        @Test(arguments: [
            ["--rows", "2", "--seq", "16"], ["--rows", "2", "--prompt", "9", "--answer", "6", "--answers", "3"],
            ["--rows", "2", "--seq", "16", "--forward-only"],
            ["--rows", "2", "--seq", "16", "--objective", "policy", "--states", "float32", "--checkpointing", "none"],
        ])
        func printsEveryField(_ arguments: [String]) async throws {
            let outcome = try await run(
                ["--shape", "tiny", "--weights", "random", "--steps", "2", "--json"] + arguments)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            #expect(json["shape"]?.string == "tiny" && json["dtype"]?.string == "float32")
            #expect(json["seconds"]?.elements.count == 2 && json["attention"]?.string == "cpu")
            for name in [
                "step_seconds", "tokens_per_second", "tflops", "tokens", "computed_tokens", "parameters", "loss",
                "peak_memory_gib",
            ] { #expect((json[name]?.double ?? 0) > 0, "\(name)") }
        }

        @Test func printsATable() async throws {
            let outcome = try await run(["--shape", "tiny", "--rows", "1", "--seq", "8", "--steps", "1"])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(outcome.output.contains("tokens/s") && outcome.output.contains("\ntiny "), "\(outcome)")
        }

        private static let small = [
            "--shape", "tiny", "--rows", "2", "--seq", "16", "--steps", "2", "--warmup", "1", "--json",
        ]

        /// One process for each device, started as a user's command starts them.
        @Test(arguments: [
            (2, ["--alone"], "fsdp2", "FULL_SHARD"), (2, ["--sharding", "grad-op"], "fsdp2", "SHARD_GRAD_OP"),
            (2, ["--sharding", "none", "--states", "float32"], "dp2", "NO_SHARD"),
            (4, ["--fsdp-size", "2", "--objective", "policy"], "dp2×fsdp2", "FULL_SHARD"),
            (4, ["--tp", "2", "--sequence-parallel"], "fsdp2×tp2", "FULL_SHARD"),
            (2, ["--tp", "2", "--forward-only"], "tp2", "NO_SHARD"),
        ])
        func severalDevicesTrainTogether(
            _ devices: Int, _ arguments: [String], _ layout: String, _ sharding: String
        ) async throws {
            let outcome = try await run(Self.small + ["--devices", "\(devices)"] + arguments)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            let sets = arguments.contains("--tp") ? devices / 2 : devices
            #expect(json["devices"]?.int == devices && json["backend"]?.string == "gloo")
            #expect(json["layout"]?.string == layout && json["sharding"]?.string == sharding)
            #expect(json["tokens"]?.int == 2 * 16 * sets && json["seconds"]?.elements.count == 2)
            #expect(json["peak_memory_gib_by_rank"]?.elements.count == devices)
            #expect(json["step_seconds_by_rank"]?.elements.count == devices)
            let rate = try #require(json["tokens_per_second"]?.double)
            let each = try #require(json["tokens_per_second_per_device"]?.double)
            #expect(rate > 0 && abs(each * Double(devices) - rate) <= Double(devices))
            // Random weights know nothing.
            #expect(abs((json["loss"]?.double ?? 0) - 6.238) < 0.1)
            #expect((json["share_of_one_device"]?.double != nil) == arguments.contains("--alone"))
            #expect(
                json["tokens_per_second_alone"]?.elements.count ?? 0 == (arguments.contains("--alone") ? devices : 0))
        }

        @Test func severalDevicesAreJudgedByWhatOnePrinted() async throws {
            let folder = FileManager.default.temporaryDirectory.appending(path: "fledge-against-\(UUID().uuidString)")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(at: folder) }
            let file = folder.appending(path: "one.json").path
            let one = try await run(Self.small)
            try Data(one.output.utf8).write(to: URL(fileURLWithPath: file))
            let outcome = try await run(Self.small + ["--devices", "2", "--against", file])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let json = try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
            let alone = try JSONValue(parsing: Array(one.output.utf8), path: nil)
            #expect(json["tokens_per_second_one_device"]?.double == alone["tokens_per_second"]?.double)
            #expect((json["share_of_one_device"]?.double ?? 0) > 0)
            // One device's figures have no place for several.
            #expect(alone["devices"] == nil && alone["layout"] == nil)
            try Data(outcome.output.utf8).write(to: URL(fileURLWithPath: file))
            let wrong = try await run(Self.small + ["--devices", "2", "--against", file])
            #expect(wrong.exitCode == 64 && wrong.errors.contains("is not what one device printed"), "\(wrong)")
        }

        @Test(arguments: [
            ["--devices", "0"], ["--devices", "4", "--tp", "3"], ["--devices", "4", "--fsdp-size", "3"],
            ["--devices", "2", "--sharding", "most"], ["--alone"], ["--tp", "2"],
            ["--devices", "2", "--sequence-parallel"], ["--devices", "2", "--reduce-dtype", "int8"],
            ["--devices", "2", "--alone", "--against", "x.json"], ["--devices", "2", "--device", "cuda:1"],
        ])
        func refusesDevicesThatItCannotUse(_ arguments: [String]) async throws {
            let outcome = try await FledgeProcess.run(
                ["bench", "train"] + Self.small + arguments, in: FileManager.default.temporaryDirectory)
            #expect(outcome.exitCode == 64, "\(outcome)")
        }

        @Test(arguments: [
            [], ["--shape", "gpt-5"], ["--shape", "tiny", "--model", "x"], ["--shape", "tiny", "--seq", "1"],
            ["--shape", "tiny", "--prompt", "4"], ["--shape", "tiny", "--states", "int3"],
            ["--shape", "tiny", "--checkpointing", "some"], ["--shape", "tiny", "--objective", "fun"],
            ["--shape", "tiny", "--attention", "eager"], ["--shape", "tiny", "--weights", "trained"],
            ["--shape", "tiny", "--micro-batch-tokens", "0"],
        ])
        func refusesWhatItCannotRun(_ arguments: [String]) async throws {
            let outcome = try await run(arguments)
            #expect(outcome.exitCode == 64, "\(outcome)")
        }
    }
}
