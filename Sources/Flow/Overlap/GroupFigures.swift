import OrderedCollections
import Telemetry

/// What there is to say of groups that have ended; which of them ended first makes no difference, not even of rounding.
struct GroupFigures: Sendable, Hashable, Codable {
    private struct Group: Hashable, Codable {
        var rewards: [String: Double]
        var episodes: EpisodeTally
    }
    /// By their numbers.
    private var groups: [Int: Group] = [:]

    /// - Parameters:
    ///   - answers: of one group, all of them.
    ///   - metrics: what the reward said of it.
    mutating func add(_ id: Int, _ answers: [Trajectory], _ metrics: PhaseMetrics) {
        groups[id] = Group(
            rewards: Dictionary(uniqueKeysWithValues: metrics.map { ($0.key.text, $0.value) }),
            episodes: EpisodeTally(answers))
    }

    /// Gives up those of all groups but `waiting`.
    mutating func take(but waiting: Set<Int>) -> GroupFigures {
        var taken = GroupFigures()
        taken.groups = groups.filter { !waiting.contains($0.key) }
        groups = groups.filter { waiting.contains($0.key) }
        return taken
    }

    private var inOrder: [Group] { groups.sorted { $0.key < $1.key }.map(\.value) }

    var episodes: EpisodeTally { inOrder.reduce(into: EpisodeTally()) { $0.add($1.episodes) } }

    /// Counts add up; means are those of the groups that have them, which are of one size.
    func metrics() throws -> PhaseMetrics {
        var metrics = try episodes.metrics(), all: [String: [Double]] = [:]
        for group in inOrder { for (name, value) in group.rewards { all[name, default: []].append(value) } }
        for (name, values) in all.sorted(by: { $0.key < $1.key }) {
            let sum = values.reduce(0, +)
            metrics[try MetricName(name)] = name.hasSuffix("/mean") ? sum / Double(values.count) : sum
        }
        return metrics
    }
}
