import Models
import TensorCore

/// Floating-point operations of one training step, a multiply and an add being two. The head counts as any other matrix product;
/// causal attention counts half of its square; embeddings look up and cost nothing.
public struct TrainingCost: Sendable, Hashable {
    /// Tokens of the batch, each sequence counted whole.
    public private(set) var tokens: Int
    /// What a step needs: forward, and twice as much backward. Attention is that of rows that share nothing.
    public private(set) var useful: Double
    /// The same and what layers compute again, the head where its logits are computed twice.
    public private(set) var computed: Double

    /// 6 N + 6 L S H D a token (forward alone: a third), N being the weights that are multiplied with, S a row's length.
    init(_ sizes: DecoderSizes, _ settings: TrainingBenchmark.Settings) {
        tokens = settings.tokens
        let products = 2 * Double(sizes.productWeights), head = 2 * Double(sizes.vocabulary * sizes.hidden)
        let attention =
            2 * Double(sizes.layers) * Double(settings.sequenceLength) * Double(sizes.queryHeads * sizes.headDim)
        let forward = products + attention
        guard settings.objective != .score else {
            useful = Double(tokens) * forward
            computed = useful
            return
        }
        let again = (0..<sizes.layers).reduce(0.0) {
            $0 + Self.again(sizes, settings.checkpointing.mode(layer: $1), attention: attention / Double(sizes.layers))
        }
        useful = Double(tokens) * 3 * forward
        computed = useful + Double(tokens) * (again + (settings.objective == .policy ? head : 0))
    }

    /// The same for several batches at once.
    func multiplied(by count: Int) -> TrainingCost {
        var all = self
        all.tokens *= count
        all.useful *= Double(count)
        all.computed *= Double(count)
        return all
    }

    /// What one layer computes again, of one token: all but its last product, less what it has kept.
    private static func again(
        _ sizes: DecoderSizes, _ mode: ActivationCheckpointing.Mode, attention: Double
    ) -> Double {
        let kept: KeptActivations
        switch mode {
        case .none: return 0
        case .full: kept = []
        case .selective(let some): kept = some
        }
        let width = sizes.queryHeads * sizes.headDim
        var again = 2 * Double(sizes.hidden * width)
        if !kept.contains(.attention) { again += attention }
        if !kept.contains(.queryKeyValue) {
            again += 2 * Double(sizes.hidden * (width + 2 * sizes.keyValueHeads * sizes.headDim))
        }
        if !kept.contains(.gateUp) { again += 2 * Double(sizes.hidden * 2 * sizes.intermediate) }
        return again
    }
}
