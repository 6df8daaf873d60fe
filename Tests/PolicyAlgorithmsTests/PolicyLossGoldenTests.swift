import PolicyAlgorithms
import TensorCore
import TestSupport
import Testing

@Suite struct PolicyLossGoldenTests {
    @Test(arguments: GoldenCase.all("policy_loss")) func policyLoss(golden: GoldenCase) throws {
        let make = try #require(PolicyLosses.all[golden.algorithm])
        let loss = make(try Self.settings(golden))
        let logProbs = try golden.trainable("log_prob")
        try withGrad {
            func run(_ totals: LossAggregation.Totals) throws -> PolicyLossResult {
                try loss(
                    PolicyLossArguments(
                        oldLogProbs: golden.input("old_log_prob"), logProbs: logProbs,
                        advantages: golden.input("advantages"), responseMask: golden.input("response_mask"),
                        aggregation: golden.aggregation(), totals: totals,
                        rolloutWeights: golden.optionalInput("rollout_is_weights")))
            }
            let result = try run(golden.totals)
            try golden.expect(result.loss, "loss")
            // The peer's metrics are means over the rows at hand.
            try golden.expectMetrics(run(.init()).metrics)
            try golden.expectGradient(of: result.loss, logProbs, "grad_log_prob")
        }
    }

    static func settings(_ golden: GoldenCase) throws -> PolicyLossSettings {
        let section = golden.section("policy_loss")
        func number(_ key: String, _ standard: Double) -> Double { section[key] as? Double ?? standard }
        let correction = section["rollout_correction"] as? [String: Any]
        return PolicyLossSettings(
            clipLow: golden.number("clip_ratio_low") ?? golden.number("clip_ratio") ?? 0.2,
            clipHigh: golden.number("clip_ratio_high") ?? golden.number("clip_ratio") ?? 0.2,
            dualClip: golden.number("clip_ratio_c") ?? 3, clipCovRatio: number("clip_cov_ratio", 0.0002),
            clipCovLower: number("clip_cov_lb", 1), clipCovUpper: number("clip_cov_ub", 5),
            klCovRatio: number("kl_cov_ratio", 0.0002), klCovCoefficient: number("ppo_kl_coef", 1),
            tauPositive: golden.number("tau_pos") ?? 1, tauNegative: golden.number("tau_neg") ?? 1.05,
            droBeta: number("dro_beta", 1), geoMeanCountsRows: true,
            rolloutCorrection: try correction.map(RolloutCorrection.init(golden:)),
            bypassLoss: try #require(BypassModeLoss.Kind(rawValue: correction?["loss_type"] as? String ?? "ppo_clip")))
    }

    @Test(arguments: GoldenCase.all("rollout_correction")) func rolloutCorrection(golden: GoldenCase) throws {
        let correction = try RolloutCorrection(golden: golden.config)
        let result = try correction(
            logProbs: golden.input("old_log_prob"), rolloutLogProbs: golden.input("rollout_log_prob"),
            mask: golden.input("response_mask"))
        if let weights = result.weights {
            try golden.expect(weights, "rollout_is_weights")
        } else {
            #expect(!(golden.outputs["rollout_is_weights"] is [Any]), "\(golden.name) has weights")
        }
        try golden.expect(result.mask, "modified_response_mask")
        try golden.expectMetrics(result.metrics)
    }
}

extension RolloutCorrection {
    /// From verl's settings in a golden case.
    fileprivate init(golden config: [String: Any]) throws {
        func text(_ key: String) -> String? { config[key] as? String ?? (config[key] as? Double).map { "\($0)" } }
        try self.init(
            weights: config["rollout_is"] as? String, threshold: text("rollout_is_threshold") ?? "2.0",
            normalizes: config["rollout_is_batch_normalize"] as? Bool ?? false,
            rejection: config["rollout_rs"] as? String, rejectionThreshold: text("rollout_rs_threshold"))
    }
}
