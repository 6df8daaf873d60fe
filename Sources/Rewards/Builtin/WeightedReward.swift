import OrderedCollections

/// The sum of other rewards, each times its weight. An item fails when one of its parts does.
public struct WeightedReward: Reward {
    public struct Part: Sendable {
        public var name: String
        public var weight: Double
        public var reward: any Reward

        public init(_ name: String, weight: Double, _ reward: any Reward) {
            self.name = name
            self.weight = weight
            self.reward = reward
        }
    }

    public let parts: [Part]

    /// - Throws: `RewardError.badSetting` for no parts, a name given twice, or a weight that is not finite.
    public init(_ parts: [Part]) throws {
        guard !parts.isEmpty, Set(parts.map(\.name)).count == parts.count else {
            throw RewardError(.badSetting, "a weighted reward needs parts, each with its own name")
        }
        if let part = parts.first(where: { !$0.weight.isFinite }) {
            throw RewardError(.badSetting, "the weight of '\(part.name)' is \(part.weight)")
        }
        self.parts = parts
    }

    public func shutdown() async {
        for part in parts { await part.reward.shutdown() }
    }

    /// Details: each part's score by its name, and its own details as `name/detail`.
    public func score(_ items: [RewardRequest]) async -> [RewardOutcome] {
        var sums = items.map { _ in 0.0 }
        var details = items.map { _ in OrderedDictionary<String, Double>() }
        var failures: [Int: RewardFailure] = [:]
        for part in parts {
            for (index, outcome) in await part.reward.score(items).enumerated() {
                switch outcome {
                case .scored(let score, let own):
                    sums[index] += part.weight * score
                    details[index][part.name] = score
                    for (name, value) in own { details[index]["\(part.name)/\(name)"] = value }
                case .failed(let failure):
                    let named = RewardFailure(failure.kind, "\(part.name): \(failure.message)")
                    failures[index] = failures[index] ?? named
                }
            }
        }
        return items.indices.map { index in
            failures[index].map { .failed($0) } ?? .checked(sums[index], details: details[index])
        }
    }
}
