import TensorCore
import Testing

/// What CUDA does in one kernel is, elsewhere, exactly the separate operations it stands for.
@Suite struct FusedLayerCompositionTests {
    let generator: RandomGenerator
    init() throws { generator = try RandomGenerator(seed: 9) }

    func random(_ shape: [Int], _ dtype: DType = .float32) throws -> Tensor {
        try Tensor.randomNormal(shape, generator: generator).to(dtype: dtype)
    }

    func norm(_ size: Int, _ dtype: DType, isOffset: Bool = false) throws -> RMSNormTerms {
        RMSNormTerms(weight: try random([size], dtype), eps: 1e-5, hasUnitOffset: isOffset)
    }

    /// The norm by operations that knew no offsets.
    func plain(_ x: Tensor, _ norm: RMSNormTerms) throws -> Tensor {
        guard norm.hasUnitOffset else { return try x.rmsNorm(norm.weight, eps: norm.eps) }
        return try x.rmsNorm(norm.weight.to(dtype: .float32).adding(1), eps: norm.eps)
    }

    @Test(arguments: [DType.float32, .bfloat16], [(false, 1), (false, 0.22), (true, 1), (true, 0.22)])
    func residualNormIsAdditionThenNorm(dtype: DType, delta kind: (isNormed: Bool, multiplier: Double)) throws {
        let (isNormed, multiplier) = kind
        let x = try random([5, 48], dtype), delta = try random([5, 48], dtype)
        let deltaNorm = isNormed ? try norm(48, dtype, isOffset: true) : nil, after = try norm(48, dtype)
        var added = try deltaNorm.map { try plain(delta, $0) } ?? delta
        if multiplier != 1 { added = try added.multiplied(by: multiplier) }
        let sum = try x.adding(added), normed = try plain(sum, after)
        let both = try x.addingThenNorming(delta, norm: deltaNorm, multiplier: multiplier, by: after)
        #expect(try #require(both.sum).equals(sum))
        #expect(try both.normed.equals(normed))
        #expect(try x.adding(delta, norm: deltaNorm, multiplier: multiplier).equals(sum))
        let last = try x.addingThenNorming(
            delta, norm: deltaNorm, multiplier: multiplier, by: after, keepsSum: false)
        #expect(last.sum == nil)
        #expect(try last.normed.equals(normed))
    }

    @Test func gradientsGoThroughEveryPart() throws {
        func leaves() throws -> [Tensor] {
            let generator = try RandomGenerator(seed: 10)
            return try [[4, 24], [4, 24], [24], [24]].map {
                let leaf = try Tensor.randomNormal($0, generator: generator)
                try leaf.setRequiresGrad()
                return leaf
            }
        }
        func gradients(_ body: ([Tensor]) throws -> [Tensor]) throws -> [Tensor] {
            let inputs = try leaves()
            try withGrad {
                for (index, result) in try body(inputs).enumerated() {
                    try result.squared().multiplied(by: Double(index + 1)).sum().backward()
                }
            }
            return try inputs.map { try #require(try $0.grad()) }
        }
        // Results one by one: backward through the sum twice would need a kept graph.
        for picksSum in [false, true] {
            let fused = try gradients { inputs in
                let before = RMSNormTerms(weight: inputs[2], eps: 1e-5, hasUnitOffset: true)
                let after = RMSNormTerms(weight: inputs[3], eps: 1e-5)
                let both = try inputs[0].addingThenNorming(inputs[1], norm: before, multiplier: 0.5, by: after)
                // The last weight's part keeps its gradient from being absent.
                return [picksSum ? try #require(both.sum).multiplied(by: inputs[3]) : both.normed]
            }
            let separate = try gradients { inputs in
                let before = RMSNormTerms(weight: inputs[2], eps: 1e-5, hasUnitOffset: true)
                let sum = try inputs[0].adding(plain(inputs[1], before).multiplied(by: 0.5))
                return [picksSum ? try sum.multiplied(by: inputs[3]) : try sum.rmsNorm(inputs[3], eps: 1e-5)]
            }
            for (a, b) in zip(fused, separate) { #expect(try a.equals(b)) }
        }
    }

    @Test(arguments: [DType.float32, .bfloat16])
    func gatedActivationIsActivationTimesUp(dtype: DType) throws {
        let x = try random([7, 36], dtype)
        let gate = try x.narrowed(1, 0..<18), up = try x.narrowed(1, 18..<36)
        #expect(try x.gated(.gelu).equals(gate.gelu().multiplied(by: up)))
        #expect(try x.gated(.geluTanh).equals(gate.gelu(tanhApproximation: true).multiplied(by: up)))
        #expect(try x.gated(.silu).equals(x.siluMultiply()))
        #expect(throws: TorchError.self) { try random([2, 3]).gated(.gelu) }
    }

    @Test(arguments: [0, 8, 16], [nil, false, true] as [Bool?])
    func preparedHeadsAreNormedRotatedAndStored(rotated: Int, isOffset: Bool?) throws {
        let tokens = 6, hq = 4, hk = 2, dim = 16
        let all = try random([tokens, (hq + 2 * hk) * dim])
        var how = HeadPreparation(queryHeads: hq, keyValueHeads: hk, headDim: dim)
        if rotated > 0 {
            let angles = try random([tokens, rotated / 2])
            how.angles = (try angles.cos(), try angles.sin())
        }
        if let isOffset {
            how.norms = (try norm(dim, .float32, isOffset: isOffset), try norm(dim, .float32, isOffset: isOffset))
        }
        func expected(_ heads: Range<Int>, _ norm: RMSNormTerms?) throws -> Tensor {
            var x = try all.reshaped([tokens, hq + 2 * hk, dim]).narrowed(1, heads)
            if let norm { x = try plain(x, norm) }
            guard let angles = how.angles else { return x }
            let turned = try x.narrowed(2, 0..<rotated).rotary(cos: angles.cos, sin: angles.sin)
            return try Tensor.concatenate([turned, x.narrowed(2, rotated..<dim)], dim: 2)
        }
        let query = try expected(0..<hq, how.norms?.query), key = try expected(hq..<hq + hk, how.norms?.key)
        let value = try all.reshaped([tokens, hq + 2 * hk, dim]).narrowed(1, hq + hk..<hq + 2 * hk)
        let before = try all.cloned()
        let keys = try random([9, hk, dim]), values = try random([9, hk, dim])
        let oldKeys = try keys.cloned(), oldValues = try values.cloned()
        let slots: [Int32] = [7, -1, 0, 3, -5, 8]
        let heads = try all.preparedHeads(how, storing: (keys, values, try Tensor(slots)))
        #expect(try heads.query.equals(query) && heads.key.equals(key) && heads.value.equals(value))
        // No kernel, nothing in place.
        #expect(!all.hasHeadKernel(how))
        #expect(try all.equals(before))
        for slot in 0..<9 {
            let token = slots.firstIndex(of: Int32(slot))
            #expect(
                try keys.selected(0, slot).equals(token.map { try key.selected(0, $0) } ?? oldKeys.selected(0, slot)))
            #expect(
                try values.selected(0, slot).equals(
                    token.map { try value.selected(0, $0) } ?? oldValues.selected(0, slot)))
        }
    }

    @Test(arguments: [1, 5], [1, 1.3]) func rotaryAnglesAreCosAndSinOfProducts(rows: Int, factor: Double) throws {
        let positions = try Tensor([0, 3, 4095, 77, 131_071] as [Int64]), frequencies = try random([rows, 12])
        let angles = try positions.to(dtype: .float32).unsqueezed(1).multiplied(by: frequencies)
        let both = try positions.rotaryAngles(frequencies, factor: factor)
        #expect(try both.cos.equals(factor == 1 ? angles.cos() : angles.cos().multiplied(by: factor)))
        #expect(try both.sin.equals(factor == 1 ? angles.sin() : angles.sin().multiplied(by: factor)))
    }

    @Test func shapesThatDoNotFitAreRefused() throws {
        let x = try random([4, 16])
        #expect(throws: TorchError.self) { try x.adding(random([4, 8]), norm: nil) }
        #expect(throws: TorchError.self) { try x.rmsNorm(norm(8, .float32)) }
        #expect(throws: TorchError.self) { try x.addingThenNorming(x, norm: norm(8, .float32), by: norm(16, .float32)) }
    }
}
