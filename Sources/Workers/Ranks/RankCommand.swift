import Collectives
import Flow
import Foundation

/// What all ranks do together. Rank 0 does it too, right after it has sent the command.
enum RankCommand: Codable {
    /// Makes the optimizer and what else training needs.
    case prepare(totalSteps: Int)
    /// Goes on from the checkpoint at a path, or from the newest whole one of the run's folder.
    case restore(path: String?)
    /// Removes the checkpoints of an earlier run.
    case forgetCheckpoints
    case generate(GenerationRequest)
    case logProbs(TrainingRows)
    case referenceLogProbs(TrainingRows)
    case sumsPiSquared(TrainingRows)
    case values(TrainingRows)
    case updateCritic(TrainingRows, seed: UInt64)
    case update(TrainingRows, seed: UInt64)
    /// Each rank writes its part of a checkpoint.
    case save(step: Int)
    case finish
}

/// What another rank answers.
enum RankAnswer: Codable {
    case done
    case generated(GenerationShare)
}

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

/// What training needs of scored answers; texts and prompts' facts stay with rank 0.
struct TrainingRows: Codable {
    var groups: [Int]
    var prompts, responses: PackedRows<Int32>
    var rolloutLogProbs, advantages: PackedRows<Float>
    var oldLogProbs, refLogProbs, importanceWeights, values, returns: PackedRows<Float>?
    var responseMask: PackedRows<Bool>?

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
                trajectories.map { $0.responseMask ?? [Bool](repeating: true, count: $0.response.count) })
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
            trajectory.responseMask = mask?[index]
            trajectory.values = values?[index]
            trajectory.returns = returns?[index]
            return trajectory
        }
    }
}

/// Rows of numbers as one run of bytes, which JSON carries fast and exactly, not-a-number included.
struct PackedRows<Element: BitwiseCopyable>: Codable {
    private var lengths: [Int]
    private var bytes: Data

    init(_ rows: [[Element]]) {
        lengths = rows.map(\.count)
        bytes = Data(capacity: lengths.reduce(0, +) * MemoryLayout<Element>.stride)
        for row in rows { row.withUnsafeBytes { bytes.append(contentsOf: $0) } }
    }

    var count: Int { lengths.count }

    var rows: [[Element]] {
        bytes.withUnsafeBytes { all in
            var start = 0
            return lengths.map { length in
                defer { start += length * MemoryLayout<Element>.stride }
                return (0..<length).map {
                    all.loadUnaligned(fromByteOffset: start + $0 * MemoryLayout<Element>.stride, as: Element.self)
                }
            }
        }
    }
}
