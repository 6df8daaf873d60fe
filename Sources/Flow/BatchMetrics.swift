import OrderedCollections
import Telemetry

extension StepMetrics {
    mutating func add(_ others: PhaseMetrics) throws { try record(others) }

    /// What a batch of scored answers looks like, under verl's names.
    mutating func describe(_ batch: [Trajectory]) throws {
        let scores = batch.compactMap(\.score)
        if !scores.isEmpty { try record("critic/score", summaryOf: scores) }
        let lengths = batch.map { Double($0.response.count) }
        try record("response_length", summaryOf: lengths)
        try record("response_length/clip_ratio", Double(batch.count { $0.isTruncated }) / Double(max(1, batch.count)))
        try record("prompt_length", summaryOf: batch.map { Double($0.prompt.tokens.count) })
        // A group whose answers all score the same teaches nothing under group-relative advantages.
        var groups: OrderedDictionary<Int, Set<Double>> = [:]
        for trajectory in batch {
            if let score = trajectory.score { groups[trajectory.prompt.group, default: []].insert(score) }
        }
        if !groups.isEmpty {
            try record("critic/uniform_groups", Double(groups.values.count { $0.count == 1 }) / Double(groups.count))
        }
        var details: OrderedDictionary<String, (sum: Double, count: Int)> = [:]
        for trajectory in batch {
            for (name, value) in trajectory.scoreDetails.sorted(by: { $0.key < $1.key }) {
                // A reward names its details as it likes; a metric cannot be.
                let safe =
                    name.isEmpty ? "_" : String(name.unicodeScalars.map { Self.isPlain($0) ? Character($0) : "_" })
                let old = details[safe] ?? (0, 0)
                details[safe] = (old.sum + value, old.count + 1)
            }
        }
        for (name, detail) in details {
            try record(MetricName("reward/detail/" + name), detail.sum / Double(detail.count))
        }
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII
            && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar)
                || "_-.@=".unicodeScalars.contains(scalar))
    }

    mutating func describe(advantages batch: [Trajectory]) throws {
        let values = batch.flatMap { $0.advantages.map(Double.init) }
        if !values.isEmpty { try record("critic/advantages", summaryOf: values) }
    }
}
