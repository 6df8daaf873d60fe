public import TensorCore

/// Brings weights from the layout in which they are trained to the one in which they sample, or back, in memory. Made once for a pair of
/// layouts, used every step.
public final class Resharder {
    public let plan: ReshardPlan
    public let rank: Int
    let group: ProcessGroup?
    private let makeGroup: (_ ranks: [Int]) throws -> ProcessGroup
    private var groups: [[Int]: ProcessGroup] = [:]

    /// - Parameters:
    ///   - group: all ranks of the plan; nil for one rank.
    ///   - makeGroup: connects this rank to a group of some of them, for all-gathers; called for the same ranks once, in the same order
    ///     on all of them. Without it a plan may gather over all ranks alone.
    public init(
        _ plan: ReshardPlan, group: ProcessGroup?, makeGroup: ((_ ranks: [Int]) throws -> ProcessGroup)? = nil
    ) {
        precondition((group?.size ?? 1) == plan.rankCount, "a group of \(group?.size ?? 1) for \(plan.rankCount) ranks")
        self.plan = plan
        self.group = group
        rank = group?.rank ?? 0
        self.makeGroup =
            makeGroup ?? { ranks in
                throw ReshardError(
                    .mismatch, "the plan gathers among ranks \(ranks), for which there is no group",
                    remedy: "plan without gathers, or give makeGroup")
            }
    }

    /// Tells all ranks what this one holds and wants, and plans.
    /// - Parameter device: where the group's tensors lie.
    public convenience init(
        held: [ShardSpec], wanted: [ShardSpec], group: ProcessGroup?, device: Device,
        options: ReshardPlan.Options = .init(), makeGroup: ((_ ranks: [Int]) throws -> ProcessGroup)? = nil
    ) throws {
        var options = options
        if makeGroup == nil { options.gathers = false }
        let plan = try ReshardPlan(
            held: .exchanged(held, group, device: device), wanted: .exchanged(wanted, group, device: device),
            options: options)
        self.init(plan, group: group, makeGroup: makeGroup)
    }

    func group(of ranks: [Int]) throws -> ProcessGroup {
        if ranks.count == plan.rankCount, let group { return group }
        if let known = groups[ranks] { return known }
        let made = try makeGroup(ranks)
        groups[ranks] = made
        return made
    }

    /// Memory for what this rank wants: a view of what it holds where that has the same type and is contiguous, else new.
    /// - Parameter aliasing: false for memory that is new throughout.
    public func targets(for held: [LocalShard], device: Device, aliasing: Bool = true) throws -> [LocalShard] {
        let aliases = Dictionary(uniqueKeysWithValues: aliasing ? plan.aliases(of: rank) : [])
        return try plan.wanted.ranks[rank].enumerated().map { index, spec in
            if let source = aliases[index] {
                let view = try held[source].view(of: spec.box)
                if view.isContiguous { return LocalShard(box: spec.box, tensor: view) }
            }
            return LocalShard(
                box: spec.box, tensor: try Tensor.empty(spec.box.sizes, dtype: spec.dtype, device: device))
        }
    }

    /// Begins to fill `targets` from `sources`. A target is a view of a source (then nothing is done for it) or shares no memory with
    /// any. Until ``ReshardRun/finish()`` returns, neither may change, but for sources that were not yet said to be ready.
    /// - Throws: ``ReshardError`` `mismatch` when they are not what the plan was made for.
    public func begin(from sources: [LocalShard], into targets: [LocalShard]) throws -> ReshardRun {
        try Self.check(sources, plan.held.ranks[rank], "held", rank)
        try Self.check(targets, plan.wanted.ranks[rank], "wanted", rank)
        return ReshardRun(self, sources, targets)
    }

    /// Fills `targets` from `sources`, bucket by bucket. Every rank of the plan must call it.
    @discardableResult
    public func run(from sources: [LocalShard], into targets: [LocalShard]) throws -> ReshardReport {
        try begin(from: sources, into: targets).finish()
    }

    private static func check(_ shards: [LocalShard], _ specs: [ShardSpec], _ role: String, _ rank: Int) throws {
        guard shards.count == specs.count else {
            throw ReshardError(
                .mismatch,
                "rank \(rank) gave \(shards.count) tensors for the \(specs.count) that are \(role) in the plan")
        }
        for (shard, spec) in zip(shards, specs) where shard.spec != spec {
            throw ReshardError(
                .mismatch,
                "rank \(rank) gave \(shard.tensor.dtype) \(shard.box.summary) for the \(spec.dtype) "
                    + "\(spec.box.summary) that is \(role) in the plan")
        }
    }
}

/// What one run of a plan came to on one rank.
public struct ReshardReport: Sendable, Hashable, Codable {
    public var sentBytes = 0
    public var receivedBytes = 0
    /// Within this rank's own memory.
    public var copiedBytes = 0
    /// Of what was wanted, already there: views of what is held.
    public var aliasedBytes = 0
    /// The most that was allocated beside sources and targets.
    public var peakExtraBytes = 0
    public var buckets = 0
    public var messages = 0
    /// From the beginning to the last byte, the device waited for.
    public var seconds = 0.0

    public init() {}
}
