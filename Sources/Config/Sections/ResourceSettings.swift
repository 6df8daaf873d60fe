public import OrderedCollections

/// What a model, or a copy of one, does in a run.
public enum Role: String, CaseIterable, Hashable, Sendable {
    case actor, rollout, critic, reference
    case rewardModel = "reward_model"

    /// The setting that names its pool.
    var setting: String { "roles.\(rawValue)" }
}

/// `roles`: which pool of devices each role is on.
public struct RoleSettings: Hashable, Sendable {
    /// The pools by name, as written.
    public let pools: [Role: String]

    private static let docs: [Role: String] = [
        .actor: "The pool of resource_pools where the policy is trained; null for the first.",
        .rollout: "Where answers are sampled; null for the actor's pool, as for the roles below.",
        .critic: "Where the critic is trained.",
        .reference: "Where the model as it was before training is.",
        .rewardModel: "Where reward.model is.",
    ]

    init(_ section: inout SectionReader) {
        var pools: [Role: String] = [:]
        for role in Role.allCases {
            pools[role] = section.optionalString(role.rawValue, doc: Self.docs[role] ?? "")
        }
        self.pools = pools
    }
}

/// Which ranks do what, where not all do everything: pools of ranks, each with its roles.
public struct PoolMapping: Hashable, Sendable {
    public struct Pool: Hashable, Sendable {
        public let name: String
        /// Their numbers among all ranks of the run.
        public let ranks: Range<Int>
        public let roles: Set<Role>
    }

    /// In the order of their ranks.
    public let pools: [Pool]

    /// - Parameters:
    ///   - sizes: of each pool.
    ///   - places: each role's pool.
    init(_ sizes: OrderedDictionary<String, Int>, _ places: [Role: String]) {
        var first = 0
        pools = sizes.map { name, size in
            defer { first += size }
            return Pool(
                name: name, ranks: first..<first + size, roles: Set(places.filter { $0.value == name }.keys))
        }
    }

    public var rankCount: Int { pools.last?.ranks.upperBound ?? 0 }

    /// nil for a role that the run does not have.
    public func pool(of role: Role) -> Pool? { pools.first { $0.roles.contains(role) } }

    /// The pool of a rank.
    public func pool(of rank: Int) -> Pool? { pools.first { $0.ranks.contains(rank) } }

    /// Whether two roles are on different pools.
    public func parts(_ one: Role, _ other: Role) -> Bool {
        guard let one = pool(of: one), let other = pool(of: other) else { return false }
        return one != other
    }
}

extension RunConfig {
    /// The roles that the run has.
    public var presentRoles: Set<Role> {
        var roles: Set<Role> = [.actor, .rollout]
        if hasCritic { roles.insert(.critic) }
        if needsReferenceModel { roles.insert(.reference) }
        if reward.model != nil { roles.insert(.rewardModel) }
        return roles
    }

    /// The pool that a role is on, whether or not the run has it; nil without pools.
    func pool(of role: Role) -> String? {
        roles.pools[role] ?? roles.pools[.actor] ?? resourcePools.keys.first
    }

    /// How roles are spread over pools; nil where all ranks do everything.
    public var mapping: PoolMapping? {
        guard resourcePools.count > 1 else { return nil }
        return PoolMapping(
            resourcePools,
            Dictionary(uniqueKeysWithValues: presentRoles.compactMap { role in pool(of: role).map { (role, $0) } }))
    }

    /// The pool that does nothing but sample: its ranks can be lost and started anew while the others go on.
    public var samplersAlone: PoolMapping.Pool? {
        mapping?.pools.first { $0.roles == [.rollout] }
    }

    /// Whether devices are given by pools.
    public var hasPools: Bool { !resourcePools.isEmpty }

    /// Ranks of all hosts that are asked for by number or by pools; nil: as many as there are devices.
    public var ranksAsked: Int? {
        hasPools ? resourcePools.values.reduce(0, +) : trainer.gpusPerNode.map { $0 * trainer.nodes }
    }
}
