public import Logging
public import OrderedCollections
import Telemetry

/// What episodes come to, those that failed included. Tallies add up, so that it makes no difference how episodes were gathered.
public struct EpisodeTally: Sendable, Hashable, Codable {
    public private(set) var count = 0
    private var turns = 0, mostTurns = 0
    private var seconds = 0.0, mostSeconds = 0.0
    private var endings: [String: Int] = [:]
    /// The model's tokens, and the others' behind the prompt.
    private var drawnTokens = 0, shownTokens = 0
    private var toolCalls = 0, toolErrors = 0.0
    private var details: [String: Double] = [:]
    /// How many failed so, and what one of them had to say.
    private var failures: [String: Failures] = [:]

    private struct Failures: Hashable, Codable {
        var count: Int
        var example: String
    }

    public init() {}

    /// - Parameter trajectories: those without an episode do not count.
    public init(_ trajectories: [Trajectory]) {
        for trajectory in trajectories { if let episode = trajectory.episode { count(episode, trajectory) } }
    }

    private mutating func count(_ episode: EpisodeOutcome, _ trajectory: Trajectory) {
        count += 1
        turns += episode.turns
        mostTurns = max(mostTurns, episode.turns)
        seconds += episode.environmentSeconds
        mostSeconds = max(mostSeconds, episode.environmentSeconds)
        endings[episode.ending, default: 0] += 1
        drawnTokens += trajectory.learnedCount
        shownTokens += trajectory.response.count - trajectory.learnedCount
        toolCalls += episode.toolCalls
        toolErrors += episode.toolErrors
        details.merge(episode.details) { $0 + $1 }
        if let failure = episode.failure {
            failures[failure.kind, default: Failures(count: 0, example: failure.message)].count += 1
        }
    }

    public mutating func add(_ other: EpisodeTally) {
        count += other.count
        turns += other.turns
        mostTurns = max(mostTurns, other.mostTurns)
        seconds += other.seconds
        mostSeconds = max(mostSeconds, other.mostSeconds)
        endings.merge(other.endings) { $0 + $1 }
        drawnTokens += other.drawnTokens
        shownTokens += other.shownTokens
        toolCalls += other.toolCalls
        toolErrors += other.toolErrors
        details.merge(other.details) { $0 + $1 }
        failures.merge(other.failures) { Failures(count: $0.count + $1.count, example: $0.example) }
    }

    /// None where no episode was played.
    public func metrics() throws -> PhaseMetrics {
        guard count > 0 else { return [:] }
        let count = Double(count)
        var metrics: PhaseMetrics = [:]
        for ending in ["done", "turn_limit", "token_limit", "truncated_reply"] {
            metrics[try MetricName("episode/ended/" + ending)] = 0
        }
        metrics["episode/count"] = count
        metrics["episode/turns/mean"] = Double(turns) / count
        metrics["episode/turns/max"] = Double(mostTurns)
        metrics["perf/environment_seconds/mean"] = seconds / count
        metrics["perf/environment_seconds/max"] = mostSeconds
        for (ending, number) in endings.sorted(by: { $0.key < $1.key }) {
            metrics[try MetricName("episode/ended/" + ending)] = Double(number)
        }
        metrics["episode/failed"] = Double(failures.values.reduce(0) { $0 + $1.count })
        metrics["episode/drawn_tokens/mean"] = Double(drawnTokens) / count
        metrics["episode/shown_tokens/mean"] = Double(shownTokens) / count
        for (name, sum) in details.sorted(by: { $0.key < $1.key }) {
            metrics[try MetricName("episode/detail/" + Self.plain(name))] = sum / count
        }
        metrics["episode/tool_calls/mean"] = Double(toolCalls) / count
        metrics["episode/tool_errors/mean"] = toolErrors / count
        return metrics
    }

    /// Says how many failed, of each kind with an example.
    public func complain(_ log: Logger) {
        for (kind, failed) in failures.sorted(by: { $0.key < $1.key }) {
            log.warning("\(failed.count) of \(count) episodes failed (\(kind)), one so: \(failed.example)")
        }
    }

    /// What an environment calls its numbers, as a metric's name.
    private static func plain(_ name: String) -> String {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map { part in
            String(
                part.unicodeScalars.map { scalar in
                    ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || ("0"..."9").contains(scalar)
                        || "_-.@=".unicodeScalars.contains(scalar) ? Character(scalar) : "_"
                })
        }
        return parts.map { $0.isEmpty ? "_" : $0 }.joined(separator: "/")
    }
}
