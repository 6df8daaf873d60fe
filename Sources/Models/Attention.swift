public import TensorCore

/// How a layer's queries meet keys: over a pack in training, over a pack while filling the cache in prefill, over the cache in
/// decoding. Layers are blind to which; that is what makes sampling and training the same computation.
public protocol AttentionBackend {
    /// query `[T, Hq, D]`, key and value `[T, Hk, D]`, already rotated; gives `[T, Hq, D]`.
    func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, scale: Double) throws -> Tensor
}

/// Training, scoring: packed segments that share ancestors, nothing kept.
public struct PackedAttention: AttentionBackend {
    public var segments: [PackedSegment]
    public init(segments: [PackedSegment]) { self.segments = segments }

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, scale: Double) throws -> Tensor {
        try Tensor.packedAttention(query: query, key: key, value: value, segments: segments, scale: scale)
    }
}

/// Keys and values of every layer, in pools `[slots, Hk, D]`; who owns which slot is the scheduler's business.
public final class KeyValueCache {
    public let keys, values: [Tensor]
    public let slotCount: Int

    public init(
        layers: Int, slots: Int, keyValueHeads: Int, headDim: Int, dtype: DType, device: Device
    ) throws(TorchError) {
        func pools() throws(TorchError) -> [Tensor] {
            var all: [Tensor] = []
            for _ in 0..<layers {
                all.append(try Tensor.empty([slots, keyValueHeads, headDim], dtype: dtype, device: device))
            }
            return all
        }
        keys = try pools()
        values = try pools()
        slotCount = slots
    }

    func write(layer: Int, slots: Tensor, key: Tensor, value: Tensor) throws(TorchError) {
        try keys[layer].indexCopy(0, slots, key)
        try values[layer].indexCopy(0, slots, value)
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

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, scale: Double) throws -> Tensor {
        try cache.write(layer: layer, slots: slots, key: key, value: value)
        return try Tensor.packedAttention(query: query, key: key, value: value, segments: segments, scale: scale)
    }
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

    public func attend(layer: Int, query: Tensor, key: Tensor, value: Tensor, scale: Double) throws -> Tensor {
        try cache.write(layer: layer, slots: newSlots, key: key, value: value)
        return try Tensor.cachedAttention(
            query: query, keyPool: cache.keys[layer], valuePool: cache.values[layer], slots: slotTable,
            lengths: lengths, scale: scale)
    }
}
