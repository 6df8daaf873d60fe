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

    /// A prompt of plain text is a user's turn.
    static func conversation(_ item: RewardRequest) -> [ChatMessage] {
        let turns = item.messages.map { ChatMessage(role: $0.role, content: .string($0.content)) }
        return (turns.isEmpty ? [.user(item.prompt)] : turns) + [.assistant(item.response)]
    }
}
