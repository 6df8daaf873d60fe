import Foundation
import OrderedCollections
import Subprocess
import Telemetry
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Runs of several processes on the CPU.
    @Suite struct RankTests {
        private static let two = ["trainer.n_gpus_per_node=2"]

        /// What one uninterrupted run of two ranks prints; made once.
        private static let uninterrupted = Task {
            let workspace = try Workspace()
            let outcome = try await workspace.train(two + short)
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            return try workspace.metrics()
        }
        private static let short = ["trainer.total_training_steps=4", "trainer.test_freq=-1"]

        @Test(arguments: [2, 3])
        func severalRanksTrainAsOneDoes(count: Int) async throws {
            let one = try Workspace(), several = try Workspace()
            let alone = try await one.train(Self.short)
            #expect(alone.exitCode == 0, "\(alone)")
            let outcome = try await several.train(["trainer.n_gpus_per_node=\(count)"] + Self.short)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let expected = try one.history(), found = try several.history()
            try #require(found.count == 4 && expected.count == 4)
            try expectSameSteps(Array(found.prefix(2)), Array(expected.prefix(2)))
            let match = try several.run.readSummary()?.heldOutExactMatch
            #expect(match?.before == (try one.run.readSummary()?.heldOutExactMatch?.before))
        }

        struct Failure: Sendable, CustomTestStringConvertible {
            var kind: String
            var rank: Int
            var step: Int
            var phase: String
            var testDescription: String { "\(kind):\(rank):\(step):\(phase)" }
        }

        static let failures: [Failure] =
            ["kill", "stop"].flatMap { kind in
                ["generate", "old_log_prob", "ref_log_prob", "update"].map {
                    Failure(kind: kind, rank: 1, step: 3, phase: $0)
                }
                    + [Failure(kind: kind, rank: 1, step: 2, phase: "save")]
            } + [
                Failure(kind: "kill", rank: 0, step: 3, phase: "update"),
                Failure(kind: "stop", rank: 0, step: 3, phase: "score"),
                Failure(kind: "kill", rank: 0, step: 2, phase: "save"),
            ]

        @Test(arguments: failures)
        func aLostRankIsNamedEveryoneEndsAndTheRunGoesOn(failure: Failure) async throws {
            let whole = try await Self.uninterrupted.value
            let workspace = try Workspace()
            let outcome = try await FledgeProcess.run(
                ["train", "recipe.yaml", "trainer.nccl_timeout=4"] + Self.two + Self.short, in: workspace.folder,
                environment: ["FLEDGE_REHEARSE": failure.testDescription])
            #expect(outcome.exitCode == 75, "\(outcome)")
            let named = outcome.errors.split(separator: "\n").contains {
                $0.contains("rank \(failure.rank) (process ")
                    && ($0.contains("is dead") || $0.contains("is stopped") || $0.contains("has not arrived"))
                    && $0.contains("at step \(failure.step), phase \(failure.phase)")
            }
            #expect(named, "\(outcome)")
            #expect(outcome.errors.contains("the same command goes on from the last one"), "\(outcome)")
            #expect(outcome.errors.contains("rank \(1 - failure.rank) of 2 gives up"), "\(outcome)")

            let resumed = try await workspace.train(Self.two + Self.short)
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole)
        }

        @Test func interruptsFinishTheStepAndSave() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(Self.two + ["trainer.total_training_steps=400"]) { process in
                if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) {
                    Glibc.kill(process, SIGINT)
                }
            }
            #expect(outcome.exitCode == 130, "\(outcome)")
            #expect(
                outcome.errors.contains("\nstopping after this step")
                    || outcome.errors.hasPrefix("stopping after this step"), "\(outcome)")
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .interrupted && summary.steps == workspace.stepsWritten)
            #expect(workspace.checkpoints().last?.hasSuffix("\(summary.steps)") == true)
        }

        @Test func aLauncherThatIsKilledLeavesNoOrphans() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(Self.two + ["trainer.total_training_steps=400"]) { process in
                guard try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) else { return }
                let ranks = children(of: process)
                #expect(ranks.count == 2)
                // One that stands still is not left behind either.
                if let last = ranks.last { Glibc.kill(last, SIGSTOP) }
                Glibc.kill(process, SIGKILL)
                #expect(await holds { !ranks.contains(where: FledgeProcess.isRunning) })
            }
            #expect(outcome.wasKilled, "\(outcome)")
        }

        @Test func ranksThatSomebodyElseStartsFindOneAnother() async throws {
            let workspace = try Workspace()
            let port = try freePort()
            func start(_ rank: Int) async throws -> FledgeProcess.Outcome {
                try await FledgeProcess.run(
                    ["train", "recipe.yaml", "trainer.total_training_steps=2"], in: workspace.folder,
                    environment: [
                        "RANK": "\(rank)", "WORLD_SIZE": "2", "LOCAL_RANK": "\(rank)", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": "\(port)",
                    ])
            }
            async let other = start(1)
            let first = try await start(0), second = try await other
            #expect(first.exitCode == 0 && second.exitCode == 0, "\(first)\n\(second)")
            #expect(workspace.stepsWritten == 2)
        }

        @Test func mistakesEndEveryRankAndAreSaidOnce() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(Self.two + ["data.train_files=nothing.jsonl"])
            #expect(outcome.exitCode == 2, "\(outcome)")
            // Said by the process that was started, and by no rank.
            #expect(outcome.errors.components(separatedBy: "error: ").count == 2, "\(outcome)")
            #expect(!outcome.errors.contains("[rank "), "\(outcome)")
            #expect(!outcome.errors.contains("the same command goes on"), "\(outcome)")
            let gpu = try await workspace.train(["device=cuda:1", "trainer.n_gpus_per_node=2"])
            #expect(gpu.exitCode == 2 && gpu.errors.contains("is one GPU"), "\(gpu)")
        }

        @Test func collectivesAreMeasured() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.fledge(
                "bench", "collectives", "--device", "cpu", "--devices", "2", "--sizes", "1", "--repeats", "2", "--json")
            #expect(outcome.exitCode == 0, "\(outcome)")
            let report = try JSONDecoder().decode(Report.self, from: Data(outcome.output.utf8))
            #expect(report.backend == "gloo" && report.ranks == 2)
            #expect(report.results.map(\.operation) == ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
            #expect(report.results.allSatisfy { $0.bytes == 1 << 20 && $0.bus_gb_per_second > 0 })
        }

        private struct Report: Decodable {
            struct Entry: Decodable {
                var operation: String
                var bytes: Int
                var bus_gb_per_second: Double
            }
            var backend: String
            var ranks: Int
            var results: [Entry]
        }
    }
}

func children(of process: pid_t) -> [pid_t] {
    let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? []
    return tasks.flatMap { task in
        let text = (try? String(contentsOfFile: "/proc/\(process)/task/\(task)/children", encoding: .utf8)) ?? ""
        return text.split(separator: " ").compactMap { pid_t($0) }
    }.sorted()
}

/// A port that was free a moment ago.
func freePort(at host: String = "127.0.0.1") throws -> Int {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    try #require(inet_pton(AF_INET, host, &address.sin_addr) == 1)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
        }
    }
    try #require(isBound)
    return Int(UInt16(bigEndian: address.sin_port))
}
