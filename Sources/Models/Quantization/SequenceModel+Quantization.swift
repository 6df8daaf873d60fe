public import TensorCore

extension SequenceModel {
    /// Makes quantised copies of the projections' weights as they are now, for sampling under ``samplingQuantized(_:)``. The
    /// weights stay; ``unpackProjections()`` drops the copies, and must be called before the weights change.
    ///
    /// The output head stays in full precision unless asked for, and so do the experts of a mixture (they are computed by grouped
    /// products) and, on CUDA, projections whose shape makes no whole tiles of 16 outputs by 64 inputs.
    ///
    /// - Parameters:
    ///   - rows: sequences that the layout of what stays in full precision is chosen for, on the CPU.
    ///   - merging: adds an adapter's product to the weights before they are rounded; else it is computed beside them, in full
    ///     precision.
    ///   - includingHead: rounds the output head, too.
    public func quantizeProjections(
        _ scheme: WeightQuantization, rows: Int, merging: Bool = false, includingHead: Bool = false
    ) throws(TorchError) {
        let head = (self as? any CausalLanguageModel)?.output
        for projection in projections {
            if projection !== head || includingHead, QuantizedLinear.fits(projection.weight) {
                try projection.quantize(scheme, merging: merging)
            } else {
                try projection.pack(rows: rows, merging: merging)
            }
        }
    }

    /// Runs `body` with the quantised copies in place of their weights, wherever no gradients are recorded. Outside of it they are
    /// not used: log-probabilities that training computes are always the weights' own.
    public func samplingQuantized<Result>(_ body: () throws -> Result) rethrows -> Result {
        let before = projections.map(\.samplesQuantized)
        for projection in projections { projection.samplesQuantized = true }
        defer { for (projection, value) in zip(projections, before) { projection.samplesQuantized = value } }
        return try body()
    }

    /// Whether there are quantised copies.
    public var isQuantized: Bool { projections.contains { $0.quantized != nil } }

    /// What the quantised copies take, and what their weights do, in bytes.
    public var quantizedBytes: (copies: Int, weights: Int) {
        projections.reduce(into: (copies: 0, weights: 0)) { sum, projection in
            guard let quantized = projection.quantized else { return }
            sum.copies += quantized.byteCount
            sum.weights += projection.weight.byteCount
        }
    }
}
