import Flow

/// A worker that computes nothing: what is left is the controller's work and the way between them.
struct SimulatedWorker: Sendable {
    static var calls: CallRegistry<SimulatedWorker> {
        var calls = CallRegistry<SimulatedWorker>()
        calls.add(SimulatedRollout.self)
        calls.add(SimulatedUpdate.self)
        calls.add(SimulatedPause.self)
        return calls
    }
}

/// Answers of a given length, with their log-probabilities.
struct SimulatedRollout: WorkerCall {
    struct Answer: Codable, Sendable {
        var tokens: PackedRows<Int32>
        var logProbs: PackedRows<Float>
    }
    var prompts: PackedRows<Int32>
    var samples: Int
    var tokens: Int

    func perform(on worker: SimulatedWorker) async throws -> Answer {
        let count = prompts.count * samples
        return Answer(
            tokens: PackedRows([[Int32]](repeating: [Int32](repeating: 17, count: tokens), count: count)),
            logProbs: PackedRows([[Float]](repeating: [Float](repeating: -0.5, count: tokens), count: count)))
    }
}

/// What an update needs of answers.
struct SimulatedUpdate: WorkerCall {
    struct Row: Sendable {
        var tokens: [Int32]
        var logProbs: [Float]
        var advantage: Float
    }
    var tokens: PackedRows<Int32>
    var logProbs, advantages: PackedRows<Float>

    init(_ rows: [Row]) {
        tokens = PackedRows(rows.map(\.tokens))
        logProbs = PackedRows(rows.map(\.logProbs))
        advantages = PackedRows(rows.map { [Float](repeating: $0.advantage, count: $0.tokens.count) })
    }

    func perform(on worker: SimulatedWorker) async throws -> Int { tokens.byteCount }
}

/// A call with nothing in it.
struct SimulatedPause: WorkerCall {
    func perform(on worker: SimulatedWorker) async throws -> Done { Done() }
}
