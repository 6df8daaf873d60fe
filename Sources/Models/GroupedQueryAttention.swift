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
    /// Heads of this rank.
    private let queryHeads, keyValueHeads, headDim: Int
    private let kind: AttentionKind
    private let rotary: Int?
    private let queryKeyValue, output: Projection
    private let queryNorm, keyNorm: RMSNorm?
    private let widthNorms: (query: WidthNorm, key: WidthNorm)?

    init(_ builder: ParameterBuilder, _ name: String, layer: Int, shape: ModelShape, _ options: Options) throws {
        self.layer = layer
        kind = options.kind
        rotary = options.rotary
        let queries = shape.queryHeads * shape.headDim, keys = shape.keyValueHeads * shape.headDim
        let parts =
            options.isFused
            ? [(name + ".qkv_proj", queries + 2 * keys)]
            : [(name + ".q_proj", queries), (name + ".k_proj", keys), (name + ".v_proj", keys)]
        let parallel = builder.parallel
        queryHeads = try parallel.share(shape.queryHeads, of: "query heads").count
        keyValueHeads = try parallel.share(shape.keyValueHeads, of: "key-value heads", mayCopy: true).count
        headDim = shape.headDim
        let keyBlock = RowBlock(heads: shape.keyValueHeads, size: headDim, mayCopy: true)
        queryKeyValue = try builder.linear(
            name + ".qkv_proj", parts, inputs: shape.hidden, bias: options.inputBias,
            share: .columns([RowBlock(heads: shape.queryHeads, size: headDim), keyBlock, keyBlock]))
        output = try builder.linear(
            name + ".o_proj", inputs: queries, outputs: shape.hidden, bias: options.outputBias,
            share: .rows(units: shape.queryHeads))
        switch options.norm {
        case .none: (queryNorm, keyNorm, widthNorms) = (nil, nil, nil)
        case .perHead(let eps, let convention):
            func norm(_ end: String) throws -> RMSNorm {
                try RMSNorm(
                    builder, name + end, size: shape.headDim, eps: eps, convention: convention, gradient: .shared)
            }
            (queryNorm, keyNorm, widthNorms) = (try norm(".q_norm"), try norm(".k_norm"), nil)
        case .fullWidth(let eps):
            (queryNorm, keyNorm) = (nil, nil)
            widthNorms = (
                try WidthNorm(builder, name + ".q_norm", heads: shape.queryHeads, headDim: headDim, eps: eps),
                try WidthNorm(builder, name + ".k_norm", heads: shape.keyValueHeads, headDim: headDim, eps: eps)
            )
        }
    }

    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor {
        let all_TN = try queryKeyValue(pass.layout.enter(x), kept: .queryKeyValue)
        let angles = rotary.map { pass.angles[$0] }
        let mixed =
            if let widthNorms {
                try mixedByWidth(all_TN, angles, widthNorms, pass)
            } else {
                try mixedByHead(all_TN, angles, pass)
            }
        return try pass.layout.leave(
            output(mixed.reshaped([all_TN.size(0), queryHeads * headDim])), bias: output.biasOfSum)
    }

    /// Norms, if any, are over single heads: one kernel on CUDA, which may store keys and values as well.
    private func mixedByHead(_ all_TN: Tensor, _ angles: RotaryAngles?, _ pass: DecoderPass) throws -> Tensor {
        var how = HeadPreparation(
            queryHeads: queryHeads, keyValueHeads: keyValueHeads, headDim: headDim,
            angles: angles.map { ($0.cos, $0.sin) })
        if let queryNorm, let keyNorm { how.norms = (queryNorm.terms, keyNorm.terms) }
        if let target = pass.attention.target(layer: layer),
            all_TN.hasHeadKernel(how, keys: target.keys, values: target.values)
        {
            let (query, key, value) = try all_TN.preparedHeads(
                how, storing: (target.keys, target.values, target.slots))
            return try pass.attention.attendStored(layer: layer, query: query, key: key, value: value, kind: kind)
        }
        let (query, key, value) = try all_TN.preparedHeads(how)
        return try pass.attention.attend(layer: layer, query: query, key: key, value: value, kind: kind)
    }

    private func mixedByWidth(
        _ all_TN: Tensor, _ angles: RotaryAngles?, _ norms: (query: WidthNorm, key: WidthNorm), _ pass: DecoderPass
    ) throws -> Tensor {
        let tokens = all_TN.size(0), hq = queryHeads, hk = keyValueHeads
        let all_THD = try all_TN.reshaped([tokens, hq + 2 * hk, headDim])
        func prepared(_ heads: Range<Int>, _ norm: WidthNorm) throws(TorchError) -> Tensor {
            let own_THD = try all_THD.narrowed(1, heads)
            let normed_THD = try norm(own_THD.reshaped([tokens, -1])).reshaped([tokens, heads.count, headDim])
            return try angles?.rotate(normed_THD) ?? normed_THD
        }
        return try pass.attention.attend(
            layer: layer, query: prepared(0..<hq, norms.query), key: prepared(hq..<hq + hk, norms.key),
            value: all_THD.narrowed(1, hq + hk..<hq + 2 * hk), kind: kind)
    }
}
