public import OrderedCollections

/// What a batch of outcomes amounts to.
public struct RewardStatistics: Hashable, Sendable {
    public private(set) var scored = 0
    public private(set) var failures: [RewardFailure.Kind: Int] = [:]
    /// The first failure's message of each kind.
    public private(set) var examples: [RewardFailure.Kind: String] = [:]
    public private(set) var minimum: Double?
    public private(set) var maximum: Double?
    private var sum = 0.0
    private var details: OrderedDictionary<String, Total> = [:]

    private struct Total: Hashable {
        var sum = 0.0
        var count = 0
    }

    public init() {}

    public init(_ outcomes: [RewardOutcome]) {
        for outcome in outcomes { add(outcome) }
    }

    public mutating func add(_ outcome: RewardOutcome) {
        switch outcome {
        case .scored(let score, let named):
            scored += 1
            sum += score
            minimum = min(minimum ?? score, score)
            maximum = max(maximum ?? score, score)
            for (name, value) in named {
                details[name, default: Total()].sum += value
                details[name, default: Total()].count += 1
            }
        case .failed(let failure):
            failures[failure.kind, default: 0] += 1
            if examples[failure.kind] == nil { examples[failure.kind] = failure.message }
        }
    }

    public var failed: Int { failures.values.reduce(0, +) }

    /// The mean score of the items that have one.
    public var mean: Double? { scored == 0 ? nil : sum / Double(scored) }

    /// Each detail's mean over the items that report it.
    public var detailMeans: OrderedDictionary<String, Double> {
        details.mapValues { $0.sum / Double($0.count) }
    }
}
