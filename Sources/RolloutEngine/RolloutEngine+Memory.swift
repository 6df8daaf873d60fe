import Models
import RolloutCore
import TensorCore

/// What it took to free memory, or to take it.
public struct MemoryChange: Sendable, Hashable {
    public var milliseconds = 0.0
    /// On CUDA what the device got back, or gave, whoever held it before; on the CPU what the engine's own tensors take.
    public var bytes = 0
    public init() {}
}

extension RolloutEngine {
    /// Frees the cache of keys and values, the graphs, the steps' buffers and the weights' copies, and gives the device what it kept
    /// in reserve. The next `generate`, or ``wake()`` before it, takes the memory again.
    /// - Throws: ``RolloutError`` `badRequest` while a session has requests left, `TorchError`.
    @discardableResult
    public func sleep() throws -> MemoryChange {
        if let newestSession, !newestSession.isDone {
            throw RolloutError(
                .badRequest, "the cache cannot be freed while a session has requests; finish or abort them first")
        }
        try model.device.synchronize()
        let start = ContinuousClock.now, before = try heldBytes()
        sleptBlocks = runner?.blockCount ?? sleptBlocks
        runner = nil
        hostCache = nil
        model.unpackProjections()
        packedVersion = nil
        try model.device.emptyCache()
        return MemoryChange(since: start, bytes: before - (try heldBytes()))
    }

    /// Forgets what reads the weights where they lie, and what was made of them: their memory is about to be freed. The cache stays.
    /// - Throws: ``RolloutError`` `badRequest` while a session has requests left, `TorchError`.
    public func forgetWeights() throws {
        if let newestSession, !newestSession.isDone {
            throw RolloutError(
                .badRequest, "the weights cannot be freed while a session has requests; finish or abort them first")
        }
        try model.device.synchronize()
        runner?.forgetGraphs()
        model.unpackProjections()
        packedVersion = nil
    }

    /// Makes the cache that ``sleep()`` freed, of as many blocks or as many as memory now allows, ahead of the next `generate`.
    /// Does nothing when awake, or when there was no cache yet: that is made to measure.
    @discardableResult
    public func wake() throws -> MemoryChange {
        guard runner == nil, let sleptBlocks else { return MemoryChange() }
        _ = try runner(blocks: blocks(wanted: sleptBlocks))
        return lastWake
    }

    public var isAsleep: Bool { runner == nil }
    /// Bytes of the cache of keys and values; 0 while it sleeps.
    public var cacheBytes: Int { runner?.cache.byteCount ?? 0 }
    public var graphCount: Int { runner?.graphCount ?? 0 }

    private func heldBytes() throws(TorchError) -> Int {
        if model.device.isCUDA { return try model.device.memory().reserved }
        return (runner?.byteCount ?? 0) + (hostCache?.byteCount ?? 0) + model.copyBytes
    }

    /// One that has room for so many blocks, the host's cache made with it.
    func runner(blocks: Int) throws -> ModelRunner {
        if let runner, runner.blockCount >= blocks { return runner }
        runner = nil
        try model.device.emptyCache()
        let start = ContinuousClock.now, before = try heldBytes()
        let longest = model.shape.maxPositions, rows = options.maxRows
        let draws = rows * (1 + (options.speculation?.maxDraft ?? 0))
        let made = ModelRunner(
            model: model,
            // One block more: what fills up a batch writes there.
            cache: try KeyValueCache(for: model, slots: (blocks + 1) * options.blockSize, dtype: options.cacheDType),
            blockSize: options.blockSize,
            buffer: try StepBuffer(
                capacity: 6 * stepTokens + 6 * rows + 6 * draws + rows * (longest / options.blockSize + 1),
                draws: draws,
                device: model.device),
            longest: longest, usesGraphs: options.usesGraphs, largestBatch: rows)
        if case .swap(let bytes) = options.preemption, hostCache == nil {
            let count = bytes / (KeyValueCache.bytesPerToken(model, dtype: options.cacheDType) * options.blockSize)
            if count > 0 {
                hostCache = try KeyValueCache(
                    for: model, slots: count * options.blockSize, dtype: options.cacheDType, device: .cpu,
                    pinned: model.device.isCUDA)
            }
        }
        runner = made
        lastWake = MemoryChange(since: start, bytes: try heldBytes() - before)
        return made
    }

    var stepTokens: Int { max(options.maxStepTokens, options.maxRows) }

    /// Blocks that memory allows, of those wanted.
    func blocks(wanted: Int) throws -> Int {
        if let fixed = options.cacheBlocks { return fixed }
        guard model.device.isCUDA else { return wanted }
        let bytes = KeyValueCache.bytesPerToken(model, dtype: options.cacheDType) * options.blockSize
        // Ranks that share the model plan the same steps: what is there for each of them is there for all.
        let own = Result { try budget().blocks(of: bytes) }
        let agreed = try model.parallel.least((try? own.get()) ?? 0, on: model.device)
        guard agreed > 0 else {
            _ = try own.get()
            throw RolloutError(.outOfSlots, "another rank of the model has no memory for a block of the cache")
        }
        return max(min(wanted, agreed), runner?.blockCount ?? 0)
    }

    private func budget() throws(TorchError) -> MemoryBudget {
        let memory = try model.device.memory(), shape = model.shape
        // The old cache goes before the new one comes.
        let held = memory.allocated - (runner?.cache.byteCount ?? 0)
        return MemoryBudget(
            free: memory.free + memory.reserved - held, total: memory.total, fraction: options.memoryFraction,
            // A step's widest layer, about eight times as wide as the residual stream, and a few rows of logits for each sequence.
            activations: stepTokens * shape.hidden * 48 + options.maxRows * shape.vocabulary * 8 + 256 << 20)
    }
}

extension MemoryChange {
    fileprivate init(since start: ContinuousClock.Instant, bytes: Int) {
        milliseconds = (ContinuousClock.now - start) / .milliseconds(1)
        self.bytes = bytes
    }
}

/// How many blocks of a cache a device has memory for. All in bytes.
struct MemoryBudget {
    /// What nobody holds, and what the whole device has.
    var free, total: Int
    /// Of what is free, for cache and activations together.
    var fraction: Double
    var activations: Int

    /// - Throws: ``RolloutError`` `outOfSlots` when there is room for none.
    func blocks(of bytes: Int) throws(RolloutError) -> Int {
        let share = Int(Double(free) * fraction)
        // One more is made, to write to what nobody reads.
        let blocks = (share - activations) / bytes - 1
        guard blocks > 0 else {
            throw RolloutError(
                .outOfSlots,
                "no memory is left for the key-value cache: \(free >> 20) of \(total >> 20) MiB are free, of which "
                    + "rollout.gpu_memory_utilization \(fraction) gives \(share >> 20), and a step's activations need "
                    + "\(activations >> 20); raise it, lower rollout.max_num_batched_tokens or max_num_seqs, or free memory"
            )
        }
        return blocks
    }
}
