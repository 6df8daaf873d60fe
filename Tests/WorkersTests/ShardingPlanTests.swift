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
        (
            ["actor.megatron.tensor_model_parallel_size=2", "actor.fsdp_config.fsdp_size=-1"], 8, .fullShard,
            [.shard: 4, .tensor: 2]
        ),
        (
            ["actor.megatron.pipeline_model_parallel_size=2", "actor.ulysses_sequence_parallel_size=2"], 8, .noShard,
            [.pipeline: 2, .replicate: 2, .sequence: 2]
        ),
        (
            ["actor.megatron.expert_model_parallel_size=2", "actor.fsdp_config.fsdp_size=2"], 8, .fullShard,
            [.expert: 2, .replicate: 2, .shard: 2]
        ),
    ])
    func ranksAreDividedIntoSets(
        overrides: [String], ranks: Int, mode: ShardingMode, sizes: [MeshAxis: Int]
    ) throws {
        let plan = try plan(overrides, ranks: ranks)
        #expect(plan.options.mode == mode && plan.mesh == MeshShape(sizes))
        #expect(plan.options.reduceDType == .float32 && plan.options.prefetches)
    }

    @Test func samplersAreWhatTheRolloutAsksFor() throws {
        let plain = try plan(["actor.ulysses_sequence_parallel_size=2", "actor.fsdp_config.fsdp_size=2"], ranks: 4)
        #expect(plain.samplesFromTrained && plain.rollout == MeshShape([.replicate: 4]) && !plain.splitsTokens)
        let divided = try plan(["rollout.tensor_model_parallel_size=2"], ranks: 4)
        #expect(!divided.samplesFromTrained && divided.rollout == MeshShape([.replicate: 2, .tensor: 2]))
        for axis in ["tensor", "pipeline", "expert"] {
            let plan = try plan(["actor.megatron.\(axis)_model_parallel_size=2"], ranks: 2)
            #expect(!plan.samplesFromTrained && plan.rollout == MeshShape([.replicate: 2]))
            #expect(plan.splitsTokens == (axis == "tensor"))
        }
    }

    @Test(arguments: [
        (["actor.fsdp_config.fsdp_size=3"], "4 ranks do not divide into sets of 3"),
        (["actor.megatron.tensor_model_parallel_size=3"], "4 ranks do not divide into sets of 3"),
        (
            ["actor.megatron.tensor_model_parallel_size=2", "actor.ulysses_sequence_parallel_size=4"],
            "ulysses_sequence_parallel_size 4, actor.megatron.tensor_model_parallel_size 2: 4 ranks do not divide into sets of 8"
        ),
        (
            ["actor.megatron.tensor_model_parallel_size=2", "actor.fsdp_config.fsdp_size=4"],
            "the 2 that divide the batches of 4 ranks do not divide into sets of 4"
        ),
        (["rollout.tensor_model_parallel_size=3"], "rollout.tensor_model_parallel_size: 4 ranks do not divide"),
    ])
    func ranksThatDoNotDivideAreRefused(overrides: [String], message: String) {
        let error = #expect(throws: WorkerError.self) { try plan(overrides, ranks: 4) }
        #expect(error?.message.contains(message) == true, "\(String(describing: error))")
    }

    func supervised(_ overrides: [String], ranks: Int) throws -> ShardingPlan {
        let config = try SupervisedConfig(
            .sft, yaml: "", file: "-", overrides: ["model.path=m", "data.train_files=x.jsonl"] + overrides)
        return try ShardingPlan(config.train, ranks: ranks)
    }

    /// Ranks that learn from rows are divided by the same names in another section.
    @Test func rowsAreSharedOutAsSamplesAre() throws {
        let sizes = [
            "fsdp_config.fsdp_size=2", "megatron.tensor_model_parallel_size=2", "ulysses_sequence_parallel_size=2",
        ]
        let found = try supervised(sizes.map { "train." + $0 }, ranks: 8)
        let wanted = try plan(sizes.map { "actor." + $0 }, ranks: 8)
        #expect(found.mesh == wanted.mesh && found.options == wanted.options)
        #expect(found.splitsTokens == wanted.splitsTokens)
        #expect(found.rollout == MeshShape([.replicate: 8]))
        let error = #expect(throws: WorkerError.self) {
            try supervised(["train.megatron.tensor_model_parallel_size=3"], ranks: 4)
        }
        #expect(
            error?.message.contains("train.megatron.tensor_model_parallel_size 3: 4 ranks do not divide") == true,
            "\(String(describing: error))")
    }
}
