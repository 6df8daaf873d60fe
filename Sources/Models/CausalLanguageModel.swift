public import TensorCore

/// Numbers that the engines need of any decoder, whatever its family.
public struct ModelShape: Sendable, Hashable {
    public var vocabulary, hidden, layers, queryHeads, keyValueHeads, headDim: Int
    /// The longest sequence that the checkpoint says it knows.
    public var maxPositions: Int

    public init(
        vocabulary: Int, hidden: Int, layers: Int, queryHeads: Int, keyValueHeads: Int, headDim: Int, maxPositions: Int
    ) {
        self.vocabulary = vocabulary
        self.hidden = hidden
        self.layers = layers
        self.queryHeads = queryHeads
        self.keyValueHeads = keyValueHeads
        self.headDim = headDim
        self.maxPositions = maxPositions
    }
}

/// A decoder: token ids in, hidden states out. The same call serves packed training, prefill and cached decoding.
public protocol CausalLanguageModel: AnyObject {
    var shape: ModelShape { get }
    /// Every parameter, in the model's order.
    var parameters: [Parameter] { get }
    /// The output projection `[V, C]`; its weight is the input embedding itself where they are tied.
    var output: Projection { get }
    /// Every weight that is multiplied with, the output among them.
    var projections: [Projection] { get }
    /// Whether layers are run again in backward instead of keeping their activations.
    var usesCheckpointing: Bool { get set }

    /// Final normed hidden states `[T, C]` of `ids` (int64 `[T]`) at `positions` (int64 `[T]`); `output` turns them into logits.
    /// `observe` sees the input of the first layer (index 0), each layer's output, and the final norm's in place of the last.
    func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor
}

extension CausalLanguageModel {
    public func hiddenStates(ids: Tensor, positions: Tensor, attention: any AttentionBackend) throws -> Tensor {
        try hiddenStates(ids: ids, positions: positions, attention: attention, observe: nil)
    }

    /// The weight of the output projection, `[V, C]`.
    public var head: Tensor { output.weight }

    /// Lays the weights out for decoding about `rows` sequences on the CPU; does nothing on other devices. Call
    /// ``unpackProjections()`` before the weights change.
    /// - Parameter merging: lays an adapter's product in, so that it costs nothing more to decode with.
    public func packProjections(rows: Int, merging: Bool = false) throws(TorchError) {
        for projection in projections { try projection.pack(rows: rows, merging: merging) }
    }
    public func unpackProjections() { for projection in projections { projection.unpack() } }
    public var isPacked: Bool { output.isPacked }

    public var dtype: DType { parameters[0].tensor.dtype }
    public var device: Device { parameters[0].tensor.device }
    public var parameterCount: Int { parameters.reduce(0) { $0 + $1.tensor.count } }

    /// Every tensor under its checkpoint name, as views.
    public func namedTensors() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        var all: [(String, Tensor)] = []
        for parameter in parameters { all += try parameter.split() }
        return all
    }
}
