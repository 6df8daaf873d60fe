import Collectives
import TensorCore

/// The plain way from one layout to another, to compare with: each tensor is gathered whole on every rank that wants any of it, and cut
/// there. Layer by layer, so that no rank has a whole model.
struct GatheringBaseline {
    private struct Unit {
        var resharder: Resharder
        /// Of what this rank holds, the shards that are sources.
        var held: [Int]
        /// What this rank wants, and which of the gathered tensors that is cut from.
        var cuts: [(wanted: Int, whole: Int)]
    }
    private let units: [Unit]
    /// Of the largest layer.
    private(set) var wholeBytes = 0

    init(
        _ plan: ReshardPlan, rank: Int, group: ProcessGroup?, makeGroup: ((_ ranks: [Int]) throws -> ProcessGroup)?
    ) throws {
        var names: [String: Set<String>] = [:], order: [String] = []
        for spec in plan.wanted.ranks.joined() {
            let unit = Self.unit(of: spec.box.name)
            if names[unit] == nil { order.append(unit) }
            names[unit, default: []].insert(spec.box.name)
        }
        var options = plan.options
        options.gathers = makeGroup != nil
        var units: [Unit] = []
        for unit in order {
            guard let own = names[unit] else { continue }
            let isIn = { (spec: ShardSpec) in own.contains(spec.box.name) }
            let held = ShardLayout(ranks: plan.held.ranks.map { $0.filter(isIn) })
            let whole = ShardLayout(
                ranks: plan.wanted.ranks.map { specs in
                    var seen: Set<String> = []
                    return specs.filter { isIn($0) && seen.insert($0.box.name).inserted }.map {
                        ShardSpec(box: ShardBox(whole: $0.box.name, shape: $0.box.shape), dtype: $0.dtype)
                    }
                })
            let places = Dictionary(
                uniqueKeysWithValues: whole.ranks[rank].enumerated().map { ($1.box.name, $0) })
            let wanted = plan.wanted.ranks[rank]
            units.append(
                Unit(
                    resharder: Resharder(
                        try ReshardPlan(held: held, wanted: whole, options: options), group: group, makeGroup: makeGroup
                    ),
                    held: plan.held.ranks[rank].indices.filter { isIn(plan.held.ranks[rank][$0]) },
                    cuts: wanted.indices.compactMap { index in places[wanted[index].box.name].map { (index, $0) } }))
            wholeBytes = max(wholeBytes, whole.byteCount(of: rank))
        }
        self.units = units
    }

    /// The layer of `model.layers.N.…`; a tensor of no layer stands alone.
    private static func unit(of name: String) -> String {
        let parts = name.split(separator: ".", maxSplits: 3)
        return parts.count == 4 && parts[1] == "layers" ? parts[..<3].joined(separator: ".") : name
    }

    /// Fills what this rank wants.
    /// - Returns: seconds, the device waited for, and the most that was allocated beside.
    func run(
        from held: [LocalShard], into wanted: [LocalShard], device: Device
    ) throws -> (seconds: Double, peakExtraBytes: Int) {
        let start = ContinuousClock.now
        var peak = 0
        for unit in units {
            let sources = unit.held.map { held[$0] }
            let whole = try unit.resharder.targets(for: sources, device: device)
            let report = try unit.resharder.begin(from: sources, into: whole).finish(waitsForDevice: false)
            for (index, place) in unit.cuts {
                try wanted[index].tensor.copy(from: whole[place].view(of: wanted[index].box))
            }
            peak = max(peak, report.peakExtraBytes + whole.reduce(0) { $0 + $1.tensor.byteCount })
        }
        try device.synchronize()
        return ((ContinuousClock.now - start) / .seconds(1), peak)
    }
}
