import Collectives
import Flow

/// Prompts to answer: each rank takes those of its turn.
struct GenerationRequest: Codable {
    var count: Int { prompts.count }
    var prompts: PackedRows<Int32>
    var settings: RolloutRequestSettings

    init(_ prompts: [PromptTask], _ settings: RolloutRequestSettings) {
        self.prompts = PackedRows(prompts.map(\.tokens))
        self.settings = settings
    }
}

/// What one rank has sampled: the answers to its prompts, prompt after prompt, and what its engine counted.
struct GenerationShare: Codable {
    var responses: PackedRows<Int32>
    var logProbs: PackedRows<Float>
    var isTruncated: [Bool]
    var weightVersions: [Int]
    var weightDigest: String
    var engineVersion: Int
    var promptTokens, prefilledTokens, generatedTokens, decodeSteps: Int
    /// Of its prompts, those that were given up: their answers are not among the others.
    var lostGroups: [Int] = []
    /// Answers that were cut off because most others had ended.
    var cutSamples = 0
    var sleep: Sleep?
    /// What bringing the weights together took.
    var reshard: ReshardReport?

    struct Sleep: Codable {
        var milliseconds, wakeMilliseconds: Double
        var bytes: Int
    }
}

/// What training needs of scored answers; texts and prompts' facts stay with the controller.
struct TrainingRows: Codable {
    var groups: [Int]
    var prompts, responses: PackedRows<Int32>
    var rolloutLogProbs, advantages: PackedRows<Float>
    var oldLogProbs, refLogProbs, importanceWeights, values, returns: PackedRows<Float>?
    /// 1 at the tokens that are learned.
    var responseMask: PackedRows<UInt8>?

    init(_ trajectories: [Trajectory]) {
        groups = trajectories.map(\.prompt.group)
        prompts = PackedRows(trajectories.map(\.prompt.tokens))
        responses = PackedRows(trajectories.map(\.response))
        rolloutLogProbs = PackedRows(trajectories.map(\.rolloutLogProbs))
        advantages = PackedRows(trajectories.map(\.advantages))
        oldLogProbs = Self.all(trajectories.map(\.oldLogProbs))
        refLogProbs = Self.all(trajectories.map(\.refLogProbs))
        importanceWeights = Self.all(trajectories.map(\.importanceWeights))
        values = Self.all(trajectories.map(\.values))
        returns = Self.all(trajectories.map(\.returns))
        if trajectories.contains(where: { $0.responseMask != nil }) {
            responseMask = PackedRows(
                trajectories.map { one in
                    one.responseMask.map { $0.map { $0 ? 1 : 0 } } ?? [UInt8](repeating: 1, count: one.response.count)
                })
        }
    }

    private static func all(_ rows: [[Float]?]) -> PackedRows<Float>? {
        let present = rows.compactMap { $0 }
        return present.count == rows.count && !rows.isEmpty ? PackedRows(present) : nil
    }

    var trajectories: [Trajectory] {
        let responses = responses.rows, rollout = rolloutLogProbs.rows, advantages = advantages.rows
        let old = oldLogProbs?.rows, ref = refLogProbs?.rows, weights = importanceWeights?.rows
        let mask = responseMask?.rows, values = values?.rows, returns = returns?.rows
        return prompts.rows.enumerated().map { index, prompt in
            var trajectory = Trajectory(
                prompt: PromptTask(group: groups[index], tokens: prompt, text: "", dataSource: "", groundTruth: ""),
                response: responses[index], text: "", rolloutLogProbs: rollout[index], isTruncated: false,
                weightVersion: 0, weightDigest: "")
            trajectory.advantages = advantages[index]
            trajectory.oldLogProbs = old?[index]
            trajectory.refLogProbs = ref?[index]
            trajectory.importanceWeights = weights?[index]
            trajectory.responseMask = mask?[index].map { $0 != 0 }
            trajectory.values = values?[index]
            trajectory.returns = returns?[index]
            return trajectory
        }
    }
}

extension GenerationShare {
    /// The answers of all samplers, prompt after prompt.
    static func trajectories(
        _ prompts: [PromptTask], n: Int, _ shares: [GenerationShare], _ text: TextProcessor
    ) -> [Trajectory] {
        let responses = shares.map(\.responses.rows), logProbs = shares.map(\.logProbs.rows)
        let lost = shares.map { Set($0.lostGroups) }
        // The answers of each share that are behind.
        var places = shares.map { _ in 0 }
        return prompts.enumerated().flatMap { index, prompt -> [Trajectory] in
            let rank = index % shares.count, share = shares[rank]
            if lost[rank].contains(index / shares.count) { return [] }
            defer { places[rank] += n }
            return (0..<n).map { sample in
                let place = places[rank] + sample, response = responses[rank][place]
                return Trajectory(
                    prompt: prompt, response: response, text: text.decode(response),
                    rolloutLogProbs: logProbs[rank][place], isTruncated: share.isTruncated[place],
                    weightVersion: share.weightVersions[place], weightDigest: share.weightDigest)
            }
        }
    }
}
