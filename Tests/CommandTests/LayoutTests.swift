import Checkpoints
import Foundation
import OrderedCollections
import Subprocess
import Telemetry
import TensorCore
import Testing

extension CommandSuites {
    /// Runs whose ranks share out more than the batches, against one process and one another.
    @Suite struct LayoutTests {
        struct Layout: Sendable, CustomTestStringConvertible {
            var name: String
            var ranks: Int
            var settings: [String]
            var isMixture = false
            var testDescription: String { name }

            init(_ name: String, _ ranks: Int, _ settings: [String], isMixture: Bool = false) {
                self.name = name
                self.ranks = ranks
                self.settings = settings
                self.isMixture = isMixture
            }

            var model: TinyModel { isMixture ? .mixture : TinyModel() }
            var overrides: [String] { ["trainer.n_gpus_per_node=\(ranks)"] + settings }
        }

        private static let fsdp = "actor.fsdp_config.fsdp_size", sp = "actor.ulysses_sequence_parallel_size"
        private static let tp = "actor.megatron.tensor_model_parallel_size"
        private static let pp = "actor.megatron.pipeline_model_parallel_size"
        private static let ep = "actor.megatron.expert_model_parallel_size"
        private static let rollout = "rollout.tensor_model_parallel_size"

        static let layouts = [
            Layout("fsdp2", 2, ["\(fsdp)=-1"]),
            Layout("fsdp2 SHARD_GRAD_OP", 2, ["\(fsdp)=2", "actor.fsdp_config.reshard_after_forward=false"]),
            Layout("dp2×fsdp2", 4, ["\(fsdp)=2"]),
            Layout("fsdp2, cache kept", 2, ["\(fsdp)=2", "rollout.free_cache_engine=false", "actor.ppo_epochs=2"]),
            Layout("tp2", 2, ["\(tp)=2"]),
            Layout("tp2, tokens whole", 2, ["\(tp)=2", "actor.megatron.sequence_parallel=false"]),
            // Two key-value heads: neighbours hold the same one.
            Layout("tp4", 4, ["\(tp)=4"]),
            Layout("tp2×fsdp2", 4, ["\(tp)=2", "\(fsdp)=-1"]),
            Layout("sp2", 2, ["\(sp)=2"]),
            Layout("pp2", 2, ["\(pp)=2"]),
            Layout("pp2×fsdp2", 4, ["\(pp)=2", "\(fsdp)=2"]),
            Layout("pp2×tp2", 4, ["\(pp)=2", "\(tp)=2"]),
            Layout("ep2", 2, ["\(ep)=2"], isMixture: true),
            Layout("ep2×fsdp2", 4, ["\(ep)=2", "\(fsdp)=2"], isMixture: true),
            Layout("dp2, sampling tp2", 2, ["\(rollout)=2"]),
            Layout("tp4, sampling tp2", 4, ["\(tp)=4", "\(rollout)=2"]),
        ]
        /// With an epsilon below which a gradient is noise: a tiny one would move its weight by the learning rate, whichever its sign.
        static let short = ["trainer.total_training_steps=2", "trainer.test_freq=-1", "actor.optim.eps=1e-4"]

        /// What one process does with the same settings but for the layout; made once for each.
        private static let alone = Runs()
        /// What ranks print that nobody kills.
        private static let uninterrupted = Runs()

        @Test(arguments: layouts)
        func aLayoutTrainsAsOneProcessDoes(layout: Layout) async throws {
            let epochs = layout.settings.filter { $0.hasPrefix("actor.ppo_epochs") }
            let expected = try await Self.alone.result(epochs + Self.short, isMixture: layout.isMixture)
            let workspace = try Workspace(layout.model)
            let outcome = try await workspace.train(layout.overrides + Self.short)
            try #require(outcome.exitCode == 0, "\(outcome)")
            let found = try workspace.history()
            try #require(found.count == 2)
            try expectSameSteps(found, expected.history)
            // Before the first step the weights are the same bits, where a rank samples from all of them.
            if !layout.settings.contains("\(Self.rollout)=2") {
                #expect(found[0].values["rollout/weight_digest"] == expected.history[0].values["rollout/weight_digest"])
            }
            // Sequence ranks have all weights all the time.
            let moves = layout.settings != ["\(Self.sp)=2"]
            #expect(found.allSatisfy { ($0.values["perf/reshard_bytes"] != nil) == moves })
            // What the last checkpoint holds is what one process has learnt.
            let folder = workspace.run.checkpoints + "/" + (try #require(workspace.checkpoints().last))
            let model = try SafetensorsModel(folder: folder + "/model")
            try #require(model.tensorNames.sorted() == expected.weights.keys.sorted())
            for name in model.tensorNames {
                let values = try model.tensor(named: name).values(Float.self),
                    wanted = try #require(expected.weights[name])
                let scale = wanted.map(abs).max() ?? 0
                #expect(zip(values, wanted).allSatisfy { abs($0 - $1) <= 1e-4 * scale }, "\(name)")
            }
        }

        static let lost: [(layout: Layout, fault: String, phase: String)] = [
            (layouts[0], "kill", "3:update"), (layouts[0], "kill", "2:save"), (layouts[0], "stop", "3:update"),
            (layouts[4], "kill", "3:generate"), (layouts[9], "kill", "3:ref_log_prob"),
        ]

        @Test(arguments: lost)
        func aLostRankIsNamedAndTheRunGoesOn(layout: Layout, fault: String, phase: String) async throws {
            let steps = ["trainer.total_training_steps=4", "trainer.test_freq=-1", "trainer.nccl_timeout=4"]
            let workspace = try Workspace(), whole = try await Self.uninterrupted.metrics(layout.overrides + steps)
            let outcome = try await FledgeProcess.run(
                ["train", "recipe.yaml"] + layout.overrides + steps, in: workspace.folder,
                environment: ["FLEDGE_REHEARSE": "\(fault):1:\(phase)"])
            #expect(outcome.exitCode == 75, "\(outcome)")
            let place = phase.split(separator: ":")
            let named = outcome.errors.split(separator: "\n").contains {
                $0.contains("rank 1 (process ") && $0.contains(fault == "kill" ? "is dead" : "is stopped")
                    && $0.contains("at step \(place[0]), phase \(place[1])")
            }
            #expect(named, "\(outcome)")
            let resumed = try await workspace.train(layout.overrides + steps)
            #expect(resumed.exitCode == 0, "\(resumed)")
            #expect(try workspace.metrics() == whole)
        }

        @Test(arguments: [["model.lora_rank=4"], []])
        func otherCommandsReadWhatRanksWrote(settings: [String]) async throws {
            let workspace = try Workspace(), one = try Workspace()
            let ranks = Self.layouts[0].overrides + Self.short + settings
            for (place, arguments) in [(workspace, ranks), (one, Self.short + settings)] {
                let outcome = try await place.train(arguments)
                try #require(outcome.exitCode == 0, "\(outcome)")
                let exported = try await place.fledge("export", "--run", "run", "--to", "out")
                #expect(exported.exitCode == 0, "\(exported)")
            }
            let file = settings.isEmpty ? "model" : "adapter_model"
            let found = try SafetensorsModel(folder: workspace.folder.appending(path: "out").path, name: file)
            let expected = try SafetensorsModel(folder: one.folder.appending(path: "out").path, name: file)
            #expect(found.tensorNames.sorted() == expected.tensorNames.sorted())
            for name in found.tensorNames {
                let values = try found.tensor(named: name).values(Float.self)
                let wanted = try expected.tensor(named: name).values(Float.self)
                #expect(zip(values, wanted).allSatisfy { abs($0 - $1) <= 1e-4 }, "\(name)")
            }
            let checkpoint = "run/checkpoints/" + (try #require(workspace.checkpoints().last))
            let inspected = try await workspace.fledge("inspect", checkpoint)
            #expect(inspected.output.contains("step 2, written by 2 ranks (fsdp2)"), "\(inspected)")
            #expect(inspected.output.contains("it holds an adapter alone") == !settings.isEmpty, "\(inspected)")
            let measured = try await workspace.fledge("eval", "--run", "run", "--json")
            #expect(measured.exitCode == 0 && measured.output.contains("val/score/mean"), "\(measured)")
            if settings.isEmpty {
                #expect(inspected.output.contains("Fledge can run this model"), "\(inspected)")
                let answered = try await workspace.fledge(
                    "generate", "--model", checkpoint, "--prompt", "1+1", "--max-tokens", "4", "--temperature", "0")
                #expect(answered.exitCode == 0, "\(answered)")
            }
        }

        @Test(arguments: [
            (3, ["\(tp)=3"], "tp=3 does not divide 4 heads"), (2, ["\(ep)=2"], "no experts for ep=2"),
            (2, ["\(tp)=4"], "2 ranks do not divide into sets of 4"),
            // Where nobody plans, the model says it.
            (3, ["\(tp)=3", "trainer.plan=off"], "query heads: 4 is no multiple of 3"),
            (3, ["\(pp)=3", "trainer.plan=off"], "2 layers cannot be 3 stages"),
            (2, ["\(ep)=2", "trainer.plan=off"], "no experts to share out"),
            (2, ["\(pp)=2", "model.dtype=bfloat16", "model.param_dtype=bfloat16"], "the embedding is the head too"),
        ])
        func whatDoesNotDivideIsRefused(ranks: Int, settings: [String], message: String) async throws {
            let workspace = try Workspace()
            let outcome = try await workspace.train(["trainer.n_gpus_per_node=\(ranks)"] + settings)
            #expect(outcome.exitCode == 2 && outcome.errors.contains(message), "\(outcome)")
        }

        /// One step in each layout in turn, of runs that begin in the first.
        static let journeys: [[Layout]] = [
            [
                Layout("fsdp2", 2, ["\(fsdp)=2"]), Layout("fsdp4", 4, ["\(fsdp)=-1"]), Layout("tp2", 2, ["\(tp)=2"]),
                Layout("1", 1, []), Layout("pp2", 2, ["\(pp)=2"]),
            ],
            [
                Layout("1", 1, [], isMixture: true), Layout("ep2", 2, ["\(ep)=2"], isMixture: true),
                Layout("tp2×fsdp2", 4, ["\(tp)=2", "\(fsdp)=2"], isMixture: true),
                Layout("dp2", 2, [], isMixture: true),
            ],
            // Moments in codes belong to blocks of one layout's tensors.
            [
                Layout("1", 1, ["actor.optim.state_dtype=int8"]),
                Layout("fsdp2", 2, ["\(fsdp)=2", "actor.optim.state_dtype=int8"]),
            ],
        ]

        @Test(arguments: journeys)
        func aRunGoesOnInAnotherLayout(journey: [Layout]) async throws {
            let constant = [
                "actor.optim.lr_scheduler_type=constant", "trainer.test_freq=-1", "trainer.save_freq=1",
                "actor.optim.eps=1e-4",
            ]
            let ofTheOptimizer = journey[0].settings.filter { $0.hasPrefix("actor.optim") }
            let common = ofTheOptimizer + constant + ["trainer.total_training_steps=\(journey.count)"]
            let expected = try await Self.alone.result(common, isMixture: journey[0].isMixture)
            let workspace = try Workspace(journey[0].model)
            for (step, layout) in journey.enumerated() {
                let outcome = try await workspace.train(
                    layout.overrides + constant + ["trainer.total_training_steps=\(step + 1)"])
                try #require(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.errors.contains("going on from step \(step)") == (step > 0), "\(outcome)")
            }
            try expectSameSteps(
                try workspace.history(), expected.history, within: ofTheOptimizer.isEmpty ? 1e-5 : 1e-2)
            #expect(workspace.checkpoints().count == journey.count)
        }
    }
}

/// Runs of one process with their results, each made once.
private actor Runs {
    struct Result: Sendable {
        var history: [StepMetrics]
        var weights: [String: [Float]]
    }
    private var made: [String: Task<Result, any Error>] = [:]
    private var printed: [[String]: Task<[String], any Error>] = [:]

    func metrics(_ settings: [String]) async throws -> [String] {
        if let known = printed[settings] { return try await known.value }
        let task = Task {
            let workspace = try Workspace()
            let outcome = try await workspace.train(settings)
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            return try workspace.metrics()
        }
        printed[settings] = task
        return try await task.value
    }

    func result(_ settings: [String], isMixture: Bool) async throws -> Result {
        let key = "\(isMixture) \(settings)"
        if let known = made[key] { return try await known.value }
        let task = Task {
            let workspace = try Workspace(isMixture ? .mixture : TinyModel())
            let outcome = try await workspace.train(settings)
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            let exported = try await workspace.fledge("export", "--run", "run", "--to", "whole")
            guard exported.exitCode == 0 else { throw UnexpectedOutcome(outcome: exported) }
            let model = try SafetensorsModel(folder: workspace.folder.appending(path: "whole").path)
            var weights: [String: [Float]] = [:]
            for name in model.tensorNames { weights[name] = try model.tensor(named: name).values(Float.self) }
            return Result(history: try workspace.history(), weights: weights)
        }
        made[key] = task
        return try await task.value
    }
}
