public import TensorCore

/// Weights that nothing trains, and that lie in host memory while nobody reads them: a reference model's between two scorings.
///
/// On CUDA the host's copy is pinned, and the device's memory serves what runs in between. Nothing is copied back, since nothing
/// changes. Not `Sendable`: used on the thread of the model that the weights belong to.
public final class RestingWeights {
    private let tensors: [(device: Tensor, host: Tensor)]
    /// Whether the device's memory is given back. Nothing may compute with the weights then.
    public private(set) var isResting = false
    /// What resting gives back.
    public let byteCount: Int

    /// Copies the weights to the host; they stay where they are until ``rest()``.
    /// - Parameter tensors: each at the beginning of memory of its own.
    public init(_ tensors: [Tensor]) throws(TorchError) {
        var copies: [(device: Tensor, host: Tensor)] = []
        for tensor in tensors where tensor.storageByteCount > 0 {
            let host = try tensor.detached().to(.cpu).contiguous()
            // On the CPU `to` gives the tensor itself.
            copies.append((tensor, try tensor.device.isCUDA ? host.pinned() : host.cloned()))
        }
        self.tensors = copies
        byteCount = copies.reduce(0) { $0 + $1.device.storageByteCount }
    }

    /// Gives the device's memory back. Does nothing while they rest.
    public func rest() throws(TorchError) {
        guard !isResting else { return }
        isResting = true
        for (tensor, _) in tensors { try tensor.releaseStorage() }
    }

    /// Brings them to the device. Does nothing while they are there.
    /// - Throws: `TorchError` when the device has no room; those that came go again.
    public func wake() throws(TorchError) {
        guard isResting else { return }
        do {
            for (tensor, host) in tensors {
                try tensor.allocateStorage(tensor.shape).copy(from: host, nonBlocking: true)
            }
            isResting = false
        } catch {
            for (tensor, _) in tensors where tensor.storageByteCount > 0 { try tensor.releaseStorage() }
            throw error
        }
    }

    /// Runs `body` with the weights on the device, and lets them rest again, whatever becomes of it.
    public func awake<Result>(_ body: () throws -> Result) throws -> Result {
        try wake()
        do {
            let result = try body()
            try rest()
            return result
        } catch {
            try rest()
            throw error
        }
    }
}
