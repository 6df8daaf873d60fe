import Foundation
import Subprocess
import Telemetry
import TestSupport
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
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
                    // The controller itself is waited for after this.
                    #expect(await holds(within: .seconds(60)) { processes() <= 1 })
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
