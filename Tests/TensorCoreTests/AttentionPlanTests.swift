import TensorCore
import Testing

/// One plan for many layers, in any order of segments.
extension FusedLayerTests {
    /// By depth and then by parent, and the same tree depth first.
    static let orders: [[(length: Int, parent: Int?)]] = [
        [(9, nil), (4, nil), (5, 0), (7, 0), (3, 1), (6, 2), (2, 2), (8, 5)],
        [(9, nil), (5, 0), (6, 1), (8, 2), (2, 1), (7, 0), (4, nil), (3, 6)],
    ]
    /// Where each segment of the first order is in the second.
    static let places = [0, 6, 1, 5, 7, 2, 4, 3]

    static func segments(_ order: [(length: Int, parent: Int?)]) -> [PackedSegment] {
        var start = 0
        return order.map { length, parent in
            defer { start += length }
            return PackedSegment(start: start, length: length, parent: parent)
        }
    }

    @Test func theOrderOfSegmentsDoesNotMatter() throws {
        let first = Self.segments(Self.orders[0]), second = Self.segments(Self.orders[1])
        let total = first.reduce(0) { $0 + $1.length }
        // Where each token of the second order is in the first.
        var source = [Int64](repeating: 0, count: total)
        for (segment, place) in zip(first, Self.places) {
            #expect(segment.length == second[place].length)
            for t in 0..<segment.length { source[second[place].start + t] = Int64(segment.start + t) }
        }
        let order = try Tensor(source)
        let q = try leaf([total, 4, 16]), k = try leaf([total, 2, 16]), v = try leaf([total, 2, 16])
        let plans = try [AttentionPlan(first), AttentionPlan(second)]
        let kind = AttentionKind(scale: 0.3)
        try compare([q, k, v], tolerance: 1e-5) {
            try Tensor.packedAttention(
                query: q.indexSelect(0, order), key: k.indexSelect(0, order), value: v.indexSelect(0, order),
                plan: plans[1], kind: kind)
        } plain: {
            try Tensor.packedAttention(query: q, key: k, value: v, plan: plans[0], kind: kind).indexSelect(0, order)
        }
        #expect(plans[0].backend(query: q, key: k, value: v, kind: kind) == "cpu")
    }

    @Test(arguments: [
        [PackedSegment(start: 0, length: 0)], [PackedSegment(start: -1, length: 3)],
        [PackedSegment(start: 0, length: 3, parent: 0)],
        [PackedSegment(start: 0, length: 3, parent: 1), PackedSegment(start: 3, length: 2)],
        [PackedSegment(start: 1, length: Int(Int32.max))],
    ])
    func aPlanRefusesWhatIsNoTree(segments: [PackedSegment]) throws {
        #expect(throws: TorchError.self) { try AttentionPlan(segments) }
    }

    @Test(arguments: [
        [PackedSegment(start: 0, length: 3)], [PackedSegment(start: 0, length: 5)],
        [PackedSegment(start: 2, length: 4)],
    ])
    func segmentsMustCoverThePack(segments: [PackedSegment]) throws {
        let x = try leaf([4, 2, 8])
        #expect(throws: TorchError.self) {
            try Tensor.packedAttention(query: x, key: x, value: x, plan: AttentionPlan(segments), kind: .init(scale: 1))
        }
    }
}
