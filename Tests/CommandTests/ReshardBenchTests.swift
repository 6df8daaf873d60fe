import Foundation
import Telemetry
import Testing

extension CommandSuites {
    @Suite struct ReshardBenchTests {
        private func run(_ arguments: [String]) async throws -> FledgeProcess.Outcome {
            try await FledgeProcess.run(
                ["bench", "reshard", "--shape", "tiny", "--repeats", "2"] + arguments,
                in: FileManager.default.temporaryDirectory)
        }

        private func json(_ outcome: FledgeProcess.Outcome) throws -> JSONValue {
            #expect(outcome.exitCode == 0, "\(outcome)")
            return try JSONValue(parsing: Array(outcome.output.utf8), path: nil)
        }

        /// In one process for each rank, and as threads of one: the same bits.
        @Test(arguments: [
            ("fsdp4", "tp2xdp2", 4), ("fsdp2", "tp2", 2), ("fsdp2×tp2", "dp2×tp2", 4), ("fsdp4", "dp4", 4),
        ])
        func processesReshard(_ from: String, _ to: String, _ ranks: Int) async throws {
            let layouts = ["--from", from, "--to", to, "--json"]
            let processes = try json(await run(layouts + ["--device", "cpu", "--devices", "\(ranks)", "--gathers"]))
            #expect(processes["ranks"]?.int == ranks && processes["identical"]?.string == "yes")
            for name in ["seconds", "gathering_seconds"] {
                #expect(processes[name]?.elements.count == 2, "\(name)")
            }
            for name in ["best_seconds", "median_seconds", "gathering_best_seconds", "gathering_median_seconds"] {
                #expect((processes[name]?.double ?? 0) > 0, "\(name)")
            }
            #expect(processes["bytes_received"]?.elements.count == ranks)
            #expect((processes["gathering_peak_extra_mib"]?.int ?? -1) >= 0)
            let threads = try json(await run(layouts + ["--no-baseline"]))
            #expect(threads["digests"]?.string == processes["digests"]?.string)
            #expect(processes["digests"]?.string?.split(separator: " ").count == ranks)
            #expect(threads["gathering_seconds"] == nil)
        }

        @Test func asManyDevicesAsRanks() async throws {
            let outcome = try await run(["--from", "fsdp4", "--to", "dp4", "--device", "cpu", "--devices", "2"])
            #expect(outcome.exitCode != 0 && outcome.errors.contains("4 ranks"), "\(outcome)")
        }

        @Test(arguments: [
            ["--from", "fsdp4", "--to", "tp4", "--devices", "1"],
            ["--from", "fsdp4", "--to", "tp4", "--device", "tpu"], ["--from", "fsdp4"],
            ["--from", "fsdp4", "--to", "zp4"], ["--from", "fsdp4", "--to", "tp4", "--timeout", "0"],
        ])
        func refusesWhatItCannotRun(_ arguments: [String]) async throws {
            let outcome = try await run(arguments)
            #expect(outcome.exitCode == 64, "\(outcome)")
        }
    }
}
