public import Config
public import Checkpoints
import Collectives
import OrderedCollections

/// What the ranks of a pool hold of a run whose roles are spread over pools. A reward model is not counted.
public struct PoolForecast: Sendable {
    public let pool: PoolMapping.Pool
    public let layout: PlanLayout
    /// Of one of the pool's devices.
    public let device: PlanDevice
    public let memory: MemoryForecast
    /// What stays whatever the batch, at its most.
    public let least: MemoryForecast
    public let verdict: TrainingPlanner.Verdict

    /// Each pool's; nothing where all ranks do everything.
    /// - Throws: ``WorkerError`` where a layout does not divide its pool.
    public static func all(
        _ config: RunConfig, _ model: PlanModel, _ work: PlanWork, _ device: PlanDevice
    ) throws -> [PoolForecast] {
        guard let mapping = config.mapping else { return [] }
        let device = device.shared(by: mapping.rankCount)
        return try mapping.pools.map { pool in
            let work = work.part(of: pool.roles), ranks = pool.ranks.count
            let trains = !pool.roles.isDisjoint(with: [.actor, .critic, .reference])
            var layout = PlanLayout()
            if trains {
                layout = PlanLayout(
                    try ShardingPlan(config.actor, config.rollout, ranks: ranks, samples: work.generates))
            } else {
                // Each has all of what it holds, but for samplers that share matrices.
                (layout.dp, layout.sharding) = (ranks, .noShard)
                if work.generates {
                    layout.rollout = try ShardingPlan(sampling: config.rollout, ranks: ranks).rollout[.tensor]
                }
            }
            if let problem = layout.problem(model) {
                throw WorkerError(.badSetting, "pool \(pool.name), layout \(layout.description): \(problem)")
            }
            let memory = MemoryForecast(model, work, layout, device: device)
            let least = TrainingPlanner.least(model, work, layout, device: device)
            return PoolForecast(
                pool: pool, layout: layout, device: device, memory: memory, least: least,
                verdict: memory.fits(device) ? .fits : least.fits(device) ? .mayRunOut : .cannotFit)
        }
    }
}

extension [PoolForecast] {
    /// For programs.
    public var json: JSONValue {
        .object([
            "pools": .array(
                map { forecast in
                    .object([
                        "name": .string(forecast.pool.name), "devices": .int(forecast.pool.ranks.count),
                        "roles": .array(forecast.pool.roles.map(\.rawValue).sorted().map(JSONValue.string)),
                        "layout": .string(forecast.layout.description), "verdict": .string(forecast.verdict.rawValue),
                        "memory": forecast.memory.json,
                    ])
                })
        ])
    }
}
