public import TensorCore

/// Numbers that the engines need of any decoder, whatever its family.
public struct ModelShape: Sendable, Hashable {
    public var vocabulary, hidden, layers, queryHeads, keyValueHeads, headDim: Int
    /// Key-value heads whose keys and values this process keeps: all, unless tensor ranks share them.
    public var rankKeyValueHeads: Int
    /// Size of a value head; that of a key head but for latent attention.
    public var valueHeadDim: Int
    /// The longest sequence that the checkpoint says it knows.
    public var maxPositions: Int

    /// A length at which the rotary frequencies of a whole sequence change (LongRoPE): a sequence that is generated must not grow
    /// across it, for its cached keys were rotated by the others. Nil where they never change.
    public var rotarySwitch: Int?

    /// The length up to which one set of rotary frequencies serves every sequence: longer ones share no prefix with others. Nil
    /// where it serves all.
    public var rotaryLimit: Int?

    public init(
        vocabulary: Int, hidden: Int, layers: Int, queryHeads: Int, keyValueHeads: Int, headDim: Int,
        valueHeadDim: Int? = nil, maxPositions: Int, rotarySwitch: Int? = nil
    ) {
        self.vocabulary = vocabulary
        self.hidden = hidden
        self.layers = layers
        self.queryHeads = queryHeads
        self.keyValueHeads = keyValueHeads
        rankKeyValueHeads = keyValueHeads
        self.headDim = headDim
        self.valueHeadDim = valueHeadDim ?? headDim
        self.maxPositions = maxPositions
        self.rotarySwitch = rotarySwitch
    }

    /// Whether sequences of these lengths need different rotary frequencies, and so cannot share a prefix.
    public func straddlesRotarySwitch(_ lengths: [Int]) -> Bool {
        guard let rotarySwitch else { return false }
        return lengths.contains { $0 <= rotarySwitch } && lengths.contains { $0 > rotarySwitch }
    }

    /// Whether one set of rotary frequencies serves sequences of up to `length` tokens, so that they may share prefixes.
    public func sharesRotary(upTo length: Int) -> Bool { rotaryLimit.map { length <= $0 } ?? true }
}

/// A decoder without its head: token ids in, hidden states out. The same call serves packed training, prefill and cached decoding.
public protocol SequenceModel: AnyObject {
    var shape: ModelShape { get }
    /// Every parameter, the head's included, in the model's order.
    var parameters: [Parameter] { get }
    /// What the checkpoint holds besides: read and exported, but not trained.
    var buffers: [Parameter] { get }
    /// The model's experts; nil where no layer has any.
    var experts: ExpertShape? { get }
    /// Where forward passes note what their routers decide; nil: nowhere. See ``recordingRouting(_:)``.
    var routingRecord: RoutingRecord? { get set }
    /// Every weight that is multiplied with, the head among them.
    var projections: [Projection] { get }
    /// What turns hidden states into the model's answer; it never gets an adapter.
    var headProjection: Projection { get }
    /// Whether the head is trained whole where an adapter is trained in place of the other weights: a head that no checkpoint
    /// holds yet must be.
    var trainsHeadBesideAdapter: Bool { get }
    /// How ranks share the model; this object is one rank's part.
    var parallel: ParallelContext { get }
    /// What layers keep between forward and backward; the rest is computed again.
    var checkpointing: ActivationCheckpointing { get set }
    /// Where what checkpointed layers keep waits for backward; nil: on the device.
    var activationOffload: ActivationOffload? { get set }
    /// What hears of each pass's way through the layers.
    var layerHooks: (any LayerHooks)? { get set }

    /// Final normed hidden states `[T, C]` of `ids` (int64 `[T]`) at `positions` (int64 `[T]`).
    /// `observe` sees the input of the first layer (index 0), each layer's output, and the final norm's in place of the last.
    func hiddenStates(
        ids: Tensor, positions: Tensor, attention: any AttentionBackend, observe: ((Int, Tensor) -> Void)?
    ) throws -> Tensor
}

/// A decoder whose hidden states become logits over its vocabulary.
public protocol CausalLanguageModel: SequenceModel {
    /// The output projection `[V, C]`; its weight is the input embedding itself where they are tied.
    var output: Projection { get }
    /// What turns `output`'s products into logits.
    var logitsTransform: LogitsTransform { get }
    /// How tensor ranks share the rows of `output`; nil: this process has all of them.
    var vocabulary: VocabularyShare? { get }
}

extension CausalLanguageModel {
    public var headProjection: Projection { output }
    public var trainsHeadBesideAdapter: Bool { false }

    public var vocabulary: VocabularyShare? { nil }

    /// Logits `[T, V]` of hidden states `[T, C]`; ranks that share the vocabulary tell each other theirs.
    public func logits(_ hidden: Tensor) throws(TorchError) -> Tensor {
        var products = try output(hidden)
        if let vocabulary { products = try products.gatheredColumns(of: vocabulary.group, total: vocabulary.total) }
        if let sequence = parallel.sequence { products = try products.scalingGradient(by: 1 / Double(sequence.size)) }
        return try logitsTransform(products)
    }

    /// Log-probabilities of `targets` (int64 `[T]`) and entropies, both float32 `[T]`, after hidden states `[T, C]`: what the
    /// log-softmax of ``logits(_:)`` over `temperature` gives, with no more than `chunk` rows of logits at a time. Ranks that share
    /// the vocabulary, or tokens, each compute a part of it and all get the whole.
    public func tokenLogProbs(
        hidden: Tensor, targets: Tensor, temperature: Double = 1, chunk: Int? = nil
    ) throws(TorchError) -> (logProbs: Tensor, entropies: Tensor) {
        func own(_ hidden: Tensor, _ targets: Tensor) throws(TorchError) -> (logProbs: Tensor, entropies: Tensor) {
            if let vocabulary {
                return try Tensor.tokenLogProbs(
                    hidden: hidden, weight: head, share: vocabulary, targets: targets, temperature: temperature,
                    transform: logitsTransform, chunk: chunk)
            }
            return try Tensor.tokenLogProbs(
                hidden: hidden, weight: head, targets: targets, temperature: temperature, transform: logitsTransform,
                chunk: chunk)
        }
        guard let sequence = parallel.sequence else { return try own(hidden, targets) }
        let parts = try own(hidden.ownRows(in: sequence), targets.ownRows(in: sequence)), total = targets.size(0)
        return (
            try parts.logProbs.gatheredRows(of: sequence, total: total, gradient: .own),
            try parts.entropies.gatheredRows(of: sequence, total: total, gradient: .own)
        )
    }

    /// Forward and backward of the head at once, where d loss / d log-probability, and d loss / d entropy unless it is zero, are
    /// known beforehand, float32 `[T]` each. See ``Tensor/tokenLoss(hidden:weight:targets:logProbGrads:entropyGrads:temperature:transform:chunk:)``.
    public func tokenLoss(
        hidden: Tensor, targets: Tensor, logProbGrads: Tensor, entropyGrads: Tensor? = nil, temperature: Double = 1,
        chunk: Int? = nil
    ) throws(TorchError) -> TokenLoss {
        if vocabulary != nil || parallel.sequence != nil {
            // Ranks must know one another's statistics before the gradients: two passes over the logits.
            return try sharedTokenLoss(hidden, targets, logProbGrads, entropyGrads, temperature, chunk)
        }
        return try Tensor.tokenLoss(
            hidden: hidden, weight: head, targets: targets, logProbGrads: logProbGrads, entropyGrads: entropyGrads,
            temperature: temperature, transform: logitsTransform, chunk: chunk)
    }

    private func sharedTokenLoss(
        _ hidden: Tensor, _ targets: Tensor, _ logProbGrads: Tensor, _ entropyGrads: Tensor?, _ temperature: Double,
        _ chunk: Int?
    ) throws(TorchError) -> TokenLoss {
        try withGrad { () throws(TorchError) in
            let leaf = try hidden.detached()
            try leaf.setRequiresGrad()
            let (logProbs, entropies) = try tokenLogProbs(
                hidden: leaf, targets: targets, temperature: temperature, chunk: chunk)
            var loss = try logProbs.multiplied(by: logProbGrads).sum()
            if let entropyGrads { loss = try loss.adding(entropies.multiplied(by: entropyGrads).sum()) }
            try loss.backward()
            guard let gradient = try leaf.grad() else {
                preconditionFailure("a loss without its hidden states' gradient")
            }
            return TokenLoss(
                logProbs: try logProbs.detached(), entropies: try entropies.detached(), hiddenGrad: gradient)
        }
    }

    /// The weight of the output projection, `[V, C]`. Its products are not logits where ``logitsTransform`` is not the identity.
    public var head: Tensor { output.weight }
}

extension SequenceModel {
    public var parallel: ParallelContext { ParallelContext() }

    public func hiddenStates(ids: Tensor, positions: Tensor, attention: any AttentionBackend) throws -> Tensor {
        try hiddenStates(ids: ids, positions: positions, attention: attention, observe: nil)
    }

    /// Runs `body` and gives, beside its result, what the routers decided in the forward pass that it made. Their logits have
    /// gradients where gradients are recorded, with layers run again in backward too.
    public func recordingRouting<Result>(_ body: () throws -> Result) rethrows -> (Result, RoutingRecord) {
        let record = RoutingRecord(), before = routingRecord
        routingRecord = record
        defer { routingRecord = before }
        return (try body(), record)
    }

    /// Lays the weights out for decoding about `rows` sequences on the CPU; does nothing on other devices. Call
    /// ``unpackProjections()`` before the weights change.
    /// - Parameter merging: lays an adapter's product in, so that it costs nothing more to decode with.
    public func packProjections(rows: Int, merging: Bool = false) throws(TorchError) {
        for projection in projections { try projection.pack(rows: rows, merging: merging) }
    }
    public func unpackProjections() { for projection in projections { projection.unpack() } }
    /// What the copies of weights take, packed or quantised, in bytes.
    public var copyBytes: Int { projections.reduce(0) { $0 + $1.copyBytes } }
    public var isPacked: Bool { projections.contains(where: \.isPacked) }

    public var dtype: DType { parameters[0].tensor.dtype }
    public var device: Device { parameters[0].tensor.device }
    public var parameterCount: Int { parameters.reduce(0) { $0 + $1.tensor.count } }

    /// Every tensor under its checkpoint name, as views.
    public func namedTensors() throws(TorchError) -> [(name: String, tensor: Tensor)] {
        var all: [(String, Tensor)] = []
        for parameter in parameters + buffers { all += try parameter.split() }
        return all
    }
}
