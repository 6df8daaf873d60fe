internal import TensorCore

/// A `[B, L]` tensor copied to the host, for recursions over positions that a tensor library would run as L small calls.
struct HostMatrix {
    let rows, width: Int
    var values: [Double]

    init(_ tensor: Tensor) throws(TorchError) {
        rows = tensor.size(0)
        width = tensor.size(1)
        values = try tensor.values(Double.self)
    }

    init(zeros other: HostMatrix) {
        rows = other.rows
        width = other.width
        values = Array(repeating: 0, count: other.values.count)
    }

    subscript(row: Int, column: Int) -> Double {
        get { values[row * width + column] }
        set { values[row * width + column] = newValue }
    }

    func tensor(like other: Tensor) throws(TorchError) -> Tensor {
        try Tensor(values.map(Float.init), shape: [rows, width], device: other.device)
    }

    /// Each row's sum of `self · mask` from a position to its end: the undiscounted return.
    func toGo(_ mask: HostMatrix) -> HostMatrix {
        var result = HostMatrix(zeros: self)
        for row in 0..<rows {
            var running = 0.0
            for column in stride(from: width - 1, through: 0, by: -1) {
                running += self[row, column] * mask[row, column]
                result[row, column] = running
            }
        }
        return result
    }
}
