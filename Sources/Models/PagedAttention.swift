public import TensorCore

/// Attention of one generation step over a paged cache: in one pass, tokens that decode, prompts that begin, and chunks of
/// prompts whose beginning is cached. The pass's tokens come in that order: rows, chunks, prompts. Every token's key and value is
/// in the cache before any of them attends.
public final class PagedAttention: AttentionBackend {
    /// Parts of sequences whose tokens before them are cached.
    public struct Chunks {
        public var queries, keys: SequenceOffsets
        /// int32: the slots of all the keys that the chunks see, one chunk after another.
        public var keySlots: Tensor
        public init(queries: SequenceOffsets, keys: SequenceOffsets, keySlots: Tensor) {
            self.queries = queries
            self.keys = keys
            self.keySlots = keySlots
        }
    }

    /// Sequences from their first token on.
    public struct Prompts {
        public var lengths: [Int]
        public var offsets: SequenceOffsets
        public init(lengths: [Int], offsets: SequenceOffsets) {
            self.lengths = lengths
            self.offsets = offsets
        }
    }

    private let cache: KeyValueCache
    /// int32 `[T]`
    private let slots: Tensor
    /// What each token of the rows, then of the chunks, sees.
    private let pages: CachePages?
    private let rowCount, chunkTokens: Int
    private let chunks: Chunks?
    private let prompts: Prompts?
    private let runs: [SequenceExtent]
    private lazy var wideSlots = Result { try slots.to(dtype: .int64) }
    private lazy var wideKeySlots = Result { try chunks?.keySlots.to(dtype: .int64) }

    /// - Parameters:
    ///   - slots: int32 `[T]`, where each token's key and value go.
    ///   - pages: for the rows and the chunks' tokens, one query each.
    ///   - chunkTokens: how many of the pages' queries are chunks'.
    ///   - extents: of all tokens; see ``AttentionBackend/extents()``.
    public init(
        cache: KeyValueCache, slots: Tensor, pages: CachePages?, chunkTokens: Int, chunks: Chunks?, prompts: Prompts?,
        extents: [SequenceExtent]
    ) {
        self.cache = cache
        self.slots = slots
        self.pages = pages
        self.chunkTokens = chunkTokens
        rowCount = (pages?.lengths.size(0) ?? 0) - chunkTokens
        self.chunks = chunks
        self.prompts = prompts
        runs = extents
    }

    public func extents() -> [SequenceExtent] { runs }

    public func target(layer: Int) -> KeyValueTarget? {
        KeyValueTarget(keys: cache.keys[layer], values: cache.values[layer], slots: slots)
    }

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor {
        try cache.write(layer: layer, slots: wideSlots.get(), key: key, value: value)
        return try attendStored(layer: layer, query: query, key: key, value: value, kind: kind)
    }

    public func attendStored(
        layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind
    ) throws -> Tensor {
        let (keyPool, valuePool) = (cache.keys[layer], cache.values[layer])
        var parts: [Tensor] = []
        // Only one kind of part: the tensors whole.
        func part(_ x: Tensor, _ tokens: Range<Int>) throws(TorchError) -> Tensor {
            tokens.count == x.size(0) ? x : try x.narrowed(0, tokens)
        }
        let isFlash = Tensor.hasVarlenAttention(query: query, value: value, kind: kind)
        let asRows = isFlash ? rowCount : rowCount + chunkTokens
        if let pages, asRows > 0 {
            parts.append(
                try Tensor.cachedAttention(
                    query: part(query, 0..<asRows), keyPool: keyPool, valuePool: valuePool,
                    pages: asRows == rowCount + chunkTokens ? pages : pages.narrowed(0..<asRows), kind: kind))
        }
        if isFlash, let chunks, let keySlots = try wideKeySlots.get() {
            parts.append(
                try Tensor.varlenAttention(
                    query: part(query, rowCount..<rowCount + chunkTokens),
                    key: keyPool.storedRows(keySlots, as: query.dtype),
                    value: valuePool.storedRows(keySlots, as: query.dtype), queries: chunks.queries, keys: chunks.keys,
                    kind: kind))
        }
        if let prompts {
            let tokens = rowCount + chunkTokens..<query.size(0)
            let (q, k, v) = (try part(query, tokens), try part(key, tokens), try part(value, tokens))
            if isFlash {
                parts.append(
                    try Tensor.varlenAttention(
                        query: q, key: k, value: v, queries: prompts.offsets, keys: prompts.offsets, kind: kind))
            } else {
                parts.append(
                    try Tensor.packedAttention(query: q, key: k, value: v, segments: prompts.segments, kind: kind))
            }
        }
        return parts.count == 1 ? parts[0] : try Tensor.concatenate(parts, dim: 0)
    }
}

extension PagedAttention.Prompts {
    fileprivate var segments: [PackedSegment] {
        var start = 0
        return lengths.map { length in
            defer { start += length }
            return PackedSegment(start: start, length: length)
        }
    }
}
