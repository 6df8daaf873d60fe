import Environments
import Flow
import OrderedCollections
import Telemetry

/// Draws the replies of a rollout's episodes: batches of them, turn after turn, under one version of the weights.
protocol EpisodeDrawing: Sendable {
    /// - Parameters:
    ///   - episodes: how many there are.
    ///   - tokens: the most of one, its prompt included.
    func beginEpisodes(_ episodes: Int, tokens: Int) async throws
    /// One continuation for each request, in their order.
    func draw(
        _ requests: [ContinuationRequest], _ settings: RolloutRequestSettings
    ) async throws -> [SampledContinuation]
    /// Gives up what was held for the episodes; called once, however they ended.
    func endEpisodes() async throws -> EpisodeDraws
    /// The most tokens of a prompt with all that follows.
    func contextLength() async throws -> Int
}

/// What a rollout's draws amount to.
struct EpisodeDraws: Sendable {
    var metrics: PhaseMetrics
    var weightVersion: Int
    var weightDigest: String
}

/// Episodes over any group that answers whole prompts, as ranks that sample together do: each turn is a call of its own, and
/// nothing of a prompt is kept for the next.
actor TurnByTurn: EpisodeDrawing {
    private let group: any RolloutGroup
    private let context: @Sendable () async throws -> Int
    private var calls: [PhaseMetrics] = []
    private var weights = (version: 0, digest: "")

    init(_ group: any RolloutGroup, context: @escaping @Sendable () async throws -> Int) {
        self.group = group
        self.context = context
    }

    func contextLength() async throws -> Int { try await context() }

    func beginEpisodes(_ episodes: Int, tokens: Int) { calls = [] }

    func draw(
        _ requests: [ContinuationRequest], _ settings: RolloutRequestSettings
    ) async throws -> [SampledContinuation] {
        var settings = settings
        settings.n = 1
        settings.maxTokens = requests.map(\.maxTokens).max() ?? 1
        // A draw is decided by this and the request's place among the others, which is settled too.
        settings.seed = requests.reduce(settings.seed) { SplitMix64Seed.mixed($0, $1.seed) }
        let prompts = requests.enumerated().map { index, request in
            PromptTask(group: index, tokens: request.prefix, text: "", dataSource: "", groundTruth: "")
        }
        let (answers, metrics) = try await group.generate(prompts, settings)
        calls.append(metrics)
        if let first = answers.first { weights = (first.weightVersion, first.weightDigest) }
        // A shorter draw is the beginning of a longer one.
        return zip(requests, answers).map { request, answer in
            let count = min(request.maxTokens, answer.response.count), isCut = count < answer.response.count
            return SampledContinuation(
                tokens: Array(answer.response.prefix(count)), logProbs: Array(answer.rolloutLogProbs.prefix(count)),
                isTruncated: isCut || answer.isTruncated,
                weightVersions: [Int32](repeating: Int32(answer.weightVersion), count: count))
        }
    }

    func endEpisodes() -> EpisodeDraws {
        var metrics = calls.last ?? [:]
        for name in metrics.keys where name.text.hasSuffix("_tokens") || name.text.hasSuffix("_steps") {
            metrics[name] = calls.reduce(0) { $0 + ($1[name] ?? 0) }
        }
        return EpisodeDraws(metrics: metrics, weightVersion: weights.version, weightDigest: weights.digest)
    }
}
