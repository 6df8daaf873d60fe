internal import TensorCore

/// The bytes of a plan.
public struct ReshardTraffic: Sendable, Hashable, Codable {
    public struct Link: Sendable, Hashable, Codable {
        public var from, to, bytes: Int
    }

    /// Between ranks.
    public internal(set) var total = 0
    /// By rank.
    public internal(set) var sent: [Int]
    public internal(set) var received: [Int]
    /// Copied within each rank's own memory, unless the caller makes the target a view of the source.
    public internal(set) var local: [Int]
    /// Of `local`, what may be a view.
    public internal(set) var aliasable: [Int]
    /// Between each two ranks that exchange anything.
    public internal(set) var links: [Link]
    /// Of `total`, what all-gathers move.
    public internal(set) var gathered = 0
    /// What it would take to gather every tensor whole on every rank that wants any of it, and to cut it there.
    public internal(set) var gatheringAll: Int

    /// The share of ``gatheringAll`` that is not moved.
    public var saving: Double { gatheringAll == 0 ? 0 : 1 - Double(total) / Double(gatheringAll) }

    init(held: ShardLayout, wanted: ShardLayout, buckets: [ReshardPlan.Bucket]) {
        let count = held.rankCount
        var sent = [Int](repeating: 0, count: count), received = sent, local = sent
        var links = [Int](repeating: 0, count: count * count)
        var gathered = 0
        func move(_ from: Int, _ to: Int, _ bytes: Int) {
            if from == to {
                local[to] += bytes
            } else {
                sent[from] += bytes
                received[to] += bytes
                links[from * count + to] += bytes
            }
        }
        for bucket in buckets {
            for part in bucket.moves { move(part.from, part.to, part.byteCount) }
            for gather in bucket.gathers {
                for from in gather.ranks {
                    for to in gather.ranks { move(from, to, gather.byteCount / gather.ranks.count) }
                }
                gathered += gather.byteCount * (gather.ranks.count - 1)
            }
        }
        self.sent = sent
        self.received = received
        self.local = local
        self.gathered = gathered
        total = sent.reduce(0, +)
        self.links = links.enumerated().filter { $0.element > 0 }.map {
            Link(from: $0.offset / count, to: $0.offset % count, bytes: $0.element)
        }
        aliasable = (0..<count).map { rank in
            ReshardPlan.aliases(held.ranks[rank], wanted.ranks[rank]).reduce(0) {
                $0 + wanted.ranks[rank][$1.wanted].byteCount
            }
        }
        gatheringAll = Self.gatheringAll(held, wanted)
    }

    private static func gatheringAll(_ held: ShardLayout, _ wanted: ShardLayout) -> Int {
        var width: [String: Int] = [:]
        for specs in held.ranks { for spec in specs { width[spec.box.name] = spec.dtype.size } }
        var sum = 0
        for (specs, holding) in zip(wanted.ranks, held.ranks) {
            // A part held twice by one rank counts once.
            let own = Set(holding.map(\.box)).reduce(into: [String: Int]()) { $0[$1.name, default: 0] += $1.count }
            var seen: Set<String> = []
            for spec in specs where seen.insert(spec.box.name).inserted {
                let bytes = min(spec.dtype.size, width[spec.box.name] ?? spec.dtype.size)
                sum += max(0, spec.box.shape.reduce(1, *) - own[spec.box.name, default: 0]) * bytes
            }
        }
        return sum
    }
}
