internal import CTorch

/// Keys and values by which ranks find one another. Safe to use from any thread.
public final class RendezvousStore: @unchecked Sendable {
    let raw: ct_store

    private init(raw: ct_store) { self.raw = raw }
    deinit { ct_store_free(raw) }

    /// For ranks that are threads of this process.
    public static func local() throws(TorchError) -> RendezvousStore {
        try made("a store") { ct_store_local($0, $1) }
    }

    /// A store at a TCP port. The rank that `listens` keeps it: it must live as long as the others use it.
    /// - Parameters:
    ///   - port: 0 lets the listening rank choose; ``port`` says which it is.
    ///   - socket: one that listens at the port already.
    ///   - prefix: goes before every key.
    public static func tcp(
        host: String, port: Int, listens: Bool, socket: Int32? = nil, prefix: String = "", timeout: Duration
    ) throws(TorchError) -> RendezvousStore {
        try made("the store at \(host):\(port)") {
            ct_store_tcp(host, Int32(port), listens, socket ?? -1, prefix, timeout.milliseconds, $0, $1)
        }
    }

    private static func made(
        _ what: String, _ call: (UnsafeMutablePointer<ct_store?>, UnsafeMutablePointer<ct_message?>) -> Int32
    ) throws(TorchError) -> RendezvousStore {
        var raw: ct_store?
        try check(what) { call(&raw, $0) }
        guard let raw else { preconditionFailure("a store without a handle") }
        return RendezvousStore(raw: raw)
    }

    public var port: Int { Int(ct_store_port(raw)) }

    public func set(_ key: String, _ bytes: [UInt8]) throws(TorchError) {
        try check("set '\(key)'") { ct_store_set(raw, key, bytes, bytes.count, $0) }
    }

    /// The value of `key`; waits for it, as long as the store's timeout.
    public func get(_ key: String) throws(TorchError) -> [UInt8] {
        var bytes: UnsafeMutablePointer<CChar>?
        var count = 0
        try check("get '\(key)'") { ct_store_get(raw, key, &bytes, &count, $0) }
        guard let bytes else { return [] }
        defer { ct_string_free(bytes) }
        return UnsafeRawBufferPointer(start: bytes, count: count).map { $0 }
    }

    public func contains(_ key: String) throws(TorchError) -> Bool {
        var found = false
        try check("look for '\(key)'") { ct_store_has(raw, key, &found, $0) }
        return found
    }

    /// Adds to a counter that begins at 0.
    public func add(_ key: String, _ amount: Int) throws(TorchError) -> Int {
        var sum: Int64 = 0
        try check("add to '\(key)'") { ct_store_add(raw, key, Int64(amount), &sum, $0) }
        return Int(sum)
    }
}

/// Ranks that do the same operations in the same order. Every rank of the group must call each, with tensors of the same types and,
/// but for ``allToAll(_:into:inputRows:outputRows:)`` and ``exchange(sends:receives:)``, of the same sizes.
///
/// Operations that begin with `start` run beside what follows; their tensors must be left alone until the result's `wait`.
public final class ProcessGroup {
    public enum Reduction: Sendable { case sum, mean, max, min }

    /// A tensor that goes to, or comes from, another rank.
    public struct Message {
        public var tensor: Tensor
        public var peer: Int
        public init(_ tensor: Tensor, peer: Int) {
            self.tensor = tensor
            self.peer = peer
        }
    }

    let raw: ct_group
    /// The same on all ranks; for messages.
    public let name: String
    public var rank: Int { Int(ct_group_rank(raw)) }
    public var size: Int { Int(ct_group_size(raw)) }

    private init(raw: ct_group, name: String, watch: GroupWatch?) throws(TorchError) {
        self.raw = raw
        self.name = name
        guard let watch, size > 1 else { return }
        let ranks = (watch.ranks ?? Array(0..<size)).map(Int32.init)
        precondition(ranks.count == size, "\(ranks.count) ranks for the group '\(name)' of \(size)")
        try check("group '\(name)'") { ct_group_watch(raw, watch.watch.raw, name, ranks, watch.isPatient, $0) }
    }
    deinit { ct_group_free(raw) }

    /// A group of tensors in host memory, over Gloo.
    /// - Parameters:
    ///   - name: the same on all ranks, and given to no other group of the store.
    ///   - host: the address that the other ranks reach this one at.
    ///   - timeout: how long connecting, and an operation, waits for the others before it fails.
    ///   - watch: announces the operations, and ends them when a rank is late or dead; then `timeout` is for connecting only.
    public static func gloo(
        _ store: RendezvousStore, name: String, rank: Int, size: Int, host: String = "127.0.0.1", timeout: Duration,
        watch: GroupWatch? = nil
    ) throws(TorchError) -> ProcessGroup {
        var raw: ct_group?
        // The watch decides who is late; Gloo itself would only count the time.
        let wait: Int64 = watch == nil ? 0 : 1000 * 3600 * 24 * 365
        try check("group '\(name)'") {
            ct_group_gloo(store.raw, name, host, Int32(rank), Int32(size), timeout.milliseconds, wait, &raw, $0)
        }
        guard let raw else { preconditionFailure("a group without a handle") }
        return try ProcessGroup(raw: raw, name: name, watch: watch)
    }

    /// A group of tensors on a CUDA device, over NCCL. Operations run on a stream of the group's own, after what the current
    /// stream holds; the store's timeout is that of connecting.
    /// - Parameters:
    ///   - name: the same on all ranks, and given to no other group of the store.
    ///   - watch: announces the operations, and ends them when a rank is late or dead. Without one they wait for ever.
    public static func nccl(
        _ store: RendezvousStore, name: String, rank: Int, size: Int, device: Device, watch: GroupWatch? = nil
    ) throws(TorchError) -> ProcessGroup {
        guard case .cuda(let index) = device else {
            throw TorchError(
                code: .device, operation: "group '\(name)'", message: "NCCL needs a CUDA device, not \(device)")
        }
        var raw: ct_group?
        try check("group '\(name)'") {
            ct_group_nccl(store.raw, name, Int32(index), Int32(rank), Int32(size), &raw, $0)
        }
        guard let raw else { preconditionFailure("a group without a handle") }
        return try ProcessGroup(raw: raw, name: name, watch: watch)
    }

    /// NCCL's version, as `2.28.9`.
    /// - Throws: ``TorchError`` where its library is not found.
    public static func ncclVersion() throws(TorchError) -> String {
        var version: Int32 = 0
        try check("NCCL") { ct_nccl_version(&version, $0) }
        return "\(version / 10_000).\(version / 100 % 100).\(version % 100)"
    }

    // MARK: - Operations

    /// Reduces each tensor in place.
    public func startAllReduce(_ tensors: [Tensor], _ reduction: Reduction = .sum) throws(TorchError)
        -> PendingOperation
    {
        let handles = tensors.map { $0.raw as ct_tensor? }
        return try started("all-reduce", tensors) {
            ct_group_all_reduce(raw, handles, Int32(handles.count), reduction.raw, $0, $1)
        }
    }

    /// Puts every rank's `inputs[i]`, one after the other, into `outputs[i]`.
    public func startAllGather(_ inputs: [Tensor], into outputs: [Tensor]) throws(TorchError) -> PendingOperation {
        precondition(inputs.count == outputs.count, "\(inputs.count) inputs for \(outputs.count) outputs")
        let from = inputs.map { $0.raw as ct_tensor? }, to = outputs.map { $0.raw as ct_tensor? }
        return try started("all-gather", inputs + outputs) {
            ct_group_all_gather(raw, from, to, Int32(from.count), $0, $1)
        }
    }

    /// Reduces the ranks' `inputs[i]` and leaves this rank's piece in `outputs[i]`.
    public func startReduceScatter(
        _ inputs: [Tensor], into outputs: [Tensor], _ reduction: Reduction = .sum
    ) throws(TorchError) -> PendingOperation {
        precondition(inputs.count == outputs.count, "\(inputs.count) inputs for \(outputs.count) outputs")
        let from = inputs.map { $0.raw as ct_tensor? }, to = outputs.map { $0.raw as ct_tensor? }
        return try started("reduce-scatter", inputs + outputs) {
            ct_group_reduce_scatter(raw, from, to, Int32(from.count), reduction.raw, $0, $1)
        }
    }

    /// Gives every rank the tensors of `root`.
    public func startBroadcast(_ tensors: [Tensor], root: Int) throws(TorchError) -> PendingOperation {
        let handles = tensors.map { $0.raw as ct_tensor? }
        return try started("broadcast", tensors) {
            ct_group_broadcast(raw, handles, Int32(handles.count), Int32(root), $0, $1)
        }
    }

    /// Sends the first `inputRows[0]` rows of `input` to rank 0, the next to rank 1 and so on, and takes `outputRows[r]` from each.
    public func startAllToAll(
        _ input: Tensor, into output: Tensor, inputRows: [Int], outputRows: [Int]
    ) throws(TorchError) -> PendingOperation {
        precondition(inputRows.count == size && outputRows.count == size, "rows for \(size) ranks")
        let from = inputRows.map(Int64.init), to = outputRows.map(Int64.init)
        return try started("all-to-all", [input, output]) {
            ct_group_all_to_all(raw, input.raw, output.raw, from, to, $0, $1)
        }
    }

    /// Sends and receives that run together. Between two ranks, messages are matched in the order of the lists.
    public func startExchange(sends: [Message], receives: [Message]) throws(TorchError) -> PendingOperation {
        let from = sends.map { $0.tensor.raw as ct_tensor? }, to = receives.map { $0.tensor.raw as ct_tensor? }
        let toPeers = sends.map { Int32($0.peer) }, fromPeers = receives.map { Int32($0.peer) }
        return try started("exchange", sends.map(\.tensor) + receives.map(\.tensor)) {
            ct_group_exchange(
                raw, from, toPeers, Int32(from.count), to, fromPeers, Int32(to.count), $0, $1)
        }
    }

    /// Returns when every rank has come here.
    public func barrier() throws(TorchError) { try check("barrier in \(name)") { ct_group_barrier(raw, $0) } }

    /// Ends what is under way with an error. The group is good for nothing after.
    public func abort() throws(TorchError) { try check("abort \(name)") { ct_group_abort(raw, $0) } }

    /// What ends the group from another thread than its own.
    public struct Ender: @unchecked Sendable {
        private let group: ProcessGroup
        fileprivate init(_ group: ProcessGroup) { self.group = group }
        public func abort() throws(TorchError) { try group.abort() }
    }
    public var ender: Ender { Ender(self) }

    private func started(
        _ operation: String, _ tensors: [Tensor],
        _ call: (UnsafeMutablePointer<ct_pending?>, UnsafeMutablePointer<ct_message?>) -> Int32
    ) throws(TorchError) -> PendingOperation {
        var pending: ct_pending?
        let what = "\(operation) in \(name) (rank \(rank) of \(size))"
        try check(what, tensors) { call(&pending, $0) }
        guard let pending else { preconditionFailure("an operation without a handle") }
        return PendingOperation(raw: pending, operation: what)
    }
}

extension ProcessGroup {
    public func allReduce(_ tensors: [Tensor], _ reduction: Reduction = .sum) throws(TorchError) {
        try startAllReduce(tensors, reduction).wait()
    }
    public func allGather(_ inputs: [Tensor], into outputs: [Tensor]) throws(TorchError) {
        try startAllGather(inputs, into: outputs).wait()
    }
    /// The ranks' values one after the other, on the host: as many from each.
    /// - Throws: where the group was ended meanwhile; what lies on a device then is nobody's, and a wait there does not tell.
    public func gathered<Scalar: TensorScalar>(_ values: [Scalar], device: Device) throws(TorchError) -> [Scalar] {
        let all = try Tensor.zeros([size * values.count], dtype: Scalar.dtype, device: device)
        let pending = try startAllGather([Tensor(values, device: device)], into: [all])
        try pending.wait()
        let gathered = try all.values(Scalar.self)
        _ = try pending.isDone()
        return gathered
    }
    public func reduceScatter(
        _ inputs: [Tensor], into outputs: [Tensor], _ reduction: Reduction = .sum
    ) throws(TorchError) {
        try startReduceScatter(inputs, into: outputs, reduction).wait()
    }
    public func broadcast(_ tensors: [Tensor], root: Int) throws(TorchError) {
        try startBroadcast(tensors, root: root).wait()
    }
    public func allToAll(
        _ input: Tensor, into output: Tensor, inputRows: [Int], outputRows: [Int]
    ) throws(TorchError) {
        try startAllToAll(input, into: output, inputRows: inputRows, outputRows: outputRows).wait()
    }
    public func exchange(sends: [Message], receives: [Message]) throws(TorchError) {
        try startExchange(sends: sends, receives: receives).wait()
    }
}

/// An operation under way; it holds on to its tensors.
public final class PendingOperation {
    private let raw: ct_pending
    private let operation: String

    init(raw: ct_pending, operation: String) {
        self.raw = raw
        self.operation = operation
    }
    deinit { ct_pending_free(raw) }

    /// Host memory: returns when the results are there. CUDA: makes the current stream wait for them, and returns at once.
    public func wait() throws(TorchError) { try check(operation) { ct_pending_wait(raw, $0) } }

    /// Whether the results are there.
    public func isDone() throws(TorchError) -> Bool {
        var done = false
        try check(operation) { ct_pending_done(raw, &done, $0) }
        return done
    }
}

extension ProcessGroup.Reduction {
    var raw: ct_merge {
        switch self {
        case .sum: CT_MERGE_SUM
        case .mean: CT_MERGE_MEAN
        case .max: CT_MERGE_MAX
        case .min: CT_MERGE_MIN
        }
    }
}

extension Duration {
    /// Whole milliseconds, at least one.
    var milliseconds: Int64 { Swift.max(1, Int64(self / .milliseconds(1))) }
}
