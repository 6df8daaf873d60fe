public import TensorCore

/// Between values end to end `[R]` and rows padded on the right `[B, L]`.
public struct Padding: Sendable {
    public let lengths: [Int]
    public let width: Int

    public init(lengths: [Int]) {
        self.lengths = lengths
        width = max(1, lengths.max() ?? 0)
    }

    /// Rows padded with 0, with gradients.
    public func pad(_ flat_R: Tensor) throws(TorchError) -> Tensor {
        let total = lengths.reduce(0, +)
        var index = [Int64](repeating: Int64(total), count: lengths.count * width)
        var next: Int64 = 0
        for (row, length) in lengths.enumerated() {
            for column in 0..<length {
                index[row * width + column] = next
                next += 1
            }
        }
        let zero = try Tensor.zeros([1], dtype: flat_R.dtype, device: flat_R.device)
        return try Tensor.concatenate([flat_R, zero])
            .indexSelect(0, Tensor(uploading: index, to: flat_R.device)).reshaped([lengths.count, width])
    }

    /// Host values a row, padded.
    public func pad(_ rows: [[Float]], device: Device) throws(TorchError) -> Tensor {
        var flat = [Float](repeating: 0, count: lengths.count * width)
        for (row, values) in rows.enumerated() {
            precondition(
                values.count == lengths[row], "row \(row) has \(values.count) values for \(lengths[row]) tokens")
            for (column, value) in values.enumerated() { flat[row * width + column] = value }
        }
        return try Tensor(uploading: flat, shape: [lengths.count, width], to: device)
    }

    public func mask(device: Device) throws(TorchError) -> Tensor {
        try pad(lengths.map { [Float](repeating: 1, count: $0) }, device: device)
    }

    /// The rows of a padded `[B, L]` tensor without their padding.
    public func rows(_ padded_BL: Tensor) throws(TorchError) -> [[Float]] {
        let flat = try padded_BL.values(Float.self)
        return lengths.enumerated().map { row, length in Array(flat[row * width..<row * width + length]) }
    }
}

extension Tensor {
    /// Host values on a device, copied behind the host's back where that goes: who prepares the next micro-batch need not wait for
    /// this one.
    init<Scalar: TensorScalar>(
        uploading values: [Scalar], shape: [Int]? = nil, to device: Device
    ) throws(TorchError) {
        let host = try Tensor(values, shape: shape)
        self = device.isCUDA ? try host.pinned().to(device, nonBlocking: true) : host
    }
}
