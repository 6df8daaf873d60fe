public import Checkpoints
import Models
import TensorCore

/// The sizes of a model that memory and time depend on, from its configuration alone.
public struct PlanModel: Sendable, Hashable {
    /// A parameter as the model keeps it: projections that read one input are one.
    public struct Tensor: Sendable, Hashable {
        public enum Part: Sendable, Hashable { case embedding, head, experts, layer, rest }
        public var name: String
        public var shape: [Int]
        public var part: Part
        public var count: Int { shape.reduce(1, *) }
    }

    public var name: String
    public var tensors: [Tensor]
    /// What is trained: the same, or an adapter's.
    public var trained: [Tensor]
    public var vocabulary, hidden, layers, queryHeads, keyValueHeads, headDim, valueHeadDim, maxPositions: Int
    /// Of the dense feed-forward part of a layer, shared experts included.
    public var intermediate: Int
    public var experts = 0, expertsPerToken = 0, expertIntermediate = 0, expertLayers = 0
    public var isTied: Bool
    public var usesAdapter: Bool { trained != tensors }

    public var parameterCount: Int { tensors.reduce(0) { $0 + $1.count } }
    public func count(_ part: Tensor.Part) -> Int { tensors.reduce(0) { $0 + ($1.part == part ? $1.count : 0) } }

    /// Elements of the weights that one token is multiplied with; of experts, those that it goes to. A tied embedding counts as
    /// the head that it is.
    public var productWeights: Int {
        tensors.reduce(0) { sum, tensor in
            switch tensor.part {
            case .embedding: sum + (isTied ? tensor.count : 0)
            case .experts: sum + tensor.count / max(1, experts) * expertsPerToken
            case .head, .layer: sum + (tensor.shape.count > 1 ? tensor.count : 0)
            case .rest: sum
            }
        }
    }

    /// Elements that the cache keeps of a token, all layers together.
    public var cacheElements: Int { layers * keyValueHeads * (headDim + valueHeadDim) }

    var layer: ActivationBytes.Layer {
        var layer = ActivationBytes.Layer(
            hidden: hidden, queryHeads: queryHeads, keyValueHeads: keyValueHeads, headDim: headDim,
            intermediate: intermediate)
        (layer.experts, layer.expertsPerToken) = (experts, expertsPerToken)
        layer.expertIntermediate = expertIntermediate
        return layer
    }

    var decoder: DecoderSizes {
        DecoderSizes(
            vocabulary: vocabulary, hidden: hidden, layers: layers, queryHeads: queryHeads,
            keyValueHeads: keyValueHeads,
            headDim: headDim, intermediate: max(intermediate, expertsPerToken * expertIntermediate))
    }

    /// - Parameter adapter: what is trained in place of the weights.
    /// - Throws: `ModelError` for an architecture or settings that are not known, `CheckpointError`.
    init(_ config: ModelConfig, architecture: String, name: String, adapter: AdapterPlan? = nil) throws {
        let model = try ModelRegistry.outline(config, architecture: architecture)
        self.name = name
        let shape = model.shape, tied = model.output.weight.isSame(as: model.parameters[0].tensor)
        isTied = tied
        func describe(_ parameters: [Parameter]) -> [Tensor] {
            parameters.map { Tensor(name: $0.name, shape: $0.tensor.shape, part: Self.part($0.name)) }
        }
        tensors = describe(model.parameters)
        try adapter?.add(to: model)
        trained = describe(model.trainableParameters)
        (vocabulary, hidden, layers) = (shape.vocabulary, shape.hidden, shape.layers)
        (queryHeads, keyValueHeads, headDim) = (shape.queryHeads, shape.keyValueHeads, shape.headDim)
        (valueHeadDim, maxPositions) = (shape.valueHeadDim, shape.maxPositions)
        intermediate = try config.optionalInt("intermediate_size") ?? 4 * shape.hidden
        if let mixture = model.experts {
            (experts, expertsPerToken) = (mixture.experts, mixture.expertsPerToken)
            expertLayers = mixture.layers.count
            expertIntermediate = try config.optionalInt("moe_intermediate_size") ?? intermediate
            // What every layer's tokens meet besides their experts.
            if expertLayers == layers { intermediate = 0 }
        }
    }

    private static func part(_ name: String) -> Tensor.Part {
        switch ParameterParts.part(of: name) {
        case .embedding: .embedding
        case .head: .head
        case .experts: name.contains("shared_expert") ? .layer : .experts
        case .attention, .mlp, .router: .layer
        case .norms, .other: .rest
        }
    }
}
