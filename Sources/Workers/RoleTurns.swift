import TensorCore
import TrainingEngine

/// What of a role is on its device only for the role's turn: weights, the states of an optimizer, both, or nothing.
final class RoleTurns {
    private let weights: RestingTensors?
    private let optimizer: AdamW?
    private var told = RestingTraffic()

    /// Sends them to the host.
    init(weights: RestingTensors? = nil, optimizer: AdamW? = nil, device: Device) throws {
        self.weights = weights
        self.optimizer = optimizer
        guard takes else { return }
        try rest()
        try device.emptyCache()
    }

    /// Whether anything ever rests.
    var takes: Bool { weights != nil || optimizer != nil }
    /// What it gives back; moments count before they are made.
    var byteCount: Int { (weights?.byteCount ?? 0) + (optimizer?.bytes.device ?? 0) }

    private func rest() throws {
        try optimizer?.rest()
        try weights?.rest()
    }

    /// Runs `body`, which reads the weights and leaves the optimizer alone.
    func reading<Result>(_ body: () throws -> Result) throws -> Result {
        try weights?.awake(body) ?? body()
    }

    /// Runs `body`, which writes to the weights; what it asks of the optimizer, that brings about by itself.
    func restoring<Result>(_ body: () throws -> Result) throws -> Result {
        try reading {
            weights?.change()
            return try body()
        }
    }

    /// Runs `body`, which steps.
    func learning<Result>(_ body: () throws -> Result) throws -> Result {
        guard let optimizer else { return try restoring(body) }
        return try restoring {
            do {
                try optimizer.wake()
                let result = try body()
                try optimizer.rest()
                return result
            } catch {
                // The first error is the one to tell.
                try? optimizer.rest()
                throw error
            }
        }
    }

    /// What copies have taken since this was asked last.
    func taken() -> RestingTraffic {
        let now = (weights?.traffic ?? .init()) + (optimizer?.restingTraffic ?? .init())
        defer { told = now }
        return now - told
    }
}
