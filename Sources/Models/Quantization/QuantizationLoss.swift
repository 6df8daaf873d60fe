import TensorCore

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// How far the next-token distributions of a model with quantised projections are from its own.
public struct QuantizationLoss: Sendable, Hashable {
    /// Tokens that were predicted.
    public private(set) var tokens = 0
    private var absoluteDifference = 0.0
    private var divergence = 0.0
    private var logLoss = 0.0, quantizedLogLoss = 0.0
    private var sameChoice = 0
    /// The largest |Δ log p| of a token that the text has.
    public private(set) var maxLogProbDifference = 0.0

    public init() {}

    /// Mean |Δ log p| of the tokens that the text has.
    public var meanLogProbDifference: Double { absoluteDifference / Double(tokens) }
    /// Mean KL(full precision ‖ quantised) over the vocabulary, in nats.
    public var meanDivergence: Double { divergence / Double(tokens) }
    /// e to the mean negative log-probability of the text.
    public var perplexity: Double { exp(logLoss / Double(tokens)) }
    public var quantizedPerplexity: Double { exp(quantizedLogLoss / Double(tokens)) }
    /// The share of positions where both find the same token most likely.
    public var agreement: Double { Double(sameChoice) / Double(tokens) }

    /// Adds what one text shows, read by itself.
    ///
    /// - Parameters:
    ///   - model: with quantised copies: `quantizeProjections(_:rows:merging:includingHead:)`.
    ///   - ids: two tokens at least.
    public mutating func add(_ ids: [Int32], model: some CausalLanguageModel) throws {
        precondition(ids.count > 1, "a text of two tokens at least, for the second is predicted")
        try withNoGrad {
            let full = try logProbs(ids, model)
            let rounded = try model.samplingQuantized { try logProbs(ids, model) }
            let targets = try Tensor(ids.dropFirst().map(Int64.init), device: model.device).unsqueezed(1)
            let own = try full.gathered(1, targets), other = try rounded.gathered(1, targets)
            let difference = try own.subtracting(other).abs()
            tokens += ids.count - 1
            absoluteDifference += try difference.sum().item()
            maxLogProbDifference = max(maxLogProbDifference, try difference.max().item())
            divergence += try full.exp().multiplied(by: full.subtracting(rounded)).sum().item()
            logLoss -= try own.sum().item()
            quantizedLogLoss -= try other.sum().item()
            sameChoice += Int(try full.argmax(1).equal(to: rounded.argmax(1)).to(dtype: .int64).sum().item())
        }
    }

    /// `[tokens - 1, V]`, each row what follows that token.
    private func logProbs(_ ids: [Int32], _ model: some CausalLanguageModel) throws -> Tensor {
        let hidden = try model.hiddenStates(
            ids: Tensor(ids.map(Int64.init), device: model.device),
            positions: Tensor.arange(0..<ids.count, device: model.device),
            attention: PackedAttention(segments: [PackedSegment(start: 0, length: ids.count)]))
        return try model.logits(hidden.narrowed(0, 0..<ids.count - 1)).to(dtype: .float32).logSoftmax(1)
    }
}
