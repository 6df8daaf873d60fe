public import TensorCore

/// What copies between a device and the host took.
public struct RestingTraffic: Sendable, Hashable {
    /// Both ways together.
    public var bytes = 0
    public var seconds = 0.0
    public init() {}

    public static func + (a: Self, b: Self) -> Self {
        var sum = a
        sum.bytes += b.bytes
        sum.seconds += b.seconds
        return sum
    }
    public static func - (a: Self, b: Self) -> Self {
        var rest = a
        rest.bytes -= b.bytes
        rest.seconds -= b.seconds
        return rest
    }
}

/// Tensors that lie in host memory while nobody computes with them: a reference model's weights, a critic's, an optimizer's states.
///
/// On CUDA the host's copy is pinned, made once, and the device's memory serves what runs in between; what has not changed since it came
/// is not copied back. On the CPU the same happens between two places of the host's memory. All copies are on the current stream, where
/// those who compute with the tensors follow them, and each turn of the way is waited for: a host's copy that can be read is whole. Not
/// `Sendable`: used on the thread of the model that the tensors belong to.
public final class RestingTensors {
    private let tensors: [Tensor]
    /// Made by the first ``rest()``.
    private var hosts: [Tensor] = []
    private var hasChanged = true
    /// Whether the device's memory is given back. Nothing may compute with the tensors then.
    public private(set) var isResting = false
    /// What resting gives back.
    public let byteCount: Int
    /// What coming and going has taken so far.
    public private(set) var traffic = RestingTraffic()

    /// They stay where they are until ``rest()``.
    /// - Parameter tensors: those that are not alone in their memory, as a view of a larger one, never leave it.
    public init(_ tensors: [Tensor]) {
        var own: [Tensor] = []
        for tensor in tensors
        where tensor.byteCount > 0 && tensor.storageByteCount == tensor.byteCount && tensor.isContiguous {
            // A tensor that goes by two names.
            if !own.contains(where: { $0.sharesStorage(with: tensor) }) { own.append(tensor) }
        }
        self.tensors = own
        byteCount = own.reduce(0) { $0 + $1.byteCount }
    }

    /// Somebody writes to the tensors: what the host has is out of date.
    public func change() {
        precondition(!isResting, "tensors are written to while they rest")
        hasChanged = true
    }

    /// Gives the device's memory back. Does nothing while they rest.
    /// - Throws: `TorchError` when the host has no room; then they stay.
    public func rest() throws(TorchError) {
        guard !isResting, let device = tensors.first?.device else { return }
        let start = ContinuousClock.now
        if hasChanged {
            if hosts.isEmpty { hosts = try makeHosts() }
            for (tensor, host) in zip(tensors, hosts) { try host.copy(from: tensor.detached(), nonBlocking: true) }
            if device.isCUDA { try device.synchronize() }
            hasChanged = false
            traffic.bytes += byteCount
        }
        isResting = true
        for tensor in tensors { try tensor.releaseStorage() }
        traffic.seconds += (ContinuousClock.now - start) / .seconds(1)
    }

    /// Brings them to the device. Does nothing while they are there.
    /// - Throws: `TorchError` when the device has no room; those that came go again.
    public func wake() throws(TorchError) {
        guard isResting, let device = tensors.first?.device else { return }
        let start = ContinuousClock.now
        do {
            for (tensor, host) in zip(tensors, hosts) {
                try tensor.allocateStorage(tensor.shape).copy(from: host, nonBlocking: true)
            }
            if device.isCUDA { try device.synchronize() }
        } catch {
            for tensor in tensors where tensor.storageByteCount > 0 { try tensor.releaseStorage() }
            throw error
        }
        isResting = false
        traffic.bytes += byteCount
        traffic.seconds += (ContinuousClock.now - start) / .seconds(1)
    }

    /// Where a tensor's values are now: the host's copy of one of these that rests, else the tensor itself.
    public func current(_ tensor: Tensor) -> Tensor {
        guard isResting, let index = tensors.firstIndex(where: { $0.isSame(as: tensor) }) else { return tensor }
        return hosts[index]
    }

    /// Runs `body` with the tensors on the device, and lets them rest again, whatever becomes of it.
    public func awake<Result>(_ body: () throws -> Result) throws -> Result {
        try wake()
        do {
            let result = try body()
            try rest()
            return result
        } catch {
            // The first error is the one to tell.
            try? rest()
            throw error
        }
    }

    private func makeHosts() throws(TorchError) -> [Tensor] {
        var made: [Tensor] = []
        for tensor in tensors {
            made.append(
                tensor.device.isCUDA
                    ? try .pinnedZeros(tensor.shape, dtype: tensor.dtype)
                    : try .empty(tensor.shape, dtype: tensor.dtype))
        }
        return made
    }
}
