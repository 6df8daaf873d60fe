import PolicyAlgorithms
import TensorCore
import TestSupport
import Testing

@Suite struct PreferenceLossGoldenTests {
    static func all(_ prefixes: String...) -> [GoldenCase] {
        GoldenCase.all("preference_loss").filter { golden in prefixes.contains { golden.algorithm.hasPrefix($0) } }
    }

    /// The mask of the places that predict.
    static func shifted(_ golden: GoldenCase, _ key: String) throws -> Tensor {
        let mask = try golden.input(key)
        return try mask.narrowed(1, 1..<mask.size(1))
    }

    @Test func everyCaseIsRead() {
        let read = Self.all("dpo_", "kto", "apo_zero_unpaired", "cpo_", "simpo", "orpo", "bradley_terry")
        #expect(read.count == GoldenCase.all("preference_loss").count)
    }

    @Test(arguments: all("dpo_")) func dpo(golden: GoldenCase) throws {
        let names = golden.config["loss_type"] as? [String] ?? []
        let weights = golden.config["loss_weights"] as? [Double] ?? []
        var terms: [DPOLoss.WeightedTerm] = []
        for (name, weight) in zip(names, weights) {
            terms.append(.init(try #require(DPOLoss.Term(rawValue: name)), weight: weight))
        }
        let divergences: [String: DPOLoss.Divergence] = [
            "reverse_kl": .reverseKL, "forward_kl": .forwardKL, "js_divergence": .jensenShannon,
            "alpha_divergence": .alpha(golden.number("f_alpha_divergence_coef") ?? 0.5),
        ]
        let divergence = try #require(divergences[golden.text("f_divergence_type") ?? ""])
        let loss = DPOLoss(
            terms, beta: try #require(golden.number("beta")), labelSmoothing: golden.number("label_smoothing") ?? 0,
            divergence: divergence, tailWeight: golden.number("ld_alpha"),
            discopopTau: golden.number("discopop_tau") ?? 0.05)
        let logProbs = try golden.trainable("per_token_logps")
        try withGrad {
            let result = try loss(
                logProbs: logProbs, refLogProbs: golden.input("ref_per_token_logps"),
                mask: Self.shifted(golden, "completion_mask"))
            try golden.expect(result.loss, "loss")
            try golden.expectMetrics(result.metrics)
            try golden.expectGradient(of: result.loss, logProbs, "grad_per_token_logps")
        }
    }

    @Test(arguments: all("kto", "apo_zero_unpaired")) func kto(golden: GoldenCase) throws {
        let kind = try #require(KTOLoss.Kind(rawValue: golden.algorithm))
        let loss = KTOLoss(
            kind, beta: try #require(golden.number("beta")), desirableWeight: golden.number("desirable_weight") ?? 1,
            undesirableWeight: golden.number("undesirable_weight") ?? 1)
        let logProbs = try golden.trainable("per_token_logps")
        let kl = try KTOLoss.kl(
            logProbs: golden.input("kl_per_token_logps"), refLogProbs: golden.input("kl_ref_per_token_logps"),
            mask: Self.shifted(golden, "kl_completion_mask"))
        try withGrad {
            let result = try loss(
                logProbs: logProbs, refLogProbs: golden.input("ref_per_token_logps"),
                mask: Self.shifted(golden, "completion_mask"), isDesirable: golden.numbers("label").map { $0 != 0 },
                kl: kl)
            try golden.expect(result.loss, "loss")
            try golden.expectMetrics(result.metrics)
            try golden.expectGradient(of: result.loss, logProbs, "grad_per_token_logps")
        }
    }

    /// Chosen and rejected rows' log-probabilities.
    static func halves(_ logits: Tensor, _ labels: Tensor, isAveraged: Bool) throws -> (
        chosen: Tensor, rejected: Tensor
    ) {
        let sums = try TokenDistribution.sequenceLogProbs(logits, labels: labels, isAveraged: isAveraged)
        let pairs = sums.count / 2
        return (try sums.narrowed(0, 0..<pairs), try sums.narrowed(0, pairs..<2 * pairs))
    }

    @Test(arguments: all("cpo_", "simpo")) func cpo(golden: GoldenCase) throws {
        let kind = try #require(CPOLoss.Kind(rawValue: golden.text("loss_type") ?? ""))
        let weight = try #require(golden.number("cpo_alpha"))
        let loss = CPOLoss(
            kind, beta: try #require(golden.number("beta")), labelSmoothing: golden.number("label_smoothing") ?? 0,
            margin: golden.number("simpo_gamma") ?? 0.5, likelihoodWeight: weight)
        let logits = try golden.trainable("logits"), labels = try golden.integers("labels")
        let chosen = 0..<labels.size(0) / 2
        try withGrad {
            let sums = try Self.halves(logits, labels, isAveraged: loss.averages)
            let likelihood = try SFTLoss()(logits: logits.narrowed(0, chosen), labels: labels.narrowed(0, chosen)).loss
            let result = try loss(
                chosen: sums.chosen, rejected: sums.rejected, likelihoodLoss: weight == 0 ? nil : likelihood)
            try golden.expect(result.loss, "loss")
            try golden.expectMetrics(result.metrics)
            try golden.expectGradient(of: result.loss, logits, "grad_logits")
        }
    }

    @Test(arguments: all("orpo")) func orpo(golden: GoldenCase) throws {
        let loss = ORPOLoss(beta: try #require(golden.number("beta")))
        let logits = try golden.trainable("logits"), labels = try golden.integers("labels")
        let isText = try golden.input("attention_mask").greater(than: 0)
        let text = try golden.integers("input_ids").maskedFill(isText.logicalNot(), Double(SFTLoss.ignoredLabel))
        let chosen = 0..<labels.size(0) / 2
        try withGrad {
            let sums = try Self.halves(logits, labels, isAveraged: true)
            let likelihood = try SFTLoss()(logits: logits.narrowed(0, chosen), labels: text.narrowed(0, chosen)).loss
            let result = try loss(chosen: sums.chosen, rejected: sums.rejected, likelihoodLoss: likelihood)
            try golden.expect(result.loss, "loss")
            try golden.expectMetrics(result.metrics)
            try golden.expectGradient(of: result.loss, logits, "grad_logits")
        }
    }

    @Test(arguments: all("bradley_terry")) func bradleyTerry(golden: GoldenCase) throws {
        let loss = RewardModelLoss(centerCoefficient: golden.number("center_rewards_coefficient") ?? 0)
        let rewards = try golden.trainable("rewards")
        let pairs = rewards.count / 2
        try withGrad {
            let result = try loss(
                chosen: rewards.narrowed(0, 0..<pairs), rejected: rewards.narrowed(0, pairs..<2 * pairs),
                margin: golden.optionalInput("margin"))
            try golden.expect(result.loss, "loss")
            try golden.expectMetrics(result.metrics)
            try golden.expectGradient(of: result.loss, rewards, "grad_rewards")
        }
    }
}
