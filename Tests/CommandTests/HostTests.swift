import Foundation
import Subprocess
import Synchronization
import Telemetry
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// Whether a process stands still, as by SIGSTOP.
private func isStopped(_ process: pid_t) -> Bool {
    let status = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
    return status.split(separator: ")").last?.split(separator: " ").first == "T"
}

private final class Processes: Sendable {
    let all = Mutex<Set<pid_t>>([])
}

extension CommandSuites {
    /// Ranks on two hosts, which are two addresses of this one: they share no memory and see one another over TCP alone.
    @Suite struct HostTests {
        private static let short = [
            "trainer.total_training_steps=4", "trainer.test_freq=-1", "cluster.type=env", "trainer.nnodes=2",
            "trainer.n_gpus_per_node=1",
        ]

        /// Starts a rank for each address, in one folder.
        private func run(
            _ workspace: Workspace, hosts: [String] = ["127.0.0.2", "127.0.0.3"], _ arguments: [String] = short,
            _ environment: [Environment.Key: String?] = [:],
            of rank: Int? = nil, by launcher: Launcher = .torchrun
        ) async throws -> [FledgeProcess.Outcome] {
            let port = try freePort(at: hosts[0])
            let processes = Processes()
            // Nobody else ends a rank that stands still: it is the last one then.
            let reaper = Task {
                while processes.all.withLock({ $0.count }) < hosts.count
                    || processes.all.withLock({ $0.contains { FledgeProcess.isRunning($0) && !isStopped($0) } })
                {
                    try await Task.sleep(for: .milliseconds(20))
                }
                for process in processes.all.withLock({ $0 }) where isStopped(process) { Glibc.kill(process, SIGKILL) }
            }
            defer { reaper.cancel() }
            return try await withThrowingTaskGroup(of: (Int, FledgeProcess.Outcome).self) { tasks in
                for (number, host) in hosts.enumerated() {
                    let local = hosts[..<number].count { $0 == host }
                    let place: [Environment.Key: String?] = [
                        launcher.rank: "\(number)", launcher.size: "\(hosts.count)", launcher.local: "\(local)",
                        "MASTER_ADDR": hosts[0], "MASTER_PORT": "\(port)", "FLEDGE_NODE_ADDRESS": host,
                        "TORCH_CPP_LOG_LEVEL": "ERROR",
                    ]
                    let own = rank == nil || rank == number ? environment : [:]
                    tasks.addTask {
                        let outcome = try await FledgeProcess.run(
                            ["train", "recipe.yaml"] + arguments, in: workspace.folder,
                            environment: place.merging(own) { $1 }
                        ) { process in _ = processes.all.withLock { $0.insert(process) } }
                        return (number, outcome)
                    }
                }
                return try await tasks.reduce(into: []) { $0.append($1) }.sorted { $0.0 < $1.0 }.map(\.1)
            }
        }

        /// By the names of the variables that it sets.
        struct Launcher: Sendable, CustomTestStringConvertible {
            let name: String, rank: Environment.Key, size: Environment.Key, local: Environment.Key
            var testDescription: String { name }

            static let torchrun = Self(name: "torchrun", rank: "RANK", size: "WORLD_SIZE", local: "LOCAL_RANK")
            static let srun = Self(
                name: "srun", rank: "SLURM_PROCID", size: "SLURM_NTASKS", local: "SLURM_LOCALID")
            static let mpirun = Self(
                name: "mpirun", rank: "OMPI_COMM_WORLD_RANK", size: "OMPI_COMM_WORLD_SIZE",
                local: "OMPI_COMM_WORLD_LOCAL_RANK")
        }

        @Test(arguments: [Launcher.torchrun, .srun, .mpirun])
        func ranksOfTwoHostsTrainAsOneHostDoes(launcher: Launcher) async throws {
            let one = try Workspace(), two = try Workspace()
            let alone = try await one.train([
                "trainer.n_gpus_per_node=2", "trainer.total_training_steps=4", "trainer.test_freq=-1",
            ])
            #expect(alone.exitCode == 0, "\(alone)")
            let outcomes = try await run(two, by: launcher)
            #expect(outcomes.map(\.exitCode) == [0, 0], "\(outcomes)")
            #expect(try two.metrics() == one.metrics())
        }

        struct Failure: Sendable, CustomTestStringConvertible {
            var kind: String
            var rank: Int
            var phase = "update"
            var testDescription: String { "\(kind):\(rank):2:\(phase)" }
        }

        @Test(arguments: [
            Failure(kind: "kill", rank: 1), Failure(kind: "stop", rank: 1), Failure(kind: "kill", rank: 0),
            Failure(kind: "stop", rank: 0), Failure(kind: "kill", rank: 1, phase: "generate"),
        ])
        func aRankLostOnAnotherHostIsNamed(failure: Failure) async throws {
            let workspace = try Workspace()
            let outcomes = try await run(
                workspace, Self.short + ["trainer.nccl_timeout=4"], ["FLEDGE_REHEARSE": failure.testDescription])
            let lost = "rank \(failure.rank) (process ", survivor = outcomes[1 - failure.rank]
            #expect(survivor.exitCode == 75, "\(outcomes)")
            let signs =
                failure.kind == "kill" ? ["is dead"] : ["is stopped", "hangs or its host is lost", "has not arrived"]
            let named = survivor.errors.split(separator: "\n").contains { line in
                line.contains(lost) && line.contains(" on 127.0.0.\(failure.rank + 2))")
                    && signs.contains { line.contains($0) } && line.contains("; last, ")
            }
            #expect(named, "\(outcomes)")
        }

        /// Two ranks a host: when a host's first rank stands still or dies, its second one says so to the other host.
        @Test(arguments: ["kill", "stop"]) func aHostsSecondRankSpeaksForTheFirst(kind: String) async throws {
            let workspace = try Workspace()
            let outcomes = try await run(
                workspace, hosts: ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"],
                Self.short + ["trainer.n_gpus_per_node=2", "trainer.nccl_timeout=6"],
                ["FLEDGE_REHEARSE": "\(kind):2:2:update"])
            for rank in [0, 1] {
                let named = outcomes[rank].errors.split(separator: "\n").contains {
                    $0.contains("rank 2 (process ") && $0.contains(" on 127.0.0.3)")
                        && ($0.contains(kind == "kill" ? "is dead" : "is stopped") || $0.contains("has not arrived"))
                }
                #expect(named && outcomes[rank].exitCode == 75, "\(outcomes)")
                #expect(!outcomes[rank].errors.contains("rank 3 (process "), "\(outcomes)")
            }
        }

        @Test func settingsThatCannotBeAreSaid() async throws {
            let workspace = try Workspace()
            let alone = try await workspace.train(Self.short)
            #expect(alone.exitCode == 2 && alone.errors.contains("the environment says of no rank"), "\(alone)")
            let three = try await run(workspace, Self.short + ["trainer.n_gpus_per_node=3"])
            #expect(
                three.allSatisfy { $0.exitCode == 2 && $0.errors.contains("of trainer.n_gpus_per_node 3") }, "\(three)")
            let network = try await run(workspace, Self.short, ["NCCL_SOCKET_IFNAME": "nothing"], of: 1)
            #expect(network[0].errors.contains("no interface for NCCL_SOCKET_IFNAME=nothing"), "\(network)")
            #expect(network.allSatisfy { $0.exitCode == 2 }, "\(network)")
            let warned = try await run(
                workspace, Self.short + ["trainer.total_training_steps=1"], ["NCCL_ALGO": "Ring"], of: 1)
            #expect(warned[0].errors.contains("warning: NCCL_ALGO is not the same on all hosts"), "\(warned)")
            #expect(warned.map(\.exitCode) == [0, 0], "\(warned)")
        }
    }
}
