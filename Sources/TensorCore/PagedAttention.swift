internal import CTorch

/// The pages of a key-value cache that rows of queries see: row b's token t lies in slot
/// `table[starts[b] + t / size] * size + t % size`, where a page's size is 2 to the power of `shift`.
public struct CachePages {
    /// int32 `[*]`, `[B]`, `[B]`, contiguous.
    public let table, starts, lengths: Tensor
    public let shift: Int
    /// No row is longer.
    public let longest: Int

    public init(table: Tensor, starts: Tensor, lengths: Tensor, shift: Int, longest: Int) {
        self.table = table
        self.starts = starts
        self.lengths = lengths
        self.shift = shift
        self.longest = longest
    }

    /// Those of some of the rows.
    public func narrowed(_ rows: Range<Int>) throws(TorchError) -> CachePages {
        CachePages(
            table: table, starts: try starts.narrowed(0, rows), lengths: try lengths.narrowed(0, rows), shift: shift,
            longest: longest)
    }
}

/// Sequences packed one after another: each one's tokens end where the next one's begin.
public struct SequenceOffsets {
    /// int32 `[n + 1]`, on the device.
    public let offsets: Tensor
    public let longest: Int
    public init(offsets: Tensor, longest: Int) {
        self.offsets = offsets
        self.longest = longest
    }
}

extension Tensor {
    /// One query a row over cached keys: query `[B, Hq, D]`, pools `[S, Hk, D]` and `[S, Hk, Dv]`, of the query's type or both
    /// float8e4m3; gives `[B, Hq, Dv]`. A row's last token is the query's own.
    public static func cachedAttention(
        query: Tensor, keyPool: Tensor, valuePool: Tensor, pages: CachePages, kind: AttentionKind
    ) throws(TorchError) -> Tensor {
        let raw = ct_pages(
            table: pages.table.raw, starts: pages.starts.raw, lengths: pages.lengths.raw, shift: Int32(pages.shift),
            longest: Int64(pages.longest))
        return try tensor("cachedAttention", [query, keyPool, valuePool, pages.table, pages.starts, pages.lengths]) {
            ct_cached_attention(query.raw, keyPool.raw, valuePool.raw, raw, kind.raw, $0, $1)
        }
    }

    /// The same where `slots` int32 `[B, L]` says where each of a row's tokens lies, and `lengths` int32 `[B]` how many there are.
    public static func cachedAttention(
        query: Tensor, keyPool: Tensor, valuePool: Tensor, slots: Tensor, lengths: Tensor, kind: AttentionKind
    ) throws(TorchError) -> Tensor {
        let longest = slots.size(1)
        let starts = try Tensor(
            (0..<slots.size(0)).map { Int32($0 * longest) }, device: query.device)
        return try cachedAttention(
            query: query, keyPool: keyPool, valuePool: valuePool,
            pages: CachePages(
                table: slots.contiguous().reshaped([-1]), starts: starts, lengths: lengths, shift: 0, longest: longest),
            kind: kind)
    }

    /// Whether ``varlenAttention(query:key:value:queries:keys:kind:)`` takes such tensors.
    public static func hasVarlenAttention(query: Tensor, value: Tensor, kind: AttentionKind) -> Bool {
        ct_has_varlen_attention(query.raw, value.raw, kind.raw)
    }

    /// Packed sequences of queries over packed sequences of keys, the last query of each aligned with its last key, causally:
    /// query `[T, Hq, D]`, key and value `[S, Hk, D]`; gives `[T, Hq, D]`. CUDA, bfloat16, without gradients.
    public static func varlenAttention(
        query: Tensor, key: Tensor, value: Tensor, queries: SequenceOffsets, keys: SequenceOffsets, kind: AttentionKind
    ) throws(TorchError) -> Tensor {
        try tensor("varlenAttention", [query, key, value, queries.offsets, keys.offsets]) {
            ct_varlen_attention(
                query.raw, key.raw, value.raw, queries.offsets.raw, keys.offsets.raw, Int64(queries.longest),
                Int64(keys.longest), kind.raw, $0, $1)
        }
    }
}
