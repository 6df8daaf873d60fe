import TensorCore
import Testing

/// Every fused op against the same maths in plain ops, values and gradients.
@Suite struct FusedLayerTests {
    let generator: RandomGenerator
    init() throws { generator = try RandomGenerator(seed: 7) }

    func leaf(_ shape: [Int], _ dtype: DType = .float32) throws -> Tensor {
        let x = try Tensor.randomNormal(shape, generator: generator).to(dtype: dtype, copy: true)
        try x.setRequiresGrad()
        return x
    }

    func expectClose(_ a: Tensor, _ b: Tensor, _ tolerance: Double, _ comment: Comment? = nil) throws {
        let wide = try b.detached().to(dtype: .float32)
        let difference = try a.detached().to(dtype: .float32).subtracting(wide).abs().max().item()
        let size = try wide.abs().max().item()
        #expect(difference <= tolerance * Swift.max(1, size), comment)
    }

    /// Compares results and the gradients of `inputs` under a random weighting of the output.
    func compare(
        _ inputs: [Tensor], tolerance: Double, fused: () throws -> Tensor, plain: () throws -> Tensor
    ) throws {
        let a = try withGrad(fused)
        let weights = try Tensor.randomNormal(a.shape, generator: generator)
        try a.to(dtype: .float32).multiplied(by: weights).sum().backward()
        let fusedGrads = try inputs.map { try #require(try $0.grad()).cloned() }
        for input in inputs { try input.setGrad(nil) }
        let b = try withGrad(plain)
        try b.to(dtype: .float32).multiplied(by: weights).sum().backward()
        try expectClose(a, b, tolerance, "value")
        for (index, input) in inputs.enumerated() {
            try expectClose(fusedGrads[index], try #require(try input.grad()), tolerance * 4, "gradient \(index)")
        }
        let inference = try withNoGrad(fused)
        try expectClose(inference, a, 1e-6, "without a graph")
    }

    @Test(arguments: [(3, 16), (37, 576), (5, 24), (200, 33)], [DType.float32, .bfloat16])
    func rmsNorm(size: (Int, Int), dtype: DType) throws {
        let x = try leaf([size.0, size.1], dtype), w = try leaf([size.1], dtype)
        try compare([x, w], tolerance: dtype == .float32 ? 1e-5 : 2e-2) {
            try x.rmsNorm(w, eps: 1e-5)
        } plain: {
            let wide = try x.to(dtype: .float32)
            let scale = try wide.squared().mean(-1, keepDim: true).adding(1e-5).rsqrt()
            return try wide.multiplied(by: scale).multiplied(by: w.to(dtype: .float32))
        }
    }

    @Test(arguments: [(3, 2, 8), (70, 9, 64), (4, 1, 40)], [DType.float32, .bfloat16])
    func rotary(size: (Int, Int, Int), dtype: DType) throws {
        let (tokens, heads, dim) = size
        let wide = try leaf([tokens, heads * dim * 2], dtype)
        let angles = try Tensor.random([tokens, dim / 2], generator: generator).multiplied(by: 6)
        let cos = try angles.cos(), sin = try angles.sin()
        // A view with a row stride, as the slice of a fused projection is.
        func view() throws -> Tensor {
            try wide.narrowed(1, 0..<heads * dim).reshaped([tokens, heads, dim])
        }
        try compare([wide], tolerance: dtype == .float32 ? 1e-6 : 2e-2) {
            try view().rotary(cos: cos, sin: sin)
        } plain: {
            let x = try view().to(dtype: .float32)
            let first = try x.narrowed(-1, 0..<dim / 2), second = try x.narrowed(-1, dim / 2..<dim)
            let c = try cos.unsqueezed(1), s = try sin.unsqueezed(1)
            return try Tensor.concatenate(
                [
                    first.multiplied(by: c).subtracting(second.multiplied(by: s)),
                    second.multiplied(by: c).adding(first.multiplied(by: s)),
                ], dim: -1)
        }
    }

    @Test(arguments: [(3, 16), (37, 1536), (5, 27)], [DType.float32, .bfloat16])
    func siluMultiply(size: (Int, Int), dtype: DType) throws {
        let x = try leaf([size.0, size.1 * 2], dtype)
        try compare([x], tolerance: dtype == .float32 ? 1e-5 : 2e-2) {
            try x.siluMultiply()
        } plain: {
            let wide = try x.to(dtype: .float32)
            return try wide.narrowed(1, 0..<size.1).silu().multiplied(by: wide.narrowed(1, size.1..<2 * size.1))
        }
    }

    @Test(arguments: [(7, 2, 1, 16), (40, 9, 3, 64), (70, 4, 2, 24)], [DType.float32, .bfloat16])
    func packedAttention(size: (Int, Int, Int, Int), dtype: DType) throws {
        let (unit, queryHeads, keyHeads, dim) = size
        // A prompt shared by three samples, one of which has two continuations, then a sequence on its own.
        let lengths = [unit, 3, 1, unit + 2, 2, 5, unit]
        let parents: [Int?] = [nil, 0, 0, 0, 3, 3, nil]
        var segments: [PackedSegment] = [], total = 0
        for (length, parent) in zip(lengths, parents) {
            segments.append(PackedSegment(start: total, length: length, parent: parent))
            total += length
        }
        let q = try leaf([total, queryHeads, dim], dtype)
        let k = try leaf([total, keyHeads, dim], dtype), v = try leaf([total, keyHeads, dim], dtype)
        let scale = 0.17
        try compare([q, k, v], tolerance: dtype == .float32 ? 1e-5 : 3e-2) {
            try Tensor.packedAttention(query: q, key: k, value: v, segments: segments, scale: scale)
        } plain: {
            var mask = [Bool](repeating: false, count: total * total)
            for segment in segments {
                for t in 0..<segment.length {
                    let row = (segment.start + t) * total
                    for j in 0...t { mask[row + segment.start + j] = true }
                    var ancestor = segment.parent
                    while let index = ancestor {
                        let keys = segments[index]
                        for j in keys.start..<keys.start + keys.length { mask[row + j] = true }
                        ancestor = keys.parent
                    }
                }
            }
            func heads(_ x: Tensor) throws -> Tensor {
                try x.to(dtype: .float32).transposed(0, 1).unsqueezed(0)
            }
            return try Tensor.attention(
                query: heads(q), key: heads(k), value: heads(v), mask: Tensor(mask, shape: [total, total]),
                scale: scale, groupedQuery: true
            ).squeezed(0).transposed(0, 1)
        }
    }

    @Test(arguments: [DType.float32, .bfloat16]) func cachedAttentionIsThePackedOneAtTheLastToken(dtype: DType) throws {
        let length = 23, heads = 6, keyHeads = 2, dim = 32
        let q = try leaf([length, heads, dim], dtype), k = try leaf([length, keyHeads, dim], dtype)
        let v = try leaf([length, keyHeads, dim], dtype)
        let full = try withNoGrad {
            try Tensor.packedAttention(
                query: q, key: k, value: v, segments: [PackedSegment(start: 0, length: length)], scale: 0.2)
        }
        // Two rows: the whole sequence through shuffled slots, and its first seven tokens.
        let order = (0..<length).map { ($0 * 7) % length }
        let pool = try Tensor((0..<length).map { Int64(order.firstIndex(of: $0)!) })
        let slots = order.map(Int32.init) + order.prefix(7).map(Int32.init) + [Int32](repeating: 0, count: length - 7)
        let last = try Tensor([Int64(length - 1), 6])
        let result = try withNoGrad {
            try Tensor.cachedAttention(
                query: q.indexSelect(0, last), keyPool: k.indexSelect(0, pool), valuePool: v.indexSelect(0, pool),
                slots: Tensor(slots, shape: [2, length]), lengths: Tensor([Int32(length), 7]), scale: 0.2)
        }
        try expectClose(result, full.indexSelect(0, last), dtype == .float32 ? 1e-5 : 2e-2)
    }

    @Test(arguments: [DType.float32, .bfloat16], [1, 3, 1000])
    func tokenLogProbs(dtype: DType, chunk: Int) throws {
        let tokens = 11, width = 24, vocabulary = 53, temperature = 0.7
        let hidden = try leaf([tokens, width], dtype), weight = try leaf([vocabulary, width], dtype)
        let targets = try Tensor.randomIntegers(0..<vocabulary, [tokens], generator: generator)
        try compare([hidden, weight], tolerance: dtype == .float32 ? 1e-5 : 6e-2) {
            let both = try Tensor.tokenLogProbs(
                hidden: hidden, weight: weight, targets: targets, temperature: temperature, chunk: chunk)
            return try Tensor.stack([both.logProbs, both.entropies])
        } plain: {
            let logits = try hidden.to(dtype: .float32).matmul(weight.to(dtype: .float32).transposed())
            let logP = try logits.divided(by: temperature).logSoftmax(1)
            let picked = try logP.gathered(1, targets.unsqueezed(1)).squeezed(1)
            return try Tensor.stack([picked, logP.exp().multiplied(by: logP).sum(1).negated()])
        }
    }
}
