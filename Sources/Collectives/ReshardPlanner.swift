internal import TensorCore

/// Chooses, for everything that a rank wants, who gives it: the rank itself, else a rank of the same node, else any, and among equals
/// the one that has sent least so far.
struct ReshardPlanner {
    /// What one tensor takes, in the order in which the tensors are wanted.
    struct Step {
        var moves: [ReshardPlan.Move] = []
        var gathers: [ReshardPlan.Gather] = []
    }

    private struct Place {
        let rank: Int
        let index: Int
        let spec: ShardSpec
    }

    private let held: ShardLayout
    private let wanted: ShardLayout
    private let options: ReshardPlan.Options
    /// Bytes that each rank sends so far.
    private var load: [Int]

    init(_ held: ShardLayout, _ wanted: ShardLayout, _ options: ReshardPlan.Options) {
        self.held = held
        self.wanted = wanted
        self.options = options
        load = Array(repeating: 0, count: held.rankCount)
    }

    mutating func steps() throws -> [Step] {
        let holders = Self.places(held).byName, (order, wishes) = Self.places(wanted)
        return try order.map { name in
            try step(holders[name] ?? [], wishes[name] ?? [])
        }
    }

    private static func places(_ layout: ShardLayout) -> (order: [String], byName: [String: [Place]]) {
        var order: [String] = [], byName: [String: [Place]] = [:]
        for (rank, specs) in layout.ranks.enumerated() {
            for (index, spec) in specs.enumerated() where spec.box.count > 0 {
                if byName[spec.box.name] == nil { order.append(spec.box.name) }
                byName[spec.box.name, default: []].append(Place(rank: rank, index: index, spec: spec))
            }
        }
        return (order, byName)
    }

    private mutating func step(_ holders: [Place], _ wishes: [Place]) throws -> Step {
        for holder in holders where holder.spec.box.shape != wishes[0].spec.box.shape {
            throw ReshardError(
                .shape,
                "'\(holder.spec.box.name)' has shape \(holder.spec.box.shape) on rank \(holder.rank), which holds it, and "
                    + "\(wishes[0].spec.box.shape) on rank \(wishes[0].rank), which wants it",
                remedy: "the ranks are of different models")
        }
        var step = Step()
        var rest = wishes
        if options.gathers {
            step.gathers = gathers(holders, &rest)
            for gather in step.gathers {
                for (index, rank) in gather.ranks.enumerated() {
                    load[rank] += gather.part(index).count * gather.dtype.size * (gather.ranks.count - 1)
                }
            }
        }
        for wish in rest { try serve(wish, holders, &step.moves) }
        return step
    }

    // MARK: - From rank to rank

    private mutating func serve(_ wish: Place, _ holders: [Place], _ moves: inout [ReshardPlan.Move]) throws {
        var missing = [wish.spec.box]
        while let region = missing.popLast() {
            guard let (holder, part) = source(for: region, of: wish, holders) else { throw gap(region, wish, holders) }
            let move = ReshardPlan.Move(
                box: part, from: holder.rank, held: holder.index, to: wish.rank, wanted: wish.index,
                dtype: try Self.wire(holder.spec, wish.spec))
            moves.append(move)
            if !move.isLocal { load[holder.rank] += move.byteCount }
            missing += region.subtracting(part)
        }
    }

    private func source(for region: ShardBox, of wish: Place, _ holders: [Place]) -> (Place, ShardBox)? {
        var nearest = Int.max
        var found: [(place: Place, part: ShardBox)] = []
        for holder in holders {
            let distance = distance(holder.rank, wish.rank)
            guard distance <= nearest, let part = holder.spec.box.intersection(region) else { continue }
            if distance < nearest {
                nearest = distance
                found.removeAll(keepingCapacity: true)
            }
            found.append((holder, part))
        }
        guard let most = found.map(\.part.count).max() else { return nil }
        // A sliver from an idle rank would leave more pieces than it saves.
        return found.filter { $0.part.count * 2 >= most }.min { load[$0.place.rank] < load[$1.place.rank] }
            .map { ($0.place, $0.part) }
    }

    private func distance(_ a: Int, _ b: Int) -> Int {
        a == b ? 0 : a / options.ranksPerNode == b / options.ranksPerNode ? 1 : 2
    }

    /// What a part travels as: converted before it is sent where that makes it smaller, else after it has arrived.
    static func wire(_ held: ShardSpec, _ wanted: ShardSpec) throws -> DType {
        if held.dtype == wanted.dtype { return wanted.dtype }
        guard held.dtype.isFloatingPoint, wanted.dtype.isFloatingPoint else {
            throw ReshardError(
                .type,
                "'\(wanted.box.name)' is held as \(held.dtype) and wanted as \(wanted.dtype): only floating-point types are converted"
            )
        }
        return held.dtype.size < wanted.dtype.size ? held.dtype : wanted.dtype
    }

    private func gap(_ region: ShardBox, _ wish: Place, _ holders: [Place]) -> ReshardError {
        let known = holders.prefix(8).map { "rank \($0.rank) \($0.spec.box.ranges)" }.joined(separator: ", ")
        return ReshardError(
            .gap,
            "no rank holds \(region.summary), which rank \(wish.rank) wants; it is held "
                + (known.isEmpty ? "nowhere" : "by \(known)\(holders.count > 8 ? ", …" : "")"))
    }

    // MARK: - All-gathers

    /// Groups of ranks that want the same box and hold equal runs of its rows, in the order of the ranks; their wishes are taken out.
    private func gathers(_ holders: [Place], _ wishes: inout [Place]) -> [ReshardPlan.Gather] {
        var all: [ReshardPlan.Gather] = []
        // Two wishes of one rank for one box are rare enough to leave to moves.
        guard Set(wishes.map(\.rank)).count == wishes.count else { return [] }
        for (spec, same) in Dictionary(grouping: wishes, by: \.spec).sorted(by: { $0.value[0].rank < $1.value[0].rank })
        where same.count > 1 && !spec.box.shape.isEmpty {
            guard let groups = partition(spec, same, holders) else { continue }
            for group in groups {
                all.append(
                    ReshardPlan.Gather(
                        box: spec.box, ranks: group.map(\.wish.rank), held: group.map(\.holder.index),
                        wanted: group.map(\.wish.index), dtype: spec.dtype))
            }
            wishes.removeAll { $0.spec == spec }
        }
        return all
    }

    private func partition(_ spec: ShardSpec, _ wishes: [Place], _ holders: [Place]) -> [[(
        wish: Place, holder: Place
    )]]? {
        var rows: [Range<Int>: [(wish: Place, holder: Place)]] = [:]
        for wish in wishes {
            let own = holders.filter { $0.rank == wish.rank }
            guard own.count == 1, let part = own[0].spec.box.intersection(spec.box), part == own[0].spec.box,
                part.ranges.dropFirst() == spec.box.ranges.dropFirst(),
                own[0].spec.dtype.isFloatingPoint || own[0].spec.dtype == spec.dtype,
                own[0].spec.dtype.size >= spec.dtype.size, spec.dtype.isFloatingPoint || own[0].spec.dtype == spec.dtype
            else { return nil }
            rows[part.ranges[0], default: []].append((wish, own[0]))
        }
        let runs = rows.keys.sorted { $0.lowerBound < $1.lowerBound }
        let each = runs[0].count, copies = wishes.count / runs.count
        guard runs.count > 1, each * runs.count == spec.box.ranges[0].count, runs.allSatisfy({ $0.count == each }),
            zip(runs, runs.dropFirst()).allSatisfy({ $0.upperBound == $1.lowerBound }),
            rows.values.allSatisfy({ $0.count == copies }),
            // What is converted first needs memory for the rank's own rows.
            runs[0].count * (spec.box.count / spec.box.ranges[0].count) * spec.dtype.size <= options.bucketBytes
        else { return nil }
        let groups = (0..<copies).map { copy in runs.map { rows[$0]![copy] } }
        return groups.allSatisfy({ group in zip(group, group.dropFirst()).allSatisfy { $0.wish.rank < $1.wish.rank } })
            ? groups : nil
    }
}
