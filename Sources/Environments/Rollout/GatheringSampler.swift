/// A sampler over an engine that draws one batch at a time: requests wait for each other until all live episodes are
/// there, or for ``patience``, as some may be long in their environments. Which token a draw comes to depends on neither, but for
/// the rounding of an engine whose sums depend on the batch: without patience batches are the same in every run, and every bit is.
public actor GatheringSampler: ContinuationSampler {
    public typealias Draw = @Sendable ([ContinuationRequest]) async throws -> [SampledContinuation]

    private struct Waiting {
        let request: ContinuationRequest
        let caller: CheckedContinuation<SampledContinuation, any Error>
    }

    private let patience: Duration?
    private let draw: Draw
    private var live = 0
    private var waiting: [Waiting] = []
    private var isDrawing = false
    /// Counts the batches, so that a late timer starts none.
    public private(set) var batches = 0

    /// - Parameters:
    ///   - patience: nil waits for all live episodes, however long they are in their environments.
    ///   - draw: as many continuations as requests, in their order, which is that of their episodes.
    public init(patience: Duration? = .milliseconds(20), draw: @escaping Draw) {
        self.patience = patience
        self.draw = draw
    }

    public func episodesBegan(_ count: Int) { live += count }

    public func episodeEnded() {
        live -= 1
        drawIfAllAreHere()
    }

    public func sample(_ request: ContinuationRequest) async throws -> SampledContinuation {
        try await withCheckedThrowingContinuation { caller in
            waiting.append(Waiting(request: request, caller: caller))
            if waiting.count == 1, !isDrawing { waitForOthers() }
            drawIfAllAreHere()
        }
    }

    private func waitForOthers() {
        guard let patience else { return }
        let batch = batches
        Task {
            try? await Task.sleep(for: patience)
            startDrawing(unless: batch)
        }
    }

    private func startDrawing(unless batch: Int) {
        if batches == batch { startDrawing() }
    }

    private func drawIfAllAreHere() {
        if waiting.count >= live { startDrawing() }
    }

    private func startDrawing() {
        guard !isDrawing, !waiting.isEmpty else { return }
        let batch = waiting.sorted { $0.request.episode < $1.request.episode }
        waiting = []
        isDrawing = true
        batches += 1
        Task {
            let outcome: Result<[SampledContinuation], any Error>
            do {
                let drawn = try await draw(batch.map(\.request))
                guard drawn.count == batch.count else {
                    throw EnvironmentError(
                        .badContinuation, "the sampler drew \(drawn.count) continuations for \(batch.count) requests")
                }
                outcome = .success(drawn)
            } catch {
                outcome = .failure(error)
            }
            finish(batch, outcome)
        }
    }

    private func finish(_ batch: [Waiting], _ outcome: Result<[SampledContinuation], any Error>) {
        isDrawing = false
        for (index, one) in batch.enumerated() { one.caller.resume(with: outcome.map { $0[index] }) }
        // Those drawn for are in their environments now.
        if !waiting.isEmpty {
            waitForOthers()
            drawIfAllAreHere()
        }
    }
}
