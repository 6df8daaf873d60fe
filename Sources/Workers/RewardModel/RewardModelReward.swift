import ChatTemplates
import Rewards

/// A reward model as a reward: the prompt's turns with the answer as the assistant's last one.
struct RewardModelReward: Reward {
    let worker: RewardModelWorker

    func score(_ items: [RewardRequest]) async -> [RewardOutcome] {
        do {
            return try await worker.scores(items.map(Self.conversation)).map { result in
                switch result {
                case .success(let score): .checked(score)
                case .failure(let problem): .failed(RewardFailure(.raised, problem.message))
                }
            }
        } catch {
            return items.map { _ in .failed(RewardFailure(.raised, "the reward model: \(error)")) }
        }
    }

    static func conversation(_ item: RewardRequest) -> [ChatMessage] {
        turns(item).map { ChatMessage(role: $0.role, content: .string($0.text)) }
    }

    /// A prompt of plain text is a user's turn.
    static func turns(_ item: RewardRequest) -> [(role: String, text: String)] {
        let before = item.messages.map { (role: $0.role, text: $0.content) }
        return (before.isEmpty ? [("user", item.prompt)] : before) + [("assistant", item.response)]
    }
}
