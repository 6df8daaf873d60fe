import Algorithms
import Foundation
import TensorCore
import TestSupport
import Testing

@Suite struct AlgorithmsGoldenTests {
    static func totals(_ golden: GoldenCase) -> LossAggregation.Totals {
        LossAggregation.Totals(
            tokens: golden.batchInfo("batch_num_tokens").map(Int.init),
            sequences: golden.batchInfo("global_batch_size").map(Int.init),
            ranks: golden.batchInfo("dp_size").map(Int.init) ?? 1)
    }

    static func aggregation(_ golden: GoldenCase) throws -> LossAggregation {
        let mode = try #require(LossAggregation.Mode(rawValue: golden.config["loss_agg_mode"] as? String ?? ""))
        return LossAggregation(mode, scaleFactor: golden.batchInfo("loss_scale_factor"))
    }

    @Test(arguments: GoldenCase.all("advantage", ["grpo", "grpo_no_std", "grpo_vectorized", "grpo_vectorized_no_std"]))
    func advantage(golden: GoldenCase) throws {
        var settings = AdvantageSettings()
        settings.normalizesByStd = (golden.config["norm_adv_by_std_in_grpo"] as? Bool) ?? true
        let make = try #require(AdvantageEstimators.all["grpo"])
        let ids = (golden.inputs["index"] as? [Any] ?? golden.inputs["uid"] as? [Any] ?? []).map { "\($0)" }
        var seen: [String: Int] = [:]
        let groups = ids.map { id in
            if seen[id] == nil { seen[id] = seen.count }
            return seen[id]!
        }
        let estimator = make(settings)
        let result = try estimator(
            AdvantageInputs(
                tokenLevelRewards: golden.input("token_level_rewards"), responseMask: golden.input("response_mask"),
                groups: groups))
        #expect(try golden.excess(result.advantages, golden.outputs["advantages"], "advantages") <= 0)
        if golden.outputs["returns"] != nil {
            #expect(try golden.excess(result.returns, golden.outputs["returns"], "returns") <= 0)
        }
    }

    @Test(arguments: GoldenCase.all("aggregation")) func aggregation(golden: GoldenCase) throws {
        let matrix = try golden.input("loss_mat")
        try matrix.setRequiresGrad()
        try withGrad {
            let loss = try Self.aggregation(golden)(
                matrix, mask: golden.input("loss_mask"), totals: Self.totals(golden))
            #expect(try golden.excess(loss, golden.outputs["loss"], "loss") <= 0)
            try loss.backward()
        }
        let grad = try #require(try matrix.grad())
        #expect(try golden.excess(grad, golden.outputs["grad_loss_mat"], "grad_loss_mat") <= 0)
    }

    @Test(arguments: GoldenCase.all("kl")) func kl(golden: GoldenCase) throws {
        let name = golden.config["kl_penalty"] as? String ?? golden.algorithm
        let estimator = try #require(KLEstimator(name: name))
        let logProbs = try golden.input("logprob")
        try logProbs.setRequiresGrad()
        try withGrad {
            let kl = try estimator(logProbs, golden.input("ref_logprob"))
            #expect(try golden.excess(kl, golden.outputs["kl"], "kl") <= 0)
            guard golden.inputs["response_mask"] != nil else { return }
            try Self.aggregation(golden)(kl, mask: golden.input("response_mask")).backward()
            let key = try #require(golden.outputs.keys.first { $0.hasPrefix("grad") })
            #expect(try golden.excess(try #require(try logProbs.grad()), golden.outputs[key], key) <= 0)
        }
    }

    @Test(arguments: GoldenCase.all("policy_loss", ["vanilla"])) func policyLoss(golden: GoldenCase) throws {
        let low = golden.number("clip_ratio_low") ?? golden.number("clip_ratio") ?? 0.2
        let high = golden.number("clip_ratio_high") ?? golden.number("clip_ratio") ?? 0.2
        let settings = PolicyLossSettings(
            clipLow: low, clipHigh: high, dualClip: golden.number("clip_ratio_c") ?? 3)
        let make = try #require(PolicyLosses.all[golden.algorithm])
        let loss = make(settings)
        let logProbs = try golden.input("log_prob")
        try logProbs.setRequiresGrad()
        try withGrad {
            let result = try loss(
                PolicyLossArguments(
                    oldLogProbs: golden.input("old_log_prob"), logProbs: logProbs,
                    advantages: golden.input("advantages"), responseMask: golden.input("response_mask"),
                    aggregation: Self.aggregation(golden), totals: Self.totals(golden),
                    rolloutWeights: golden.inputs["rollout_is_weights"] is [Any]
                        ? golden.input("rollout_is_weights") : nil))
            #expect(try golden.excess(result.loss, golden.outputs["loss"], "loss") <= 0)
            try result.loss.backward()
            let grad = try #require(try logProbs.grad())
            #expect(try golden.excess(grad, golden.outputs["grad_log_prob"], "grad_log_prob") <= 0)
            guard let metrics = golden.outputs["metrics"] as? [String: Any], Self.totals(golden).tokens == nil
            else { return }
            for (name, value) in result.metrics where metrics[name] != nil {
                #expect(try golden.excess(value, metrics[name], name) <= 0, "\(name)")
            }
        }
    }
}
