import Foundation
import OrderedCollections
import Subprocess
import Telemetry
import Testing

extension CommandSuites {
    /// Roles on pools of ranks of their own, against one process that plays all of them.
    @Suite struct MappingTests {
        struct Mapping: Sendable, CustomTestStringConvertible {
            var name: String
            var pools: String
            var roles: [String]
            var layout: [String] = []
            var testDescription: String { name }
            var overrides: [String] { ["resource_pools=\(pools)"] + roles.map { "roles.\($0)" } + layout }
            /// Whether samplers get their weights from elsewhere.
            var samplesApart: Bool { roles.contains { $0.hasPrefix("rollout") } }
        }

        private static let fsdp = "actor.fsdp_config.fsdp_size=-1"
        private static let sides = ["critic=side", "reference=side"]

        static let mappings = [
            Mapping(name: "one pool", pools: "{all: 2}", roles: []),
            Mapping(
                name: "critic+reference | actor+rollout, fsdp2", pools: "{side: 2, train: 2}",
                roles: ["actor=train"] + sides, layout: [fsdp]),
            Mapping(name: "actor+critic | rollout", pools: "{train: 1, sample: 2}", roles: ["rollout=sample"]),
            Mapping(
                name: "actor+critic fsdp2 | rollout tp2", pools: "{train: 2, sample: 2}", roles: ["rollout=sample"],
                layout: [fsdp, "rollout.tensor_model_parallel_size=2"]),
            Mapping(
                name: "actor+critic tp2 | rollout", pools: "{train: 2, sample: 1}", roles: ["rollout=sample"],
                layout: ["actor.megatron.tensor_model_parallel_size=2"]),
            Mapping(
                name: "actor | rollout+reference | critic", pools: "{train: 1, sample: 1, critic: 1}",
                roles: ["rollout=sample", "reference=sample", "critic=critic"]),
            Mapping(
                name: "everything apart", pools: "{train: 1, sample: 1, critic: 1, before: 1}",
                roles: ["rollout=sample", "critic=critic", "reference=before"]),
        ]

        /// With an epsilon below which a gradient is noise: a tiny one would move its weight by the learning rate, whichever its sign.
        private static let ppo = [
            "algorithm.adv_estimator=gae", "actor.optim.eps=1e-4", "critic.optim.eps=1e-4", "actor.ppo_epochs=2",
        ]
        private static let short = ["trainer.total_training_steps=2", "trainer.test_freq=-1"]

        /// What one process does; made once.
        private static let alone = Task {
            let workspace = try Workspace()
            let outcome = try await workspace.train(ppo + short)
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            return try workspace.history()
        }

        @Test(arguments: mappings)
        func aMappingTrainsAsOneProcessDoes(mapping: Mapping) async throws {
            let expected = try await Self.alone.value, workspace = try Workspace()
            let outcome = try await workspace.train(mapping.overrides + Self.ppo + Self.short)
            try #require(outcome.exitCode == 0, "\(outcome)")
            let found = try workspace.history()
            try #require(found.count == 2)
            try expectSameSteps(found, expected)
            // The first step samples from weights that the evaluation before it brought.
            #expect((found[1]["perf/weight_sync_bytes"] ?? 0 > 0) == mapping.samplesApart)
            for step in found {
                // What the sampler drew with are the weights that training computes with.
                #expect((step["training/rollout_logprobs_diff_max"] ?? 1) < 1e-5)
            }
            if mapping.samplesApart, !mapping.layout.contains("rollout.tensor_model_parallel_size=2") {
                #expect(found[0]["rollout/weight_digest"] == expected[0]["rollout/weight_digest"])
            }
        }

        /// Everything goes over once, then the adapter's matrices alone.
        @Test(arguments: ["{train: 2, sample: 1}", "{train: 1, sample: 2}"])
        func anAdapterIsSampledOnAnotherPool(pools: String) async throws {
            let alone = try Workspace(), workspace = try Workspace()
            let settings = ["model.lora_rank=4", "actor.optim.eps=1e-4", "trainer.total_training_steps=3"]
            let expected = try await alone.train(settings)
            try #require(expected.exitCode == 0, "\(expected)")
            let outcome = try await workspace.train(
                settings + [
                    "resource_pools=\(pools)", "roles.rollout=sample", Self.fsdp, "trainer.val_before_train=false",
                ])
            try #require(outcome.exitCode == 0, "\(outcome)")
            let found = try workspace.history()
            try expectSameSteps(found, try alone.history())
            let bytes = found.map { $0["perf/weight_sync_bytes"] ?? 0 }
            #expect(bytes[1] > 0 && bytes[1] < bytes[0] / 2 && bytes[1] == bytes[2])
            for step in found { #expect((step["training/rollout_logprobs_diff_max"] ?? 1) < 1e-5) }
        }

        /// The same numbers again after a rank of each pool was killed, and from checkpoints of other mappings.
        @Test func aRankOfEachPoolIsNamedAndHealed() async throws {
            let mapping = try #require(Self.mappings.last)
            let settings =
                mapping.overrides + Self.ppo + [
                    "trainer.total_training_steps=3", "trainer.save_freq=1", "trainer.test_freq=-1",
                    "trainer.val_before_train=false", "trainer.nccl_timeout=4",
                ]
            let whole = try Workspace()
            let undisturbed = try await whole.train(settings)
            try #require(undisturbed.exitCode == 0, "\(undisturbed)")
            for (rank, phase) in [
                (0, "3:update"), (1, "3:sync_weights"), (2, "3:update_critic"), (3, "3:ref_log_prob"),
            ] {
                let workspace = try Workspace()
                let outcome = try await FledgeProcess.run(
                    ["train", "recipe.yaml", "trainer.max_restarts=1"] + settings, in: workspace.folder,
                    environment: ["FLEDGE_REHEARSE": "kill:\(rank):\(phase)"])
                #expect(outcome.exitCode == 0, "\(outcome)")
                #expect(
                    outcome.errors.contains("rank \(rank) (process ") && outcome.errors.contains("started anew"),
                    "\(outcome)")
                #expect(try workspace.metrics() == whole.metrics())
            }
        }

        @Test func aRunGoesOnInAnotherMapping() async throws {
            let expected = try Workspace(), workspace = try Workspace()
            let constant =
                Self.ppo + ["actor.optim.lr_scheduler_type=constant", "trainer.save_freq=1", "trainer.test_freq=-1"]
            let order = [Self.mappings[6], nil, Self.mappings[1]]
            let outcome = try await expected.train(constant + ["trainer.total_training_steps=\(order.count)"])
            try #require(outcome.exitCode == 0, "\(outcome)")
            for (step, mapping) in order.enumerated() {
                let outcome = try await workspace.train(
                    (mapping?.overrides ?? []) + constant + ["trainer.total_training_steps=\(step + 1)"])
                try #require(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.errors.contains("going on from step \(step)") == (step > 0), "\(outcome)")
            }
            try expectSameSteps(try workspace.history(), try expected.history())
        }

        @Test func aChangedByteOnTheWayEndsTheRunByName() async throws {
            let workspace = try Workspace()
            let outcome = try await FledgeProcess.run(
                ["train", "recipe.yaml"] + Self.mappings[2].overrides + Self.short, in: workspace.folder,
                environment: ["FLEDGE_REHEARSE": "spoil:2:2:sync_weights"])
            #expect(outcome.exitCode != 0 && outcome.exitCode != 75, "\(outcome)")
            #expect(
                outcome.errors.contains("weights of version 1 arrived at rank 2 otherwise than they were sent"),
                "\(outcome)")
            #expect(workspace.stepsWritten == 1)
        }

        @Test(arguments: ["streaming", "one_step_off", "fully_async"])
        func samplersElsewhereWorkWhileSeveralRanksLearn(mode: String) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(
                [
                    "resource_pools={train: 2, sample: 2}", "roles.rollout=sample", Self.fsdp,
                    "async_training.mode=\(mode)", "trainer.total_training_steps=3",
                ])
            #expect(outcome.exitCode == 0, "\(outcome)")
            let history = try workspace.history()
            #expect(history.count == 3)
            let bound = mode == "streaming" ? 0.0 : 1
            for metrics in history {
                #expect((metrics["async/staleness/max"] ?? 99) <= bound)
                #expect((metrics["actor/grad_norm"] ?? 0) > 0)
            }
            #expect(history.compactMap { $0["perf/weight_sync_bytes"] }.count == 2)
            #expect(try workspace.run.readSummary()?.heldOutExactMatch?.after != nil)
        }

        @Test func aRewardModelScoresOnAPoolOfItsOwn() async throws {
            let made = try await SupervisedTests.workspace(.rewardModel)
            _ = try await SupervisedTests.train(.rewardModel, made, ["trainer.total_training_steps=1"])
            let exported = try await made.fledge("export", "--run", "run", "--to", "scorer")
            #expect(exported.exitCode == 0, "\(exported)")
            let scorer = made.folder.appending(path: "scorer").path
            func history(_ overrides: [String]) async throws -> [StepMetrics] {
                let workspace = try Workspace(
                    recipe: Workspace.recipe.replacing(
                        #"reward: {type: regex, pattern: "[A-Z]"}"#,
                        with: "reward: {model: {path: \(scorer)}, on_failure: abort}"
                    ).replacing("val_files: builtin:arithmetic\n", with: "\n"))
                let outcome = try await workspace.train(overrides + Self.short + ["actor.optim.eps=1e-4"])
                #expect(outcome.exitCode == 0, "\(outcome)")
                return try workspace.history()
            }
            try expectSameSteps(
                try await history(["resource_pools={train: 1, score: 2}", "roles.reward_model=score"]),
                try await history([]))
        }

        @Test func thePlanTellsOfEachPool() async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.fledge(
                "plan", "recipe.yaml", "--shape", "qwen2-7b", "--device", "h200", "model.dtype=bfloat16",
                "resource_pools={train: 4, sample: 2, side: 1}", "roles.rollout=sample", "roles.reference=side",
                "actor.fsdp_config.fsdp_size=-1", "rollout.tensor_model_parallel_size=2")
            #expect(outcome.exitCode == 0, "\(outcome)")
            let pools = outcome.output.components(separatedBy: "pool ").dropFirst().map { $0 }
            try #require(pools.count == 3, "\(outcome)")
            #expect(pools[0].hasPrefix("train: actor on 4 × ") && pools[0].contains("moments"), "\(outcome)")
            #expect(!pools[0].contains("KV cache") && pools[0].contains("weight sync"))
            #expect(pools[1].hasPrefix("sample: rollout on 2 × ") && pools[1].contains("KV cache"))
            #expect(!pools[1].contains("moments") && !pools[1].contains("gradients"))
            #expect(pools[2].hasPrefix("side: reference on 1 × ") && pools[2].contains("log-prob"))
            #expect(!pools[2].contains("moments"))
            let scored = try await workspace.fledge(
                "plan", "recipe.yaml", "--shape", "qwen2-7b", "--device", "h200", "model.dtype=bfloat16",
                "reward={type: null, pattern: null, model: {path: scorer}}", "resource_pools={train: 2, score: 1}",
                "roles.reward_model=score", "rollout.tensor_model_parallel_size=2", "actor.fsdp_config.fsdp_size=-1")
            #expect(scored.exitCode == 0 && scored.output.contains("pool score: reward_model on 1 × "), "\(scored)")
            #expect(scored.output.contains("the reward model is not counted"))
            let tight = try await workspace.fledge(
                "plan", "recipe.yaml", "--shape", "qwen2-7b", "--device", "h200", "--memory", "10GB", "--json",
                "resource_pools={train: 1, sample: 1}", "roles.rollout=sample")
            #expect(tight.exitCode == 2 && tight.output.contains("cannot fit"), "\(tight)")
        }

        @Test(arguments: [
            (["resource_pools={a: 1, b: 1}"], "no role is on pool 'b'"),
            (["resource_pools={a: 1, b: 1}", "roles.rollout=c"], "there is no pool 'c'"),
            (["resource_pools={a: 1, b: 1}", "roles.critic=b"], "there is no critic"),
            (["resource_pools={a: 1, b: 1}", "roles.rollout=b", "trainer.n_gpus_per_node=3"], "2 devices together"),
        ])
        func mappingsAtOddsAreRefused(overrides: [String], message: String) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(overrides)
            #expect(outcome.exitCode == 2 && outcome.errors.contains(message), "\(outcome)")
        }
    }
}
