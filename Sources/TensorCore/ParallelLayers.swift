internal import CTorch

/// Collectives with gradients. Ranks that share `T` rows have chunks of `⌈T / n⌉`, the last ones filled up with zeros.
extension Tensor {
    /// This tensor; its gradient is the sum of all ranks' gradients.
    public func copied(to group: ProcessGroup) throws(TorchError) -> Tensor {
        try parallel("copy to ranks", group) { ct_parallel_copy(group.raw, raw, $0, $1) }
    }

    /// The sum over the ranks; each rank's gradient is that of the sum. Where no gradients are recorded, the sum is in this
    /// tensor's memory.
    public func summed(over group: ProcessGroup) throws(TorchError) -> Tensor {
        try parallel("sum over ranks", group) { ct_parallel_sum(group.raw, raw, $0, $1) }
    }

    /// The sum over the ranks, with which each of them goes on with something else: gradients are summed too.
    public func summedBothWays(over group: ProcessGroup) throws(TorchError) -> Tensor {
        try parallel("sum over ranks, both ways", group) { ct_parallel_sum_both(group.raw, raw, $0, $1) }
    }

    /// This tensor; its gradient is multiplied by `factor`.
    public func scalingGradient(by factor: Double) throws(TorchError) -> Tensor {
        try tensor("scale gradient", [self]) { ct_scale_gradient(raw, factor, $0, $1) }
    }

    /// How the gradient of rows that were gathered goes back to the rank that they came from.
    public enum GatheredGradient: Sendable {
        /// As the sum of all ranks' gradients: each went on with something else.
        case summed
        /// As it is: all ranks went on with the same.
        case own
    }

    /// All ranks' chunks, `[total, ..]`.
    public func gatheredRows(
        of group: ProcessGroup, total: Int, gradient: GatheredGradient
    ) throws(TorchError) -> Tensor {
        try parallel("gather rows", group) {
            ct_rows_gather(group.raw, raw, Int64(total), gradient == .summed, $0, $1)
        }
    }

    /// This rank's chunk of the sum over the ranks.
    /// - Parameter isRead: false where only the gradients' way through the sum is wanted, not its value: nothing is sent.
    public func scatteredSum(over group: ProcessGroup, isRead: Bool = true) throws(TorchError) -> Tensor {
        try parallel("scatter rows", group) { ct_rows_scatter(group.raw, raw, isRead, $0, $1) }
    }

    /// This rank's chunk of what all ranks have alike.
    public func ownRows(in group: ProcessGroup) throws(TorchError) -> Tensor {
        try parallel("own rows", group) { ct_rows_own(group.raw, raw, $0, $1) }
    }

    /// All ranks' columns side by side, `[T, total]`, with which all ranks go on alike.
    public func gatheredColumns(of group: ProcessGroup, total: Int) throws(TorchError) -> Tensor {
        try parallel("gather columns", group) { ct_columns_gather(group.raw, raw, Int64(total), $0, $1) }
    }

    /// Sends `inputRows[r]` rows to rank r and takes `outputRows[r]` from it.
    public func exchangedRows(
        in group: ProcessGroup, inputRows: [Int], outputRows: [Int]
    ) throws(TorchError) -> Tensor {
        precondition(inputRows.count == group.size && outputRows.count == group.size, "rows for \(group.size) ranks")
        let from = inputRows.map(Int64.init), to = outputRows.map(Int64.init)
        return try parallel("exchange rows", group) { ct_rows_exchange(group.raw, raw, from, to, $0, $1) }
    }

    /// This rank's tokens of all heads, `[c, H, D]` each, become all `total` tokens of this rank's heads, `[total, H / n, D]`
    /// (Ulysses: Jacobs et al. 2023). Where there are fewer heads than ranks, neighbours get the same one.
    public static func tokensToHeads(
        _ parts: [Tensor], total: Int, in group: ProcessGroup
    ) throws(TorchError) -> [Tensor] {
        let handles = parts.map { $0.raw as ct_tensor? }
        var results = [ct_tensor?](repeating: nil, count: parts.count)
        try check("tokens to heads in \(group.name)", parts) {
            ct_tokens_to_heads(group.raw, handles, Int32(handles.count), Int64(total), &results, $0)
        }
        return results.compactMap { $0.map { Tensor(owning: $0) } }
    }

    /// All tokens of this rank's heads, `[T, H, D]`, become this rank's chunk of the tokens of all heads, `[c, H · n, D]`.
    public func headsToTokens(in group: ProcessGroup) throws(TorchError) -> Tensor {
        try parallel("heads to tokens", group) { ct_heads_to_tokens(group.raw, raw, $0, $1) }
    }

    /// `self · weightᵀ + bias` where `copies` neighbours of the group hold the weight's rows from `first` on alike, and each sees a
    /// part of their gradient: it is summed over them.
    public func linear(
        _ weight: Tensor, bias: Tensor?, rowsFrom first: Int, heldBy copies: Int, of group: ProcessGroup
    ) throws(TorchError) -> Tensor {
        try tensor("linear with copied rows in \(group.name)", [self, weight]) {
            ct_copied_rows_linear(group.raw, raw, weight.raw, bias?.raw, Int64(first), Int32(copies), $0, $1)
        }
    }

    /// This tensor, which `copies` neighbours of the group hold alike, and each sees a part of the gradient of: it is summed over them.
    public func summingGradient(overCopies copies: Int, of group: ProcessGroup) throws(TorchError) -> Tensor {
        try parallel("sum gradients of copies", group) { ct_sum_copies(group.raw, raw, Int32(copies), $0, $1) }
    }

    /// The rows `ids` of an embedding of which this tensor is the rows from `first` on: zeros for ids that it does not hold.
    public func embedding(_ ids: Tensor, rowsFrom first: Int) throws(TorchError) -> Tensor {
        try tensor("embedding part", [self, ids]) { ct_embedding_part(raw, ids.raw, Int64(first), $0, $1) }
    }

    private func parallel(
        _ operation: String, _ group: ProcessGroup,
        _ call: (UnsafeMutablePointer<ct_tensor?>, UnsafeMutablePointer<ct_message?>) -> Int32
    ) throws(TorchError) -> Tensor {
        try tensor("\(operation) in \(group.name) (rank \(group.rank) of \(group.size))", [self], call)
    }
}

/// The rows of an embedding, or of an output projection, that one of several ranks holds: a chunk of `⌈V / n⌉`, the last ones
/// shorter or empty.
public struct VocabularyShare {
    public let group: ProcessGroup
    /// Rows of all ranks, and of this one.
    public let total: Int
    public let rows: Range<Int>

    public init(group: ProcessGroup, total: Int) {
        self.group = group
        self.total = total
        rows = total.chunk(group.rank, of: group.size)
    }
}

extension Int {
    /// The `index`-th of `count` chunks of `⌈self / count⌉`, of which the last may be shorter or empty.
    public func chunk(_ index: Int, of count: Int) -> Range<Int> {
        let size = (self + count - 1) / count
        return Swift.min(self, index * size)..<Swift.min(self, (index + 1) * size)
    }
}

extension Tensor {
    /// As ``tokenLogProbs(hidden:weight:targets:temperature:transform:chunk:)``, where each rank holds its share of the weight's rows.
    /// Logits are never gathered: the ranks tell each other three numbers a token. The gradient of `hidden` is this rank's part of a
    /// sum.
    public static func tokenLogProbs(
        hidden: Tensor, weight: Tensor, share: VocabularyShare, targets: Tensor, temperature: Double = 1,
        transform: LogitsTransform = .identity, chunk: Int? = nil
    ) throws(TorchError) -> (logProbs: Tensor, entropies: Tensor) {
        var entropies: ct_tensor?
        let logProbs = try tensor("tokenLogProbs in \(share.group.name)", [hidden, weight, targets]) {
            ct_parallel_token_log_probs(
                share.group.raw, hidden.raw, weight.raw, targets.raw, Int64(share.rows.lowerBound), Int64(share.total),
                temperature, transform.scale, transform.softCap ?? 0, Int64(chunk ?? 0), $0, &entropies, $1)
        }
        guard let entropies else { preconditionFailure("tokenLogProbs gave no entropies") }
        return (logProbs, Tensor(owning: entropies))
    }
}
