import PolicyAlgorithms
import TensorCore
import TestSupport
import Testing

@Suite struct AlgorithmsGoldenTests {
    /// No case of the folder goes unread: each kind has its test, and the kinds with several tests leave nothing over.
    @Test func everyCaseIsRead() {
        let wholeKinds = [
            "advantage", "aggregation", "kl", "kl_controller", "reward_kl", "value_loss", "whiten", "entropy",
            "logprob",
            "policy_loss", "rollout_correction", "preference_loss",
        ]
        let read =
            wholeKinds.reduce(0) { $0 + GoldenCase.all($1).count }
            + GoldenCase.all("overlong", ["dapo", "soft_overlong_punishment"]).count
            + GoldenCase.all("sft_loss", ["nll", "dft", "verl_sft"]).count
        #expect(read == Golden.files("algorithms", withExtension: "json").count)
    }

    @Test(arguments: GoldenCase.all("advantage")) func advantage(golden: GoldenCase) throws {
        let settings = AdvantageSettings(
            normalizesByStd: golden.flag("norm_adv_by_std_in_grpo") ?? true, gamma: golden.number("gamma") ?? 1,
            lambda: golden.number("lam") ?? 1,
            componentWeights: (golden.config["gdpo_reward_weights"] as? [Any])?.compactMap { $0 as? Double },
            gpgNorm: golden.number("f_norm") ?? 1, handlesZeroTail: golden.flag("handle_zero_tail") ?? true)
        let algorithm = golden.algorithm
        let name = algorithm.hasSuffix("_no_std") ? String(algorithm.dropLast("_no_std".count)) : algorithm
        let make = try #require(AdvantageEstimators.all[name])
        let estimator = make(settings)
        let rewards = try golden.input("token_level_rewards")
        let keys = golden.config["gdpo_reward_keys"] as? [String]
        let baselines = golden.numbers("reward_baselines")
        let inputs = AdvantageInputs(
            tokenLevelRewards: rewards, responseMask: try golden.input("response_mask"),
            groups: golden.groups.isEmpty ? Array(0..<rewards.size(0)) : golden.groups,
            values: try golden.optionalInput("values"), rewardBaselines: baselines.isEmpty ? nil : baselines,
            rewardComponents: keys?.map { golden.numbers("reward_components", $0) },
            oldLogProbs: try golden.optionalInput("old_log_probs"),
            sumPiSquared: try golden.optionalInput("sum_pi_squared"),
            rolloutWeights: try golden.optionalInput("rollout_is_weights"))
        let result = try estimator(inputs)
        try golden.expect(result.advantages, "advantages")
        try golden.expect(result.returns, "returns")
    }

    @Test(arguments: GoldenCase.all("aggregation")) func aggregation(golden: GoldenCase) throws {
        let matrix = try golden.trainable("loss_mat")
        try withGrad {
            let loss = try golden.aggregation()(matrix, mask: golden.input("loss_mask"), totals: golden.totals)
            try golden.expect(loss, "loss")
            try golden.expectGradient(of: loss, matrix, "grad_loss_mat")
        }
    }

    @Test(arguments: GoldenCase.all("kl")) func kl(golden: GoldenCase) throws {
        let estimator = try #require(KLEstimator(name: golden.text("kl_penalty") ?? golden.algorithm))
        let logProbs = try golden.trainable("logprob")
        try withGrad {
            let kl = try estimator(logProbs, golden.input("ref_logprob"))
            try golden.expect(kl, "kl")
            let loss = try golden.aggregation()(kl, mask: golden.input("response_mask"))
            try golden.expect(loss, "loss")
            try golden.expectGradient(of: loss, logProbs, "grad_logprob")
        }
    }

    @Test(arguments: GoldenCase.all("kl_controller")) func klController(golden: GoldenCase) throws {
        let mode: KLController.Mode =
            golden.algorithm == "fixed"
            ? .fixed
            : .adaptive(
                target: try #require(golden.number("target_kl")), horizon: try #require(golden.number("horizon")))
        var controller = try KLController(coefficient: #require(golden.number("kl_coef")), mode: mode)
        var values: [Double] = []
        for (kl, answers) in zip(golden.numbers("current_kl"), golden.numbers("n_steps")) {
            controller.update(kl: kl, answers: Int(answers))
            values.append(controller.coefficient)
        }
        golden.expect(values, "values")
    }

    @Test(arguments: GoldenCase.all("reward_kl")) func rewardKL(golden: GoldenCase) throws {
        let settings = golden.section("kl_ctrl")
        let mode: KLController.Mode =
            settings["type"] as? String == "fixed"
            ? .fixed
            : .adaptive(
                target: try #require(settings["target_kl"] as? Double),
                horizon: try #require(settings["horizon"] as? Double))
        var controller = try KLController(coefficient: #require(settings["kl_coef"] as? Double), mode: mode)
        let penalty = RewardKL(estimator: try #require(KLEstimator(name: golden.text("kl_penalty") ?? "")))
        let result = try penalty(
            scores: golden.input("token_level_scores"), oldLogProbs: golden.input("old_log_probs"),
            refLogProbs: golden.input("ref_log_prob"), mask: golden.input("response_mask"), controller: &controller)
        try golden.expect(result.tokenLevelRewards, "token_level_rewards")
        let metrics = try #require(golden.outputs["metrics"] as? [String: Any])
        for (name, value) in [
            ("actor/reward_kl_penalty", result.kl), ("actor/reward_kl_penalty_coeff", result.coefficient),
        ] {
            #expect(golden.excess([value], metrics[name], name) <= 0)
        }
        golden.expect([controller.coefficient], "kl_coef_after")
    }

    @Test(arguments: GoldenCase.all("value_loss")) func valueLoss(golden: GoldenCase) throws {
        let predictions = try golden.trainable("vpreds")
        let loss = ValueLoss(clipRange: try #require(golden.number("cliprange_value")))
        try withGrad {
            func run(_ totals: LossAggregation.Totals) throws -> ValueLoss.Result {
                try loss(
                    predictions: predictions, oldValues: golden.input("values"), returns: golden.input("returns"),
                    mask: golden.input("response_mask"), aggregation: golden.aggregation(), totals: totals)
            }
            let result = try run(golden.totals)
            try golden.expect(result.loss, "loss")
            // The peer's fraction is of the rows at hand.
            try golden.expect(run(.init()).clipFraction, "clipfrac")
            try golden.expectGradient(of: result.loss, predictions, "grad_vpreds")
        }
    }

    @Test(arguments: GoldenCase.all("whiten")) func whiten(golden: GoldenCase) throws {
        let values = try golden.input("values"), mask = try golden.input("mask")
        try golden.expect(Masked.mean(values, mask), "mean")
        try golden.expect(Masked.variance(values, mask), "var")
        try golden.expect(Masked.variance(values, mask, unbiased: false), "var_biased")
        try golden.expect(Masked.rowMean(values, mask), "row_mean")
        try golden.expect(Masked.rowSum(values, mask), "row_sum")
        let shifts = golden.flag("shift_mean") ?? true
        try golden.expect(Masked.whitened(values, mask, keepsMean: !shifts), "whitened")
    }

    @Test(arguments: GoldenCase.all("entropy")) func entropy(golden: GoldenCase) throws {
        let logits = try golden.trainable("logits")
        try withGrad {
            let entropy = try TokenDistribution.entropy(logits)
            try golden.expect(entropy, "entropy")
            let loss = try golden.aggregation()(entropy, mask: golden.input("response_mask"))
            try golden.expect(loss, "loss")
            try golden.expectGradient(of: loss, logits, "grad_logits")
        }
    }

    @Test(arguments: GoldenCase.all("logprob")) func logProb(golden: GoldenCase) throws {
        let logits = try golden.trainable("logits")
        let temperature = try #require(golden.number("temperature"))
        try withGrad {
            let scaled = try logits.divided(by: temperature)
            let logProbs = try TokenDistribution.logProbs(scaled, labels: golden.integers("labels"))
            try golden.expect(logProbs, "log_probs")
            try golden.expect(TokenDistribution.entropy(scaled), "entropy_at_temperature")
            try golden.expect(TokenDistribution.sumPiSquared(scaled), "sum_pi_squared")
            try golden.expectGradient(of: logProbs.sum(), logits, "grad_logits_of_sum")
        }
    }

    @Test(arguments: GoldenCase.all("overlong", ["dapo"])) func overlongBuffer(golden: GoldenCase) throws {
        let buffer = golden.section("overlong_buffer")
        let lengths = golden.numbers("valid_response_length").map(Int.init), scores = golden.numbers("score")
        guard buffer["enable"] as? Bool == true else {
            golden.expect(scores, "reward")
            return
        }
        let penalty = try OverlongPenalty(
            maxLength: Int(#require(golden.number("max_resp_len"))), buffer: #require(buffer["len"] as? Int),
            penalty: #require((buffer["penalty_factor"] as? Double)))
        let added = lengths.map { penalty(length: $0) }
        golden.expect(added, "overlong_reward")
        golden.expect(added.map { $0 < 0 ? 1 : 0 }, "overlong")
        golden.expect(zip(scores, added).map { $0 + $1 }, "reward")
    }

    @Test(arguments: GoldenCase.all("overlong", ["soft_overlong_punishment"]))
    func softOverlongPunishment(golden: GoldenCase) throws {
        let penalty = try OverlongPenalty(
            maxLength: Int(#require(golden.number("max_completion_len"))),
            buffer: Int(#require(golden.number("soft_punish_cache"))), beyond: .floor)
        golden.expect(golden.numbers("completion_length").map { penalty(length: Int($0)) }, "reward")
    }

    @Test(arguments: GoldenCase.all("sft_loss", ["nll", "dft"])) func sftLoss(golden: GoldenCase) throws {
        let loss = SFTLoss(try #require(SFTLoss.Kind(rawValue: golden.algorithm)))
        let logits = try golden.trainable("logits")
        try withGrad {
            let tokens = golden.number("num_items_in_batch").map(Int.init)
            let result = try loss(logits: logits, labels: golden.integers("labels"), totals: .init(tokens: tokens))
            try golden.expect(result.loss, "loss")
            try golden.expectMetrics([("entropy", result.entropy), ("mean_token_accuracy", result.accuracy)])
            try golden.expectGradient(of: result.loss, logits, "grad_logits")
        }
    }

    @Test(arguments: GoldenCase.all("sft_loss", ["verl_sft"])) func sftLossOfLogProbs(golden: GoldenCase) throws {
        let logProbs = try golden.trainable("log_probs")
        let totals = LossAggregation.Totals(
            tokens: golden.number("batch_num_tokens").map(Int.init), ranks: Int(golden.number("dp_size") ?? 1))
        let padded = try golden.optionalInput("response_mask")
        let lengths = golden.numbers("lengths").map(Int.init)
        let mask = try padded ?? SFTLoss.predictingMask(golden.input("loss_mask"), lengths: lengths)
        try withGrad {
            let loss = try SFTLoss()(logProbs, mask: mask, totals: totals)
            try golden.expect(loss, "loss")
            try golden.expectGradient(of: loss, logProbs, "grad_log_probs")
        }
    }
}
