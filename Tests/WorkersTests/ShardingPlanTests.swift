import Collectives
import Config
import TensorCore
import Testing
import TrainingEngine

@testable import Workers

@Suite struct ShardingPlanTests {
    func plan(_ overrides: [String], ranks: Int) throws -> ShardingPlan {
        let config = try RunConfig(
            yaml: "", file: "-",
            overrides: ["model.path=m", "data.train_files=builtin:arithmetic", "reward.type=exact_match"] + overrides)
        return try ShardingPlan(config.actor, config.rollout, ranks: ranks)
    }

    @Test(arguments: [
        ([], 4, ShardingMode.noShard, [MeshAxis.replicate: 4]),
        (["actor.fsdp_config.fsdp_size=-1"], 4, .fullShard, [.shard: 4]),
        (["actor.fsdp_config.fsdp_size=-1"], 1, .noShard, [:]),
        (["actor.fsdp_config.fsdp_size=2"], 4, .fullShard, [.replicate: 2, .shard: 2]),
        (
            ["actor.fsdp_config.fsdp_size=4", "actor.fsdp_config.reshard_after_forward=false"], 4, .shardGradOp,
            [.shard: 4]
        ),
    ])
    func ranksAreDividedIntoSets(
        overrides: [String], ranks: Int, mode: ShardingMode, sizes: [MeshAxis: Int]
    ) throws {
        let plan = try plan(overrides, ranks: ranks)
        #expect(plan.options.mode == mode && plan.mesh == MeshShape(sizes))
        #expect(plan.options.reduceDType == .float32 && plan.options.prefetches)
    }

    @Test func ranksThatDoNotDivideAreRefused() {
        let error = #expect(throws: WorkerError.self) { try plan(["actor.fsdp_config.fsdp_size=3"], ranks: 4) }
        #expect(error?.message.contains("4 ranks do not divide into sets of 3") == true)
    }
}
