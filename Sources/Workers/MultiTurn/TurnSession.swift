import Environments
import RolloutCore
import RolloutEngine

/// One session of an engine for all turns of a rollout's episodes, so that a turn finds its prefix in the cache. Not `Sendable`:
/// it lives on the engine's thread.
final class TurnSession {
    private let engine: RolloutEngine
    private let session: RolloutSession
    private var drawing = Duration.zero
    /// Requests' ids, never used twice.
    private var next = 0

    var statistics: GenerationStatistics { session.statistics }
    var seconds: Double { max(1e-9, drawing / .seconds(1)) }

    /// - Parameter tokens: the most of an episode, its prompt included.
    init(_ engine: RolloutEngine, episodes: Int, tokens: Int) throws {
        self.engine = engine
        let size = engine.options.blockSize
        session = try engine.session(
            wantedBlocks: min(episodes, engine.options.maxRows) * ((tokens + size - 1) / size + 1) + 1, longest: tokens)
        try engine.prepare(rows: episodes, steps: tokens)
    }

    /// Samples in the order of the requests.
    func draw(
        _ requests: [RolloutRequest], onToken: ((GeneratedToken) -> Bool)? = nil
    ) throws -> [GeneratedSample] {
        let clock = ContinuousClock(), start = clock.now
        defer { drawing += clock.now - start }
        let first = next
        next += requests.count
        var samples = [GeneratedSample?](repeating: nil, count: requests.count)
        session.onToken = onToken
        session.onSample = { request, _, sample in samples[request - first] = sample }
        defer { (session.onToken, session.onSample) = (nil, nil) }
        do {
            for (index, request) in requests.enumerated() { try session.add(request, id: first + index) }
            try engine.run(session)
        } catch {
            for id in first..<next { session.abort(id) }
            throw error
        }
        return samples.map { $0! }
    }
}
