import TensorCore

/// A layer's mixing of tokens.
protocol SelfAttention {
    /// `[T, C]` to `[T, C]`.
    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor
}

/// Grouped-query attention (Ainslie et al. 2023): one projection to queries, keys and values, queries and keys normed where the
/// family does, rotated or not.
struct GroupedQueryAttention: SelfAttention {
    /// What families disagree on.
    struct Options {
        var kind: AttentionKind
        /// Which of the pass's rotations turns queries and keys; nil: none (NoPE).
        var rotary: Int? = 0
        /// Biases of the queries, keys and values.
        var inputBias = false
        var outputBias = false
        var norm: QueryKeyNorm = .none
        /// The checkpoint holds queries, keys and values as one tensor, `qkv_proj`.
        var isFused = false
    }

    enum QueryKeyNorm {
        case none
        /// Over each head, by one weight `[D]` (Qwen 3, Gemma 3).
        case perHead(eps: Double, RMSNorm.Convention = .plain)
        /// Over all heads at once, by a weight `[H · D]` (OLMo 2).
        case fullWidth(eps: Double)
    }

    private let layer: Int
    private let shape: ModelShape
    private let kind: AttentionKind
    private let rotary: Int?
    private let queryKeyValue, output: Projection
    private let queryNorm, keyNorm: RMSNorm?
    private let normsWholeWidth: Bool

    init(_ builder: ParameterBuilder, _ name: String, layer: Int, shape: ModelShape, _ options: Options) throws {
        self.layer = layer
        self.shape = shape
        kind = options.kind
        rotary = options.rotary
        let queries = shape.queryHeads * shape.headDim, keys = shape.keyValueHeads * shape.headDim
        let parts =
            options.isFused
            ? [(name + ".qkv_proj", queries + 2 * keys)]
            : [(name + ".q_proj", queries), (name + ".k_proj", keys), (name + ".v_proj", keys)]
        queryKeyValue = try builder.linear(
            name + ".qkv_proj", parts, inputs: shape.hidden, bias: options.inputBias)
        output = try builder.linear(
            name + ".o_proj", inputs: queries, outputs: shape.hidden, bias: options.outputBias)
        func norms(_ sizes: (Int, Int), _ eps: Double, _ convention: RMSNorm.Convention) throws -> (RMSNorm, RMSNorm) {
            (
                try RMSNorm(builder, name + ".q_norm", size: sizes.0, eps: eps, convention: convention),
                try RMSNorm(builder, name + ".k_norm", size: sizes.1, eps: eps, convention: convention)
            )
        }
        switch options.norm {
        case .none: (queryNorm, keyNorm, normsWholeWidth) = (nil, nil, false)
        case .perHead(let eps, let convention):
            let both = try norms((shape.headDim, shape.headDim), eps, convention)
            (queryNorm, keyNorm, normsWholeWidth) = (both.0, both.1, false)
        case .fullWidth(let eps):
            let both = try norms((queries, keys), eps, .plain)
            (queryNorm, keyNorm, normsWholeWidth) = (both.0, both.1, true)
        }
    }

    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor {
        let tokens = x.size(0), hq = shape.queryHeads, hk = shape.keyValueHeads
        let all_THD = try queryKeyValue(x).reshaped([tokens, hq + 2 * hk, shape.headDim])
        let angles = rotary.map { pass.angles[$0] }
        let query = try prepared(all_THD.narrowed(1, 0..<hq), queryNorm, angles)
        let key = try prepared(all_THD.narrowed(1, hq..<hq + hk), keyNorm, angles)
        let value = try all_THD.narrowed(1, hq + hk..<hq + 2 * hk)
        let mixed = try pass.attention.attend(layer: layer, query: query, key: key, value: value, kind: kind)
        return try output(mixed.reshaped([tokens, hq * shape.headDim]))
    }

    private func prepared(_ x_THD: Tensor, _ norm: RMSNorm?, _ angles: RotaryAngles?) throws(TorchError) -> Tensor {
        var x_THD = x_THD
        if let norm {
            let size = [x_THD.size(0), x_THD.size(1), x_THD.size(2)]
            x_THD = normsWholeWidth ? try norm(x_THD.reshaped([size[0], -1])).reshaped(size) : try norm(x_THD)
        }
        return try angles?.rotate(x_THD) ?? x_THD
    }
}
