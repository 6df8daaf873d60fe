import Foundation
import Testing

extension CommandSuites {
    /// The model as it was before training, whose weights may lie in host memory between its turns.
    @Suite struct ReferenceTests {
        private static let run = [
            "actor.use_kl_loss=true", "trainer.total_training_steps=3", "trainer.test_freq=-1", "trainer.save_freq=-1",
        ]

        /// Resting changes no bit, alone or with ranks that share its weights out or have them whole.
        @Test(arguments: [
            [], ["trainer.n_gpus_per_node=2", "actor.fsdp_config.fsdp_size=-1"],
            ["trainer.n_gpus_per_node=2", "actor.fsdp_config.fsdp_size=1"],
            ["resource_pools={train: 1, judge: 1}", "roles.reference=judge"],
        ])
        func restingChangesNothing(layout: [String]) async throws {
            let stays = try Workspace(), rests = try Workspace()
            let first = try await stays.train(Self.run + layout + ["reference.param_offload=false"])
            #expect(first.exitCode == 0, "\(first)")
            let second = try await rests.train(Self.run + layout + ["reference.param_offload=true"])
            #expect(second.exitCode == 0, "\(second)")
            #expect(try rests.metrics() == stays.metrics())
        }

        @Test func whatHasNoReferenceIsWarnedOf() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(
                [
                    "actor.use_kl_loss=false", "reference.param_offload=true", "trainer.total_training_steps=1",
                    "trainer.test_freq=-1", "trainer.save_freq=-1",
                ])
            #expect(outcome.exitCode == 0 && outcome.errors.contains("reference.param_offload"), "\(outcome)")
        }
    }
}
