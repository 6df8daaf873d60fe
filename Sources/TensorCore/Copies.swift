internal import CTorch

extension Tensor {
    /// Copies `sources[i]` into `targets[i]`, of the same shape, converting types; on CUDA in few kernels, and without waiting.
    public static func copy(_ sources: [Tensor], into targets: [Tensor]) throws(TorchError) {
        precondition(sources.count == targets.count, "\(sources.count) sources for \(targets.count) targets")
        if sources.isEmpty { return }
        let from = sources.map { $0.raw as ct_tensor? }, to = targets.map { $0.raw as ct_tensor? }
        try withExtendedLifetime((sources, targets)) { () throws(TorchError) in
            try check("copy of \(sources.count) tensors", targets + sources) {
                ct_copy_each_(to, from, Int32(to.count), $0)
            }
        }
    }

    /// Whether both are the same elements in the same memory.
    public func isSameMemory(as other: Tensor) -> Bool {
        ct_address(raw) == ct_address(other.raw) && device == other.device && shape == other.shape
            && strides == other.strides && dtype == other.dtype
    }
}
