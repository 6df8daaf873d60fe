import Checkpoints
import Foundation
import Models
import OrderedCollections
import Subprocess
import Telemetry
import Testing

#if canImport(Glibc)
    import Glibc
#endif

extension CommandSuites {
    /// Supervised runs of several processes on the CPU, against one process and one another.
    @Suite struct SupervisedRankTests {
        typealias Kind = SupervisedTests.Kind

        struct Layout: Sendable, CustomTestStringConvertible {
            var name: String
            var ranks: Int
            var settings: [String]
            var isMixture = false
            var testDescription: String { name }

            init(_ name: String, _ ranks: Int, _ settings: [String] = [], isMixture: Bool = false) {
                self.name = name
                self.ranks = ranks
                self.settings = settings
                self.isMixture = isMixture
            }

            var overrides: [String] { ["trainer.n_gpus_per_node=\(ranks)"] + settings }
        }

        private static let fsdp = "train.fsdp_config.fsdp_size", sp = "train.ulysses_sequence_parallel_size"
        private static let tp = "train.megatron.tensor_model_parallel_size"
        private static let pp = "train.megatron.pipeline_model_parallel_size"
        private static let ep = "train.megatron.expert_model_parallel_size"
        static let fsdp2 = Layout("fsdp2", 2, ["\(fsdp)=-1"])

        static let layouts = [
            Layout("dp2", 2), fsdp2, Layout("dp3", 3), Layout("tp2", 2, ["\(tp)=2"]), Layout("sp2", 2, ["\(sp)=2"]),
            Layout("ep2", 2, ["\(ep)=2"], isMixture: true), Layout("pp2", 2, ["\(pp)=2"]),
        ]
        /// An epsilon below which a gradient is noise: a tiny one would move its weight by the learning rate, whichever its sign.
        static let exact = ["train.optim.eps=1e-4", "train.optim.lr_scheduler_type=constant"]
        static let short = exact + ["trainer.total_training_steps=3", "trainer.test_freq=2", "trainer.save_freq=-1"]

        /// A run that nothing befell, made once for each.
        private static let alone = Runs()

        @Test(arguments: Kind.allCases, layouts)
        func ranksTrainAsOneProcessDoes(_ kind: Kind, layout: Layout) async throws {
            // A reward model's layers are not shared out.
            if kind == .rewardModel, layout.name == "pp2" { return }
            let expected = try await Self.alone.result(kind, Self.short, isMixture: layout.isMixture)
            let workspace = try await SupervisedTests.workspace(kind, layout.isMixture ? .mixture : TinyModel())
            let outcome = try await SupervisedTests.train(kind, workspace, layout.overrides + Self.short)
            try #require(outcome.exitCode == 0, "\(outcome)")
            let found = try workspace.history()
            try #require(found.count == 3)
            try expectSameSteps(Self.compared(found, kind), Self.compared(expected.history, kind))
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .finished && summary.heldOut.keys == expected.heldOut.keys)
            for (measure, pair) in summary.heldOut {
                let wanted = try #require(expected.heldOut[measure])
                // At its own reference what a policy prefers is rounding.
                if !(kind == .dpo && measure.text == "val/rewards/accuracies") {
                    expectClose(pair.before, wanted.before, "\(measure) before")
                }
                expectClose(pair.after, wanted.after, "\(measure) after")
            }
            // One process says what there is to say, and it is not said in another's name.
            #expect(outcome.output.contains("the run's folder: ") && !outcome.output.contains("[rank"), "\(outcome)")
        }

        private func expectClose(_ found: Double?, _ wanted: Double?, _ what: String) {
            guard let found, let wanted else {
                #expect(found == wanted, "\(what)")
                return
            }
            #expect(abs(found - wanted) <= 1e-5 * max(1, abs(wanted)), "\(what): \(found), alone \(wanted)")
        }

        /// Without what a policy prefers at its own reference, which is rounding.
        private static func compared(_ steps: [StepMetrics], _ kind: Kind) throws -> [StepMetrics] {
            guard kind == .dpo, let first = steps.first else { return steps }
            return [StepMetrics(step: first.step, values: first.values.filter { $0.key != "rewards/accuracies" })]
                + steps.dropFirst()
        }

        /// One step in each layout in turn, with the weights and with an adapter, whose references are computed anew by other ranks.
        @Test(arguments: Kind.allCases, [false, true])
        func aRunGoesOnInAnotherLayout(_ kind: Kind, usesLoRA: Bool) async throws {
            let journey =
                usesLoRA
                ? [Self.fsdp2, Layout("1", 1), Layout("sp2", 2, ["\(Self.sp)=2"])]
                : [Layout("1", 1), Self.fsdp2, Layout("tp2", 2, ["\(Self.tp)=2"])]
                    + (kind == .rewardModel ? [] : [Layout("pp2", 2, ["\(Self.pp)=2"])])
                    + [Layout("dp3", 3), Layout("1", 1)]
            let common = Self.exact + ["trainer.save_freq=1"] + (usesLoRA ? ["model.lora_rank=4"] : [])
            let expected = try await Self.alone.result(
                kind, common + ["trainer.total_training_steps=\(journey.count)"], isMixture: false)
            let workspace = try await SupervisedTests.workspace(kind)
            for (step, layout) in journey.enumerated() {
                let outcome = try await SupervisedTests.train(
                    kind, workspace, layout.overrides + common + ["trainer.total_training_steps=\(step + 1)"])
                try #require(outcome.exitCode == 0, "\(outcome)")
                #expect(outcome.errors.contains("going on from step \(step)") == (step > 0), "\(outcome)")
            }
            func steps(_ all: [StepMetrics]) throws -> [StepMetrics] {
                // Each leg but the last ends with no evaluation on the way.
                try Self.compared(all, kind).map { one in
                    StepMetrics(step: one.step, values: one.values.filter { !$0.key.text.hasPrefix("val/") })
                }
            }
            try expectSameSteps(try steps(workspace.history()), try steps(expected.history))
            #expect(workspace.checkpoints().count == journey.count)
        }

        /// Fewer rows in a batch, and held out, than there are ranks.
        @Test(arguments: Kind.allCases) func ranksMayBeMoreThanRows(_ kind: Kind) async throws {
            let settings = Self.short + ["data.train_batch_size=2", "data.val_files=data/few.jsonl"]
            func run(_ layout: [String]) async throws -> Workspace {
                let workspace = try await SupervisedTests.workspace(kind)
                let rows = try String(
                    contentsOf: workspace.folder.appending(path: "data/heldout.jsonl"), encoding: .utf8)
                try workspace.write(
                    "data/few.jsonl", rows.split(separator: "\n").prefix(2).joined(separator: "\n") + "\n")
                let outcome = try await SupervisedTests.train(kind, workspace, layout + settings)
                try #require(outcome.exitCode == 0, "\(outcome)")
                return workspace
            }
            let alone = try await run([]), ranks = try await run(Layout("fsdp3", 3, ["\(Self.fsdp)=-1"]).overrides)
            try expectSameSteps(
                Self.compared(ranks.history(), kind), Self.compared(alone.history(), kind))
            let found = try ranks.run.readSummary()?.heldOut, wanted = try alone.run.readSummary()?.heldOut
            #expect(found?.keys == wanted?.keys)
            for (measure, pair) in found ?? [:] { expectClose(pair.after, wanted?[measure]?.after, "\(measure)") }
        }

        private static let two = ["trainer.n_gpus_per_node=2", "trainer.nccl_timeout=4", "trainer.test_freq=-1"]
        static let failures: [(kind: Kind, failure: String)] = [
            (.sft, "kill:1:3:update"), (.sft, "stop:1:3:update"), (.sft, "kill:0:4:save"), (.sft, "kill:1:2:save"),
            (.dpo, "kill:1:1:ref_log_prob"), (.dpo, "kill:0:5:update"), (.rewardModel, "kill:1:0:evaluate"),
            (.rewardModel, "kill:1:4:update"),
        ]

        /// kill -9 on the way: the rank is named, all end, and the same command goes on; or by itself, with `trainer.max_restarts`.
        @Test(arguments: failures, [false, true])
        func aLostRankIsNamedAndTheRunGoesOn(of one: (kind: Kind, failure: String), restarts: Bool) async throws {
            let layout = one.kind == .dpo ? Self.fsdp2.settings : []
            let whole = try await Self.alone.metrics(one.kind, Self.two + layout)
            let workspace = try await SupervisedTests.workspace(one.kind)
            let outcome = try await FledgeProcess.run(
                [one.kind.rawValue, "recipe.yaml", "trainer.max_restarts=\(restarts ? 1 : 0)"] + Self.two + layout,
                in: workspace.folder, environment: ["FLEDGE_REHEARSE": "\(one.failure)"])
            let place = one.failure.split(separator: ":")
            let named = outcome.errors.split(separator: "\n").contains {
                $0.contains("rank \(place[1]) (process ")
                    && ($0.contains("is dead") || $0.contains("is stopped") || $0.contains("has not arrived"))
                    && $0.contains("phase \(place[3])")
            }
            #expect(named, "\(outcome)")
            #expect(outcome.exitCode == (restarts ? 0 : 75), "\(outcome)")
            #expect(outcome.errors.contains("restart 1 of at most 1") == restarts, "\(outcome)")
            #expect(outcome.errors.contains("the same command goes on from the last one"), "\(outcome)")
            if !restarts {
                let resumed = try await SupervisedTests.train(one.kind, workspace, Self.two + layout)
                #expect(resumed.exitCode == 0, "\(resumed)")
            }
            #expect(try workspace.metrics() == whole)
        }

        @Test func interruptsFinishTheStepAndSave() async throws {
            let workspace = try await SupervisedTests.workspace(.sft)
            let long = ["trainer.total_training_steps=4000", "trainer.save_freq=-1"]
            let outcome = try await SupervisedTests.train(.sft, workspace, Self.two + long) { process in
                if try await FledgeProcess.wait(process, until: { workspace.stepsWritten >= 1 }) {
                    Glibc.kill(process, SIGINT)
                }
            }
            #expect(outcome.exitCode == 130, "\(outcome)")
            #expect(outcome.errors.contains("stopping after this step"), "\(outcome)")
            let summary = try #require(try workspace.run.readSummary())
            #expect(summary.status == .interrupted && summary.steps == workspace.stepsWritten)
            #expect(workspace.checkpoints().last?.hasSuffix("\(summary.steps)") == true)
        }

        @Test func ranksThatSomebodyElseStartsFindOneAnother() async throws {
            let workspace = try await SupervisedTests.workspace(.sft), port = try freePort()
            func start(_ rank: Int) async throws -> FledgeProcess.Outcome {
                try await FledgeProcess.run(
                    ["sft", "recipe.yaml", "trainer.total_training_steps=2"], in: workspace.folder,
                    environment: [
                        "RANK": "\(rank)", "WORLD_SIZE": "2", "LOCAL_RANK": "\(rank)", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": "\(port)",
                    ])
            }
            async let other = start(1)
            let first = try await start(0), second = try await other
            #expect(first.exitCode == 0 && second.exitCode == 0, "\(first)\n\(second)")
            #expect(workspace.stepsWritten == 2 && second.output.isEmpty, "\(second)")
        }

        @Test func mistakesAreSaidOnce() async throws {
            let workspace = try await SupervisedTests.workspace(.sft)
            let good = try String(contentsOf: workspace.folder.appending(path: "data/train.jsonl"), encoding: .utf8)
            // Columns are in order; the answer is longer than a sequence may be, which the rank that encodes the row finds.
            let answer = String(repeating: "b", count: 90)
            let long =
                #"{"prompt": [{"role": "user", "content": "a"}], "#
                + #""completion": [{"role": "assistant", "content": "\#(answer)"}]}"#
            try workspace.write("data/bad.jsonl", good + long + "\n")
            let line = good.count { $0 == "\n" } + 1
            for file in ["data/bad.jsonl", "data/none.jsonl"] {
                let outcome = try await SupervisedTests.train(
                    .sft, workspace, Self.two + ["data.train_files=\(file)"])
                #expect(outcome.exitCode == 2, "\(outcome)")
                #expect(outcome.errors.components(separatedBy: "error: ").count == 2, "\(outcome)")
                #expect(file.contains("none") || outcome.errors.contains("\(file):\(line)"), "\(outcome)")
                #expect(!FileManager.default.fileExists(atPath: workspace.run.path))
            }
        }

        @Test(arguments: [
            (3, ["\(tp)=2"], "3 ranks do not divide into sets of 2"),
            (2, ["\(fsdp)=3"], "2 ranks do not divide into sets of 3"),
            (2, ["\(tp)=2", "model.lora_rank=4"], "an adapter's matrices are not divided"),
            (3, ["\(pp)=3", "trainer.plan=off"], "2 layers cannot be 3 stages"),
            (2, ["\(pp)=2", "model.dtype=bfloat16", "model.param_dtype=bfloat16"], "the embedding is the head too"),
            (2, ["\(ep)=2"], "train.megatron.expert_model_parallel_size: model has no experts to share out"),
            (2, ["trainer.nnodes=2"], "this command starts ranks on its own host only"),
            (2, ["trainer.take_turns=true"], "there is but one model"),
        ])
        func whatCannotBeIsRefused(ranks: Int, settings: [String], message: String) async throws {
            let workspace = try await SupervisedTests.workspace(.sft)
            let outcome = try await SupervisedTests.train(
                .sft, workspace, ["trainer.n_gpus_per_node=\(ranks)"] + settings)
            #expect(outcome.exitCode == 2 && outcome.errors.contains(message), "\(outcome)")
            #expect(!FileManager.default.fileExists(atPath: workspace.run.path))
        }

        /// What ranks wrote is a reward model, in the checkpoint and exported.
        @Test func whatRanksWroteIsExported() async throws {
            let workspace = try await SupervisedTests.workspace(.rewardModel)
            let outcome = try await SupervisedTests.train(
                .rewardModel, workspace, Self.fsdp2.overrides + ["trainer.total_training_steps=2"])
            try #require(outcome.exitCode == 0, "\(outcome)")
            let exported = try await workspace.fledge("export", "--run", "run", "--to", "reward")
            #expect(exported.exitCode == 0, "\(exported)")
            let last = workspace.run.checkpoints + "/" + (try #require(workspace.checkpoints().last)) + "/model"
            for path in [workspace.folder.appending(path: "reward").path, last] {
                let source = try ModelSource.open(path)
                #expect(source.architecture == "LlamaForSequenceClassification")
                #expect(try source.config.int("pad_token_id") == 257)
                let model = try ModelRegistry.loadScoring(source)
                #expect(model.labels == 1 && model.reading == .lastToken)
            }
        }
    }
}

/// Runs with their results, each made once.
private actor Runs {
    struct Result: Sendable {
        var history: [StepMetrics]
        var heldOut: OrderedDictionary<MetricName, RunSummary.BeforeAfter>
        var metrics: [String]
    }
    private var made: [String: Task<Result, any Error>] = [:]

    func metrics(_ kind: CommandSuites.SupervisedTests.Kind, _ settings: [String]) async throws -> [String] {
        try await result(kind, settings, isMixture: false).metrics
    }

    func result(
        _ kind: CommandSuites.SupervisedTests.Kind, _ settings: [String], isMixture: Bool
    ) async throws -> Result {
        let key = "\(kind) \(isMixture) \(settings)"
        if let known = made[key] { return try await known.value }
        let task = Task {
            let workspace = try await CommandSuites.SupervisedTests.workspace(kind, isMixture ? .mixture : TinyModel())
            let outcome = try await CommandSuites.SupervisedTests.train(kind, workspace, settings)
            guard outcome.exitCode == 0 else { throw UnexpectedOutcome(outcome: outcome) }
            return Result(
                history: try workspace.history(), heldOut: try workspace.run.readSummary()?.heldOut ?? [:],
                metrics: try workspace.metrics())
        }
        made[key] = task
        return try await task.value
    }
}
