import TensorCore
import Testing

/// The grouped form of a mixture of experts against the plain one, where every expert sees every token and most are weighted 0.
@Suite struct ExpertRowsTests {
    struct Size: Sendable, CustomTestStringConvertible {
        let tokens, slots, experts, hidden, intermediate: Int
        var testDescription: String { "T\(tokens) K\(slots) E\(experts) C\(hidden) I\(intermediate)" }

        static let all = [
            Size(tokens: 1, slots: 1, experts: 1, hidden: 8, intermediate: 8),
            Size(tokens: 1, slots: 2, experts: 64, hidden: 16, intermediate: 8),
            Size(tokens: 7, slots: 2, experts: 5, hidden: 24, intermediate: 16),
            Size(tokens: 40, slots: 3, experts: 3, hidden: 9, intermediate: 5),
            Size(tokens: 130, slots: 4, experts: 16, hidden: 48, intermediate: 24),
        ]
    }

    let generator: RandomGenerator
    init() throws { generator = try RandomGenerator(seed: 11) }

    func leaf(_ shape: [Int], _ dtype: DType = .float32) throws -> Tensor {
        let x = try Tensor.randomNormal(shape, generator: generator).to(dtype: dtype, copy: true)
        try x.setRequiresGrad()
        return x
    }

    /// K different experts a token.
    func choose(_ tokens: Int, _ slots: Int, _ experts: Int) throws -> Tensor {
        try Tensor.random([tokens, experts], generator: generator).topK(slots, dim: 1).indices
    }

    func expectClose(_ a: Tensor, _ b: Tensor, _ tolerance: Double, _ comment: Comment) throws {
        let wide = try b.detached().to(dtype: .float32)
        let difference = try a.detached().to(dtype: .float32).subtracting(wide).abs().max().item()
        #expect(difference <= tolerance * Swift.max(1, try wide.abs().max().item()), comment)
    }

    func grouped(_ x: Tensor, _ gateUp: Tensor, _ down: Tensor, _ chosen: Tensor, _ weights: Tensor) throws -> Tensor {
        let rows = try ExpertRows(chosen: chosen, count: gateUp.size(0))
        let hidden = try rows.linear(rows.gather(x), gateUp).siluMultiply()
        return try rows.combine(rows.linear(hidden, down), weights: weights)
    }

    func plain(_ x: Tensor, _ gateUp: Tensor, _ down: Tensor, _ chosen: Tensor, _ weights: Tensor) throws -> Tensor {
        let experts = gateUp.size(0)
        let shares = try Tensor.zeros([x.size(0), experts]).scattered(1, chosen, weights)
        var sum = try Tensor.zeros(x.shape)
        for expert in 0..<experts {
            let y = try x.linear(gateUp.selected(0, expert)).siluMultiply().linear(down.selected(0, expert))
            sum = try sum.adding(y.to(dtype: .float32).multiplied(by: shares.narrowed(1, expert..<expert + 1)))
        }
        return try sum.to(dtype: x.dtype)
    }

    @Test(arguments: Size.all, [DType.float32, .bfloat16, .float64])
    func valuesAndGradientsAreThoseOfThePlainForm(size: Size, dtype: DType) throws {
        let inputs = [
            try leaf([size.tokens, size.hidden], dtype),
            try leaf([size.experts, 2 * size.intermediate, size.hidden], dtype),
            try leaf([size.experts, size.hidden, size.intermediate], dtype), try leaf([size.tokens, size.slots]),
        ]
        let chosen = try choose(size.tokens, size.slots, size.experts)
        let weighting = try Tensor.randomNormal([size.tokens, size.hidden], generator: generator)
        func run(_ form: (Tensor, Tensor, Tensor, Tensor, Tensor) throws -> Tensor) throws -> (Tensor, [Tensor]) {
            let y = try withGrad { try form(inputs[0], inputs[1], inputs[2], chosen, inputs[3]) }
            try y.to(dtype: .float32).multiplied(by: weighting).sum().backward()
            let grads = try inputs.map { try #require(try $0.grad()).cloned() }
            for input in inputs { try input.setGrad(nil) }
            return (y, grads)
        }
        let (a, gradsA) = try run(grouped), (b, gradsB) = try run(plain)
        // float64 takes the way of a device that has none of our kernels.
        let tolerance = dtype == .bfloat16 ? 3e-2 : 1e-5
        #expect(a.dtype == dtype && a.shape == b.shape)
        try expectClose(a, b, tolerance, "value")
        for (name, index) in [("x", 0), ("gate_up", 1), ("down", 2), ("weights", 3)] {
            #expect(gradsA[index].shape == inputs[index].shape && gradsA[index].dtype == inputs[index].dtype)
            try expectClose(gradsA[index], gradsB[index], tolerance * 2, "gradient of \(name)")
        }
        let inference = try withNoGrad { try grouped(inputs[0], inputs[1], inputs[2], chosen, inputs[3]) }
        #expect(try inference.equals(a.detached()), "without a graph")
    }

    @Test func rowsAreSortedByExpertAndKeepTheirOrderWithin() throws {
        let chosen = try Tensor([2, 0, 0, 3, 2, 0] as [Int64], shape: [3, 2])
        let rows = try ExpertRows(chosen: chosen, count: 5)
        #expect(try rows.counts() == [3, 0, 2, 1, 0])
        let x = try Tensor([10, 20, 30] as [Float], shape: [3, 1])
        #expect(try rows.gather(x).values(Float.self) == [10, 20, 30, 10, 30, 20])
        let numbered = try Tensor([1, 2, 4, 8, 16, 32] as [Float], shape: [6, 1])
        let ones = try Tensor.ones([3, 2])
        // Token 0 has rows 3 (expert 2) and 0 (expert 0); token 1 rows 1 and 5; token 2 rows 4 and 2.
        #expect(try rows.combine(numbered, weights: ones).values(Float.self) == [9, 34, 20])
    }

    @Test func expertsWithoutRowsHaveAGradientOfZero() throws {
        let x = try leaf([4, 6]), weight = try leaf([8, 5, 6])
        let chosen = try Tensor([1, 6, 1, 6] as [Int64], shape: [4, 1])
        try withGrad {
            let rows = try ExpertRows(chosen: chosen, count: 8)
            try rows.linear(rows.gather(x), weight).sum().backward()
        }
        let grad = try #require(try weight.grad())
        for expert in 0..<8 {
            let size = try grad.selected(0, expert).abs().sum().item()
            #expect((size > 0) == (expert == 1 || expert == 6), "expert \(expert)")
        }
    }

    @Test func permutingTheTokensPermutesTheResults() throws {
        let size = Size.all[4]
        let x = try leaf([size.tokens, size.hidden])
        let gateUp = try leaf([size.experts, 2 * size.intermediate, size.hidden])
        let down = try leaf([size.experts, size.hidden, size.intermediate])
        let chosen = try choose(size.tokens, size.slots, size.experts)
        let weights = try leaf([size.tokens, size.slots])
        let order = try Tensor.random([size.tokens], generator: generator).sorted(0).indices
        try withNoGrad {
            let whole = try grouped(x, gateUp, down, chosen, weights)
            let permuted = try grouped(
                x.indexSelect(0, order), gateUp, down, chosen.indexSelect(0, order), weights.indexSelect(0, order))
            try expectClose(permuted, whole.indexSelect(0, order), 1e-6, "permuted")
        }
    }

    /// The sum over a token's experts, bit for bit, whatever lies beside the token.
    @Test func aTokensSumDoesNotDependOnItsNeighbours() throws {
        let chosen = try choose(9, 4, 6), weights = try leaf([9, 4]).detached()
        let values = try Tensor.randomNormal([9 * 4, 33], generator: generator)
        let all = try ExpertRows(chosen: chosen, count: 6)
        // `values` are by pair; a stable sort of the pairs by expert is the order of rows.
        let flat = try chosen.flattened().sorted(0).indices
        let together = try all.combine(values.indexSelect(0, flat), weights: weights)
        for token in 0..<9 {
            let own = try values.narrowed(0, token * 4..<token * 4 + 4)
            let alone = try ExpertRows(chosen: chosen.narrowed(0, token..<token + 1).contiguous(), count: 6)
            let sorted = try chosen.selected(0, token).sorted(0).indices
            let result = try alone.combine(
                own.indexSelect(0, sorted), weights: weights.narrowed(0, token..<token + 1))
            #expect(try together.selected(0, token).equals(result.selected(0, 0)), "token \(token)")
        }
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let chosen = try Tensor([0, 4] as [Int64], shape: [2, 1])
        #expect(throws: TorchError.self) { _ = try ExpertRows(chosen: chosen, count: 4) }
        #expect(throws: TorchError.self) { _ = try ExpertRows(chosen: chosen.to(dtype: .int32), count: 5) }
        let rows = try ExpertRows(chosen: chosen, count: 5)
        #expect(throws: TorchError.self) { _ = try rows.gather(Tensor.zeros([3, 2])) }
        #expect(throws: TorchError.self) { _ = try rows.linear(Tensor.zeros([2, 2]), Tensor.zeros([4, 3, 2])) }
        #expect(throws: TorchError.self) { _ = try rows.linear(Tensor.zeros([2, 3]), Tensor.zeros([5, 3, 2])) }
        #expect(throws: TorchError.self) { _ = try rows.combine(Tensor.zeros([2, 2]), weights: Tensor.zeros([3, 1])) }
    }
}
