public import TensorCore

/// Supervised fine-tuning on log-probabilities of the wanted tokens: the sum over the mask divided by the whole batch's count, so
/// that the shares of any split add up.
///
/// Source: TRL `SFTTrainer.compute_loss`; verl `workers.utils.losses.sft_loss`.
public struct SFTLoss: Sendable, Hashable {
    public enum Kind: String, Sendable, Hashable, CaseIterable {
        case nll
        /// Each token weighted by its own probability, a constant (Wu et al. 2025, dynamic fine-tuning).
        case dft
    }
    public var kind: Kind
    public init(_ kind: Kind = .nll) { self.kind = kind }

    /// - Parameters: logProbs (trainable) and mask of any one shape, aligned: a mask's 1 stands at the place where its token is
    ///   predicted. Without totals the mask's own count divides; a batch without a wanted token has loss 0.
    public func callAsFunction(
        _ logProbs: Tensor, mask: Tensor, totals: LossAggregation.Totals = .init()
    ) throws(TorchError) -> Tensor {
        let losses = try logProbs.negated()
        let weighted = kind == .dft ? try losses.multiplied(by: logProbs.detached().exp()) : losses
        let sum = try Masked.sum(weighted, mask).multiplied(by: Double(totals.ranks))
        guard let tokens = totals.tokens else { return try sum.divided(by: mask.sum().clamped(min: 1)) }
        return try sum.divided(by: Double(max(1, tokens)))
    }

    /// The mask for log-probabilities at the places where tokens are predicted, from one at the places where they stand: each
    /// sequence's mask one place to the left. What no place predicts, a sequence's first token, is not counted.
    ///
    /// - Parameters: mask `[N]` of packed sequences with these lengths.
    /// - Throws: ``AlgorithmError`` (`mismatch`) where the lengths do not add up to N.
    public static func predictingMask(_ mask: Tensor, lengths: [Int]) throws -> Tensor {
        guard lengths.reduce(0, +) == mask.count, lengths.allSatisfy({ $0 > 0 }) else {
            throw AlgorithmError(.mismatch, "sft", "sequences of \(lengths) tokens in a mask of \(mask.count)")
        }
        var start = 0
        let end = try Tensor.zeros([1], dtype: mask.dtype, device: mask.device)
        return try Tensor.concatenate(
            lengths.flatMap { length in
                defer { start += length }
                return try [mask.narrowed(0, start + 1..<start + length), end]
            })
    }

    public struct Result {
        public let loss: Tensor
        /// Means over this call's wanted tokens; 0 without any.
        public let entropy, accuracy: Tensor
    }

    /// Labels of −100 are ignored.
    public static let ignoredLabel = -100

    /// - Parameters: logits `[B, T, V]` (trainable) predict labels int64 `[B, T]` one position on.
    public func callAsFunction(
        logits: Tensor, labels: Tensor, totals: LossAggregation.Totals = .init()
    ) throws(TorchError) -> Result {
        let length = labels.size(1)
        let predicting = try logits.narrowed(1, 0..<length - 1), wanted = try labels.narrowed(1, 1..<length)
        let isWanted = try wanted.notEqual(to: Double(Self.ignoredLabel))
        let mask = try isWanted.to(dtype: .float32)
        let safe = try wanted.maskedFill(isWanted.logicalNot(), 0)
        let loss = try self(TokenDistribution.logProbs(predicting, labels: safe), mask: mask, totals: totals)
        return try withNoGrad { () throws(TorchError) in
            let count = try mask.sum().clamped(min: 1)
            let isRight = try predicting.argmax(-1).equal(to: wanted).to(dtype: .float32)
            return Result(
                loss: loss,
                entropy: try Masked.sum(TokenDistribution.entropy(predicting), mask).divided(by: count),
                accuracy: try Masked.sum(isRight, mask).divided(by: count))
        }
    }
}
