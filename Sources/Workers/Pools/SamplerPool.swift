import Flow
import Models
import OrderedCollections
import RolloutEngine
import Telemetry
import TensorCore

/// Samplers of this process, each with a device and a copy of the weights of its own, beside the worker that trains.
actor SamplerPool: RolloutPool {
    private let trainer: PolicyWorker
    private let samplers: [PolicyWorker]
    /// Samples that each has under way.
    private var loads: [Int]

    init(trainer: PolicyWorker, samplers: [PolicyWorker]) {
        precondition(!samplers.isEmpty, "a pool without samplers")
        self.trainer = trainer
        self.samplers = samplers
        loads = samplers.map { _ in 0 }
    }

    func answer(
        _ prompt: PromptTask, _ settings: RolloutRequestSettings, seat: PoolSeat?
    ) async throws -> [Trajectory] {
        let least = loads.indices.min { loads[$0] < loads[$1] } ?? 0
        let place = seat?.place { least } ?? least
        loads[place] += settings.n
        defer { loads[place] -= settings.n }
        return try await samplers[place].answer(prompt, settings)
    }

    func install(version: Int) async throws -> PhaseMetrics {
        let start = ContinuousClock.now
        let weights = try await trainer.handOver(version: version)
        let updates = try await withThrowingTaskGroup(of: WeightUpdate.self) { tasks in
            for sampler in samplers { tasks.addTask { try await sampler.receive(weights) } }
            var updates: [WeightUpdate] = []
            for try await update in tasks { updates.append(update) }
            return updates
        }
        await trainer.handedOver()
        return [
            "perf/weight_sync_seconds": (ContinuousClock.now - start) / .seconds(1),
            "perf/weight_sync_bytes": Double(updates.reduce(0) { $0 + $1.bytes }),
            "rollout/weight_version": Double(version),
        ]
    }

    func work() async -> PoolWork {
        var work = PoolWork(samplers: 0)
        for sampler in samplers { work += await sampler.takeWork() }
        return work
    }
}

extension PolicyWorker {
    /// The answers to one prompt, drawn together with those to others that are asked for at the same time.
    func answer(_ prompt: PromptTask, _ settings: RolloutRequestSettings) async throws -> [Trajectory] {
        let samples = try await samples(prompt.tokens, settings)
        return try trajectories(prompt, samples)
    }

    private func samples(_ prompt: [Int32], _ settings: RolloutRequestSettings) async throws -> [GeneratedSample] {
        let sampler = try continuousSampler(), id = nextRequest()
        let request = try request(prompt, settings)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { caller in
                if Task.isCancelled { return caller.resume(throwing: CancellationError()) }
                sampler.add(request, id: id, caller)
                if !sampler.isRunning {
                    sampler.isRunning = true
                    Task { await self.run() }
                }
            }
        } onCancel: {
            Task { await self.abort(id) }
        }
    }

    private func abort(_ id: Int) {
        continuous?.abort(id)
    }

    /// Lets other calls in between steps.
    private func run() async {
        while let sampler = continuous, sampler.advance() {
            plan.members?.watch.tick()
            await Task.yield()
        }
        continuous?.isRunning = false
    }

    func takeWork() -> PoolWork { continuous?.takeWork() ?? PoolWork(samplers: 1) }

    // MARK: - Weights

    /// The weights as they are, of an adapter its matrices, for samplers elsewhere. Until ``handedOver()`` nothing may change them.
    func handOver(version: Int) throws -> WeightHandOver {
        let model = try loaded().model
        try model.device.synchronize()
        isHandingOver = true
        return try WeightHandOver(version: version, model.changingTensors())
    }

    func handedOver() { isHandingOver = false }

    /// Takes a trainer's weights, and makes sure that what came is what was sent.
    func receive(_ weights: WeightHandOver) throws -> WeightUpdate {
        let engine = try loaded().rollout
        // Of another type the copy has other bytes; then what came is all that there is to compare.
        let converts = engine.model.dtype != weights.tensors.first?.tensor.dtype
        let update = try engine.updateWeights(
            version: weights.version, from: weights.buckets(bytes: Self.bucketBytes), digests: converts)
        // What the copy holds, not only what was read of it.
        var held = WeightDigest()
        for (name, tensor) in try engine.model.changingTensors() { try held.add(name, tensor) }
        let arrived = converts ? update.digest : held
        guard arrived == weights.digest else {
            throw WorkerError(
                .ranks,
                "weights of version \(weights.version) arrived otherwise than they were sent (digests \(arrived ?? held) and "
                    + "\(weights.digest)): a fault of Fledge or of the machine; the run's checkpoints are whole")
        }
        weightsChanged(digest: held)
        return update
    }

    private static let bucketBytes = 1 << 28
}
