public import TensorCore

/// A decoder whose head gives a few numbers a token instead of logits: reward models (`…ForSequenceClassification`) and value
/// models (`…ForTokenClassification`, as critics are saved). The head is `score.weight [N, C]`, and `score.bias [N]` where there
/// is one.
public final class ScoringModel: SequenceModel {
    /// Which tokens' numbers are the model's answer.
    public enum Reading: Sendable, Hashable {
        /// The last one's, for the whole sequence.
        case lastToken
        case everyToken
    }

    /// A head for a language model's checkpoint, which has none: weights drawn from a normal distribution, and for
    /// `everyToken` (a value model) a bias of zero.
    public struct NewHead: Sendable, Hashable {
        public var labels: Int
        /// 0: every value starts as 0.
        public var standardDeviation: Double
        public var seed: UInt64
        public var reading: Reading

        public init(
            labels: Int = 1, standardDeviation: Double = 0, seed: UInt64 = 0, reading: Reading = .everyToken
        ) {
            precondition(labels > 0, "a head gives a number at least")
            self.labels = labels
            self.standardDeviation = standardDeviation
            self.seed = seed
            self.reading = reading
        }
    }

    public let parameters, buffers: [Parameter]
    public let projections: [Projection]
    public let score: Projection
    public let reading: Reading
    /// What `transformers` calls such a model; the configuration's `withHead(architecture:labels:)` makes an export one.
    public let architecture: String
    public var shape: ModelShape { body.shape }
    public var parallel: ParallelContext { body.parallel }
    public var labels: Int { score.weight.size(0) }
    public var headProjection: Projection { score }
    public var trainsHeadBesideAdapter: Bool { true }
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

    private let body: DecoderBody

    init(
        _ body: DecoderBody, _ builder: ParameterBuilder, architecture: String, reading: Reading, labels: Int,
        hasBias: Bool
    ) throws {
        self.body = body
        self.architecture = architecture
        self.reading = reading
        score = try builder.linear("score", inputs: body.shape.hidden, outputs: labels, bias: hasBias)
        parameters = try builder.finish()
        projections = builder.projections
        buffers = builder.buffers
    }

    init(_ body: DecoderBody, _ builder: ParameterBuilder, stem: String, newHead: NewHead) throws {
        self.body = body
        reading = newHead.reading
        architecture =
            (stem == "Gemma3" ? "Gemma3Text" : stem)
            + (reading == .everyToken ? "ForTokenClassification" : "ForSequenceClassification")
        let generator = try RandomGenerator(seed: newHead.seed)
        let weight = try Tensor.randomNormal([newHead.labels, body.shape.hidden], generator: generator)
            .multiplied(by: newHead.standardDeviation).to(builder.device, dtype: builder.dtype, copy: true)
        let parameter = builder.newParameter("score.weight", weight)
        var bias: Tensor?
        if reading == .everyToken {
            let zeros = try Tensor.zeros([newHead.labels], dtype: builder.dtype, device: builder.device)
            bias = builder.newParameter("score.bias", zeros)
        }
        score = builder.projection(parameter, bias: bias)
        parameters = try builder.finish()
        projections = builder.projections
        buffers = builder.buffers
    }

    public func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor {
        try body.hiddenStates(ids: ids, positions: positions, attention: attention, observe: observe)
    }

    /// The head's numbers at every token of a pack, float32 `[T, N]`, with gradients: ids and positions int64 `[T]`.
    public func scores(ids: Tensor, positions: Tensor, attention: any AttentionBackend) throws -> Tensor {
        try scored(hiddenStates(ids: ids, positions: positions, attention: attention))
    }

    /// Sequence ranks do the same for all tokens, so that each has a share of the gradient's sum.
    private func scored(_ hidden: Tensor) throws(TorchError) -> Tensor {
        let scores = try score(hidden).to(dtype: .float32)
        guard let sequence = parallel.sequence else { return scores }
        return try scores.scalingGradient(by: 1 / Double(sequence.size))
    }

    /// The head's numbers after hidden states `[T, C]` of any tokens, float32 `[T, N]`, with gradients.
    public func scores(ofHidden hidden_TC: Tensor) throws(TorchError) -> Tensor { try scored(hidden_TC) }

    /// The value of every token of a pack, float32 `[T]`, with gradients.
    /// - Throws: ``ModelError``, `unsupported`, where the head gives more than one number.
    public func tokenValues(ids: Tensor, positions: Tensor, attention: any AttentionBackend) throws -> Tensor {
        guard labels == 1 else {
            throw ModelError(.unsupported, "a value is one number a token; this \(architecture) gives \(labels)")
        }
        return try scores(ids: ids, positions: positions, attention: attention).squeezed(1)
    }

    /// The head's numbers at the last token of each of the pack's segments, float32 `[S, N]`, with gradients. Only a segment that
    /// is nobody's parent ends a sequence.
    ///
    /// `transformers` takes the last token that is not `pad_token_id`, which is the same unless a sequence ends with that token.
    public func sequenceScores(ids: Tensor, positions: Tensor, segments: [PackedSegment]) throws -> Tensor {
        let hidden_TC = try hiddenStates(
            ids: ids, positions: positions, attention: PackedAttention(segments: segments))
        let last = segments.map { Int64($0.start + $0.length - 1) }
        return try scored(hidden_TC.indexSelect(0, Tensor(last, device: ids.device)))
    }
}
