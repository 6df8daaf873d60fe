public import Models
public import TensorCore

/// What a forward pass over a pack gives, one row a sequence, padded on the right to `[B, L]`.
public struct ResponseOutputs {
    /// float32 `[B, L]`; 0 where there is no token.
    public var logProbs, entropies: Tensor
    /// float32 `[B, L]`: 1 at answer tokens.
    public var responseMask: Tensor
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
    /// Rows of logits that exist at a time.
    public var logitsChunk: Int
    public var sharesPrefixes: Bool
    public var recordsRouting: Bool

    public init(
        model: any CausalLanguageModel, temperature: Double = 1, logitsChunk: Int = 256, sharesPrefixes: Bool = true,
        recordsRouting: Bool = false
    ) {
        self.recordsRouting = recordsRouting
        self.model = model
        self.temperature = temperature
        self.logitsChunk = logitsChunk
        self.sharesPrefixes = sharesPrefixes
    }

    public func callAsFunction(_ sequences: [TrainingSequence]) throws -> ResponseOutputs {
        let straddles = model.shape.straddlesRotarySwitch(sequences.map { $0.prompt.count + $0.response.count - 1 })
        let pack = Pack(sequences, sharesPrefixes: sharesPrefixes && !straddles)
        let device = model.device
        func hiddenStates() throws -> Tensor {
            try model.hiddenStates(
                ids: Tensor(pack.ids, device: device), positions: Tensor(pack.positions, device: device),
                attention: PackedAttention(segments: pack.segments))
        }
        let hidden_TC: Tensor
        var routing: (RoutingRecord, Tensor)?
        if recordsRouting, model.experts != nil {
            let (states, record) = try model.recordingRouting(hiddenStates)
            (hidden_TC, routing) = (states, (record, try Tensor(pack.sharersOfTokens, device: device)))
        } else {
            hidden_TC = try hiddenStates()
        }
        let (logProbs_R, entropies_R) = try model.tokenLogProbs(
            hidden: hidden_TC.indexSelect(0, Tensor(pack.predictors, device: device)),
            targets: Tensor(pack.targets, device: device), temperature: temperature, chunk: logitsChunk)
        let padding = Padding(lengths: pack.responseLengths)
        return ResponseOutputs(
            logProbs: try padding.pad(logProbs_R), entropies: try padding.pad(entropies_R),
            responseMask: try padding.mask(device: device), computedTokens: pack.tokenCount,
            routing: routing)
    }
}

/// Between values end to end `[R]` and rows padded on the right `[B, L]`.
public struct Padding: Sendable {
    public let lengths: [Int]
    public let width: Int

    public init(lengths: [Int]) {
        self.lengths = lengths
        width = max(1, lengths.max() ?? 0)
    }

    /// Rows padded with 0, with gradients.
    public func pad(_ flat_R: Tensor) throws(TorchError) -> Tensor {
        let total = lengths.reduce(0, +)
        var index = [Int64](repeating: Int64(total), count: lengths.count * width)
        var next: Int64 = 0
        for (row, length) in lengths.enumerated() {
            for column in 0..<length {
                index[row * width + column] = next
                next += 1
            }
        }
        let zero = try Tensor.zeros([1], dtype: flat_R.dtype, device: flat_R.device)
        return try Tensor.concatenate([flat_R, zero])
            .indexSelect(0, Tensor(index, device: flat_R.device)).reshaped([lengths.count, width])
    }

    /// Host values a row, padded.
    public func pad(_ rows: [[Float]], device: Device) throws(TorchError) -> Tensor {
        var flat = [Float](repeating: 0, count: lengths.count * width)
        for (row, values) in rows.enumerated() {
            precondition(
                values.count == lengths[row], "row \(row) has \(values.count) values for \(lengths[row]) tokens")
            for (column, value) in values.enumerated() { flat[row * width + column] = value }
        }
        return try Tensor(flat, shape: [lengths.count, width], device: device)
    }

    public func mask(device: Device) throws(TorchError) -> Tensor {
        try pad(lengths.map { [Float](repeating: 1, count: $0) }, device: device)
    }

    /// The rows of a padded `[B, L]` tensor without their padding.
    public func rows(_ padded_BL: Tensor) throws(TorchError) -> [[Float]] {
        let flat = try padded_BL.values(Float.self)
        return lengths.enumerated().map { row, length in Array(flat[row * width..<row * width + length]) }
    }
}
