import TensorCore

/// How the ranks share the tokens of one forward pass. Ranks along the sequence axis have a chunk each; where tensor ranks share
/// tokens, the chunk is divided once more outside of the regions in which they share heads and columns.
struct TokenLayout {
    private let context: ParallelContext
    /// Tokens of the whole pass, and of this rank's chunk of them along the sequence axis.
    let total, tokens: Int
    /// Where tokens are shared along the sequence axis.
    private let sequence: ProcessGroup?
    private let splits: Bool

    /// - Parameter divides: whether the pass is one whose tokens ranks may share; all ranks must say the same.
    init(_ context: ParallelContext, total: Int, divides: Bool) {
        self.context = context
        self.total = total
        sequence = divides ? context.sequence : nil
        tokens = sequence.map { (total + $0.size - 1) / $0.size } ?? total
        splits = context.splitsTokens && isGradEnabled
    }

    /// Rows of the residual stream on this rank.
    var rows: Int {
        guard splits, let group = context.tensor else { return tokens }
        return (tokens + group.size - 1) / group.size
    }

    /// This rank's chunk along the sequence axis of what there is for every token of the pass.
    func chunk(_ x: Tensor) throws(TorchError) -> Tensor {
        guard let sequence else { return x }
        return try x.ownRows(in: sequence)
    }

    /// Where tensor ranks begin to do different things with `x`.
    func enter(_ x: Tensor) throws(TorchError) -> Tensor {
        guard let group = context.tensor else { return x }
        return splits ? try x.gatheredRows(of: group, total: tokens, gradient: .summed) : try x.copied(to: group)
    }

    /// The sum of what tensor ranks have made of it, and a bias that joins it once.
    /// - Parameter isRead: false where only the gradients' way through the sum is wanted, not its value.
    func leave(_ x: Tensor, bias: Tensor? = nil, isRead: Bool = true) throws(TorchError) -> Tensor {
        guard let group = context.tensor else { return x }
        let sum =
            if splits {
                try x.scatteredSum(over: group, isRead: isRead)
            } else {
                isRead ? try x.summed(over: group) : x
            }
        return try bias.map { bias throws(TorchError) in try sum.adding(bias) } ?? sum
    }

    /// What layers have of their own tokens, for all tokens of this rank's chunk; all tensor ranks go on alike.
    func alike(_ x: Tensor) throws(TorchError) -> Tensor {
        guard splits, let group = context.tensor else { return x }
        return try x.gatheredRows(of: group, total: tokens, gradient: .own)
    }

    /// What layers have of their own tokens, for the whole pass; all ranks go on alike.
    func whole(_ x: Tensor) throws(TorchError) -> Tensor {
        let chunk = try alike(x)
        guard let sequence else { return chunk }
        return try chunk.gatheredRows(of: sequence, total: total, gradient: .own)
    }

    /// The last layer's hidden states, for a head that tensor ranks share (`isShared`) or that each has whole. Sequence ranks go on
    /// with different rows of them.
    func result(_ x: Tensor, isShared: Bool) throws(TorchError) -> Tensor {
        let chunk = isShared ? try enter(x) : try alike(x)
        guard let sequence else { return chunk }
        return try chunk.gatheredRows(of: sequence, total: total, gradient: .summed)
    }

    /// The way in which layers attend.
    func attention(_ backend: any AttentionBackend) -> any AttentionBackend {
        guard let sequence else { return backend }
        return UlyssesAttention(inner: backend, group: sequence, total: total)
    }
}

/// Attention over a pass whose tokens ranks share: each has all tokens of some heads while attending.
struct UlyssesAttention: AttentionBackend {
    let inner: any AttentionBackend
    let group: ProcessGroup
    let total: Int

    func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor {
        let all = try Tensor.tokensToHeads([query, key, value], total: total, in: group)
        return try inner.attend(layer: layer, query: all[0], key: all[1], value: all[2], kind: kind)
            .headsToTokens(in: group)
    }

    func extents() throws -> [SequenceExtent] { try inner.extents() }
}
