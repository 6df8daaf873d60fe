import Config
import Foundation
public import OrderedCollections
import Rewards

/// For answers that are scored elsewhere: by their environment.
struct NoReward: ItemReward {
    func score(_ item: RewardRequest) -> RewardOutcome { .scored(0) }
}

/// A run's reward, from its configuration.
enum RewardFactory {
    /// - Throws: `RewardError`, before the policy is loaded: a reward file that does not import ends the run here, as does a reward
    ///   model that is none (`ModelError`, ``WorkerError``, `CheckpointError`).
    /// - Parameter ranks: that a reward model is on, where it is not in this process.
    static func make(_ config: RunConfig, _ plan: RunPlan, ranks: RankGroups? = nil) async throws -> any Reward {
        let settings = config.reward
        switch settings.source {
        case .named(let name): return try builtIn(name, settings)
        case .weighted(let weights):
            return try WeightedReward(
                weights.map { .init($0.key, weight: $0.value, try builtIn($0.key, settings)) })
        case .custom(let function):
            var python = PythonRewardConfiguration(file: function.path)
            python.function = function.name
            python.workers = settings.numWorkers
            python.deadline = .milliseconds(Int((settings.timeoutSeconds * 1000).rounded()))
            python.memoryLimit = settings.memoryLimitMB.map { $0 << 20 }
            return try await PythonReward(python)
        case .none: return NoReward()
        case .model(let model):
            if let ranks { return RankedRewardModel(group: ranks[.rewardModel]) }
            let worker = RewardModelWorker(.init(model, plan))
            try await worker.load()
            return RewardModelReward(worker: worker)
        case .judge(let judge): return try JudgeReward(Self.judge(judge))
        }
    }

    private static func builtIn(_ name: String, _ settings: RewardSettings) throws -> any Reward {
        let takesPattern = KnownNames().rewardsWithPattern.contains(name)
        let options: OrderedDictionary<String, String> =
            if takesPattern, let pattern = settings.pattern { ["pattern": pattern] } else { [:] }
        return try RewardRegistry.builtIn.make(name, options: options)
    }

    static func policy(_ settings: RewardSettings) -> RewardFailurePolicy {
        switch settings.onFailure {
        case .dropSample: .dropSample
        case .dropGroup: .dropGroup
        case .abort: .abort
        case .score: .scoreAs(settings.failureScore ?? 0)
        }
    }

    /// The key comes from the environment alone, so that no file of the run holds it.
    private static func judge(_ settings: JudgeSettings) throws -> JudgeConfiguration {
        var judge = JudgeConfiguration(
            url: settings.url, model: settings.model, prompt: settings.prompt, scorePattern: settings.scorePattern)
        judge.system = settings.system
        judge.grades = settings.minScore...settings.maxScore
        judge.temperature = settings.temperature
        judge.maxTokens = settings.maxTokens
        judge.concurrency = settings.concurrency
        judge.timeout = .seconds(settings.timeoutSeconds)
        judge.retries = settings.retries
        judge.deadline = .seconds(settings.deadlineSeconds)
        judge.caFile = settings.caFile
        if let variable = settings.apiKeyVariable {
            guard let key = ProcessInfo.processInfo.environment[variable], !key.isEmpty else {
                throw WorkerError(
                    .badSetting, "reward.judge.api_key_env: the environment variable \(variable) is not set or empty")
            }
            judge.key = .init(key)
        }
        return judge
    }
}

extension RewardModelWorker.Plan {
    init(_ model: ScoringModelSettings, _ plan: RunPlan) {
        self.init(
            modelPath: model.path, templatePath: model.chatTemplate, dtype: plan.dtype, device: plan.device,
            tokensPerPass: model.maxTokenLength)
    }
}
