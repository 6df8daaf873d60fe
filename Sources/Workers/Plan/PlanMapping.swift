import Models

/// Which devices a run's roles are on, and what a step takes there.
public struct PlanMapping: Sendable, Hashable {
    /// Devices that do the same.
    public struct Pool: Sendable, Hashable {
        public var name: String
        public var roles: [String]
        public var devices: Int
        public var layout: PlanLayout
        /// Bytes of one device at its fullest, and the phase of that.
        public var peak: Int
        public var phase: String
        /// Seconds of a step in which it works.
        public var busy: Double
        /// What a recipe says for its layout and micro-batches.
        public var settings: [String]
    }

    /// Who waits for whom, by the names of `async_training.mode`.
    public enum Overlap: String, Sendable, Hashable {
        case synchronous
        /// Answers are of the weights of one step before.
        case oneStepOff = "one_step_off"
    }

    public var pools: [Pool]
    public var overlap: Overlap
    /// Of a step.
    public var seconds: Double

    public var devices: Int { pools.reduce(0) { $0 + $1.devices } }
    /// The share of all devices' time in which nothing is asked of them.
    public var idle: Double {
        let busy = pools.reduce(0) { $0 + $1.busy * Double($1.devices) }
        return max(0, 1 - busy / (seconds * Double(max(1, devices))))
    }

    public var description: String {
        let parts = pools.map { pool in
            let shape = pool.layout.devices > 1 ? " (\(pool.layout.description))" : ""
            return "\(pool.roles.joined(separator: "+")) on \(pool.devices)\(shape)"
        }
        return parts.joined(separator: " | ") + (overlap == .synchronous ? "" : ", \(overlap.rawValue)")
    }

    /// What a recipe says for it.
    public var settings: [String] {
        guard pools.count > 1 else { return pools.flatMap(\.settings) }
        let sizes = pools.map { "\($0.name): \($0.devices)" }.joined(separator: ", ")
        var all = ["'resource_pools={\(sizes)}'"]
        // The first pool is the actor's, and that of each role that is not named.
        for pool in pools.dropFirst() { all += pool.roles.map { "roles.\($0)=\(pool.name)" } }
        all += pools.flatMap(\.settings).compactMap { setting in
            if setting.hasPrefix("trainer.n_gpus_per_node=") { return nil }
            // Each pool's own number, which is all of it.
            return setting.hasPrefix("actor.fsdp_config.fsdp_size=") ? "actor.fsdp_config.fsdp_size=-1" : setting
        }
        if overlap != .synchronous { all.append("async_training.mode=\(overlap.rawValue)") }
        return all
    }
}
