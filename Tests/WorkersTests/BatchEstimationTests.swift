import Config
import Flow
import OrderedCollections
import Telemetry
import Testing

@testable import Workers

/// From scored answers to advantages, as a recipe asks.
@Suite struct BatchEstimationTests {
    static func config(_ overrides: [String]) throws -> RunConfig {
        let yaml = """
            model: {path: model}
            data: {train_files: train.jsonl}
            reward: {weights: {number_match: 1, bare_number: 0.5}}
            """
        return try RunConfig(yaml: yaml, file: "recipe.yaml", overrides: overrides, names: TrainingRun.knownNames)
    }

    static func estimate(
        _ overrides: [String], _ trajectories: [Trajectory], klCoefficient: Double? = nil
    ) throws -> AdvantageEstimate {
        let config = try config(overrides)
        let estimation = try BatchEstimation(
            config.algorithm, rewardWeights: config.reward.weights, bypassesOldLogProbs: config.bypassesOldLogProbs)
        return try estimation(trajectories, klCoefficient: klCoefficient)
    }

    /// Two groups of three answers, with everything that any estimator needs.
    static func batch() -> [Trajectory] {
        let lengths = [3, 1, 4, 2, 3, 2], scores = [1.0, 0, 0.5, 0, 1, 1]
        return lengths.indices.map { row in
            func values(_ base: Float, _ step: Float) -> [Float] {
                (0..<lengths[row]).map { base + step * Float($0 + row) }
            }
            let prompt = PromptTask(group: row / 3, tokens: [1], text: "", dataSource: "", groundTruth: "")
            var answer = Trajectory(
                prompt: prompt, response: (0..<Int32(lengths[row])).map { $0 }, text: "",
                rolloutLogProbs: values(-1, -0.1), isTruncated: row == 2, weightVersion: 0, weightDigest: "")
            answer.score = scores[row]
            answer.scoreDetails = ["number_match": scores[row], "bare_number": Double(row % 2)]
            answer.oldLogProbs = values(-1.1, -0.08)
            answer.refLogProbs = values(-1.2, -0.05)
            answer.values = values(0.2, 0.05)
            answer.sumPiSquared = values(0.3, 0.02)
            answer.baselineScore = row < 3 ? 0.25 : 0.75
            return answer
        }
    }

    @Test(arguments: TrainingRun.knownNames.advantageEstimators) func everyEstimatorIsReached(name: String) throws {
        let batch = Self.batch(), result = try Self.estimate(["algorithm.adv_estimator=\(name)"], batch)
        #expect(result.advantages.map(\.count) == batch.map(\.response.count))
        #expect(result.advantages.contains { $0.contains { $0 != 0 } })
        #expect(result.advantages.allSatisfy { $0.allSatisfy(\.isFinite) })
        #expect(result.responseMasks == nil && result.importanceWeights == nil && result.klCoefficient == nil)
    }

    @Test func remaxIsAgainstTheGreedyAnswer() throws {
        let result = try Self.estimate(["algorithm.adv_estimator=remax"], Self.batch())
        #expect(result.advantages[0] == [0.75, 0.75, 0.75] && result.advantages[3] == [-0.75, -0.75])
    }

    @Test func gdpoTakesTheRewardsPartsAndTheirWeights() throws {
        let whole = try Self.estimate(["algorithm.adv_estimator=gdpo"], Self.batch())
        let same = try Self.estimate(
            [
                "algorithm.adv_estimator=gdpo", "algorithm.gdpo_reward_keys=[number_match, bare_number]",
                "algorithm.gdpo_reward_weights=[1, 0.5]",
            ], Self.batch())
        let other = try Self.estimate(
            ["algorithm.adv_estimator=gdpo", "algorithm.gdpo_reward_keys=[number_match]"], Self.batch())
        #expect(whole.advantages == same.advantages && whole.advantages != other.advantages)
        #expect(throws: WorkerError.self) {
            try Self.estimate(
                ["algorithm.adv_estimator=gdpo", "algorithm.gdpo_reward_keys=[style]"], Self.batch())
        }
    }

    @Test func valuesComeWithReturns() throws {
        let result = try Self.estimate(["algorithm.adv_estimator=gae"], Self.batch())
        let returns = try #require(result.returns)
        // Undiscounted, the return of every position is the score.
        for (row, answer) in Self.batch().enumerated() {
            for value in returns[row] { #expect(abs(Double(value) - (answer.score ?? 0)) < 1e-5) }
        }
        #expect(result.metrics["critic/values/mean"] != nil && result.metrics["critic/vf_explained_var"] != nil)
    }

    @Test func klIsTakenOffTheRewardAndSteered() throws {
        let kl = ["algorithm.use_kl_in_reward=true", "algorithm.adv_estimator=gae", "algorithm.kl_ctrl.kl_coef=0.5"]
        let fixed = try Self.estimate(kl, Self.batch())
        #expect(fixed.klCoefficient == 0.5 && fixed.metrics["actor/reward_kl_penalty_coeff"] == 0.5)
        let plain = try Self.estimate(["algorithm.adv_estimator=gae"], Self.batch())
        #expect(fixed.advantages != plain.advantages)
        let adaptive = kl + ["algorithm.kl_ctrl.type=adaptive", "algorithm.kl_ctrl.horizon=60"]
        let first = try Self.estimate(adaptive + ["algorithm.kl_ctrl.target_kl=1000"], Self.batch())
        // Far below the target: less by a fifth of six answers in sixty.
        #expect(abs(try #require(first.klCoefficient) - 0.5 * 0.98) < 1e-12)
        let second = try Self.estimate(
            adaptive + ["algorithm.kl_ctrl.target_kl=1000"], Self.batch(), klCoefficient: first.klCoefficient)
        #expect(second.metrics["actor/reward_kl_penalty_coeff"] == first.klCoefficient)
    }

    @Test func truncatedAnswersCountAndAreNotLearned() throws {
        let result = try Self.estimate(["algorithm.mask_truncated=true"], Self.batch())
        let masks = try #require(result.responseMasks)
        #expect(masks[2] == [false, false, false, false] && masks[0] == [true, true, true])
        #expect(result.metrics["actor/masked_truncated"] == 1)
        // Their group's mean has them in it.
        let plain = try Self.estimate([], Self.batch())
        #expect(result.advantages[0] == plain.advantages[0])
    }

    @Test func correctionWeighsAndRejects() throws {
        let prefix = "algorithm.rollout_correction."
        let result = try Self.estimate(
            [
                prefix + "rollout_is=token", prefix + "rollout_is_threshold=1.05", prefix + "rollout_rs=token_k1",
                prefix + "rollout_rs_threshold=0.95_1.2",
            ], Self.batch())
        let weights = try #require(result.importanceWeights), masks = try #require(result.responseMasks)
        let all = weights.flatMap { $0 }
        #expect(all.allSatisfy { $0 <= 1.0501 } && Set(all).count > 2)
        #expect(masks.contains { $0.contains(false) } && masks.contains { $0.contains(true) })
        #expect(result.metrics["rollout_corr/rollout_is_mean"] != nil)
        #expect(result.metrics["rollout_corr/rollout_rs_masked_fraction"] ?? 0 > 0)
        let normalized = try Self.estimate(
            [prefix + "rollout_is=token", prefix + "rollout_is_batch_normalize=true"], Self.batch())
        let values = try #require(normalized.importanceWeights).flatMap { $0 }
        #expect(abs(values.reduce(0, +) / Float(values.count) - 1) < 1e-5)
        // In bypass mode the loss does it.
        let bypassed = try Self.estimate([prefix + "bypass_mode=true", prefix + "rollout_is=token"], Self.batch())
        #expect(bypassed.importanceWeights == nil)
    }

    /// A batch of which nothing is left is no error: nothing is learned of it.
    @Test(arguments: ["gae", "reinforce_plus_plus", "grpo"]) func rejectedWhole(name: String) throws {
        let prefix = "algorithm.rollout_correction."
        let result = try Self.estimate(
            [
                "algorithm.adv_estimator=\(name)", prefix + "rollout_rs=token_k3",
                prefix + "rollout_rs_threshold=1e-9",
            ], Self.batch())
        #expect(try #require(result.responseMasks).allSatisfy { !$0.contains(true) })
        #expect(result.advantages.allSatisfy { $0.allSatisfy { $0 == 0 } })
    }
}
