public import Models
public import TensorCore

/// What a forward pass over a pack gives, one row a sequence, padded on the right to `[B, L]`.
public struct ResponseOutputs {
    /// float32 `[B, L]`; 0 where there is no token.
    public var logProbs, entropies: Tensor
    /// float32 `[B, L]`: 1 at answer tokens.
    public var responseMask: Tensor
    /// What a value head gives at each answer token's predictor, float32 `[B, L]`; nil without one.
    public var values: Tensor?
    /// Tokens that the pass computed: shared ones count once.
    public var computedTokens: Int
    /// What the routers of a mixture of experts decided, where it was asked for, and how many sequences each of the pack's
    /// tokens stands for, float32 `[T]`.
    public var routing: (record: RoutingRecord, tokenWeights: Tensor)?
}

/// The one forward pass of training: pack, hidden states, log-probabilities of the answers in chunks.
public struct PackedForward {
    public let model: any CausalLanguageModel
    public var temperature: Double
    /// Rows of logits that exist at a time; nil: as many as suit the device.
    public var logitsChunk: Int?
    public var sharesPrefixes: Bool
    public var recordsRouting: Bool
    /// What reads values off the last layer; nil: nothing does.
    public var valueHead: ValueHead?
    public var kernels: AttentionPlan.Kernels

    public init(
        model: any CausalLanguageModel, temperature: Double = 1, logitsChunk: Int? = nil, sharesPrefixes: Bool = true,
        recordsRouting: Bool = false, kernels: AttentionPlan.Kernels = .fastest
    ) {
        self.kernels = kernels
        self.recordsRouting = recordsRouting
        self.model = model
        self.temperature = temperature
        self.logitsChunk = logitsChunk
        self.sharesPrefixes = sharesPrefixes
    }

    public func callAsFunction(_ sequences: [TrainingSequence]) throws -> ResponseOutputs {
        let pack = pack(sequences)
        guard recordsRouting, model.experts != nil else { return try outputs(hiddenStates(pack), pack) }
        let (states, record) = try model.recordingRouting { try hiddenStates(pack) }
        var outputs = try outputs(states, pack)
        outputs.routing = (record, try Tensor(uploading: pack.sharersOfTokens, to: model.device))
        return outputs
    }

    /// What the last layer's hidden states of a pack give.
    func outputs(_ hidden_TC: Tensor, _ pack: Pack) throws(TorchError) -> ResponseOutputs {
        let device = model.device
        let head = try model.tokenLogProbs(
            hidden: predicting(hidden_TC, pack), targets: Tensor(uploading: pack.headRows.targets, to: device),
            temperature: temperature, chunk: logitsChunk)
        let padding = Padding(lengths: pack.responseLengths)
        return ResponseOutputs(
            logProbs: try padding.pad(ofAnswerTokens(head.logProbs, pack)),
            entropies: try padding.pad(ofAnswerTokens(head.entropies, pack)),
            responseMask: try padding.mask(device: device),
            values: try valueHead.map { head throws(TorchError) in
                try padding.pad(ofAnswerTokens(head(predicting(hidden_TC, pack)), pack))
            }, computedTokens: pack.tokenCount)
    }

    /// Σπ² of the distribution that each answer token was drawn from, float32 `[B, L]`, without gradients. Of models with whole
    /// logits on one rank.
    public func sumsPiSquared(_ sequences: [TrainingSequence]) throws -> Tensor {
        try withNoGrad {
            let pack = pack(sequences)
            let hidden_HC = try predicting(hiddenStates(pack), pack), count = hidden_HC.size(0)
            var parts: [Tensor] = []
            // A chunk is as large as its logits and two copies of them.
            let rows = logitsChunk ?? (model.device.isCUDA ? 1024 : 256)
            for start in stride(from: 0, to: count, by: rows) {
                let hidden = try hidden_HC.narrowed(0, start..<min(start + rows, count))
                let logits = try model.logits(hidden).to(dtype: .float32).divided(by: temperature)
                parts.append(try logits.softmax(-1).squared().sum(-1))
            }
            return try Padding(lengths: pack.responseLengths).pad(ofAnswerTokens(Tensor.concatenate(parts), pack))
        }
    }

    /// Forward and backward at once of a loss whose gradients are known before it, logits computed once: the sum over answer
    /// tokens of `logProbGrads` times their log-probabilities, and of `entropyGrads` times their entropies. Likelihood with given
    /// weights is one (`-weight / total`), the policy gradient of samples that are on policy another.
    ///
    /// Call it where gradients are recorded; the parameters have theirs afterwards.
    /// - Parameters: one row a sequence, one value an answer token; nil entropy gradients are zeros.
    public func backward(
        _ sequences: [TrainingSequence], logProbGrads: [[Float]], entropyGrads: [[Float]]? = nil
    ) throws -> BackwardOutputs {
        let (outputs, start) = try headBackward(sequences, logProbGrads: logProbGrads, entropyGrads: entropyGrads)
        // Where only the head is trained, nothing below it is recorded.
        if start.tensor.requiresGrad { try start.tensor.backward(start.gradient) }
        return outputs
    }

    /// The same as far as the head goes: its weight has its gradient afterwards, and `start` is where to go on.
    public func headBackward(
        _ sequences: [TrainingSequence], logProbGrads: [[Float]], entropyGrads: [[Float]]? = nil
    ) throws -> (outputs: BackwardOutputs, start: BackwardStart) {
        let pack = pack(sequences), device = model.device
        func byRow(_ values: [[Float]]) throws(TorchError) -> Tensor {
            precondition(values.map(\.count) == pack.responseLengths, "one value an answer token")
            return try Tensor(uploading: pack.headRows.sums(values.flatMap { $0 }), to: device)
        }
        let g_H = try byRow(logProbGrads)
        let ge_H = try entropyGrads.map { values throws(TorchError) in try byRow(values) }
        let hidden_HC = try predicting(hiddenStates(pack), pack)
        let head = try model.tokenLoss(
            hidden: hidden_HC, targets: Tensor(uploading: pack.headRows.targets, to: device), logProbGrads: g_H,
            entropyGrads: ge_H, temperature: temperature, chunk: logitsChunk)
        var loss = try g_H.multiplied(by: head.logProbs).sum()
        if let ge_H { loss = try loss.adding(ge_H.multiplied(by: head.entropies).sum()) }
        let outputs = BackwardOutputs(
            loss: loss, logProbs: try ofAnswerTokens(head.logProbs, pack),
            entropies: try ofAnswerTokens(head.entropies, pack), computedTokens: pack.tokenCount)
        return (outputs, BackwardStart(hidden_HC, gradient: head.hiddenGrad))
    }

    func pack(_ sequences: [TrainingSequence]) -> Pack {
        let straddles = model.shape.straddlesRotarySwitch(sequences.map { $0.prompt.count + $0.response.count - 1 })
        return Pack(sequences, sharesPrefixes: sharesPrefixes && !straddles)
    }

    /// The hidden states of the head's rows, `[H, C]`.
    private func predicting(_ hidden_TC: Tensor, _ pack: Pack) throws(TorchError) -> Tensor {
        if pack.predictsAll { return hidden_TC }
        return try hidden_TC.indexSelect(0, Tensor(uploading: pack.headRows.predictors, to: model.device))
    }

    /// What the head's rows `[H]` are for every answer token, `[R]`.
    private func ofAnswerTokens(_ byRow_H: Tensor, _ pack: Pack) throws(TorchError) -> Tensor {
        if pack.headRows.isOnePerToken { return byRow_H }
        return try byRow_H.indexSelect(0, Tensor(uploading: pack.headRows.ofAnswerTokens, to: model.device))
    }

    private func hiddenStates(_ pack: Pack) throws -> Tensor {
        let batch = try batch(pack)
        return try model.hiddenStates(ids: batch.ids, positions: batch.positions, attention: batch.attention)
    }

    /// A pack as the model reads it.
    func batch(_ pack: Pack) throws(TorchError) -> PipelineSchedule.MicroBatch {
        PipelineSchedule.MicroBatch(
            ids: try Tensor(uploading: pack.ids, to: model.device),
            positions: try Tensor(uploading: pack.positions, to: model.device),
            attention: PackedAttention(segments: pack.segments, kernels: kernels))
    }
}

/// What ``PackedForward/backward(_:logProbGrads:entropyGrads:)`` gives, without gradients.
public struct BackwardOutputs {
    /// A float32 scalar.
    public let loss: Tensor
    /// Of all answer tokens, sequence after sequence, float32 `[R]`.
    public let logProbs, entropies: Tensor
    /// Tokens that the pass computed: shared ones count once.
    public let computedTokens: Int
}
