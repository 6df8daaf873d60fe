import TensorCore
import Testing

/// Windows, soft caps and values of another size than keys, against the same maths in plain operations.
extension FusedLayerTests {
    struct KindCase: Sendable, CustomTestStringConvertible {
        var window: Int?
        var softCap: Double?
        var headDim = 24, valueDim = 24
        var testDescription: String {
            "window \(window ?? 0), cap \(softCap ?? 0), heads of \(headDim) and \(valueDim)"
        }
        var kind: AttentionKind { AttentionKind(scale: 0.31, window: window, softCap: softCap) }

        static let all: [KindCase] = [
            KindCase(window: 1), KindCase(window: 5), KindCase(window: 33), KindCase(window: 70),
            KindCase(window: 1000), KindCase(softCap: 0.7), KindCase(window: 17, softCap: 3),
            KindCase(headDim: 24, valueDim: 16), KindCase(window: 9, headDim: 16, valueDim: 40),
            KindCase(window: 40, softCap: 1.5, headDim: 64, valueDim: 64),
        ]
    }

    /// A prompt longer than a block of queries, shared by samples of which one has continuations, then a sequence on its own.
    static let family: [PackedSegment] = {
        let lengths = [45, 3, 1, 37, 2, 5, 40], parents: [Int?] = [nil, 0, 0, 0, 3, 3, nil]
        var segments: [PackedSegment] = [], start = 0
        for (length, parent) in zip(lengths, parents) {
            segments.append(PackedSegment(start: start, length: length, parent: parent))
            start += length
        }
        return segments
    }()

    /// `[T, T]`: how many tokens of its sequence lie between a query and a key before it, or -1 where it does not see it.
    func distances(_ segments: [PackedSegment], _ total: Int) -> [Int] {
        var distance = [Int](repeating: -1, count: total * total)
        for segment in segments {
            for t in 0..<segment.length {
                let row = (segment.start + t) * total
                var behind = 0
                for j in stride(from: t, through: 0, by: -1) {
                    distance[row + segment.start + j] = behind
                    behind += 1
                }
                var ancestor = segment.parent
                while let index = ancestor {
                    let keys = segments[index]
                    for j in (0..<keys.length).reversed() {
                        distance[row + keys.start + j] = behind
                        behind += 1
                    }
                    ancestor = keys.parent
                }
            }
        }
        return distance
    }

    /// Attention in float32, one operation at a time.
    func plainAttention(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, _ kind: AttentionKind, sees: (Int) -> Bool, _ segments: [PackedSegment]
    ) throws -> Tensor {
        let total = q.size(0), group = q.size(1) / k.size(1)
        let hidden = distances(segments, total).map { $0 < 0 || !sees($0) }
        func heads(_ x: Tensor, repeats: Int) throws -> Tensor {
            let wide = try x.to(dtype: .float32).transposed(0, 1)
            guard repeats > 1 else { return wide }
            return try wide.unsqueezed(1).expanded([x.size(1), repeats, total, x.size(2)])
                .reshaped([x.size(1) * repeats, total, x.size(2)])
        }
        var scores = try heads(q, repeats: 1).matmul(heads(k, repeats: group).transposed()).multiplied(by: kind.scale)
        if let cap = kind.softCap { scores = try scores.divided(by: cap).tanh().multiplied(by: cap) }
        let weights = try scores.maskedFill(Tensor(hidden, shape: [total, total]), -.infinity).softmax(-1)
        return try weights.matmul(heads(v, repeats: group)).transposed(0, 1)
    }

    @Test(arguments: KindCase.all, [DType.float32, .bfloat16])
    func packedAttentionOfEveryKind(test: KindCase, dtype: DType) throws {
        let segments = Self.family, total = segments.reduce(0) { $0 + $1.length }
        let q = try leaf([total, 4, test.headDim], dtype), k = try leaf([total, 2, test.headDim], dtype)
        let v = try leaf([total, 2, test.valueDim], dtype)
        try compare([q, k, v], tolerance: dtype == .float32 ? 1e-5 : 3e-2) {
            try Tensor.packedAttention(query: q, key: k, value: v, segments: segments, kind: test.kind)
        } plain: {
            try plainAttention(q, k, v, test.kind, sees: { $0 < test.window ?? .max }, segments)
        }
    }

    @Test(arguments: KindCase.all + [KindCase(window: 6, headDim: 192, valueDim: 128)], [DType.float32, .bfloat16])
    func cachedAttentionOfEveryKind(test: KindCase, dtype: DType) throws {
        let length = 47, heads = 4, keyHeads = 2
        let q = try leaf([length, heads, test.headDim], dtype), k = try leaf([length, keyHeads, test.headDim], dtype)
        let v = try leaf([length, keyHeads, test.valueDim], dtype)
        let segments = [PackedSegment(start: 0, length: length)]
        let full = try withNoGrad {
            try plainAttention(q, k, v, test.kind, sees: { $0 < test.window ?? .max }, segments)
        }
        // Two rows: the whole sequence through shuffled slots, and its first seven tokens.
        let order = (0..<length).map { ($0 * 7) % length }
        let pool = try Tensor((0..<length).map { Int64(order.firstIndex(of: $0)!) })
        let slots = order.map(Int32.init) + order.prefix(7).map(Int32.init) + [Int32](repeating: 0, count: length - 7)
        let last = try Tensor([Int64(length - 1), 6])
        let result = try withNoGrad {
            try Tensor.cachedAttention(
                query: q.indexSelect(0, last), keyPool: k.indexSelect(0, pool), valuePool: v.indexSelect(0, pool),
                slots: Tensor(slots, shape: [2, length]), lengths: Tensor([Int32(length), 7]), kind: test.kind)
        }
        try expectClose(result, full.indexSelect(0, last), dtype == .float32 ? 1e-5 : 2e-2)
    }

    /// The kernels' tanh over its whole range, tiny and huge arguments too: one query whose scores are the arguments.
    @Test func softCapIsTanhEverywhere() throws {
        let arguments: [Float] = [0, 1e-6, -1e-3, 0.1, -0.6, 0.63, 1, -2.5, 9, -20, 88, -300]
        let keys = try Tensor(arguments, shape: [arguments.count, 1, 1]),
            values = try Tensor(
                (0..<arguments.count * arguments.count).map { Float($0 % (arguments.count + 1) == 0 ? 1 : 0) },
                shape: [arguments.count, 1, arguments.count])
        let query = try Tensor.ones([1, 1, 1])
        let slots = try Tensor((0..<Int32(arguments.count)).map { $0 }, shape: [1, arguments.count])
        let weights = try Tensor.cachedAttention(
            query: query, keyPool: keys, valuePool: values, slots: slots, lengths: Tensor([Int32(arguments.count)]),
            kind: AttentionKind(scale: 1, softCap: 1)
        ).flattened()
        let expected = try keys.flattened().tanh().softmax(0)
        #expect(try weights.subtracting(expected).abs().max().item() < 1e-7)
    }

    @Test(
        arguments: [LogitsTransform(scale: 0.3), .init(softCap: 2.5), .init(scale: 1.7, softCap: 4)],
        [DType.float32, .bfloat16])
    func tokenLogProbsOfTransformedLogits(transform: LogitsTransform, dtype: DType) throws {
        let tokens = 11, width = 24, vocabulary = 53, temperature = 0.7
        let hidden = try leaf([tokens, width], dtype), weight = try leaf([vocabulary, width], dtype)
        let targets = try Tensor.randomIntegers(0..<vocabulary, [tokens], generator: generator)
        try compare([hidden, weight], tolerance: dtype == .float32 ? 1e-5 : 6e-2) {
            let both = try Tensor.tokenLogProbs(
                hidden: hidden, weight: weight, targets: targets, temperature: temperature, transform: transform,
                chunk: 4)
            return try Tensor.stack([both.logProbs, both.entropies])
        } plain: {
            let logits = try hidden.to(dtype: .float32).matmul(weight.to(dtype: .float32).transposed())
            let logP = try transform(logits).divided(by: temperature).logSoftmax(1)
            let picked = try logP.gathered(1, targets.unsqueezed(1)).squeezed(1)
            return try Tensor.stack([picked, logP.exp().multiplied(by: logP).sum(1).negated()])
        }
    }

    @Test func geluIsTheNormalDistributionsOrItsApproximation() throws {
        let x = try leaf([300])
        try compare([x], tolerance: 1e-6) {
            try x.gelu(tanhApproximation: true)
        } plain: {
            let cubic = try x.adding(x.multiplied(by: x.squared()).multiplied(by: 0.044715))
            let inner = try cubic.multiplied(by: (2 / Double.pi).squareRoot()).tanh()
            return try x.multiplied(by: inner.adding(1)).multiplied(by: 0.5)
        }
        // x Φ(x) from tables of the normal distribution.
        let exact = try Tensor([-2, -0.5, 0, 1, 3] as [Float]).gelu().values(Float.self)
        for (value, expected) in zip(exact, [-0.0455003, -0.1542688, 0, 0.8413447, 2.9959503] as [Float]) {
            #expect(abs(value - expected) < 1e-6)
        }
    }

    /// Gemma multiplies by a float32 weight whatever the activations are.
    @Test func rmsNormTakesAFloat32Weight() throws {
        let x = try leaf([5, 40], .bfloat16), w = try leaf([40])
        try compare([x, w], tolerance: 1e-2) {
            try x.rmsNorm(w, eps: 1e-5)
        } plain: {
            let wide = try x.to(dtype: .float32)
            let scale = try wide.squared().mean(-1, keepDim: true).adding(1e-5).rsqrt()
            return try wide.multiplied(by: scale).multiplied(by: w).to(dtype: .bfloat16)
        }
    }
}
