public import Models
public import TensorCore

/// A scoring model's numbers for whole sequences: pack, hidden states, the head at each sequence's last token.
public struct ScoringForward {
    public let model: ScoringModel
    public var sharesPrefixes: Bool

    public init(model: ScoringModel, sharesPrefixes: Bool = true) {
        self.model = model
        self.sharesPrefixes = sharesPrefixes
    }

    /// - Returns: float32 `[R]` with gradients, and the tokens that were computed.
    /// - Throws: ``ModelError``, `unsupported`, where the head gives more than one number.
    public func callAsFunction(_ sequences: [TrainingSequence]) throws -> (scores: Tensor, computedTokens: Int) {
        guard model.labels == 1 else {
            throw ModelError(
                .unsupported, "a reward is one number; the head of this \(model.architecture) gives \(model.labels)")
        }
        let straddles = model.shape.straddlesRotarySwitch(sequences.map { $0.prompt.count + $0.response.count })
        // A pack leaves the last token of a response out, which a score is read at: one more follows it here.
        let longer = sequences.map { TrainingSequence(prompt: $0.prompt, response: $0.response + [0]) }
        let pack = Pack(longer, sharesPrefixes: sharesPrefixes && !straddles)
        var end = 0
        let last = pack.responseLengths.map { length in
            end += length
            return pack.predictors[end - 1]
        }
        let device = model.device
        let hidden_TC = try model.hiddenStates(
            ids: Tensor(uploading: pack.ids, to: device), positions: Tensor(uploading: pack.positions, to: device),
            attention: PackedAttention(segments: pack.segments))
        // Sequence ranks all read the same hidden states: the model counts their gradients once.
        let scores_R1 = try model.scores(ofHidden: hidden_TC.indexSelect(0, Tensor(uploading: last, to: device)))
        return (try scores_R1.squeezed(1), pack.tokenCount)
    }
}
