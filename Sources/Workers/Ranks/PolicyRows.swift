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
