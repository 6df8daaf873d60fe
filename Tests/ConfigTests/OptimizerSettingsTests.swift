import Testing

@testable import Config

@Suite struct OptimizerSettingsTests {
    @Test func typesAndPlacesOfTheStatesAreRead() throws {
        let config = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: [
                "model.dtype=bfloat16", "model.param_dtype=bfloat16", "actor.optim.state_dtype=int8",
                "actor.optim.decay_vectors=false", "actor.optim.stochastic_rounding=false",
                "actor.fsdp_config={optimizer_offload: true, optimizer_offload_ratio: 0.25, grad_dtype: bfloat16}",
                "trainer.plan=warn",
            ])
        #expect(config.model.paramDType == .bfloat16 && config.actor.optim.stateDType == .int8)
        #expect(!config.actor.optim.decaysVectors && !config.actor.optim.stochasticRounding)
        #expect(config.actor.fsdp.optimizerOffload && !config.actor.fsdp.paramOffload)
        #expect(config.actor.fsdp.optimizerOffloadRatio == 0.25)
        #expect(config.actor.fsdp.gradDType == .bfloat16 && config.trainer.plan == .warn && config.warnings.isEmpty)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        let plain = try RunConfig(yaml: minimal, file: "recipe.yaml")
        #expect(plain.actor.optim.stateDType == .float32 && plain.actor.fsdp.gradDType == .float32)
        #expect(plain.actor.optim.decaysVectors && plain.trainer.plan == .refuse)
    }

    @Test(arguments: [
        (["model.param_dtype=bfloat16"], "their own masters"),
        (["actor.fsdp_config.grad_dtype=bfloat16"], "gradients of float32 weights"),
        (["actor.optim.state_dtype=fp8"], "not a choice"), (["actor.fsdp_config.param_offload=3"], "true or false"),
        (["actor.fsdp_config.mixed_precision.param_dtype=bf16"], "write model.dtype"),
        (["actor.fsdp_config.mixed_precision.reduce_dtype=fp32"], "write actor.fsdp_config.reduce_dtype"),
        (["actor.fsdp_config.model_dtype=bf16"], "write model.param_dtype"),
        (["actor.fsdp_config.fsdp_size=0"], "no rank"), (["actor.fsdp_config.fsdp_size=-2"], "from -1"),
        (["actor.fsdp_config.wrap_policy.min_num_params=0"], "each layer is a unit"),
        (["actor.fsdp_config.optimizer_offload_ratio=0.5"], "no moments leave the GPU"),
        (["actor.use_dynamic_bsz=false"], "nothing says how large"),
        (["actor.ppo_micro_batch_size_per_gpu=4"], "cut by tokens"),
        (["actor.ppo_micro_batch_size=4"], "write actor.ppo_micro_batch_size_per_gpu"),
    ])
    func whatDoesNotGoTogetherIsRefused(overrides: [String], message: String) {
        let found = problems(minimal, overrides)
        #expect(found.contains { $0.description.contains(message) }, "\(found)")
    }

    @Test func turnsAreReadAndRefusedWhereNothingIsLeftToRest() throws {
        #expect(try RunConfig(yaml: minimal, file: "recipe.yaml").trainer.takesTurns == nil)
        for said in [true, false] {
            let config = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: ["trainer.take_turns=\(said)"])
            #expect(config.trainer.takesTurns == said && config.warnings.isEmpty)
            #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        }
        let away = "actor.fsdp_config={optimizer_offload: true, param_offload: true}"
        let both = ["trainer.take_turns=true", "model.dtype=bfloat16", away]
        let found = problems(minimal + "\ntrainer:\n  take_turns: true\n", Array(both.dropFirst()))
        #expect(
            found.contains {
                $0.description.contains("trainer.take_turns") && $0.description.contains("all the time")
                    && $0.description.contains("recipe.yaml:")
            }, "\(found)")
        #expect(problems(minimal, ["trainer.take_turns=3"]).contains { $0.description.contains("true or false") })
        // A critic and a reference are left to rest; false goes with anything.
        for more in [["actor.use_kl_loss=true"], ["algorithm.adv_estimator=gae"]] {
            #expect(problems(minimal, both + more, names: AlgorithmCheckTests.names).isEmpty)
        }
        let stays = problems(minimal, both + ["actor.use_kl_loss=true", "reference.param_offload=false"])
        #expect(stays.contains { $0.description.contains("nothing is left that could rest") }, "\(stays)")
        #expect(problems(minimal, ["trainer.take_turns=false", "model.dtype=bfloat16", away]).isEmpty)
    }

    @Test func shardingIsReadByVerlsNames() throws {
        let plain = try RunConfig(yaml: minimal, file: "recipe.yaml").actor
        #expect(plain.fsdp.fsdpSize == 1 && plain.fsdp.reshardAfterForward && plain.fsdp.forwardPrefetch)
        #expect(plain.fsdp.reduceDType == .float32 && plain.useDynamicBatchSize && plain.ppoMicroBatchSizePerGPU == nil)
        let config = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: [
                "actor.fsdp_config.fsdp_size=2", "actor.fsdp_config.reshard_after_forward=false",
                "actor.fsdp_config.forward_prefetch=false", "actor.fsdp_config.reduce_dtype=bfloat16",
                "model.dtype=bfloat16",
                "actor.use_dynamic_bsz=false", "actor.ppo_micro_batch_size_per_gpu=3",
            ])
        #expect(config.actor.fsdp.fsdpSize == 2 && !config.actor.fsdp.reshardAfterForward)
        #expect(!config.actor.fsdp.forwardPrefetch && config.actor.fsdp.reduceDType == .bfloat16)
        #expect(config.actor.ppoMicroBatchSizePerGPU == 3 && config.warnings.isEmpty)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        let none = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: ["actor.fsdp_config.fsdp_size=1", "actor.fsdp_config.reshard_after_forward=false"])
        #expect(none.warnings.count == 1)
    }

    @Test func layoutsAreReadByVerlsNames() throws {
        let plain = try RunConfig(yaml: minimal, file: "recipe.yaml")
        #expect(plain.actor.megatron.tensorSize == 1 && plain.actor.megatron.sequenceParallel)
        #expect(plain.actor.ulyssesSize == 1 && plain.rollout.engine.tensorParallelSize == 1)
        let config = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: [
                "actor.megatron.tensor_model_parallel_size=2", "actor.megatron.pipeline_model_parallel_size=3",
                "actor.megatron.expert_model_parallel_size=4", "actor.megatron.sequence_parallel=false",
                "actor.ulysses_sequence_parallel_size=5", "rollout.tensor_model_parallel_size=6",
            ])
        let megatron = config.actor.megatron
        #expect(megatron.tensorSize == 2 && megatron.pipelineSize == 3 && megatron.expertSize == 4)
        #expect(!megatron.sequenceParallel && config.actor.ulyssesSize == 5)
        #expect(config.rollout.engine.tensorParallelSize == 6 && config.warnings.isEmpty)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        let none = try RunConfig(
            yaml: minimal, file: "recipe.yaml", overrides: ["actor.megatron.sequence_parallel=false"])
        #expect(none.warnings.count == 1)
    }

    @Test(arguments: [
        (["actor.megatron.tensor_model_parallel_size=2", "model.lora_rank=8"], "an adapter's matrices"),
        (["actor.megatron.pipeline_model_parallel_size=2", "model.lora_rank=8"], "an adapter's matrices"),
        (["actor.megatron.expert_model_parallel_size=2", "model.lora_adapter_path=a"], "an adapter's matrices"),
        (["rollout.tensor_model_parallel_size=2", "model.lora_rank=8"], "an adapter's matrices"),
        (
            ["actor.megatron.pipeline_model_parallel_size=2", "actor.router_aux_loss_coef=0.1"],
            "a stage sees its own layers' experts"
        ),
        (["actor.megatron.tensor_model_parallel_size=0"], "from 1"),
        (["actor.megatron.context_parallel_size=2"], "write actor.ulysses_sequence_parallel_size"),
        (["actor.megatron.virtual_pipeline_model_parallel_size=2"], "one run of layers"),
        (["rollout.pipeline_model_parallel_size=2"], "all layers and experts"),
        (["actor_rollout_ref.actor.megatron.tensor_model_parallel_size=2"], "write actor.megatron.tensor"),
    ])
    func layoutsThatDoNotGoAreRefused(overrides: [String], message: String) {
        let found = problems(minimal, overrides)
        #expect(found.contains { $0.description.contains(message) }, "\(found)")
    }

    @Test func mastersThatAreNotThereNeedNoOtherPlace() throws {
        for more in [[], ["model.dtype=bfloat16", "model.param_dtype=bfloat16"]] {
            let config = try RunConfig(
                yaml: minimal, file: "recipe.yaml", overrides: ["actor.fsdp_config.param_offload=true"] + more)
            #expect(config.warnings.count == 1 && config.warnings[0].description.contains("no master weights"))
        }
    }
}
