public import TensorCore

/// What every layer of one forward pass shares.
struct DecoderPass {
    /// cos and sin of each kind of rotation that the model has.
    let angles: [RotaryAngles]
    let attention: any AttentionBackend
    /// Where routers note what they decide.
    var routing: RoutingRecord?
    /// Whether nobody reads the value of what is computed now: the layer is run again for its gradients, and this is its end.
    private(set) var leavesOutLastProduct = false

    init(angles: [RotaryAngles], attention: any AttentionBackend, routing: RoutingRecord? = nil) {
        self.angles = angles
        self.attention = attention
        self.routing = routing
    }

    /// The pass at a layer's last part, whose result is only added to the residual stream.
    var last: DecoderPass {
        var last = self
        last.leavesOutLastProduct = isSecondRun
        return last
    }
}

protocol DecoderLayer {
    /// Reads the residual stream and adds to it.
    func callAsFunction(_ stream: inout ResidualStream, _ pass: DecoderPass) throws
}

/// What the shared skeleton needs to know of a family besides its layers.
struct DecoderOutline {
    var shape: ModelShape
    var normEps: Double
    var normConvention: RMSNorm.Convention = .plain
    /// Factor of the embeddings.
    var embeddingMultiplier = 1.0
    /// The kinds of rotation; layers name theirs by index.
    var rotaries: [RotaryFrequencies]
    var experts: ExpertShape?
}

/// Embedding, layers, final norm: all of a decoder but its head. Names are those of `transformers`, under "model.".
final class DecoderBody {
    let shape: ModelShape
    let embedding: Tensor
    var checkpointing = ActivationCheckpointing.none
    var offload: ActivationOffload?
    var routingRecord: RoutingRecord?
    var experts: ExpertShape? { outline.experts }

    private let outline: DecoderOutline
    private let layers: [any DecoderLayer]
    private let norm: RMSNorm
    /// The frequencies of each kind of rotation, on the device.
    private let frequencies: [Tensor]

    /// - Parameter layer: makes the layer of an index, whose tensors' names begin with the given prefix.
    init(
        _ outline: DecoderOutline, _ builder: ParameterBuilder,
        layer: (_ index: Int, _ prefix: String) throws -> any DecoderLayer
    ) throws {
        var shape = outline.shape
        shape.rotarySwitch = outline.rotaries.compactMap(\.switchLength).min()
        shape.rotaryLimit = outline.rotaries.compactMap(\.lastShortLength).min()
        self.shape = shape
        self.outline = outline
        embedding = try builder.parameter("model.embed_tokens.weight", [shape.vocabulary, shape.hidden])
        layers = try (0..<shape.layers).map { try layer($0, "model.layers.\($0)") }
        norm = try RMSNorm(
            builder, "model.norm", size: shape.hidden, eps: outline.normEps, convention: outline.normConvention)
        frequencies = try outline.rotaries.map { try $0.table(builder.device) }
    }

    func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor {
        var x_TC = try embedding.embedding(ids)
        if outline.embeddingMultiplier != 1 { x_TC = try x_TC.multiplied(by: outline.embeddingMultiplier) }
        let pass = DecoderPass(
            angles: try zip(outline.rotaries, frequencies).map { try $0.angles(positions, attention, short: $1) },
            attention: attention, routing: routingRecord)
        observe?(0, x_TC)
        var stream = ResidualStream(x_TC)
        for (index, layer) in layers.enumerated() {
            if isGradEnabled, let kept = checkpointing.kept(layer: index) {
                // What the last layer keeps is wanted at once: there is no time to carry it away.
                let away = index + 1 < layers.count ? offload : nil
                stream = ResidualStream(try runTwice(layer, stream.sum(), pass, keeping: kept, offload: away))
            } else {
                try layer(&stream, pass)
            }
            if let observe, index + 1 < layers.count { observe(index + 1, try stream.sum()) }
        }
        x_TC = try stream.finished(by: norm)
        observe?(layers.count, x_TC)
        return x_TC
    }
}

/// A layer that keeps its input and `kept` alone, and is run again for its gradients. What its routers decide is noted once, as results
/// of the layer, so that gradients of their logits reach it then.
private func runTwice(
    _ layer: any DecoderLayer, _ x: Tensor, _ pass: DecoderPass, keeping kept: KeptActivations,
    offload: ActivationOffload?
) throws -> Tensor {
    func run(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor {
        var stream = ResidualStream(x)
        try layer(&stream, pass)
        return try stream.sum(isRead: !isSecondRun)
    }
    guard let record = pass.routing else {
        return try checkpoint([x], keeping: kept, offload: offload) { [try run($0[0], pass)] }[0]
    }
    var noted: [RoutingRecord.Layer] = []
    let results = try checkpoint([x], resultCount: 2, keeping: kept, offload: offload) {
        var inner = pass
        let own = RoutingRecord()
        inner.routing = own
        let y = try run($0[0], inner)
        noted = own.layers
        return [y] + own.layers.map(\.logits)
    }
    for (routed, logits) in zip(noted, results.dropFirst()) { record.append(routed.with(logits: logits)) }
    return results[0]
}

/// A decoder with an output projection to its vocabulary.
public final class DecoderModel: CausalLanguageModel {
    public let parameters, buffers: [Parameter]
    public let output: Projection
    public let projections: [Projection]
    public let logitsTransform: LogitsTransform
    public var shape: ModelShape { body.shape }
    public var checkpointing: ActivationCheckpointing {
        get { body.checkpointing }
        set { body.checkpointing = newValue }
    }
    public var activationOffload: ActivationOffload? {
        get { body.offload }
        set { body.offload = newValue }
    }
    public var experts: ExpertShape? { body.experts }
    public var routingRecord: RoutingRecord? {
        get { body.routingRecord }
        set { body.routingRecord = newValue }
    }

    private let body: DecoderBody

    init(
        _ body: DecoderBody, _ builder: ParameterBuilder, tiedEmbeddings: Bool, logits: LogitsTransform = .identity
    ) throws {
        self.body = body
        logitsTransform = logits
        let shape = body.shape
        output = builder.projection(
            tiedEmbeddings
                ? body.embedding : try builder.parameter("lm_head.weight", [shape.vocabulary, shape.hidden]))
        parameters = try builder.finish()
        buffers = builder.buffers
        projections = builder.projections
    }

    public func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor {
        try body.hiddenStates(ids: ids, positions: positions, attention: attention, observe: observe)
    }
}
