internal import CTorch

/// A run of tokens of a pack. It sees itself causally and every ancestor whole: a group's prompt is one segment, its samples
/// are children, and the prompt is computed once.
public struct PackedSegment: Sendable, Hashable {
    /// First token of the run in the pack.
    public var start: Int
    /// Tokens in the run, at least 1.
    public var length: Int
    /// The index of the segment that comes before this one in its sequence; an earlier one, or nil.
    public var parent: Int?

    public init(start: Int, length: Int, parent: Int? = nil) {
        self.start = start
        self.length = length
        self.parent = parent
    }
}

/// How a pack's tokens see one another, laid out for the kernels at its first use and shared by all layers, forward and backward.
///
/// Queries, keys and values are gathered for no layer where the segments follow one another by depth, those of one depth by their
/// parents: every kernel call then is over one piece of the pack. Other orders give the same
/// results, more slowly.
public final class AttentionPlan {
    /// What may compute attention on CUDA.
    public enum Kernels: Sendable, Hashable {
        /// cuDNN on Hopper and later, where the pack is a few batches of equally long runs; else flash attention.
        case fastest
        case flash
    }

    public let segments: [PackedSegment]
    let raw: ct_attention_plan

    /// The segments must cover every token of the pack once.
    /// - Throws: ``TorchError`` for a segment that is empty or names a later parent.
    public init(_ segments: [PackedSegment], kernels: Kernels = .fastest) throws(TorchError) {
        self.segments = segments
        var flat: [Int32] = []
        flat.reserveCapacity(segments.count * 4)
        for segment in segments {
            flat += [Int32(segment.start), Int32(segment.length), Int32(segment.parent ?? -1), 0]
        }
        var plan: ct_attention_plan?
        try check("attention plan of \(segments.count) segments") {
            ct_attention_plan_create(flat, Int32(segments.count), kernels == .flash, &plan, $0)
        }
        guard let plan else { preconditionFailure("ct_attention_plan_create gave no plan") }
        raw = plan
    }

    deinit { ct_attention_plan_free(raw) }

    /// What computes attention of these: `cudnn`, `flash`, `segments` (one at a time, by plain operations) or `cpu`.
    public func backend(query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> String {
        String(cString: ct_attention_backend(query.raw, key.raw, value.raw, raw, kind.raw))
    }
}

extension Tensor {
    /// Attention over a pack: query `[T, Hq, D]`, key `[T, Hk, D]` and value `[T, Hk, Dv]` give `[T, Hq, Dv]`.
    public static func packedAttention(
        query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, kind: AttentionKind
    ) throws(TorchError) -> Tensor {
        try tensor("packedAttention over \(plan.segments.count) segments", [query, key, value]) {
            ct_packed_attention(query.raw, key.raw, value.raw, plan.raw, kind.raw, $0, $1)
        }
    }

    /// The same of segments that are used once. They must cover every token once.
    public static func packedAttention(
        query: Tensor, key: Tensor, value: Tensor, segments: [PackedSegment], kind: AttentionKind
    ) throws(TorchError) -> Tensor {
        try packedAttention(query: query, key: key, value: value, plan: AttentionPlan(segments), kind: kind)
    }

    /// The same with nothing but a scale.
    public static func packedAttention(
        query: Tensor, key: Tensor, value: Tensor, segments: [PackedSegment], scale: Double
    ) throws(TorchError) -> Tensor {
        try packedAttention(
            query: query, key: key, value: value, segments: segments, kind: AttentionKind(scale: scale))
    }
}
