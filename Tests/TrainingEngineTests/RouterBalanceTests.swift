import Checkpoints
import Models
import OrderedCollections
import TensorCore
import Testing

@testable import TrainingEngine

/// The loss that balances a mixture's experts, beside the policy's.
@Suite struct RouterBalanceTests {
    private func trainer(_ coefficient: Double, microBatchTokens: Int = 4096, sharesPrefixes: Bool = true) throws
        -> PolicyTrainer
    {
        let settings: JSONObject = [
            "architectures": .array([.string("Qwen3MoeForCausalLM")]), "vocab_size": .int(61), "hidden_size": .int(32),
            "num_hidden_layers": .int(2), "num_attention_heads": .int(4), "num_key_value_heads": .int(2),
            "head_dim": .int(16), "intermediate_size": .int(48), "moe_intermediate_size": .int(24),
            "num_experts": .int(4), "num_experts_per_tok": .int(2), "max_position_embeddings": .int(128),
            "rope_theta": .double(10000), "rms_norm_eps": .double(1e-5),
        ]
        let make = try #require(ModelRegistry.families["Qwen3MoeForCausalLM"])
        let builder = ParameterBuilder(
            source: try RandomWeights(seed: 3, standardDeviation: 0.3), dtype: .float32, device: .cpu)
        let model = try make(ModelConfig(settings), builder)
        return PolicyTrainer(
            model: model, optimizer: try AdamW(parameters: model.trainableParameters, settings: .init()),
            schedule: LearningRateSchedule(peak: 1e-3),
            settings: .init(
                microBatchTokens: microBatchTokens, sharesPrefixes: sharesPrefixes,
                routerAuxLossCoefficient: coefficient))
    }

    private func report(_ trainer: PolicyTrainer) throws -> [String: Double] {
        let report = try trainer.update(PolicyTrainerTests.samples, loss: PolicyTrainerTests.loss)
        return Dictionary(uniqueKeysWithValues: report.metrics.map { ($0.name, $0.value) })
    }

    @Test func isReportedAndChangesTheStepOnlyWhereItIsAskedFor() throws {
        let without = try trainer(0), with = try trainer(0.5)
        let plain = try report(without), balanced = try report(with)
        #expect(plain["actor/router_aux_loss"] == nil)
        // K for an even load; never far below it.
        let loss = try #require(balanced["actor/router_aux_loss"])
        #expect(loss > 1.9 && loss < 4)
        let imbalance = try #require(balanced["actor/expert_imbalance"])
        #expect(imbalance >= 1 && imbalance <= 2)
        #expect(plain["loss"] == balanced["loss"])
        var changed: Set<String> = []
        for (one, two) in zip(without.model.parameters, with.model.parameters)
        where try one.tensor.subtracting(two.tensor).abs().max().item() > 0 {
            changed.insert(one.name)
        }
        #expect(changed.contains { $0.contains("gate.weight") })
    }

    /// A prompt that the pack computes once counts for every sequence that has it.
    @Test func countsSharedTokensForEachOfTheirSequences() throws {
        let shared = try report(trainer(0.5)), apart = try report(trainer(0.5, sharesPrefixes: false))
        let one = try #require(shared["actor/router_aux_loss"]), two = try #require(apart["actor/router_aux_loss"])
        #expect(abs(one - two) < 1e-4)
    }

    @Test func trainingEvensTheLoad() throws {
        let trainer = try trainer(10)
        let first = try #require(try report(trainer)["actor/router_aux_loss"])
        var last = first
        for _ in 0..<20 { last = try #require(try report(trainer)["actor/router_aux_loss"]) }
        #expect(last < first)
    }
}
