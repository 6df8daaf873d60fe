import PolicyAlgorithms
import Checkpoints
import Foundation
import Models
import OrderedCollections
import TensorCore
import Testing

@testable import TrainingEngine

@Suite struct RewardTrainingTests {
    /// A tiny language model's folder, loaded with a new head of one number.
    final class Folder: Sendable {
        let path = NSTemporaryDirectory() + "fledge-reward-\(UUID().uuidString)"
        deinit { try? FileManager.default.removeItem(atPath: path) }

        init() throws {
            let config = ModelConfig([
                "architectures": .array([.string("LlamaForCausalLM")]), "model_type": .string("llama"),
                "hidden_size": .int(32), "intermediate_size": .int(48), "num_hidden_layers": .int(2),
                "num_attention_heads": .int(4), "num_key_value_heads": .int(2), "head_dim": .int(16),
                "vocab_size": .int(61), "max_position_embeddings": .int(128), "rms_norm_eps": .double(1e-5),
                "rope_theta": .double(10000), "tie_word_embeddings": .bool(true),
            ])
            try HuggingFaceExporter.write(
                tensors: PolicyTrainerTests.model().namedTensors().map { ($0.name, try $0.tensor.contiguous()) },
                config: config, to: path)
        }

        func model(_ name: String = "") throws -> ScoringModel {
            try ModelRegistry.loadScoring(
                ModelSource.open(path + name), newHead: .init(standardDeviation: 0.1, seed: 4, reading: .lastToken))
        }
    }

    static func pairs() -> [SupervisedExample] {
        SupervisedTrainerTests.pairs(references: false).map { pair in
            SupervisedExample(
                pair.sequences.map { SupervisedSequence(prompt: $0.tokens.prompt, response: $0.tokens.response) },
                margin: pair.margin)
        }
    }

    static func trainer(
        _ model: ScoringModel, budget: Int = 100_000, shares: Bool = true, center: Double = 0.1
    ) throws -> SupervisedTrainer {
        SupervisedTrainer(
            network: .scoring(model), objective: RewardObjective(.init(centerCoefficient: center)),
            optimizer: try AdamW(parameters: model.trainableParameters, settings: .init(weightDecay: 0)),
            schedule: LearningRateSchedule(peak: 1e-2),
            settings: .init(microBatchTokens: budget, sharesPrefixes: shares))
    }

    @Test func scoresAreThoseOfSequencesAlone() throws {
        let model = try Folder().model()
        let tokens = Self.pairs().flatMap(\.sequences).map(\.tokens)
        try withNoGrad {
            let together = try ScoringForward(model: model)(tokens).scores.values(Float.self)
            for (sequence, score) in zip(tokens, together) {
                let ids = (sequence.prompt + sequence.response).map(Int64.init)
                let alone = try model.sequenceScores(
                    ids: Tensor(ids), positions: Tensor.arange(0..<ids.count),
                    segments: [PackedSegment(start: 0, length: ids.count)])
                #expect(abs(try alone.item() - Double(score)) < 2e-5)
            }
        }
    }

    @Test(arguments: [(20, true), (45, false), (100_000, false)])
    func theLossDoesNotDependOnTheSplit(budget: Int, shares: Bool) throws {
        let folder = try Folder()
        let whole = try SupervisedTrainerTests.gradients(Self.trainer(folder.model()), Self.pairs())
        let parts = try SupervisedTrainerTests.gradients(
            Self.trainer(folder.model(), budget: budget, shares: shares), Self.pairs())
        SupervisedTrainerTests().expectSame(parts, whole)
    }

    @Test(arguments: [false, true]) func aFewStepsRankThePairs(usesLoRA: Bool) throws {
        let model = try Folder().model()
        if usesLoRA { try model.addAdapter(LoRASettings(rank: 4, alpha: 8, targets: .allLinear, seed: 1)) }
        let trainer = try Self.trainer(model, center: 0)
        if usesLoRA {
            // The adapter's matrices, and the head, which no checkpoint holds: it gets no adapter of its own.
            let names = model.trainableParameters.map(\.name)
            #expect(names.contains("score.weight") && names.count == model.adapter!.parameters.count + 1)
            #expect(!model.adapter!.modules.contains("score"))
        }
        for _ in 0..<30 { _ = try trainer.update(Self.pairs()) }
        let after = try trainer.evaluate(Self.pairs())
        #expect(after.first { $0.name == "rewards/accuracies" }?.value == 1)
        #expect(after[0].value < 0.3)
    }

    /// What is written loads as the reward model that it was.
    @Test func theTrainedModelLoadsAgain() throws {
        let folder = try Folder(), model = try folder.model()
        let trainer = try Self.trainer(model)
        for _ in 0..<3 { _ = try trainer.update(Self.pairs()) }
        let source = try ModelSource.open(folder.path)
        #expect(model.architecture == "LlamaForSequenceClassification")
        let config = source.config.withHead(architecture: model.architecture, labels: 1, padID: 3)
        try HuggingFaceExporter.write(
            tensors: model.mergedTensors().map { ($0.name, try $0.tensor.detached()) }, config: config,
            to: folder.path + "/trained")
        let again = try ModelRegistry.loadScoring(ModelSource.open(folder.path + "/trained"))
        #expect(again.reading == .lastToken && again.labels == 1)
        let tokens = Self.pairs().flatMap(\.sequences).map(\.tokens)
        try withNoGrad {
            let before = try ScoringForward(model: model)(tokens).scores.values(Float.self)
            #expect(try ScoringForward(model: again)(tokens).scores.values(Float.self) == before)
        }
        #expect(try ModelSource.open(folder.path + "/trained").config.int("pad_token_id") == 3)
    }
}
