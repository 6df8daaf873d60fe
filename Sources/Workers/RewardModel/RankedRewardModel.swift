import ChatTemplates
import Flow
import Rewards

/// A reward model on ranks of a pool: each has a copy, and scores its share.
struct RankedRewardModel: Reward {
    let group: WorkerGroup<RankWorker>

    func score(_ items: [RewardRequest]) async -> [RewardOutcome] {
        let rows = items.map { ScoreConversations.Conversation(RewardModelReward.turns($0)) }
        do {
            return try await group.call(
                rows, .split(by: { Double($0.length) }) { ScoreConversations(conversations: $0) }, .concat()
            ).map { score in
                score.value.map { .checked($0) }
                    ?? .failed(RewardFailure(.raised, score.problem ?? "the reward model gave no score"))
            }
        } catch {
            return items.map { _ in .failed(RewardFailure(.raised, "the reward model: \(error)")) }
        }
    }
}

/// Scores by the rank's reward model.
struct ScoreConversations: WorkerCall {
    struct Conversation: Codable {
        /// Texts of turns, and who speaks them.
        var roles, texts: [String]
        var length: Int { texts.reduce(0) { $0 + $1.utf8.count } }

        init(_ turns: [(role: String, text: String)]) {
            roles = turns.map(\.role)
            texts = turns.map(\.text)
        }
    }
    struct Score: Codable, Sendable {
        /// nil: there is a problem.
        var value: Double?
        var problem: String?
    }
    var conversations: [Conversation]

    func perform(on worker: RankWorker) async throws -> [Score] {
        guard !conversations.isEmpty else { return [] }
        let messages = conversations.map { one in
            zip(one.roles, one.texts).map { ChatMessage(role: $0, content: .string($1)) }
        }
        return try await worker.rewardModel().scores(messages).map { result in
            switch result {
            // No JSON number says what these are.
            case .success(let value) where !value.isFinite: Score(problem: "the reward model gave \(value)")
            case .success(let value): Score(value: value)
            case .failure(let problem): Score(problem: problem.message)
            }
        }
    }
}
