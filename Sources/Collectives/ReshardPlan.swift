public import TensorCore

/// Which bytes go from where to where, in which order, so that every rank has what it wants. Every rank makes the same plan.
public struct ReshardPlan: Sendable {
    public struct Options: Sendable, Hashable, Codable {
        /// What a rank sends, or receives, in one bucket; two are under way at a time.
        public var bucketBytes = 128 << 20
        /// Ranks of one node: a copy on the same node is nearer than one on another.
        public var ranksPerNode = Int.max
        /// Whether ranks that all want what they hold equal parts of use an all-gather.
        public var gathers = true
        /// Moves of fewer bytes than this share one message.
        public var messageBytes = 256 << 10

        public init() {}
    }

    /// A part that one rank takes from another, or from itself.
    public struct Move: Sendable, Hashable {
        public let box: ShardBox
        public let from: Int
        /// Index in the list of what `from` holds.
        public let held: Int
        public let to: Int
        /// Index in the list of what `to` wants.
        public let wanted: Int
        /// What it travels as: the narrower of both types.
        public let dtype: DType

        public var byteCount: Int { box.count * dtype.size }
        public var isLocal: Bool { from == to }
    }

    /// A tensor that each of `ranks`, in their order, holds an equal run of rows of, and all of which each of them wants.
    public struct Gather: Sendable, Hashable {
        public let box: ShardBox
        public let ranks: [Int]
        /// Indices in the lists of each of `ranks`.
        public let held: [Int]
        public let wanted: [Int]
        public let dtype: DType

        public var byteCount: Int { box.count * dtype.size }
        /// What the rank at `index` of ``ranks`` gives.
        func part(_ index: Int) -> ShardBox {
            let rows = box.ranges[0].count / ranks.count
            return box.rows(index * rows..<(index + 1) * rows)
        }
    }

    /// Moves that run together.
    public struct Bucket: Sendable {
        public internal(set) var moves: [Move] = []
        public internal(set) var gathers: [Gather] = []

        /// The tensors whose sources must be ready.
        public var names: Set<String> { Set(moves.map(\.box.name) + gathers.map(\.box.name)) }
        var isEmpty: Bool { moves.isEmpty && gathers.isEmpty }
    }

    public let options: Options
    public let held: ShardLayout
    public let wanted: ShardLayout
    public let buckets: [Bucket]
    public let traffic: ReshardTraffic

    public var rankCount: Int { held.rankCount }

    /// - Parameters:
    ///   - held: what each rank has; copies of the same part on several ranks share the work of sending it.
    ///   - wanted: what each rank is to have; the order of the first rank's list, then of the others', is that of the buckets.
    /// - Throws: ``ReshardError``: `gap` with the tensor and the range that no rank holds, `shape`, `type`.
    public init(held: ShardLayout, wanted: ShardLayout, options: Options = Options()) throws {
        precondition(held.rankCount == wanted.rankCount, "\(held.rankCount) ranks hold, \(wanted.rankCount) want")
        precondition(options.bucketBytes > 0 && options.ranksPerNode > 0, "\(options)")
        var planner = ReshardPlanner(held, wanted, options)
        let steps = try planner.steps()
        self.options = options
        self.held = held
        self.wanted = wanted
        buckets = ReshardBuckets.pack(steps, rankCount: held.rankCount, options)
        traffic = ReshardTraffic(held: held, wanted: wanted, buckets: buckets)
    }

    /// Of what `rank` wants, the parts that lie whole within something that it holds with the same type: their memory may be a view of
    /// that, and nothing is moved for them.
    public func aliases(of rank: Int) -> [(wanted: Int, held: Int)] {
        Self.aliases(held.ranks[rank], wanted.ranks[rank])
    }

    static func aliases(_ held: [ShardSpec], _ wanted: [ShardSpec]) -> [(wanted: Int, held: Int)] {
        let byName = Dictionary(grouping: held.indices) { held[$0].box.name }
        return wanted.enumerated().compactMap { index, spec in
            let holder = byName[spec.box.name]?.first {
                held[$0].dtype == spec.dtype && held[$0].box.intersection(spec.box) == spec.box
            }
            return holder.map { (index, $0) }
        }
    }
}

extension ReshardPlan: CustomStringConvertible {
    public var description: String {
        "\(rankCount) ranks, \(buckets.count) buckets, \(traffic.total) bytes moved for \(traffic.gatheringAll) of gathering all; sent "
            + "\(traffic.sent), received \(traffic.received), kept \(traffic.local)"
    }
}
