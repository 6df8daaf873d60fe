import TensorCore

/// What a decoder's layers read and add to, `[T, C]`. What a layer has added last stays apart from the rest until somebody reads the
/// sum, so that adding it and taking the norm of the sum is one pass over memory.
struct ResidualStream {
    private var x: Tensor
    private var pending: Pending?

    private struct Pending {
        let delta: Tensor
        let norm: RMSNorm?
        let multiplier: Double
    }

    init(_ x: Tensor) { self.x = x }

    /// Adds `multiplier * norm(delta)`.
    mutating func add(_ delta: Tensor, norm: RMSNorm? = nil, multiplier: Double = 1) throws(TorchError) {
        _ = try sum()
        pending = Pending(delta: delta, norm: norm, multiplier: multiplier)
    }

    /// The stream itself.
    ///
    /// - Parameter isRead: false where only the gradients' way through it is wanted, not its value.
    mutating func sum(isRead: Bool = true) throws(TorchError) -> Tensor {
        if let pending {
            x = try x.adding(
                pending.delta, norm: pending.norm?.terms, multiplier: pending.multiplier, isRead: isRead)
            self.pending = nil
        }
        return x
    }

    /// The stream's norm.
    mutating func normed(by norm: RMSNorm) throws(TorchError) -> Tensor {
        try normed(by: norm, keepsSum: true)
    }

    /// The stream's norm, where nobody reads the stream any more.
    consuming func finished(by norm: RMSNorm) throws(TorchError) -> Tensor {
        try normed(by: norm, keepsSum: false)
    }

    private mutating func normed(by norm: RMSNorm, keepsSum: Bool) throws(TorchError) -> Tensor {
        let both = try x.addingThenNorming(
            pending?.delta, norm: pending?.norm?.terms, multiplier: pending?.multiplier ?? 1, by: norm.terms,
            keepsSum: keepsSum)
        if let sum = both.sum {
            x = sum
            self.pending = nil
        }
        return both.normed
    }
}
