import ChatTemplates
import Config
import Conversations
import Environments
import Flow
import Logging
import Rewards

/// What a run has beside its model: the reward, and the world that episodes are played in. Both may have processes.
struct RunServices: Sendable {
    let reward: any Reward
    /// nil where no episodes are played.
    let environment: (any Environment)?

    /// - Throws: `RewardError`, `EnvironmentError`.
    init(_ config: RunConfig, _ plan: RunPlan, _ log: Logger, ranks: RankGroups? = nil) async throws {
        let reward = try await RewardFactory.make(config, plan, ranks: ranks)
        do { environment = try await EnvironmentFactory.make(config, log) } catch {
            await reward.shutdown()
            throw error
        }
        self.reward = reward
    }

    /// Runs `body` and ends the processes, however it ends.
    static func with<Result: Sendable>(
        _ plan: RunPlan, _ log: Logger, ranks: RankGroups? = nil, _ body: (RunServices) async throws -> Result
    ) async throws -> Result {
        let services = try await RunServices(plan.config, plan, log, ranks: ranks)
        do {
            let result = try await body(services)
            await services.shutdown()
            return result
        } catch {
            await services.shutdown()
            throw error
        }
    }

    private func shutdown() async {
        await reward.shutdown()
        await environment?.shutdown()
    }

    func encoder(_ text: TextProcessor, _ config: RunConfig) -> PromptEncoder {
        PromptEncoder(text: text, data: config.data, tools: environment?.tools.templateValue ?? .null)
    }

    /// What answers prompts: the policy itself, or episodes that it plays.
    func rollout(
        _ config: RunConfig, _ policy: any RolloutGroup, contextLength: Int, _ text: TextProcessor, _ log: Logger
    ) async throws -> any RolloutGroup {
        guard let environment else { return policy }
        let drawing: any EpisodeDrawing =
            policy as? PolicyWorker ?? TurnByTurn(policy) { contextLength }
        return try await EpisodeRollout(config, drawing: drawing, environment: environment, text: text, log: log)
    }

    /// What answers prompts one by one beside learning: the samplers themselves, or episodes that they play.
    func pool(
        _ config: RunConfig, _ samplers: any RolloutPool, contextLength: Int, _ text: TextProcessor
    ) throws -> any RolloutPool {
        guard let environment else { return samplers }
        return EpisodePool(samplers, try EpisodeStage(config, environment, text, contextLength: contextLength))
    }

    /// Scores answers, episodes with their environment's rewards.
    func worker(_ config: RunConfig) -> RewardWorker {
        RewardWorker(
            reward: reward, policy: RewardFactory.policy(config.reward),
            maxResponseTokens: config.data.maxResponseLength, episodes: config.environment.score)
    }
}
