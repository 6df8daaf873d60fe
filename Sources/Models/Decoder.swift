public import TensorCore

/// What every layer of one forward pass shares.
struct DecoderPass {
    /// cos and sin of each kind of rotation that the model has.
    let angles: [RotaryAngles]
    let attention: any AttentionBackend
    /// How ranks share the pass's tokens.
    let layout: TokenLayout
    /// Where routers note what they decide.
    var routing: RoutingRecord?
    /// Whether nobody reads the value of what is computed now: the layer is run again for its gradients, and this is its end.
    private(set) var leavesOutLastProduct = false

    init(
        angles: [RotaryAngles], attention: any AttentionBackend, layout: TokenLayout, routing: RoutingRecord? = nil
    ) {
        self.angles = angles
        self.attention = attention
        self.layout = layout
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
    /// All rows, or this rank's; nil on stages of a pipeline that neither look up tokens nor have a head that is tied to it.
    let embedding: Tensor?
    /// How tensor ranks share the rows of the embedding and of a head over the vocabulary.
    let vocabulary: VocabularyShare?
    /// Whether the hidden states are for such a head.
    var hasSharedHead = false
    let parallel: ParallelContext
    var checkpointing = ActivationCheckpointing.none
    var offload: ActivationOffload?
    var routingRecord: RoutingRecord?
    var layerHooks: (any LayerHooks)?
    var experts: ExpertShape? { outline.experts }

    private let outline: DecoderOutline
    /// Of this stage.
    private let layers: [any DecoderLayer]
    let stage: PipelineStage
    /// Of the last stage.
    private let norm: RMSNorm?
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
        parallel = builder.parallel
        try parallel.checkHeads(shape)
        shape.rankKeyValueHeads = try parallel.share(shape.keyValueHeads, of: "key-value heads", mayCopy: true).count
        self.shape = shape
        self.outline = outline
        vocabulary = parallel.tensor.map { VocabularyShare(group: $0, total: shape.vocabulary) }
        let stage = try PipelineStage(parallel, layers: shape.layers)
        self.stage = stage
        embedding =
            stage.isFirst || (stage.isLast && builder.tiesHead)
            ? try builder.parameter(
                "model.embed_tokens.weight", [shape.vocabulary, shape.hidden], held: vocabulary?.rows,
                gradient: .complete) : nil
        if embedding == nil { builder.leaveOut("model.embed_tokens.") }
        layers = try stage.layers.map { try layer($0, "model.layers.\($0)") }
        for index in 0..<shape.layers where !stage.layers.contains(index) { builder.leaveOut("model.layers.\(index).") }
        norm =
            stage.isLast
            ? try RMSNorm(
                builder, "model.norm", size: shape.hidden, eps: outline.normEps, convention: outline.normConvention)
            : nil
        if norm == nil { builder.leaveOut("model.norm.") }
        frequencies = try outline.rotaries.map { try $0.table(builder.device) }
    }

    /// - Parameter input: what the stage before gave; nil on the first.
    /// - Returns: final normed hidden states on the last stage, what the next one goes on with on the others.
    func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, input: Tensor? = nil,
        observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor {
        try layerHooks?.willBegin()
        let layout = layout(tokens: ids.size(0), attention)
        var x_TC = try input ?? embedded(layout.chunk(ids), layout)
        let pass = DecoderPass(
            angles: try zip(outline.rotaries, frequencies).map { rotary, table in
                let angles = try rotary.angles(positions, attention, short: table)
                return RotaryAngles(cos: try layout.chunk(angles.cos), sin: try layout.chunk(angles.sin))
            },
            attention: layout.attention(attention), layout: layout, routing: routingRecord)
        if let observe { observe(0, try layout.whole(x_TC)) }
        var stream = ResidualStream(x_TC)
        for (index, layer) in layers.enumerated() {
            if let layerHooks { stream = ResidualStream(try layerHooks.willRun(layer: index, stream.sum())) }
            if isGradEnabled, let kept = checkpointing.kept(layer: index) {
                // What the last layer keeps is wanted at once: there is no time to carry it away.
                let away = index + 1 < layers.count ? offload : nil
                stream = ResidualStream(try runTwice(layer, stream.sum(), pass, keeping: kept, offload: away))
            } else {
                try layer(&stream, pass)
            }
            if let layerHooks { stream = ResidualStream(try layerHooks.didRun(layer: index, stream.sum())) }
            if let observe, index + 1 < layers.count { observe(index + 1, try layout.whole(stream.sum())) }
        }
        guard let norm else { return try stream.sum() }
        x_TC = try stream.finished(by: norm)
        if let observe { observe(layers.count, try layout.whole(x_TC)) }
        return try layout.result(x_TC, isShared: hasSharedHead)
    }

    func layout(tokens: Int, _ attention: any AttentionBackend) -> TokenLayout {
        TokenLayout(parallel, total: tokens, divides: attention is PackedAttention)
    }

    private func embedded(_ ids: Tensor, _ layout: TokenLayout) throws -> Tensor {
        guard stage.isFirst, let embedding else {
            throw ModelError(
                .parallel,
                "stage \(stage.index) of \(stage.count) goes on with what the stage before gives: run it by PipelineSchedule"
            )
        }
        let found =
            if let vocabulary {
                try layout.leave(embedding.embedding(ids, rowsFrom: vocabulary.rows.lowerBound))
            } else {
                try embedding.embedding(ids)
            }
        return outline.embeddingMultiplier == 1 ? found : try found.multiplied(by: outline.embeddingMultiplier)
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
    public var parallel: ParallelContext { body.parallel }
    public var vocabulary: VocabularyShare? { body.vocabulary }
    public var checkpointing: ActivationCheckpointing {
        get { body.checkpointing }
        set { body.checkpointing = newValue }
    }
    public var activationOffload: ActivationOffload? {
        get { body.offload }
        set { body.offload = newValue }
    }
    public var layerHooks: (any LayerHooks)? {
        get { body.layerHooks }
        set { body.layerHooks = newValue }
    }
    public var experts: ExpertShape? { body.experts }
    public var routingRecord: RoutingRecord? {
        get { body.routingRecord }
        set { body.routingRecord = newValue }
    }

    public let tiesEmbeddings: Bool
    /// Which layers are here.
    public var stage: PipelineStage { body.stage }
    private let body: DecoderBody

    init(
        _ body: DecoderBody, _ builder: ParameterBuilder, tiedEmbeddings: Bool, logits: LogitsTransform = .identity
    ) throws {
        self.body = body
        logitsTransform = logits
        let shape = body.shape
        body.hasSharedHead = body.vocabulary != nil
        tiesEmbeddings = tiedEmbeddings
        if !body.stage.isLast {
            // No rows: the head is the last stage's.
            output = Projection(
                weight: try Tensor.zeros([0, shape.hidden], dtype: builder.dtype, device: builder.device))
        } else if tiedEmbeddings, let embedding = body.embedding {
            output = builder.projection(embedding)
        } else {
            output = builder.projection(
                try builder.parameter(
                    "lm_head.weight", [shape.vocabulary, shape.hidden], held: body.vocabulary?.rows,
                    gradient: .complete))
        }
        parameters = try builder.finish()
        buffers = builder.buffers
        projections = builder.projections
    }

    public func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor {
        try body.hiddenStates(ids: ids, positions: positions, attention: attention, observe: observe)
    }

    /// A stage of a pipeline: from what the stage before gave (nil on the first) to what the next one goes on with, or on the last to
    /// final normed hidden states.
    public func stageOutput(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, input: Tensor?
    ) throws -> Tensor {
        try body.hiddenStates(ids: ids, positions: positions, attention: attention, input: input, observe: nil)
    }

    /// Rows of what goes from stage to stage in a pass of `tokens`.
    public func stageRows(tokens: Int, attention: any AttentionBackend) -> Int {
        body.layout(tokens: tokens, attention).rows
    }
}
