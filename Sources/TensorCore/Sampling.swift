internal import CTorch

/// How one row's next token is drawn.
public struct RowSampling: Sendable, Hashable {
    /// 0 or less: the most likely token.
    public var temperature: Double
    /// 0 or less: off.
    public var topK: Int
    /// 1: off.
    public var topP: Double
    /// 0: off.
    public var minP: Double
    /// A uniform draw in [0, 1) that decides the token.
    public var uniform: Double

    public init(temperature: Double = 1, topK: Int = 0, topP: Double = 1, minP: Double = 0, uniform: Double = 0) {
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.uniform = uniform
    }

    /// Whether any filter leaves out tokens of a vocabulary of this size.
    public func isFiltered(vocabulary: Int) -> Bool { (topK > 0 && topK < vocabulary) || topP < 1 || minP > 0 }
}

/// What ``Tensor/draw(_:)`` needs of each row, as contiguous tensors `[B]` on the logits' device; slices of one larger
/// buffer do.
///
/// Floats are float64 (or float32) on the CPU, and float32 on CUDA.
public struct SamplingTerms {
    /// Which tokens may be drawn: min-p against the likeliest token, then the top k, then the nucleus of what is left.
    public struct Filters {
        /// int32; 0 or less: off.
        public var topK: Tensor
        /// 1: off.
        public var topP: Tensor
        /// 0: off.
        public var minP: Tensor

        public init(topK: Tensor, topP: Tensor, minP: Tensor) {
            self.topK = topK
            self.topP = topP
            self.minP = minP
        }
    }

    /// 0 or less: greedy.
    public var temperatures: Tensor
    /// In [0, 1); see ``narrowed(uniform:)`` for float32.
    public var uniforms: Tensor
    /// nil: no row of the batch is filtered, which is fastest. What a row draws does not depend on whether another is
    /// filtered.
    public var filters: Filters?

    public init(temperatures: Tensor, uniforms: Tensor, filters: Filters? = nil) {
        self.temperatures = temperatures
        self.uniforms = uniforms
        self.filters = filters
    }

    /// Uploads the terms of rows over a vocabulary of `vocabulary` tokens.
    public init(_ rows: [RowSampling], vocabulary: Int, device: Device) throws(TorchError) {
        func column(_ value: (RowSampling) -> Double) throws(TorchError) -> Tensor {
            device == .cpu
                ? try Tensor(rows.map(value)) : try Tensor(rows.map { Float(value($0)) }, device: device)
        }
        temperatures = try column(\.temperature)
        uniforms =
            device == .cpu
            ? try column(\.uniform)
            : try Tensor(rows.map { Self.narrowed(uniform: $0.uniform) }, device: device)
        guard rows.contains(where: { $0.isFiltered(vocabulary: vocabulary) }) else { return }
        filters = Filters(
            topK: try Tensor(rows.map { Int32(clamping: $0.topK) }, device: device), topP: try column(\.topP),
            minP: try column(\.minP))
    }

    /// A uniform number as float32: cut to 24 bits, as rounding could give 1.
    public static func narrowed(uniform: Double) -> Float { Float((uniform * 0x1p24).rounded(.down)) * 0x1p-24 }
}

/// What is done to single logits before a draw, as contiguous tensors `[N]` on the logits' device: `x` becomes `x /
/// factor` where it is positive and `x · factor` elsewhere (Keskar et al. 2019, repetition penalty), then `offset` is
/// added (presence and frequency penalties, bias; minus infinity forbids the token). No (row, token) may come twice.
public struct LogitAdjustments {
    /// int32; below 0: the entry is padding.
    public var rows: Tensor
    /// int32, below the vocabulary's size.
    public var tokens: Tensor
    /// float32; 1: off.
    public var factors: Tensor
    /// float32; 0: off.
    public var offsets: Tensor

    public init(rows: Tensor, tokens: Tensor, factors: Tensor, offsets: Tensor) {
        self.rows = rows
        self.tokens = tokens
        self.factors = factors
        self.offsets = offsets
    }
}

/// The likeliest tokens of each row, and where the chosen one stands.
public struct TopLogProbs {
    /// int32 `[B, count]`, likeliest first.
    public let tokens: Tensor
    /// float32 `[B, count]`.
    public let logProbs: Tensor
    /// float32 `[B]`.
    public let chosenLogProbs: Tensor
    /// int32 `[B]`: 1 and one more for every token likelier than the chosen.
    public let chosenRanks: Tensor
}

extension Tensor {
    /// Draws one token a row of `self [B, V]` by inverse transform: tokens int32 `[B]` and their log-probabilities
    /// float32 `[B]`, on the logits' device. The log-probabilities are those of the distribution at the row's
    /// temperature before any filter; for a greedy row, at temperature 1.
    ///
    /// On CUDA nothing waits for the device, nothing is copied to it, and one row's draw depends on that row alone. A
    /// row whose logits are not finite gets token 0 and a log-probability of NaN there; on the CPU it throws.
    public func draw(_ terms: SamplingTerms) throws(TorchError) -> (tokens: Tensor, logProbs: Tensor) {
        precondition(rank == 2, "logits are [B, V]")
        let tokens = try Tensor.empty([size(0)], dtype: .int32, device: device)
        let logProbs = try Tensor.empty([size(0)], dtype: .float32, device: device)
        try draw(terms, tokens: tokens, logProbs: logProbs)
        return (tokens, logProbs)
    }

    /// The same into tensors that are there already: `tokens` int32 and `logProbs` float32, both contiguous `[B]`.
    public func draw(_ terms: SamplingTerms, tokens: Tensor, logProbs: Tensor) throws(TorchError) {
        let sampling = ct_sampling(
            temperatures: terms.temperatures.raw, uniforms: terms.uniforms.raw, top_k: terms.filters?.topK.raw,
            top_p: terms.filters?.topP.raw, min_p: terms.filters?.minP.raw)
        try withExtendedLifetime(terms) { () throws(TorchError) in
            try check("draw", [self, terms.temperatures]) { ct_draw(raw, sampling, tokens.raw, logProbs.raw, $0) }
        }
    }

    /// Draws one token a row of `self [B, V]` and waits for it. The log-probabilities are those of ``draw(_:)``.
    /// - Throws: ``TorchError`` when a row's logits are not finite.
    public func sample(_ rows: [RowSampling]) throws(TorchError) -> (tokens: [Int64], logProbs: [Float]) {
        precondition(rank == 2 && rows.count == size(0), "one RowSampling a row")
        let drawn = try draw(SamplingTerms(rows, vocabulary: size(1), device: device))
        let tokens = try drawn.tokens.values(Int64.self), logProbs = try drawn.logProbs.values(Float.self)
        if let row = logProbs.firstIndex(where: \.isNaN) {
            throw TorchError(
                code: .operation, operation: "sample", message: "sampling: the logits of row \(row) are not finite",
                operands: [summary])
        }
        return (tokens, logProbs)
    }

    /// Changes single logits of `self [B, V]`, float32 or bfloat16, in place. What is added to a bfloat16 logit is
    /// rounded with it: a penalty of 0.05 vanishes beside a logit of 20, so convert to float32 first where penalties
    /// matter.
    public func adjust(_ entries: LogitAdjustments) throws(TorchError) {
        try check("adjust", [self, entries.rows]) {
            ct_adjust_(raw, entries.rows.raw, entries.tokens.raw, entries.factors.raw, entries.offsets.raw, $0)
        }
    }

    /// The `count` likeliest tokens of each row of logits `self [B, V]`, and the log-probability and rank of the
    /// `chosen` ones (int32 or int64 `[B]`), on the logits' device. `temperatures [B]` as for a draw; nil: 1.
    public func topLogProbs(count: Int, chosen: Tensor, temperatures: Tensor? = nil) throws(TorchError) -> TopLogProbs {
        var tokens: ct_tensor?, logProbs: ct_tensor?, chosenLogProbs: ct_tensor?, ranks: ct_tensor?
        try check("topLogProbs(\(count))", [self, chosen]) {
            ct_top_log_probs(
                raw, temperatures?.raw, chosen.raw, Int64(count), &tokens, &logProbs, &chosenLogProbs, &ranks, $0)
        }
        guard let tokens, let logProbs, let chosenLogProbs, let ranks else {
            preconditionFailure("topLogProbs gave nothing")
        }
        return TopLogProbs(
            tokens: Tensor(owning: tokens), logProbs: Tensor(owning: logProbs),
            chosenLogProbs: Tensor(owning: chosenLogProbs), chosenRanks: Tensor(owning: ranks))
    }
}
