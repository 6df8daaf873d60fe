import Foundation
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Every algorithm that a recipe can name, in whole runs of a tiny model.
    @Suite struct AlgorithmTests {
        private static let short = ["trainer.total_training_steps=2", "trainer.test_freq=-1", "trainer.save_freq=-1"]
        private static let parts = [
            "reward.type=null", "reward.pattern=\"[A-Z]\"", "reward.weights={regex: 1, number_match: 0.5}",
        ]
        private static let correction = "algorithm.rollout_correction."

        struct Case: Sendable, CustomTestStringConvertible {
            var name: String
            var overrides: [String]
            /// Metrics that the run must have.
            var metrics: [String] = []
            var testDescription: String { name }
        }

        static let cases: [Case] =
            [
                "grpo_vectorized", "grpo_passk", "gpg", "opo", "optimal_token_baseline", "reinforce_plus_plus",
                "reinforce_plus_plus_baseline", "rloo", "rloo_vectorized", "tir_optimal_token_baseline",
            ].map { Case(name: $0, overrides: ["algorithm.adv_estimator=\($0)"]) }
            + ["bypass_mode", "cispo", "clip_cov", "dppo_kl", "dppo_tv", "dro", "geo_mean", "gpg", "gspo", "kl_cov"]
            .map { Case(name: "loss \($0)", overrides: ["actor.policy_loss=\($0)"]) }
            + [
                Case(
                    name: "loss reinforce", overrides: ["actor.policy_loss=reinforce", "actor.loss_agg_mode=token-sum"]),
                Case(name: "loss sapo", overrides: ["actor.policy_loss=sapo", "actor.tau_pos=0.9"]),
                Case(name: "gdpo", overrides: ["algorithm.adv_estimator=gdpo"] + parts),
                Case(
                    name: "remax", overrides: ["algorithm.adv_estimator=remax"], metrics: ["reward/baseline/mean"]),
                Case(
                    name: "gae", overrides: ["algorithm.adv_estimator=gae"],
                    metrics: [
                        "critic/vf_loss", "critic/vf_explained_var", "critic/values/mean", "critic/returns/mean",
                        "critic/grad_norm", "critic/lr", "critic/vf_clipfrac", "time/values_s", "time/update_critic_s",
                    ]),
                Case(
                    name: "shared trunk", overrides: ["algorithm.adv_estimator=gae", "critic.shares_trunk=true"],
                    metrics: ["critic/vf_loss", "critic/values/mean"]),
                Case(
                    name: "adaptive KL in the reward",
                    overrides: [
                        "actor.use_kl_loss=false", "algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.type=adaptive",
                    ], metrics: ["actor/reward_kl_penalty", "actor/reward_kl_penalty_coeff", "critic/rewards/mean"]),
                Case(
                    name: "KL in the reward below an adapter",
                    overrides: ["actor.use_kl_loss=false", "algorithm.use_kl_in_reward=true", "model.lora_rank=4"],
                    metrics: ["actor/reward_kl_penalty"]),
                Case(
                    name: "token TIS and rejection",
                    overrides: [
                        correction + "rollout_is=token", correction + "rollout_is_batch_normalize=true",
                        correction + "rollout_rs=seq_mean_k3", correction + "rollout_rs_threshold=10",
                    ],
                    metrics: [
                        "rollout_corr/rollout_is_mean", "rollout_corr/rollout_rs_masked_fraction", "rollout_corr/kl",
                    ]),
                Case(
                    name: "sequence IcePop",
                    overrides: [correction + "rollout_is=sequence", correction + "rollout_is_threshold=\"0.5_2.0\""],
                    metrics: ["rollout_corr/rollout_is_oob_ratio"]),
                Case(
                    name: "bypass with REINFORCE",
                    overrides: [
                        correction + "bypass_mode=true", correction + "loss_type=reinforce",
                        correction + "rollout_is=token",
                    ], metrics: ["rollout_corr/rollout_is_mean"]),
                Case(
                    name: "DAPO",
                    overrides: [
                        "algorithm.filter_groups.enable=true", "algorithm.filter_groups.max_num_gen_batches=2",
                        "reward.overlong_buffer.enable=true", "reward.overlong_buffer.len=2",
                        "actor.clip_ratio_high=0.28", "algorithm.mask_truncated=true",
                    ], metrics: ["train/num_gen_batches", "reward/overlong/mean", "actor/masked_truncated"]),
                Case(
                    name: "Dr. GRPO",
                    overrides: [
                        "algorithm.norm_adv_by_std_in_grpo=false", "actor.loss_agg_mode=seq-mean-token-sum-norm",
                    ]),
            ]

        @Test(arguments: cases) func learns(_ algorithm: Case) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(Self.short + algorithm.overrides)
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            try #require(history.count == 2)
            #expect(history.contains { ($0["actor/grad_norm"] ?? 0) > 0 })
            for step in history {
                #expect(step.values.allSatisfy { $0.value.isFinite }, "\(step.values)")
                for name in algorithm.metrics { #expect(step[try MetricName(name)] != nil, "\(name)") }
            }
        }

        private static let ppo = [
            "algorithm.adv_estimator=gae", "critic.ppo_epochs=2", "trainer.critic_warmup=1",
            "algorithm.use_kl_in_reward=true", "actor.use_kl_loss=false", "algorithm.kl_ctrl.type=adaptive",
            "algorithm.kl_ctrl.horizon=100", "critic.optim.lr=1e-3",
        ]

        /// Weights and moments of the critic, and the controller's coefficient, come back bit for bit.
        @Test(arguments: [[], ["critic.shares_trunk=true", "critic.ppo_epochs=null", "trainer.critic_warmup=0"]])
        func resumedPPOIsTheSame(extra: [String]) async throws {
            let whole = try Workspace(), workspace = try Workspace()
            let settings = Self.ppo + extra
            let outcome = try await whole.train(settings)
            #expect(outcome.exitCode == 0, "\(outcome)")
            _ = try await workspace.train(settings)
            // Back to the middle, as if the run had been killed there.
            for step in ["step-000006", "step-000004"] {
                try FileManager.default.removeItem(atPath: workspace.run.checkpoints + "/" + step)
            }
            let resumed = try await workspace.train(settings)
            #expect(resumed.exitCode == 0 && resumed.errors.contains("going on from step 2"), "\(resumed)")
            #expect(try workspace.metrics() == whole.metrics())
            let steps = try whole.history()
            #expect(Set(steps.compactMap { $0["actor/reward_kl_penalty_coeff"] }).count == Workspace.steps)
            #expect(Set(steps.compactMap { $0["critic/vf_loss"] }).count == Workspace.steps)
            if extra.isEmpty { #expect(steps[0]["actor/lr"] == nil && steps[1]["actor/lr"] != nil) }
        }

        @Test(arguments: [["actor.fsdp_config.fsdp_size=1"], ["actor.fsdp_config.fsdp_size=-1"]])
        func ranksLearnPPOAsOneDoes(layout: [String]) async throws {
            let one = try Workspace(), several = try Workspace()
            let short = ["trainer.total_training_steps=4", "trainer.test_freq=-1"]
            let alone = try await one.train(Self.ppo + short)
            #expect(alone.exitCode == 0, "\(alone)")
            let two = Self.ppo + ["trainer.n_gpus_per_node=2"] + layout
            let outcome = try await several.train(two + short)
            #expect(outcome.exitCode == 0, "\(outcome)")
            try expectSameSteps(
                Array(several.history().prefix(2)), Array(one.history().prefix(2)), within: 1e-4)
            // And go on from their own checkpoint.
            let whole = try several.metrics()
            try FileManager.default.removeItem(atPath: several.run.checkpoints + "/step-000004")
            let resumed = try await several.train(two + short)
            #expect(resumed.exitCode == 0 && resumed.errors.contains("going on from step 2"), "\(resumed)")
            #expect(try several.metrics() == whole)
        }

        /// What one process wrote, ranks go on with.
        @Test func ranksGoOnWithACriticOfOneProcess() async throws {
            let workspace = try Workspace()
            let first = try await workspace.train(
                Self.ppo + ["trainer.total_training_steps=2", "trainer.test_freq=-1"])
            #expect(first.exitCode == 0, "\(first)")
            let second = try await workspace.train(
                Self.ppo + ["trainer.total_training_steps=4", "trainer.test_freq=-1", "trainer.n_gpus_per_node=2"])
            #expect(second.exitCode == 0 && second.errors.contains("going on from step 2"), "\(second)")
        }

        @Test func whatIsNotDoneIsRefused() async throws {
            let workspace = try Workspace()
            let shared = try await workspace.train(
                Self.short + ["algorithm.adv_estimator=gae", "critic.shares_trunk=true", "trainer.n_gpus_per_node=2"])
            #expect(shared.exitCode != 0 && shared.errors.contains("critic.shares_trunk"), "\(shared)")
            _ = try await workspace.train(Self.short)
            let without = try await workspace.train(
                Self.short + ["algorithm.adv_estimator=gae", "trainer.total_training_steps=3"])
            #expect(without.exitCode == 2 && without.errors.contains("was written without a critic"), "\(without)")
        }
    }
}
