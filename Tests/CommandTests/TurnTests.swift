import Foundation
import Telemetry
import Testing

extension CommandSuites {
    /// Roles that share devices and lie in host memory but for their turns, against the same run with all of them there.
    @Suite struct TurnTests {
        private static let ppo = [
            "algorithm.adv_estimator=gae", "actor.use_kl_loss=true", "actor.ppo_epochs=2", "trainer.critic_warmup=1",
            "trainer.total_training_steps=3", "trainer.test_freq=-1", "trainer.save_freq=3",
        ]
        private static let ranks = "trainer.n_gpus_per_node=2"
        private static let layouts = [
            [], ["model.dtype=bfloat16", "actor.optim.state_dtype=int8"],
            [ranks, "actor.fsdp_config.fsdp_size=-1"], [ranks, "actor.fsdp_config.fsdp_size=1"],
            [ranks, "actor.fsdp_config.fsdp_size=-1", "actor.fsdp_config.reshard_after_forward=false"],
            ["resource_pools={train: 1, judge: 1}", "roles.reference=judge", "roles.critic=judge"],
        ]

        /// The tensors of the run's checkpoint of a step, file by file.
        private static func weights(_ workspace: Workspace, step: Int) throws -> [String: Data] {
            let folder = workspace.run.checkpoints + "/step-00000\(step)"
            var files: [String: Data] = [:]
            let names = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
            for name in names where name.hasSuffix(".safetensors") {
                files[name] = FileManager.default.contents(atPath: folder + "/" + name)
            }
            return files
        }

        @Test(arguments: layouts)
        func turnsChangeNoBit(layout: [String]) async throws {
            let stays = try Workspace(), rests = try Workspace()
            let first = try await stays.train(Self.ppo + layout + ["trainer.take_turns=false"])
            #expect(first.exitCode == 0 && !first.errors.contains("take turns"), "\(first)")
            let second = try await rests.train(Self.ppo + layout + ["trainer.take_turns=true"])
            #expect(second.exitCode == 0 && second.errors.contains("take turns with the device's memory"), "\(second)")
            #expect(try rests.metrics() == stays.metrics())
            let expected = try Self.weights(stays, step: 3)
            #expect(try !expected.isEmpty && Self.weights(rests, step: 3) == expected)
            // The critic learns alone in the first step.
            for (index, step) in try rests.history().enumerated() {
                #expect((step["perf/critic_rested_bytes"] ?? 0) > 0 && step["perf/critic_rested_seconds"] != nil)
                #expect(((step["perf/rested_bytes"] ?? 0) > 0) == (index > 0))
            }
            #expect(try stays.history().allSatisfy { $0["perf/rested_bytes"] == nil })
        }

        /// Saved while they rest, and put back where they rest; with other ranks than those that saved too.
        @Test(arguments: [[[]], [["trainer.n_gpus_per_node=2", "actor.fsdp_config.fsdp_size=-1"], []]])
        func aRunGoesOn(layouts: [[String]]) async throws {
            let whole = try Workspace(), parts = try Workspace()
            let settings = Self.ppo + ["actor.optim.lr_scheduler_type=constant", "trainer.save_freq=2"]
            let layout = { (index: Int) in layouts[index % layouts.count] }
            let first = try await whole.train(settings + layout(0) + ["trainer.take_turns=false"])
            #expect(first.exitCode == 0, "\(first)")
            let turns = settings + ["trainer.take_turns=true"]
            let start = try await parts.train(turns + layout(0) + ["trainer.total_training_steps=2"])
            #expect(start.exitCode == 0, "\(start)")
            let end = try await parts.train(turns + layout(layouts.count - 1))
            #expect(end.exitCode == 0 && end.errors.contains("going on from step 2"), "\(end)")
            if layouts.count == 1 {
                #expect(try parts.metrics() == whole.metrics())
                #expect(try Self.weights(parts, step: 3) == Self.weights(whole, step: 3))
            } else {
                #expect(try parts.metrics().prefix(2) == whole.metrics().prefix(2))
                #expect(try parts.history().count == 3)
            }
        }

        /// A reference that is told to stay stays.
        @Test func aRoleMayStay() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(
                Self.ppo + [
                    "trainer.take_turns=true", "reference.param_offload=false", "critic.shares_trunk=true",
                    "trainer.critic_warmup=0",
                ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            #expect(
                outcome.errors.contains("memory: the actor's optimizer states (")
                    && !outcome.errors.contains("the critic"),
                "\(outcome)")
        }
    }
}
