import TensorCore

/// Multi-head latent attention (DeepSeek-AI 2024, DeepSeek-V2 §2.1): keys and values are read from a narrow latent vector, which is
/// the same for all heads; a part of each query and key is rotated, and the rotated part of the keys is one for all heads.
///
/// The cache holds the keys and values of every head as they are multiplied, not the latent vectors.
struct LatentAttention: SelfAttention {
    struct Options {
        var heads: Int
        /// Sizes of a head: of the part of queries and keys that is not rotated, of the part that is, and of values.
        var plainDim, rotatedDim, valueDim: Int
        /// Size of the queries' latent vector; nil: queries are read from the hidden state.
        var queryRank: Int?
        /// Size of the keys' and values' latent vector.
        var keyValueRank: Int
        var kind: AttentionKind
        /// Rotated dimensions are paired as neighbours in the checkpoint's rows, not as halves.
        var isInterleaved: Bool
        /// Biases of what reads and what writes the hidden state.
        var bias: Bool

        var keyDim: Int { plainDim + rotatedDim }
    }

    /// The latent norms keep this whatever `rms_norm_eps` says.
    private static let normEps = 1e-6

    private let layer: Int
    private let options: Options
    /// Heads of this rank. The latent vectors, from which all heads read, are computed on every rank.
    private let heads: Int
    /// Both latent vectors and the rotated key; without a latent query, the latter two.
    private let down: Projection
    private let queryNorm: RMSNorm?
    private let queryUp: Projection
    private let keyValueNorm: RMSNorm
    private let keyValueUp, output: Projection

    init(_ builder: ParameterBuilder, _ name: String, layer: Int, hidden: Int, _ options: Options) throws {
        self.layer = layer
        self.options = options
        heads = try builder.parallel.share(options.heads, of: "attention heads").count
        let queries = options.heads * options.keyDim
        let byHead = { (size: Int) in ProjectionShare.columns([RowBlock(heads: options.heads, size: size)]) }
        let keyValueDown = (name: name + ".kv_a_proj_with_mqa", rows: options.keyValueRank + options.rotatedDim)
        if let rank = options.queryRank {
            down = try builder.linear(
                name + ".qkv_a_proj", [(name + ".q_a_proj", rank), keyValueDown], inputs: hidden, bias: options.bias,
                share: .whole(.shared))
            queryNorm = try RMSNorm(
                builder, name + ".q_a_layernorm", size: rank, eps: Self.normEps, gradient: .shared)
            queryUp = try builder.linear(
                name + ".q_b_proj", inputs: rank, outputs: queries, bias: false, share: byHead(options.keyDim))
        } else {
            queryUp = try builder.linear(
                name + ".q_proj", inputs: hidden, outputs: queries, bias: false, share: byHead(options.keyDim))
            queryNorm = nil
            down = try builder.linear(
                keyValueDown.name, [keyValueDown], inputs: hidden, bias: options.bias, share: .whole(.shared))
        }
        keyValueNorm = try RMSNorm(
            builder, name + ".kv_a_layernorm", size: options.keyValueRank, eps: Self.normEps, gradient: .shared)
        keyValueUp = try builder.linear(
            name + ".kv_b_proj", inputs: options.keyValueRank,
            outputs: options.heads * (options.plainDim + options.valueDim), bias: false,
            share: byHead(options.plainDim + options.valueDim))
        output = try builder.linear(
            name + ".o_proj", inputs: options.heads * options.valueDim, outputs: hidden, bias: options.bias,
            share: .rows(units: options.heads))
    }

    func callAsFunction(_ x: Tensor, _ pass: DecoderPass) throws -> Tensor {
        let x = try pass.layout.enter(x)
        let tokens = x.size(0), plain = options.plainDim
        let latent_TR = try down(x)
        let start = options.queryRank ?? 0, end = start + options.keyValueRank
        let query_THD = try query(x, latent_TR).reshaped([tokens, heads, options.keyDim])
        let rotatedQuery = try rotate(query_THD.narrowed(2, plain..<options.keyDim), pass)
        let query = try Tensor.concatenate([query_THD.narrowed(2, 0..<plain), rotatedQuery], dim: 2)

        let keyValue_THD = try keyValueUp(keyValueNorm(latent_TR.narrowed(1, start..<end)))
            .reshaped([tokens, heads, plain + options.valueDim])
        let rotatedKey_T1D = try rotate(latent_TR.narrowed(1, end..<end + options.rotatedDim).unsqueezed(1), pass)
        let key = try Tensor.concatenate(
            [keyValue_THD.narrowed(2, 0..<plain), rotatedKey_T1D.expanded([tokens, heads, options.rotatedDim])], dim: 2)
        let value = try keyValue_THD.narrowed(2, plain..<plain + options.valueDim)

        let mixed = try pass.attention.attend(layer: layer, query: query, key: key, value: value, kind: options.kind)
        return try pass.layout.leave(
            output(mixed.reshaped([tokens, heads * options.valueDim])), bias: output.biasOfSum)
    }

    private func query(_ x: Tensor, _ latent: Tensor) throws(TorchError) -> Tensor {
        guard let queryNorm, let rank = options.queryRank else { return try queryUp(x) }
        return try queryUp(queryNorm(latent.narrowed(1, 0..<rank)))
    }

    private func rotate(_ x_THD: Tensor, _ pass: DecoderPass) throws(TorchError) -> Tensor {
        guard options.isInterleaved else { return try pass.angles[0].rotate(x_THD) }
        let shape = [x_THD.size(0), x_THD.size(1), x_THD.size(2)]
        let halves = try x_THD.reshaped([shape[0], shape[1], shape[2] / 2, 2]).transposed(2, 3).reshaped(shape)
        return try pass.angles[0].rotate(halves)
    }
}
