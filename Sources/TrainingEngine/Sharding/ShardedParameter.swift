public import Collectives
public import Models
public import TensorCore

/// One parameter of which this rank keeps a run of rows: of `n` ranks, rank `r` keeps rows `[r · chunk, (r + 1) · chunk)` as far as
/// there are any, with `chunk = ⌈rows / n⌉`. Laid end to end the ranks' chunks are the whole tensor and, where `n` does not divide the
/// rows, some rows of padding.
public final class ShardedParameter {
    public let parameter: Parameter
    /// Whether it is trained.
    public let trains: Bool
    /// This rank's rows of the parameter; empty where there are fewer rows than ranks.
    public let rows: Range<Int>
    /// The chunk, padding included; the parameter's own tensor where nothing is shared out.
    let chunk: Tensor
    let axes: GradientAxes
    /// Of the parameter with its padding.
    let paddedShape: [Int]
    /// What the mini-batch's backward passes have left so far, of ``sumDType`` and of the chunk's shape.
    var gradSum: Tensor?

    let sumDType: DType

    init(
        _ parameter: Parameter, trains: Bool, axes: GradientAxes, gradDType: DType, rank: Int, ranks: Int
    ) throws {
        self.parameter = parameter
        sumDType = parameter.tensor.dtype == .float32 ? .float32 : gradDType
        self.trains = trains
        self.axes = axes
        let tensor = parameter.tensor, count = tensor.size(0), rest = Array(tensor.shape.dropFirst())
        try tensor.setRequiresGrad(false)
        let length = (count + ranks - 1) / ranks
        rows = min(count, rank * length)..<min(count, (rank + 1) * length)
        paddedShape = [length * ranks] + rest
        if tensor.storageByteCount == 0, tensor.count > 0 { try parameter.load?() }
        if ranks > 1 {
            chunk = try Tensor.zeros([length] + rest, dtype: tensor.dtype, device: tensor.device)
            if !rows.isEmpty { try chunk.narrowed(0, 0..<rows.count).copy(from: tensor.narrowed(0, rows)) }
            try tensor.releaseStorage()
        } else {
            chunk = try tensor.detached()
        }
        guard trains else { return }
        try tensor.setRequiresGrad()
        try tensor.endGradientSum()
    }

    /// This rank's rows, to train, save and load; a view. What is written here is in the whole tensor when that is next brought
    /// together.
    public func shard() throws(TorchError) -> Tensor { try own(chunk) }

    /// Of the checkpoint's tensors, what `tensor`, of ``shard()``'s shape, holds: the shard itself, or a state of it.
    public func localShards(of tensor: Tensor? = nil) throws(TorchError) -> [LocalShard] {
        guard let tensor else { return try parameter.shards(of: shard(), rows: rows) }
        return try parameter.shards(of: tensor, rows: rows)
    }

    /// Boxes of the checkpoint's tensors that this rank holds, and which of ``shard()``'s rows they are.
    var heldBoxes: [(box: ShardBox, rows: Range<Int>)] {
        parameter.parts.compactMap { part in
            let common = part.rows.clamped(to: rows), first = part.rows.lowerBound, start = rows.lowerBound
            if common.isEmpty { return nil }
            return (
                part.box.rows(common.lowerBound - first..<common.upperBound - first),
                common.lowerBound - start..<common.upperBound - start
            )
        }
    }

    /// This rank's rows of the summed gradient.
    public func gradient() throws(TorchError) -> Tensor? {
        guard let gradSum else { return nil }
        return try own(gradSum)
    }

    private func own(_ chunk: Tensor) throws(TorchError) -> Tensor {
        rows.count == chunk.size(0) ? chunk : try chunk.narrowed(0, 0..<rows.count)
    }

    // MARK: - Gradients

    /// What backward has left in the parameter, taken away from it.
    func takeGradient() throws(TorchError) -> Tensor? {
        let grad = try parameter.tensor.grad()
        if grad != nil { try parameter.tensor.setGrad(nil) }
        return grad
    }

    /// `grad`, or zeros, as ranks reduce it: of `dtype` and with the padding.
    func padded(_ grad: Tensor?, _ dtype: DType) throws(TorchError) -> Tensor {
        let tensor = parameter.tensor, count = tensor.size(0)
        guard let grad else { return try Tensor.zeros(paddedShape, dtype: dtype, device: tensor.device) }
        if count == paddedShape[0] { return try grad.to(dtype: dtype).contiguous() }
        let whole = try Tensor.empty(paddedShape, dtype: dtype, device: tensor.device)
        try whole.narrowed(0, 0..<count).copy(from: grad)
        try whole.narrowed(0, count..<paddedShape[0]).fill(0)
        return whole
    }

    /// Adds a share, of the chunk's shape, to the sum; may keep `share` itself.
    func add(_ share: Tensor) throws(TorchError) {
        if let gradSum { try gradSum.add(share) } else { gradSum = try share.to(dtype: sumDType) }
    }
}
