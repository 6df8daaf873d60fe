import TensorCore
import Testing

/// Gradients of a layer's parts against plain operations in float64.
@Suite struct LayerGradientTests {
    let generator: RandomGenerator
    init() throws { generator = try RandomGenerator(seed: 21) }

    func random(_ shape: [Int]) throws -> Tensor { try Tensor.randomNormal(shape, generator: generator) }

    /// Results and gradients of `body` in `dtype`, each result weighted by fixed numbers; missing gradients as zeros.
    func run(_ inputs: [Tensor], _ dtype: DType, _ body: ([Tensor]) throws -> [Tensor]) throws -> [Tensor] {
        let leaves = try inputs.map { try $0.to(dtype: dtype, copy: true) }
        for leaf in leaves { try leaf.setRequiresGrad() }
        let results = try withGrad {
            let results = try body(leaves)
            var total: Tensor?
            for (index, result) in results.enumerated() {
                let wide = try result.to(dtype: .float64)
                let weights = try Tensor.arange(0..<wide.count, dtype: .float64).multiplied(by: 0.37 + Double(index))
                    .sin().reshaped(wide.shape)
                let share = try wide.multiplied(by: weights).sum()
                total = try total?.adding(share) ?? share
            }
            try total?.backward()
            return results
        }
        return try results.map { try $0.detached() }
            + leaves.map { try $0.grad() ?? Tensor.zeros($0.shape, dtype: dtype) }
    }

    func expectClose(_ a: [Tensor], _ b: [Tensor], _ dtype: DType) throws {
        #expect(a.count == b.count)
        for (index, (x, y)) in zip(a, b).enumerated() {
            let gap = try x.to(dtype: .float64).subtracting(y).abs().max().item()
            let size = Swift.max(1, try y.abs().max().item())
            #expect(gap <= (dtype == .float32 ? 2e-5 : 4e-2) * size, "result \(index): \(gap) of \(size)")
        }
    }

    /// `fused` in `dtype` against `plain` in float64, of the same inputs, rounded to `dtype` before.
    func compare(
        _ shapes: [[Int]], _ dtype: DType, fused: ([Tensor]) throws -> [Tensor], plain: ([Tensor]) throws -> [Tensor]
    ) throws {
        let inputs = try shapes.map { try random($0).to(dtype: dtype) }
        try expectClose(run(inputs, dtype, fused), run(inputs, .float64, plain), dtype)
    }

    static func norm(_ x: Tensor, _ weight: Tensor, _ isOffset: Bool) throws -> Tensor {
        let scale = try x.squared().mean(-1, keepDim: true).adding(1e-5).rsqrt()
        return try x.multiplied(by: scale).multiplied(by: isOffset ? weight.adding(1) : weight)
    }

    @Test(
        arguments: [DType.float32, .bfloat16],
        [(false, false, 1), (true, true, 1), (true, false, 0.3), (false, true, 0.3)])
    func residualNorms(dtype: DType, kind: (normsDelta: Bool, isOffset: Bool, multiplier: Double)) throws {
        let (normsDelta, isOffset, multiplier) = kind
        try compare([[37, 48], [37, 48], [48], [48]], dtype) { inputs in
            func terms(_ index: Int) -> RMSNormTerms {
                RMSNormTerms(weight: inputs[index], eps: 1e-5, hasUnitOffset: isOffset)
            }
            let both = try inputs[0].addingThenNorming(
                inputs[1], norm: normsDelta ? terms(2) : nil, multiplier: multiplier, by: terms(3))
            let sum = try #require(both.sum)
            // The sum goes on through the norm that follows it, as in a layer.
            let next = try sum.addingThenNorming(nil, by: terms(3))
            return [both.normed, try #require(next.sum), next.normed]
        } plain: { inputs in
            let delta = normsDelta ? try Self.norm(inputs[1], inputs[2], isOffset) : inputs[1]
            let sum = try inputs[0].adding(delta.multiplied(by: multiplier))
            let normed = try Self.norm(sum, inputs[3], isOffset)
            // Plain weights learn only where they are used.
            return [normed, sum, try normed.adding(0)]
        }
    }

    struct Sizes: Sendable {
        var query, keyValue, dim, rotated: Int
    }

    @Test(
        arguments: [DType.float32, .bfloat16],
        [
            Sizes(query: 4, keyValue: 2, dim: 16, rotated: 16), Sizes(query: 3, keyValue: 1, dim: 24, rotated: 8),
            Sizes(query: 2, keyValue: 2, dim: 8, rotated: 0),
        ])
    func heads(dtype: DType, sizes: Sizes) throws {
        let tokens = 21, width = (sizes.query + 2 * sizes.keyValue) * sizes.dim, half = sizes.rotated / 2
        let angles = try random([tokens, max(1, half)])
        let cos = try angles.cos(), sin = try angles.sin()
        for isOffset in [nil, false, true] as [Bool?] {
            // Only some of the results are used: the others have no gradient.
            for used in [[0, 1, 2], [1]] {
                try compare([[tokens, 32], [width, 32], [sizes.dim], [sizes.dim]], dtype) { inputs in
                    var how = HeadPreparation(
                        queryHeads: sizes.query, keyValueHeads: sizes.keyValue, headDim: sizes.dim)
                    if half > 0 { how.angles = (cos, sin) }
                    if let isOffset {
                        func terms(_ weight: Tensor) -> RMSNormTerms {
                            RMSNormTerms(weight: weight, eps: 1e-5, hasUnitOffset: isOffset)
                        }
                        how.norms = (terms(inputs[2]), terms(inputs[3]))
                    }
                    let heads = try inputs[0].linear(inputs[1]).preparedHeads(how)
                    return used.map { [heads.query, heads.key, heads.value][$0] }
                } plain: { inputs in
                    let all = try inputs[0].linear(inputs[1])
                        .reshaped([tokens, sizes.query + 2 * sizes.keyValue, sizes.dim])
                    func prepared(_ heads: Range<Int>, _ weight: Tensor) throws -> Tensor {
                        var x = try all.narrowed(1, heads)
                        if let isOffset { x = try Self.norm(x, weight, isOffset) }
                        guard half > 0 else { return x }
                        let first = try x.narrowed(2, 0..<half), second = try x.narrowed(2, half..<2 * half)
                        let c = try cos.unsqueezed(1).to(dtype: .float64), s = try sin.unsqueezed(1).to(dtype: .float64)
                        return try Tensor.concatenate(
                            [
                                first.multiplied(by: c).subtracting(second.multiplied(by: s)),
                                second.multiplied(by: c).adding(first.multiplied(by: s)),
                                x.narrowed(2, 2 * half..<sizes.dim),
                            ], dim: 2)
                    }
                    let key = sizes.query..<sizes.query + sizes.keyValue
                    let value = key.upperBound..<key.upperBound + sizes.keyValue
                    let parts = try [
                        prepared(0..<sizes.query, inputs[2]), prepared(key, inputs[3]), all.narrowed(1, value),
                    ]
                    return used.map { parts[$0] }
                }
            }
        }
    }

    @Test(arguments: [GateActivation.silu, .gelu, .geluTanh], [DType.float32, .bfloat16])
    func gates(activation: GateActivation, dtype: DType) throws {
        try compare([[19, 24], [72, 24], [10, 36]], dtype) { inputs in
            let gated = try inputs[0].linear(inputs[1]).gated(activation)
            return [try gated.linear(inputs[2])]
        } plain: { inputs in
            let all = try inputs[0].linear(inputs[1])
            let gate = try all.narrowed(1, 0..<36), up = try all.narrowed(1, 36..<72)
            let active =
                switch activation {
                case .silu: try gate.silu()
                case .gelu: try gate.gelu()
                case .geluTanh: try gate.gelu(tanhApproximation: true)
                }
            return [try active.multiplied(by: up).linear(inputs[2])]
        }
    }

    @Test(arguments: [DType.float32, .bfloat16]) func linearLayers(dtype: DType) throws {
        try compare([[3, 5, 24], [17, 24], [17]], dtype) {
            [try $0[0].linear($0[1], bias: $0[2])]
        } plain: { inputs in
            [try inputs[0].matmul(inputs[1].transposed()).adding(inputs[2])]
        }
    }

    // MARK: - What is kept, and where gradients go

    @Test func normsAndActivationsAreNotKept() throws {
        let tokens = 64, size = 32
        let x = try random([tokens, size]), norm = RMSNormTerms(weight: try Tensor.ones([size]), eps: 1e-5)
        let up = try random([80, size]), down = try random([size, 40])
        for leaf in [x, norm.weight, up, down] { try leaf.setRequiresGrad() }
        var result: Tensor?
        let use = try measuringMemory {
            result = try withGrad { try x.rmsNorm(norm).linear(up).gated(.silu).linear(down) }
        }
        // The projection to gate and up, and the result.
        #expect(use.left == tokens * (80 + size) * 4)
        #expect(use.most >= use.left + tokens * 40 * 4)
        let backward = try measuringMemory { try #require(result).sum().backward() }
        #expect(try down.grad() != nil && norm.weight.grad() != nil && backward.most > 0)
    }

    @Test(arguments: [DType.float32, .bfloat16]) func gradientsAddUpInPlace(dtype: DType) throws {
        let weight = try random([7, 16]).to(dtype: dtype), x = try random([5, 16]).to(dtype: dtype)
        try weight.setRequiresGrad()
        func once() throws { try withGrad { try x.linear(weight).sum().backward() } }
        try once()
        let first = try #require(try weight.grad()).cloned(), place = try #require(try weight.grad())
        try once()
        let second = try #require(try weight.grad())
        #expect(second.isSame(as: place) || second.shape == place.shape)
        #expect(try second.equals(place))
        #expect(try second.subtracting(first.multiplied(by: 2)).abs().max().item() == 0)
    }

    @Test func aWrittenActivationIsNotTakenForTheOneThatWas() throws {
        let x = try random([4, 8]), weight = try random([8, 8])
        try weight.setRequiresGrad()
        let y = try withGrad { try x.linear(weight) }
        try x.fill(0)
        #expect(throws: TorchError.self) { try y.sum().backward() }
    }

    @Test func checkpointsKeepWhatTheySay() throws {
        let x = try random([6, 8]), up = try random([24, 8]), down = try random([8, 12])
        for leaf in [x, up, down] { try leaf.setRequiresGrad() }
        var runs = 0
        func gradients(_ kept: KeptActivations?) throws -> [Tensor] {
            func layer(_ x: Tensor) throws -> Tensor {
                runs += 1
                let again = isSecondRun
                let all = try x.linear(up, bias: nil, kept: .gateUp)
                let gated = try all.gated(.gelu, isRead: !again)
                let y = try gated.linear(down, bias: nil, kept: [], isRead: !again)
                // What nobody reads is not computed.
                if again { #expect(try y.detached().isNaN().all()) }
                return try x.adding(y, norm: nil, isRead: !again)
            }
            let y = try withGrad {
                try kept.map { try checkpoint([x], keeping: $0) { [try layer($0[0])] }[0] } ?? layer(x)
            }
            try y.squared().sum().backward()
            let all = try [x, up, down].map { try #require(try $0.grad()).cloned() }
            for leaf in [x, up, down] { try leaf.setGrad(nil) }
            return [try y.detached()] + all
        }
        let plain = try gradients(nil)
        #expect(runs == 1)
        for kept in [[], .gateUp] as [KeptActivations] {
            let again = try gradients(kept)
            for (a, b) in zip(again, plain) { #expect(try a.equals(b)) }
        }
        #expect(runs == 5)
        #expect(!isSecondRun && !isCheckpointing)
    }
}
