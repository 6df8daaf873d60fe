import Config
public import OrderedCollections
import Rewards

/// A run's reward, from its configuration.
enum RewardFactory {
    /// - Throws: `RewardError`, before anything else is loaded: a reward file that does not import ends the run here.
    static func make(_ config: RunConfig) async throws -> any Reward {
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

    /// Ends the processes of a reward that has some.
    static func shutdown(_ reward: any Reward) async {
        if let python = reward as? PythonReward { await python.shutdown() }
    }
}
