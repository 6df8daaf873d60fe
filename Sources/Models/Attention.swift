public import TensorCore

/// How a layer's queries meet keys: over a pack in training, over a pack while filling the cache in prefill, over the cache in
/// decoding. Layers are blind to which; that is what makes sampling and training the same computation.
public protocol AttentionBackend {
    /// query `[T, Hq, D]`, key `[T, Hk, D]`, already rotated, and value `[T, Hk, Dv]`; gives `[T, Hq, Dv]`.
    func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor

    /// How long the sequences are that the pass's tokens belong to; together they cover every token. Only rotary embeddings whose
    /// frequencies change with the length ask.
    func extents() throws -> [SequenceExtent]

    /// Where the layer's keys and values are kept, for a kernel that puts them there as it rotates them; nil: nowhere, or by
    /// `attend` itself.
    func target(layer: Int) -> KeyValueTarget?

    /// As `attend`, where the pass's keys and values are in the layer's target already.
    func attendStored(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor
}

extension AttentionBackend {
    public func target(layer: Int) -> KeyValueTarget? { nil }
    public func attendStored(
        layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind
    ) throws -> Tensor {
        try attend(layer: layer, query: query, key: key, value: value, kind: kind)
    }
}

/// The places of a pass's keys and values in one layer's cache.
public struct KeyValueTarget {
    /// `[slots, Hk, D]` and `[slots, Hk, Dv]`.
    public let keys, values: Tensor
    /// int32 `[T]`: each token's slot; negative: it is not kept.
    public let slots: Tensor
    public init(keys: Tensor, values: Tensor, slots: Tensor) {
        self.keys = keys
        self.values = values
        self.slots = slots
    }
}

/// A run of a pass's tokens and the sequences that go through it.
public struct SequenceExtent: Sendable, Hashable {
    public var tokens: Range<Int>
    /// Lengths, in tokens, of the shortest and the longest of these sequences: one and the same unless they share this run.
    public var shortest, longest: Int
    /// Whether the keys before these tokens were rotated in an earlier pass.
    public var isCached: Bool

    public init(tokens: Range<Int>, shortest: Int, longest: Int, isCached: Bool = false) {
        self.tokens = tokens
        self.shortest = shortest
        self.longest = longest
        self.isCached = isCached
    }

    static func of(_ segments: [PackedSegment]) -> [SequenceExtent] {
        var lengths = segments.map(\.length)
        for (index, segment) in segments.enumerated() {
            if let parent = segment.parent { lengths[index] += lengths[parent] }
        }
        var extents = zip(segments, lengths).map { segment, length in
            SequenceExtent(
                tokens: segment.start..<segment.start + segment.length, shortest: length, longest: length)
        }
        // A parent is no sequence's end: its sequences are its children's. Children come after it.
        var hasChild = [Bool](repeating: false, count: segments.count)
        for (index, segment) in segments.enumerated().reversed() {
            guard let parent = segment.parent else { continue }
            let own = extents[index]
            extents[parent].shortest = hasChild[parent] ? min(extents[parent].shortest, own.shortest) : own.shortest
            extents[parent].longest = hasChild[parent] ? max(extents[parent].longest, own.longest) : own.longest
            hasChild[parent] = true
        }
        return extents
    }
}

/// Training, scoring: packed segments that share ancestors, nothing kept. Layers, and layers run again in backward, share one plan.
public struct PackedAttention: AttentionBackend {
    public let segments: [PackedSegment]
    private let plan: Result<AttentionPlan, TorchError>

    public init(segments: [PackedSegment], kernels: AttentionPlan.Kernels = .fastest) {
        self.segments = segments
        plan = Result { () throws(TorchError) in try AttentionPlan(segments, kernels: kernels) }
    }

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor {
        try Tensor.packedAttention(query: query, key: key, value: value, plan: plan.get(), kind: kind)
    }

    public func extents() -> [SequenceExtent] { SequenceExtent.of(segments) }
}

/// Keys and values of every layer, in pools `[slots, Hk, D]` and `[slots, Hk, Dv]`; who owns which slot is the scheduler's
/// business. A layer with a window keeps every token too: the window is in what it reads.
///
/// The pools are of the model's type or float8e4m3: half of bfloat16's bytes, numbers rounded to four significant bits, saturated
/// at 448, with a fixed scale of 1. Keys and values of trained models lie well within; a scale made from samples would have to
/// change with the weights that a run trains. What reads the cache sees rounded numbers; a prompt computed whole attends to its
/// own as they were.
public final class KeyValueCache {
    public let keys, values: [Tensor]
    public let slotCount: Int
    public let dtype: DType
    /// All layers', `[layers, slots, Hk, D]` and `[layers, slots, Hk, Dv]`.
    private let allKeys, allValues: Tensor

    public init(
        layers: Int, slots: Int, keyValueHeads: Int, headDim: Int, valueHeadDim: Int? = nil, dtype: DType,
        device: Device, pinned: Bool = false
    ) throws(TorchError) {
        func pool(_ size: Int) throws(TorchError) -> Tensor {
            try Tensor.empty([layers, slots, keyValueHeads, size], dtype: dtype, device: device, pinned: pinned)
        }
        func split(_ all: Tensor) throws(TorchError) -> [Tensor] {
            var pools: [Tensor] = []
            for layer in 0..<layers { pools.append(try all.selected(0, layer)) }
            return pools
        }
        self.dtype = dtype
        allKeys = try pool(headDim)
        allValues = try pool(valueHeadDim ?? headDim)
        keys = try split(allKeys)
        values = try split(allValues)
        slotCount = slots
    }

    /// A cache of `model`'s shape and, unless told otherwise, its type.
    public convenience init(
        for model: any SequenceModel, slots: Int, dtype: DType? = nil, device: Device? = nil, pinned: Bool = false
    ) throws(TorchError) {
        let shape = model.shape
        try self.init(
            layers: shape.layers, slots: slots, keyValueHeads: shape.rankKeyValueHeads, headDim: shape.headDim,
            valueHeadDim: shape.valueHeadDim, dtype: dtype ?? model.dtype, device: device ?? model.device,
            pinned: pinned)
    }

    public var byteCount: Int { allKeys.byteCount + allValues.byteCount }

    /// Bytes of one token's keys and values in all layers.
    public static func bytesPerToken(_ model: any SequenceModel, dtype: DType? = nil) -> Int {
        let shape = model.shape
        let values = shape.layers * shape.rankKeyValueHeads * (shape.headDim + shape.valueHeadDim)
        return values * (dtype ?? model.dtype).size
    }

    func write(layer: Int, slots: Tensor, key: Tensor, value: Tensor) throws(TorchError) {
        try keys[layer].storeRows(slots, key)
        try values[layer].storeRows(slots, value)
    }

    /// Copies whole blocks of `size` slots, in every layer, from a cache of the same shape on any device. No block is both read
    /// and written.
    public func copyBlocks(_ moves: [(from: Int32, to: Int32)], size: Int, from source: KeyValueCache)
        throws(TorchError)
    {
        guard !moves.isEmpty else { return }
        for (target, origin) in [(allKeys, source.allKeys), (allValues, source.allValues)] {
            let layers = target.size(0)
            let from = try Tensor(moves.map { Int64($0.from) }, device: origin.device)
            let to = try Tensor(moves.map { Int64($0.to) }, device: target.device)
            let read = try origin.movable.reshaped([layers, origin.size(1) / size, -1]).indexSelect(1, from)
            try target.movable.reshaped([layers, target.size(1) / size, -1]).indexCopy(1, to, read.to(target.device))
        }
    }
}

/// Prefill: as training, and each token's key and value go to its slot.
public struct PrefillAttention: AttentionBackend {
    let cache: KeyValueCache
    let segments: [PackedSegment]
    /// int64 `[T]`
    let slots: Tensor

    public init(cache: KeyValueCache, segments: [PackedSegment], slots: Tensor) {
        self.cache = cache
        self.segments = segments
        self.slots = slots
    }

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor {
        try cache.write(layer: layer, slots: slots, key: key, value: value)
        return try Tensor.packedAttention(query: query, key: key, value: value, segments: segments, kind: kind)
    }

    public func extents() -> [SequenceExtent] { SequenceExtent.of(segments) }
}

/// Decoding: one new token a row.
public struct DecodeAttention: AttentionBackend {
    let cache: KeyValueCache
    /// int32 `[B, L]`, int32 `[B]` (the new token counted), int64 `[B]`
    let slotTable, lengths, newSlots: Tensor

    public init(cache: KeyValueCache, slotTable: Tensor, lengths: Tensor, newSlots: Tensor) {
        self.cache = cache
        self.slotTable = slotTable
        self.lengths = lengths
        self.newSlots = newSlots
    }

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) throws -> Tensor {
        try cache.write(layer: layer, slots: newSlots, key: key, value: value)
        return try Tensor.cachedAttention(
            query: query, keyPool: cache.keys[layer], valuePool: cache.values[layer], slots: slotTable,
            lengths: lengths, kind: kind)
    }

    public func extents() throws -> [SequenceExtent] {
        try lengths.to(.cpu).values(Int32.self).enumerated().map { row, length in
            SequenceExtent(tokens: row..<row + 1, shortest: Int(length), longest: Int(length), isCached: true)
        }
    }
}
