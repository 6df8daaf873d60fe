internal import CTorch

/// What a checkpointed layer keeps of its first run besides its input, so that the second run need not compute it.
public struct KeptActivations: OptionSet, Sendable, Hashable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Attention's result and its log-sum-exps.
    public static let attention = KeptActivations(rawValue: Int32(ct_kept_attention.rawValue))
    /// The projection to queries, keys and values.
    public static let queryKeyValue = KeptActivations(rawValue: Int32(ct_kept_query_key_value.rawValue))
    /// The projection to gate and up.
    public static let gateUp = KeptActivations(rawValue: Int32(ct_kept_gate_up.rawValue))

    var raw: ct_kept { ct_kept(UInt32(rawValue)) }
}

/// Whether this thread runs a checkpoint's body again, for its gradients alone: the values of its results are not read.
public var isSecondRun: Bool { ct_is_second_run() }

/// Whether this thread runs a checkpoint's body, for the first or the second time: nothing that may be kept is to be overwritten.
public var isCheckpointing: Bool { ct_is_checkpointing() }

/// Runs `body` on `inputs` without keeping what lies between; when backward reaches it, runs it again and goes through
/// (Chen et al. 2016). `body` must give the same results both times and runs on the thread of the backward call.
///
/// - Parameters:
///   - kept: what linear layers and attention in `body` keep for the second run instead of being computed again.
///   - offload: where the inputs and what is kept wait for it; nil: where they are.
public func checkpoint(
    _ inputs: [Tensor], resultCount: Int = 1, keeping kept: KeptActivations = [], offload: ActivationOffload? = nil,
    _ body: @escaping ([Tensor]) throws -> [Tensor]
) throws(TorchError) -> [Tensor] {
    let handles = inputs.map { $0.raw as ct_tensor? }
    var results = [ct_tensor?](repeating: nil, count: resultCount)
    var count: Int32 = 0
    let context = Unmanaged.passRetained(CheckpointBody(body)).toOpaque()
    try check("checkpoint", inputs) {
        ct_checkpoint(
            handles, Int32(handles.count), kept.rawValue, offload?.raw, runCheckpointBody,
            { Unmanaged<CheckpointBody>.fromOpaque($0!).release() }, context, &results, Int32(resultCount), &count, $0)
    }
    return results.prefix(Int(count)).compactMap { $0.map { Tensor(owning: $0) } }
}

private final class CheckpointBody {
    let body: ([Tensor]) throws -> [Tensor]
    init(_ body: @escaping ([Tensor]) throws -> [Tensor]) { self.body = body }
}

private func runCheckpointBody(
    context: UnsafeMutableRawPointer?, inputs: UnsafePointer<ct_tensor?>?, count: Int32,
    results: UnsafeMutablePointer<ct_tensor?>?, capacity: Int32, error: UnsafeMutablePointer<ct_message?>?
) -> Int32 {
    let body = Unmanaged<CheckpointBody>.fromOpaque(context!).takeUnretainedValue()
    do {
        // The shim keeps its own handles; these are further ones to the same tensors.
        let outputs = try body.body((0..<Int(count)).map { Tensor(owning: ct_alias(inputs![$0])) })
        guard outputs.count <= Int(capacity) else {
            throw TorchError(
                code: .mismatch, operation: "checkpoint",
                message: "the body gave \(outputs.count) tensors but resultCount is \(capacity)")
        }
        for (index, output) in outputs.enumerated() { results![index] = ct_alias(output.raw) }
        return Int32(outputs.count)
    } catch let failure {
        error!.pointee = "\(failure)".withCString { ct_message_copy($0) }
        return -1
    }
}

/// The place for what checkpoints keep between forward and backward: pinned host memory. Copies go over a stream of their own, out as
/// the forward pass goes on and back one checkpoint ahead of backward; buffers are used again.
///
/// On the CPU nothing is gained: the copies go to other memory of the same kind.
public final class ActivationOffload {
    public struct Statistics: Sendable, Hashable {
        /// What waits on the host now.
        public var awayBytes: Int
        /// Pinned memory that is held, in use or not.
        public var pinnedBytes: Int
        /// What was copied each way since the beginning.
        public var sentBytes, fetchedBytes: Int
    }

    public let device: Device
    let raw: ct_offload

    /// - Throws: when `device` is not there.
    public init(device: Device) throws(TorchError) {
        var result: ct_offload?
        try check("ActivationOffload on \(device)") { ct_offload_create(device.typeCode, device.index, &result, $0) }
        guard let result else { preconditionFailure("the offload was not made") }
        raw = result
        self.device = device
    }

    deinit { ct_offload_free(raw) }

    public var statistics: Statistics {
        let raw = ct_offload_statistics(raw)
        return Statistics(
            awayBytes: Int(raw.away_bytes), pinnedBytes: Int(raw.pinned_bytes), sentBytes: Int(raw.sent_bytes),
            fetchedBytes: Int(raw.fetched_bytes))
    }

    /// Gives back pinned memory that is not in use.
    public func trim() { ct_offload_trim(raw) }
}

/// What a piece of work did to memory, on all devices.
public struct MemoryUse: Sendable, Hashable {
    /// Bytes that were allocated and are still there; and the most that were there at once. Negative where more was freed.
    public var left, most: Int
}

/// Counts the bytes of tensors that `body` makes and frees on this thread.
public func measuringMemory(_ body: () throws -> Void) throws -> MemoryUse {
    try withoutActuallyEscaping(body) { body in
        let work = WatchedWork(body)
        var left: Int64 = 0, most: Int64 = 0
        let context = Unmanaged.passUnretained(work).toOpaque()
        defer { withExtendedLifetime(work) {} }
        try check("measuringMemory") {
            ct_watch_memory(
                { context, _ in Unmanaged<WatchedWork>.fromOpaque(context!).takeUnretainedValue().run() }, context,
                &left, &most, $0)
        }
        if let failure = work.failure { throw failure }
        return MemoryUse(left: Int(left), most: Int(most))
    }
}

private final class WatchedWork {
    let body: () throws -> Void
    var failure: (any Error)?
    init(_ body: @escaping () throws -> Void) { self.body = body }

    func run() -> Int32 {
        do { try body() } catch let error { failure = error }
        return 0
    }
}

/// Runs `body` with layers made of separate operations on this thread, which the fused ones are compared with.
public func withSeparateOperations<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
) throws(Failure) -> Result {
    ct_set_unfused(true)
    defer { ct_set_unfused(false) }
    return try body()
}
