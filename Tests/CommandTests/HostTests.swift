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

    /// `fledge train` and `fledge submit` with a real Ray cluster of two nodes.
    @Suite(.serialized) struct RayCommandTests {
        private func settings(_ cluster: RayCluster) -> [String] {
            [
                "cluster.type=ray", "cluster.ray.address=\(cluster.address)", "cluster.ray.python=\(cluster.python)",
                "trainer.nnodes=2", "trainer.n_gpus_per_node=1", "trainer.test_freq=-1",
            ]
        }

        @Test func aRunOnTwoNodesIsThatOfTwoRanks() async throws {
            try await RayCluster.use(for: "RayCommandTests") { cluster in
                let one = try Workspace(), two = try Workspace()
                let short = ["trainer.total_training_steps=4"]
                let alone = try await one.train(["trainer.n_gpus_per_node=2", "trainer.test_freq=-1"] + short)
                #expect(alone.exitCode == 0, "\(alone)")
                let outcome = try await two.train(
                    settings(cluster) + short + ["cluster.ray.placement_strategy=STRICT_SPREAD"])
                #expect(outcome.exitCode == 0, "\(outcome)")
                for node in RayCluster.nodes { #expect(outcome.errors.contains("\(node): rank "), "\(outcome)") }
                #expect(try two.metrics() == one.metrics())
            }
        }

        /// A rank is killed, and later a node goes; what is left of the cluster takes the ranks, which go on from the last checkpoint.
        @Test func aRunSurvivesARankAndANode() async throws {
            try await RayCluster.use(for: "RayCommandTests") { cluster in
                let whole = try Workspace(), workspace = try Workspace()
                let steps = ["trainer.total_training_steps=10", "trainer.test_freq=-1", "trainer.save_freq=1"]
                let alone = try await whole.train(["trainer.n_gpus_per_node=2"] + steps)
                #expect(alone.exitCode == 0, "\(alone)")
                let outcome = try await FledgeProcess.run(
                    ["train", "recipe.yaml"] + settings(cluster) + steps + [
                        "cluster.ray.placement_strategy=SPREAD", "trainer.nccl_timeout=20", "trainer.max_restarts=2",
                    ], in: workspace.folder, environment: ["FLEDGE_REHEARSE": "kill:1:2:update"]
                ) { process in
                    if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 4 }) {
                        try await cluster.kill("127.0.0.3")
                    }
                }
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.errors.contains("was killed by SIGKILL"), "\(outcome)")
                #expect(outcome.errors.contains("(1 of trainer.max_restarts 2)"), "\(outcome)")
                #expect(outcome.errors.contains("(2 of trainer.max_restarts 2)"), "\(outcome)")
                #expect(outcome.errors.contains("on 127.0.0.3) is lost with its node"), "\(outcome)")
                #expect(try workspace.metrics() == whole.metrics())
            }
        }

        @Test func aControllerThatIsKilledLeavesNoOrphans() async throws {
            try await RayCluster.use(for: "RayCommandTests") { cluster in
                let workspace = try Workspace()
                let name = "experiment_name=orphans-\(UUID().uuidString)"
                @Sendable func processes() -> Int {
                    let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
                    return all.count { process in
                        guard Int32(process) != nil,
                            let line = FileManager.default.contents(atPath: "/proc/\(process)/cmdline")
                        else { return false }
                        return String(decoding: line, as: UTF8.self).contains(name)
                    }
                }
                let outcome = try await workspace.train(
                    settings(cluster) + [name, "trainer.total_training_steps=4000"]
                ) { process in
                    guard try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) else { return }
                    #expect(processes() == 3)
                    Glibc.kill(process, SIGKILL)
                    let limit = ContinuousClock.now + .seconds(60)
                    while processes() > 1, ContinuousClock.now < limit { try await Task.sleep(for: .milliseconds(20)) }
                    // The controller itself is waited for after this.
                    #expect(processes() <= 1)
                }
                #expect(outcome.wasKilled, "\(outcome)")
            }
        }

        @Test func aJobIsSubmittedAndFollowed() async throws {
            try await RayCluster.use(for: "RayCommandTests") { cluster in
                let workspace = try Workspace()
                let common = ["--address", cluster.dashboard]
                let job =
                    ["submit", "recipe.yaml"] + settings(cluster)
                    + [
                        "cluster.ray.placement_strategy=STRICT_SPREAD", "trainer.total_training_steps=2",
                        "model.path=\(workspace.model.path)", "trainer.default_local_dir=\(workspace.run.path)",
                    ]
                let check = try await FledgeProcess.run(job + common + ["--check"], in: workspace.folder)
                #expect(check.exitCode == 0 && check.output.contains("2 nodes alive"), "\(check)")
                #expect(check.output.contains("1 files go along: recipe.yaml"), "\(check)")
                let outcome = try await FledgeProcess.run(
                    job + common + ["--env", "OMP_NUM_THREADS=1"], in: workspace.folder)
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.output.contains("127.0.0.3: rank "), "\(outcome)")
                #expect(workspace.stepsWritten == 2)

                let wrong = try await FledgeProcess.run(
                    job + ["data.val_files=nothing.jsonl"] + common, in: workspace.folder)
                #expect(wrong.exitCode == 2 && wrong.output.contains("nothing.jsonl"), "\(wrong)")
                let id = "long-\(UUID().uuidString)"
                let long = try await FledgeProcess.run(
                    job + ["trainer.total_training_steps=4000", "trainer.resume_mode=disable"] + common + [
                        "--no-wait", "--id", id,
                    ],
                    in: workspace.folder)
                #expect(long.exitCode == 0 && long.output == id + "\n", "\(long)")
                let stop = try await FledgeProcess.run(["submit", "--stop", id] + common, in: workspace.folder)
                #expect(stop.exitCode == 0 && stop.output.contains("is told to end"), "\(stop)")
                let follow = try await FledgeProcess.run(["submit", "--follow", id] + common, in: workspace.folder)
                #expect(follow.exitCode == 130, "\(follow)")
                let status = try await FledgeProcess.run(["submit", "--status", id] + common, in: workspace.folder)
                #expect(status.output.contains("\(id): STOPPED"), "\(status)")
            }
        }

        @Test func whatCannotBeIsSaid() async throws {
            let workspace = try Workspace()
            let nobody = try await FledgeProcess.run(
                ["submit", "recipe.yaml", "--address", "http://127.0.0.2:1"], in: workspace.folder)
            #expect(nobody.exitCode == 1 && nobody.errors.contains("no answer from Ray's dashboard"), "\(nobody)")
            let missing = try await FledgeProcess.run(
                ["submit", "recipe.yaml"], in: workspace.folder, environment: ["RAY_API_SERVER_ADDRESS": nil])
            #expect(missing.exitCode == 64, "\(missing)")
            let python = try await workspace.train([
                "cluster.type=ray", "trainer.n_gpus_per_node=1", "cluster.ray.python=/no/python",
            ])
            #expect(python.exitCode == 1 && python.errors.contains("cluster.ray.python"), "\(python)")
        }
    }
}
