public import Models
public import TensorCore

/// Has the optimizer send for its states in host memory while the last backward pass before a step frees memory, layer by layer.
public final class StatePrefetch: LayerHooks {
    private let optimizer: AdamW

    private init(_ optimizer: AdamW) { self.optimizer = optimizer }

    /// Runs a forward and backward pass, after which a step comes where `isLast`.
    public static func around<Result>(
        _ model: any SequenceModel, _ optimizer: AdamW?, isLast: Bool, _ pass: () throws -> Result
    ) rethrows -> Result {
        guard isLast, let optimizer, optimizer.streamsStates, model.layerHooks == nil else { return try pass() }
        model.layerHooks = StatePrefetch(optimizer)
        defer { model.layerHooks = nil }
        return try pass()
    }

    public func willBegin() {}
    public func willRun(layer: Int, _ x: Tensor) -> Tensor { x }
    /// Backward comes here before it goes through the layer.
    public func didRun(layer: Int, _ x: Tensor) throws -> Tensor {
        try x.onBackward { [optimizer] in try optimizer.prefetch() }
    }
}
