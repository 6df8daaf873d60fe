import PolicyAlgorithms
import TensorCore
import Testing

/// Losses on pairs against values that TRL 1.16's own code gave for the same numbers (`DPOTrainer._compute_loss`,
/// `RewardTrainer.compute_loss`); `conservative` against TRL 0's sigmoid loss with label smoothing.
@Suite struct PreferenceValueTests {
    struct Expected: Sendable, CustomTestStringConvertible {
        var term: DPOLoss.Term
        var labelSmoothing = 0.0
        var loss: Double
        /// Of each answer's first token.
        var gradient: [Double]
        var testDescription: String { term.rawValue }
    }

    static let policy: [Float] = [
        -2.491, -0.378, -2.722, -2.46, -2.76, -0.35, -0.493, -2.214, -0.1, -2.983, -1.819, -1.694, -0.217, -1.978,
        -2.145,
        -1.738, -2.943, -1.95, -0.17, -2.76, -2.009, -0.784, -0.122, -2.355, -2.925, -0.271, -1.582, -2.038, -0.792,
        -1.172,
    ]
    static let reference: [Float] = [
        -0.498, -0.791, -0.132, -1.465, -2.389, -2.23, -2.909, -0.183, -1.315, -2.96, -1.746, -1.077, -0.149, -2.198,
        -2.639, -2.703, -2.756, -1.794, -2.569, -1.122, -2.718, -1.372, -1.191, -0.754, -2.299, -2.107, -2.454, -0.541,
        -0.702, -2.919,
    ]
    static let lengths = [5, 2, 3, 4, 1, 5]

    static let expected = [
        Expected(
            term: .sigmoid, loss: 1.437_536_1,
            gradient: [-0.092_871_40, -0.025_424_48, -0.074_796_73, 0.092_871_40, 0.025_424_48, 0.074_796_73]),
        Expected(
            term: .ipo, loss: 6.240_404_1,
            gradient: [-0.470_548_93, -0.075_888_83, -0.553_985_18, 0.588_186_14, 0.151_777_67, 0.332_391_11]),
        Expected(term: .hinge, loss: 1.884_966_5, gradient: [-0.1, 0, -0.1, 0.1, 0, 0.1]),
        Expected(
            term: .robust, labelSmoothing: 0.1, loss: 1.544_985_9,
            gradient: [-0.105_371_40, -0.037_924_48, -0.087_296_73, 0.105_371_40, 0.037_924_48, 0.087_296_73]),
        Expected(
            term: .conservative, labelSmoothing: 0.1, loss: 1.351_576_0,
            gradient: [-0.082_871_40, -0.015_424_48, -0.064_796_73, 0.082_871_40, 0.015_424_48, 0.064_796_73]),
    ]

    @Test(arguments: expected) func dpo(_ expected: Expected) throws {
        let mask = Self.lengths.flatMap { length in (0..<5).map { $0 < length ? Float(1) : 0 } }
        let leaf = try Tensor(Self.policy, shape: [6, 5])
        try leaf.setRequiresGrad()
        let loss = DPOLoss([.init(expected.term)], beta: 0.3, labelSmoothing: expected.labelSmoothing)
        let value = try withGrad {
            let result = try loss(
                logProbs: leaf, refLogProbs: Tensor(Self.reference, shape: [6, 5]), mask: Tensor(mask, shape: [6, 5]))
            try result.loss.backward()
            return try result.loss.item()
        }
        #expect(abs(value - expected.loss) < 2e-6)
        let found = try leaf.grad()
        let gradient = try #require(found).values(Float.self)
        for row in 0..<6 { #expect(abs(Double(gradient[5 * row]) - expected.gradient[row]) < 2e-7) }
    }

    @Test func bradleyTerry() throws {
        let chosen = try Tensor([0.3, -1.2, 2] as [Float]), rejected = try Tensor([0.1, 0.4, -0.5] as [Float])
        let loss = try RewardModelLoss(centerCoefficient: 0.01)(
            chosen: chosen, rejected: rejected, margin: Tensor([0.5, 0, 1] as [Float]))
        #expect(abs(try loss.loss.item() - 0.956_723_15) < 2e-6)
    }
}
