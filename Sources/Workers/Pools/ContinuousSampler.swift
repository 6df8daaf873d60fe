import Flow
import RolloutCore
import RolloutEngine
import TensorCore

/// Answers requests as they come, those at hand together, in one session that stays open. Lives on its worker's thread.
final class ContinuousSampler {
    private struct Request {
        var samples: [GeneratedSample?]
        let caller: CheckedContinuation<[GeneratedSample], any Error>
    }

    let engine: RolloutEngine
    private let session: RolloutSession
    private var requests: [Int: Request] = [:]
    /// Whether somebody advances the session.
    var isRunning = false
    private(set) var broken: (any Error)?
    /// In which steps ran since ``takeWork()``, and what the session had done by then.
    private var busy = Duration.zero
    private var counted: GenerationStatistics

    /// - Parameters:
    ///   - rows: samples to expect at a time.
    ///   - longest: tokens of a prompt with its answer, at most.
    init(_ engine: RolloutEngine, rows: Int, longest: Int) throws {
        self.engine = engine
        let rows = min(rows, engine.options.maxRows), size = engine.options.blockSize
        session = try engine.session(wantedBlocks: rows * ((longest + size - 1) / size + 1) + 1, longest: longest)
        counted = session.statistics
        try engine.prepare(rows: rows, steps: longest)
        session.onSample = { [weak self] request, sample, finished in self?.take(request, sample, finished) }
    }

    private func take(_ id: Int, _ sample: Int, _ finished: GeneratedSample) {
        requests[id]?.samples[sample] = finished
        guard let request = requests[id], request.samples.allSatisfy({ $0 != nil }) else { return }
        requests[id] = nil
        let samples = request.samples.compactMap { $0 }
        // Given up by the caller: nobody wants part of a group.
        if samples.contains(where: { $0.finishReason == .abort }) {
            request.caller.resume(throwing: CancellationError())
        } else {
            request.caller.resume(returning: samples)
        }
    }

    func add(_ request: RolloutRequest, id: Int, _ caller: CheckedContinuation<[GeneratedSample], any Error>) {
        do {
            if let broken { throw broken }
            requests[id] = Request(samples: Array(repeating: nil, count: request.sampling.n), caller: caller)
            try session.add(request, id: id)
        } catch {
            requests[id] = nil
            caller.resume(throwing: error)
        }
    }

    func abort(_ id: Int) { if requests[id] != nil { session.abort(id) } }

    /// A few steps. False when nothing is left to do.
    func advance() -> Bool {
        let start = ContinuousClock.now
        defer { busy += ContinuousClock.now - start }
        do {
            for _ in 0..<Self.stepsAtATime { guard try session.advance() else { return false } }
            return true
        } catch {
            broken = error
            let waiting = requests.values
            requests = [:]
            for request in waiting { request.caller.resume(throwing: error) }
            return false
        }
    }

    /// Between which new requests are let in: few, since a step takes milliseconds.
    private static let stepsAtATime = 4

    func takeWork() -> PoolWork {
        let now = session.statistics
        defer { (busy, counted) = (.zero, now) }
        return PoolWork(
            samplers: 1, busySeconds: busy / .seconds(1),
            generatedTokens: now.generatedTokens - counted.generatedTokens,
            promptTokens: now.promptTokens - counted.promptTokens,
            prefilledTokens: now.prefilledTokens - counted.prefilledTokens)
    }
}
