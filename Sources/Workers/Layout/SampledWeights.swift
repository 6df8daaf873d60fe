import Collectives
import Models
import RolloutEngine
import TensorCore
import TrainingEngine

/// The weights that a rank samples from, where ranks train together: those that it trains, which are whole only for as long as somebody
/// reads them, or where the layouts differ a model's own, filled from all ranks' parts. Every rank makes the same calls.
final class SampledWeights {
    private let trained: ShardedParameters
    private let engine: RolloutEngine
    private let copy: ReshardedModel?
    private var depth = 0
    /// What bringing them together took the last time; nil where they are whole all the time.
    private(set) var report: ReshardReport?

    init(_ trained: ShardedParameters, engine: RolloutEngine, copy: ReshardedModel?) {
        self.trained = trained
        self.engine = engine
        self.copy = copy
    }

    /// Runs `body` with the whole weights in the sampler's model.
    func whole<Result>(_ body: () throws -> Result) throws -> Result {
        guard depth == 0 else { return try body() }
        depth += 1
        // Training's way through the layers is none of the sampler's business, and takes their sums apart.
        let hooks = engine.model.layerHooks
        engine.model.layerHooks = nil
        defer {
            depth -= 1
            engine.model.layerHooks = hooks
        }
        try gather()
        do {
            let result = try body()
            try release()
            return result
        } catch {
            // The first error is the one to tell.
            try? release()
            throw error
        }
    }

    private func gather() throws {
        if let copy {
            report = try copy.fill(from: trained.localShards(), trained.mesh)
        } else if trained.settings.mode != .noShard {
            let start = ContinuousClock.now
            try trained.holdWholeWeights()
            try engine.model.device.synchronize()
            var report = ReshardReport()
            for member in trained.all {
                let tensor = member.parameter.tensor
                let own = tensor.byteCount / tensor.size(0) * member.rows.count
                report.aliasedBytes += own
                report.receivedBytes += tensor.byteCount - own
            }
            report.seconds = (ContinuousClock.now - start) / .seconds(1)
            self.report = report
        }
    }

    private func release() throws {
        // Before the memory goes, what reads it where it lay, and what was made of it.
        if let copy {
            try engine.forgetWeights()
            try copy.empty()
        } else if trained.settings.mode != .noShard {
            try engine.forgetWeights()
            try trained.dropWholeWeights()
        }
    }
}
