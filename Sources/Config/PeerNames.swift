/// Settings of other programs by their names, and what to answer who writes them.
typealias PeerTable = [(name: String, answer: PeerNames.Answer)]

/// Settings of verl and TRL that Fledge has under another name, does without, or does not support yet. A user who
/// brings a recipe along is told which.
enum PeerNames {
    struct Known {
        var message: String
        var remedy: String
    }

    enum Answer {
        /// Its name here.
        case here(String)
        /// Why there is none.
        case needless(String)
        case notYet(String)
    }

    /// verl's level above `actor`, `rollout`, `ref` and `model`.
    private static let outer = "actor_rollout_ref"

    static func isOuterSection(_ path: [String]) -> Bool { path == [outer] }

    static func known(_ path: [String], in table: PeerTable, isDeclared: (String) -> Bool) -> Known? {
        let inner = path.first == outer ? Array(path.dropFirst()) : path
        let name = inner.joined(separator: ".")
        if let answer = answer(inner, in: table) { return describe(answer) }
        guard path.first == outer else { return nil }
        let ours = isDeclared(name) ? name : nearestSection(inner, isDeclared)
        return Known(
            message: "Fledge has no \(outer) level",
            remedy: ours.map { "write \($0)" } ?? "write actor, rollout and model at the top level")
    }

    private static func nearestSection(_ path: [String], _ isDeclared: (String) -> Bool) -> String? {
        var path = path
        while !path.isEmpty {
            if isDeclared(path.joined(separator: ".")) { return "its settings in " + path.joined(separator: ".") }
            path.removeLast()
        }
        return nil
    }

    /// The answer for the name, or for a section that it lies in.
    private static func answer(_ path: [String], in table: PeerTable) -> Answer? {
        var path = path
        while !path.isEmpty {
            let name = path.joined(separator: ".")
            if let found = table.first(where: { $0.name == name }) { return found.answer }
            path.removeLast()
        }
        return nil
    }

    private static func describe(_ answer: Answer) -> Known {
        switch answer {
        case .here(let name): Known(message: "has another name here", remedy: "write \(name)")
        case .needless(let why): Known(message: "not needed: \(why)", remedy: "remove it")
        case .notYet(let remedy): Known(message: "not supported yet", remedy: remedy)
        }
    }

    private static let packed: Answer = .needless("sequences are always packed, never padded")
    private static let budgeted: Answer = .needless(
        "micro-batches are cut by tokens, and the loss does not depend on the cut; see actor.ppo_max_token_len_per_gpu")
    private static let wholeLayers: Answer = .notYet(
        "each rank samples with all layers and experts; see rollout.tensor_model_parallel_size")
    private static let noEngine: Answer = .needless("training and sampling share one engine and one set of weights")
    private static let noRemoteCode: Answer = .needless(
        "Fledge never runs code from a model's folder; it knows the architecture or says that it does not")
    private static let oneForward: Answer = .needless("log-probabilities are computed by the actor's token budget")

    // swift-format-ignore
    static let table: PeerTable = [
        // verl: actor
        ("actor.strategy", .needless("there is one training engine")),
        ("actor.ppo_mini_batch_size_per_gpu", .here("actor.ppo_mini_batch_size")),
        ("actor.ppo_micro_batch_size", .here("actor.ppo_micro_batch_size_per_gpu")),
        ("actor.use_remove_padding", packed),
        ("actor.use_torch_compile", .needless("there is no Python to compile away")),
        ("actor.fsdp_config.mixed_precision.param_dtype", .here("model.dtype")),
        ("actor.fsdp_config.mixed_precision.reduce_dtype", .here("actor.fsdp_config.reduce_dtype")),
        ("actor.fsdp_config.mixed_precision.buffer_dtype", .needless("buffers keep their own type")),
        ("actor.fsdp_config.mixed_precision", .here("model.dtype and actor.fsdp_config.reduce_dtype")),
        ("actor.fsdp_config.param_dtype", .here("model.param_dtype")),
        ("actor.fsdp_config.model_dtype", .here("model.param_dtype")),
        ("actor.fsdp_config.dtype", .here("model.dtype")),
        ("actor.fsdp_config.offload_policy", .here("actor.fsdp_config.param_offload and optimizer_offload")),
        ("actor.fsdp_config.wrap_policy", .needless("each layer is a unit")),
        ("actor.megatron.context_parallel_size", .here("actor.ulysses_sequence_parallel_size")),
        ("actor.megatron.expert_tensor_parallel_size", .needless("experts are divided by both sizes")),
        ("actor.megatron.virtual_pipeline_model_parallel_size", .notYet("a stage is one run of layers; remove it")),
        ("actor.megatron.param_offload", .here("actor.fsdp_config.param_offload")),
        ("actor.megatron.optimizer_offload", .here("actor.fsdp_config.optimizer_offload")),
        ("actor.megatron.grad_offload", .notYet("gradients stay on the device; remove it")),
        ("actor.megatron.use_distributed_optimizer", .here("actor.fsdp_config.fsdp_size with reshard_after_forward: false")),
        ("actor.megatron.seed", .here("seed")), ("actor.megatron.dtype", .here("model.dtype")),
        ("actor.megatron.use_dist_checkpointing", .needless("checkpoints load in any layout")),
        ("actor.megatron.use_mbridge", .needless("checkpoints hold the model as a Hugging Face folder")),
        ("actor.megatron.override_transformer_config", .notYet("the model's config.json decides; remove it")),
        ("actor.checkpoint", .needless("a checkpoint holds all that a resume needs")),
        ("actor.policy_loss.loss_mode", .here("actor.policy_loss")),
        ("actor.policy_loss.clip_cov_ratio", .here("actor.clip_cov_ratio")),
        ("actor.policy_loss.clip_cov_lb", .here("actor.clip_cov_lb")),
        ("actor.policy_loss.clip_cov_ub", .here("actor.clip_cov_ub")),
        ("actor.policy_loss.kl_cov_ratio", .here("actor.kl_cov_ratio")),
        ("actor.policy_loss.ppo_kl_coef", .here("actor.ppo_kl_coef")),
        ("actor.policy_loss.dro_beta", .here("actor.dro_beta")),
        ("actor.kl_coef", .here("actor.kl_loss_coef")), ("actor.optim.clip_grad", .here("actor.grad_clip")),
        ("actor.optim.warmup_style", .here("actor.optim.lr_scheduler_type")),
        ("actor.optim.num_cycles", .notYet("the cosine falls once; remove it")),
        ("actor.optim.optimizer", .notYet("the optimizer is AdamW; remove it")),
        ("actor.use_prefix_grouper", .here("actor.share_prefix")),
        // verl: rollout
        ("rollout.name", noEngine), ("rollout.mode", noEngine), ("rollout.load_format", noEngine),
        ("rollout.layered_summon", noEngine), ("rollout.engine_kwargs", noEngine),
        ("rollout.attention_backend", .needless("the kernel is chosen by device and shape")),
        ("rollout.dtype", .here("model.dtype")), ("rollout.seed", .here("seed")),
        ("rollout.enable_sleep_mode", .here("rollout.free_cache_engine")),
        ("rollout.preemption_mode", .here("rollout.preemption")),
        ("rollout.speculative_config", .here("rollout.speculative")),
        ("rollout.num_speculative_tokens", .here("rollout.speculative.num_speculative_tokens")),
        ("rollout.prompt_lookup_max", .here("rollout.speculative.prompt_lookup_max")),
        ("rollout.prompt_lookup_min", .here("rollout.speculative.prompt_lookup_min")),
        ("rollout.num_gpu_blocks_override", .here("rollout.gpu_memory_utilization")),
        ("rollout.max_tokens", .here("data.max_response_length")),
        ("rollout.max_new_tokens", .here("data.max_response_length")),
        ("rollout.logprobs_mode", .needless("log-probabilities are those that training computes, before any filter")),
        ("rollout.disable_log_stats", .needless("a rollout's figures are in the metrics")),
        ("rollout.cudagraph_capture_sizes", .needless("graphs are captured for the sizes that come up")),
        ("rollout.max_seq_len_to_capture", .needless("a graph serves every length")),
        ("rollout.update_weights_bucket_megabytes", noEngine), ("rollout.cpu_offload_gb", .notYet("sampling weights lie on the device; remove it")),
        ("rollout.logit_bias", .notYet("remove it")), ("rollout.stop_token_ids", .notYet("use rollout.stop")),
        ("rollout.tensor_parallel_size", .here("rollout.tensor_model_parallel_size")),
        ("rollout.pipeline_parallel_size", wholeLayers), ("rollout.enable_expert_parallel", wholeLayers),
        ("rollout.data_parallel_size", .needless("the ranks that are left divide the prompts")),
        ("rollout.expert_parallel_size", wholeLayers), ("rollout.pipeline_model_parallel_size", wholeLayers),
        ("rollout.prompt_length", .here("data.max_prompt_length")),
        ("rollout.response_length", .here("data.max_response_length")),
        ("rollout.max_model_len", .here("data.max_prompt_length and data.max_response_length")),
        ("rollout.do_sample", .here("rollout.temperature: 0 is greedy")),
        ("rollout.multi_turn.tool_config_path", .here("environment.tools, or environment.path for tools of your own")),
        ("rollout.multi_turn.interaction_config_path", .here("environment.path")),
        ("rollout.multi_turn.max_parallel_calls", .needless("all calls of a reply run at once; limits of the sandbox hold them")),
        ("rollout.multi_turn.tool_response_truncate_side", .needless("the beginning of a long result is shown")),
        ("rollout.multi_turn.tokenization_sanity_check_mode", .needless("what was drawn is never tokenized again")),
        ("rollout.multi_turn.use_inference_chat_template", .needless("what was drawn is never rendered again")),
        ("rollout.multi_turn.num_repeat_rollouts", .here("rollout.n")),
        ("rollout.agent", .notYet("remove it")),
        ("rollout.log_prob_micro_batch_size", oneForward), ("rollout.log_prob_micro_batch_size_per_gpu", oneForward),
        ("rollout.log_prob_max_token_len_per_gpu", oneForward), ("rollout.log_prob_use_dynamic_bsz", oneForward),
        // verl: reference, critic, reward
        ("ref.fsdp_config.param_offload", .here("reference.param_offload")), ("ref.megatron.param_offload", .here("reference.param_offload")),
        ("ref", oneForward),
        ("reward_model.reward_manager", .here("reward.type")), ("reward_model.model.path", .here("reward.model.path")), ("reward_model", .here("reward, with reward.model for a model that scores")),
        ("critic.strategy", .needless("there is one training engine")),
        ("critic.model.fsdp_config.param_offload", .here("trainer.take_turns")),
        ("critic.model.fsdp_config.optimizer_offload", .here("trainer.take_turns")),
        ("critic.model.fsdp_config", .here("actor.fsdp_config, which lays the critic out too")),
        ("critic.model.tokenizer_path", .needless("a critic reads the policy's tokens")),
        ("critic.model.use_remove_padding", packed), ("critic.model.trust_remote_code", noRemoteCode),
        ("critic.model.enable_gradient_checkpointing", .here("model.activation_checkpointing, which is the critic's too")),
        ("critic.model.lora_rank", .notYet("a critic trains all of its weights; remove it")),
        ("critic.model.override_config", .notYet("the model's config.json decides; remove it")),
        ("critic.fsdp", .here("actor.fsdp_config, which lays the critic out too")),
        ("critic.megatron", .here("actor.megatron, which lays the critic out too")),
        ("critic.ulysses_sequence_parallel_size", .here("actor.ulysses_sequence_parallel_size")),
        ("critic.ppo_micro_batch_size", budgeted), ("critic.ppo_micro_batch_size_per_gpu", budgeted),
        ("critic.use_dynamic_bsz", budgeted), ("critic.forward_micro_batch_size", budgeted),
        ("critic.forward_micro_batch_size_per_gpu", budgeted), ("critic.forward_max_token_len_per_gpu", budgeted),
        ("critic.rollout_n", .here("rollout.n")),
        ("critic.checkpoint", .needless("a checkpoint holds all that a resume needs")),
        ("critic.optim.clip_grad", .here("critic.grad_clip")), ("critic.optim.warmup_style", .here("critic.optim.lr_scheduler_type")),
        ("reward_model.overlong_buffer", .here("reward.overlong_buffer")),
        ("reward.overlong_buffer.log", .needless("its part of the score is always in the metrics")),
        ("reward.reward_kwargs.overlong_buffer_cfg", .here("reward.overlong_buffer")),
        ("reward_kwargs.overlong_buffer_cfg", .here("reward.overlong_buffer")),
        ("reward_manager", .here("reward.type")),
        ("custom_reward_function", .here("reward.custom_reward_function")),
        ("reward.num_examine", .here("trainer.log_samples")), ("reward.reward_manager", .here("reward.type")),
        // verl: model
        ("model.use_remove_padding", packed), ("model.use_shm", .needless("weights are memory-mapped")),
        ("model.trust_remote_code", noRemoteCode), ("trust_remote_code", noRemoteCode),
        ("model.lora.rank", .here("model.lora_rank")), ("model.lora.alpha", .here("model.lora_alpha")),
        ("model.lora.dropout", .here("model.lora_dropout")), ("model.lora.merge", .here("model.lora_merge")),
        ("model.lora.target_modules", .here("model.target_modules")),
        ("model.lora.exclude_modules", .here("model.exclude_modules")),
        ("model.lora.adapter_path", .here("model.lora_adapter_path")),
        ("model.lora", .notYet("write model.lora_rank and the settings beside it")),
        ("model.target_parameters", .notYet("experts get no adapter; remove it")),
        ("model.enable_activation_offload", .here("model.activation_offload")),
        ("model.use_liger", .needless("its kernels are for Python")), ("model.use_fused_kernels", .needless("the loss never holds all logits")),
        ("model.tokenizer_path", .notYet("the tokenizer is read from model.path")),
        ("model.custom_chat_template", .here("model.chat_template, the path of a file")),
        ("model.override_config", .notYet("the model's config.json decides; remove it")),
        ("model.external_lib", .notYet("models are compiled in; remove it")),
        // verl: data
        ("data.tokenizer", .notYet("the tokenizer is read from model.path")),
        ("data.gen_batch_size", .here("data.train_batch_size")),
        ("data.return_raw_chat", .needless("messages always reach the reward")),
        ("data.return_raw_input_ids", .needless("token ids always reach the loop")),
        ("data.return_full_prompt", .needless("the prompt always reaches the reward")),
        ("data.trust_remote_code", noRemoteCode),
        ("data.filter_overlong_prompts_workers", .needless("all cores are used")),
        ("data.image_key", .notYet("text only; remove it")), ("data.video_key", .notYet("text only; remove it")),
        ("data.custom_cls", .notYet("write a file with verl's columns")), ("data.sampler", .notYet("remove it")),
        ("data.apply_chat_template_kwargs", .notYet("edit the template: model.chat_template")),
        ("data.dataloader_num_workers", .needless("rows are read as they are needed")),
        ("data.train_max_samples", .notYet("shorten the file")), ("data.val_max_samples", .notYet("shorten the file")),
        // verl: algorithm
        ("algorithm.use_pf_ppo", .notYet("remove it")), ("algorithm.pf_ppo", .notYet("remove it")),
        ("algorithm.policy_loss", .here("actor.policy_loss")), ("algorithm.gpg_norm", .here("algorithm.f_norm")),
        // verl: trainer
        ("trainer.total_training_epochs", .here("trainer.total_epochs")),
        ("nccl_timeout", .here("trainer.nccl_timeout")), ("trainer.device", .here("device")),
        ("trainer.project_name", .here("project_name")), ("trainer.experiment_name", .here("experiment_name")),
        ("trainer.seed", .here("seed")), ("trainer.max_critic_ckpt_to_keep", .here("trainer.max_actor_ckpt_to_keep: a checkpoint holds both")),
        ("trainer.val_only", .notYet("use fledge eval")),
        ("trainer.default_hdfs_dir", .notYet("use trainer.default_local_dir")),
        ("trainer.log_val_generations", .here("trainer.log_samples")),
        ("trainer.rollout_data_dir", .here("trainer.log_samples")),
        ("trainer.balance_batch", .needless("batches are always balanced by work")),
        ("trainer.ray_wait_register_center_timeout", .here("cluster.ray.placement_timeout")),
        ("trainer.del_local_ckpt_after_load", .here("trainer.max_actor_ckpt_to_keep")),
        ("trainer.esi_redundant_time", .notYet("remove it")), ("trainer.use_legacy_worker_impl", .needless("there is one")),
        ("ray_kwargs.ray_init.address", .here("cluster.ray.address")), ("ray_init.address", .here("cluster.ray.address")),
        ("ray_kwargs", .needless("Ray gives places only; see cluster.ray")),
        ("ray_init", .needless("Ray gives places only; see cluster.ray")),
        ("global_profiler", .notYet("remove it")), ("hydra", .needless("there is no Hydra")),
        ("defaults", .notYet("a recipe is one file; the rest are key=value arguments")),
        // TRL
        ("learning_rate", .here("actor.optim.lr")), ("mask_truncated_completions", .here("algorithm.mask_truncated")),
        ("value_model", .here("critic.model.path")), ("vf_coef", .here("critic.vf_coef")),
        ("vf_clip_range", .here("critic.cliprange_value")), ("cliprange_value", .here("critic.cliprange_value")),
        ("lam", .here("algorithm.lam")), ("gamma", .here("algorithm.gamma")),
        ("vllm_importance_sampling_correction", .here("algorithm.rollout_correction.rollout_is")),
        ("vllm_importance_sampling_cap", .here("algorithm.rollout_correction.rollout_is_threshold")),
        ("num_generations", .here("rollout.n")),
        ("beta", .here("actor.kl_loss_coef with actor.use_kl_loss: true")), ("epsilon", .here("actor.clip_ratio")),
        ("epsilon_high", .here("actor.clip_ratio_high")), ("delta", .here("actor.clip_ratio_c")),
        ("loss_type", .here("actor.loss_agg_mode")), ("num_iterations", .here("actor.ppo_epochs")),
        ("lora_r", .here("model.lora_rank")), ("lora_alpha", .here("model.lora_alpha")),
        ("lora_dropout", .here("model.lora_dropout")), ("lora_target_modules", .here("model.target_modules")),
        ("use_rslora", .here("model.lora_use_rslora")), ("use_peft", .here("model.lora_rank")),
        ("max_prompt_length", .here("data.max_prompt_length")),
        ("max_completion_length", .here("data.max_response_length")),
        ("per_device_train_batch_size", .here("data.train_batch_size")),
        ("gradient_accumulation_steps", budgeted), ("max_steps", .here("trainer.total_training_steps")),
        ("num_train_epochs", .here("trainer.total_epochs")), ("save_steps", .here("trainer.save_freq")),
        ("eval_steps", .here("trainer.test_freq")), ("output_dir", .here("trainer.default_local_dir")),
        ("report_to", .here("trainer.logger")), ("max_grad_norm", .here("actor.grad_clip")),
        ("scale_rewards", .here("algorithm.norm_adv_by_std_in_grpo")), ("model_name_or_path", .here("model.path")),
        ("reward_funcs", .here("reward.type")), ("use_vllm", noEngine), ("vllm_mode", noEngine),
        ("vllm_gpu_memory_utilization", .here("rollout.gpu_memory_utilization")),
        ("vllm_tensor_parallel_size", .here("rollout.tensor_model_parallel_size")), ("vllm_enable_sleep_mode", .here("rollout.free_cache_engine")),
        ("vllm_max_model_length", .here("data.max_prompt_length and data.max_response_length")),
        ("generation_kwargs", .notYet("write rollout.temperature and the settings beside it")),
        ("bf16", .here("model.dtype")),
        ("warmup_ratio", .here("actor.optim.lr_warmup_steps_ratio")), ("warmup_steps", .here("actor.optim.lr_warmup_steps")),
    ]
}

/// Values that verl takes and Fledge does not, or not yet.
enum PeerValues {
    static func note(_ node: ConfigNode, for keyPath: String) -> String? {
        guard case .scalar(let scalar) = node.content,
            let entry = table.first(where: { $0.keyPath == keyPath && $0.values.contains(scalar.text) })
        else { return nil }
        return "\(scalar.text): \(entry.note)"
    }

    private static let table: [(keyPath: String, values: [String], note: String)] = [
        (
            "algorithm.adv_estimator",
            [
                "gae", "grpo_passk", "grpo_vectorized", "rloo", "rloo_vectorized", "opo", "gpg", "gdpo", "remax",
                "reinforce_plus_plus", "reinforce_plus_plus_baseline", "optimal_token_baseline",
                "tir_optimal_token_baseline",
            ], "not supported yet"
        ),
        (
            "actor.policy_loss",
            [
                "gspo", "sapo", "gpg", "clip_cov", "kl_cov", "geo_mean", "cispo", "dppo_tv", "dppo_kl", "dro",
                "reinforce", "bypass_mode",
            ], "not supported yet"
        ),
        ("actor.kl_loss_type", ["full", "full+"], "needs both distributions whole, which is not supported"),
        ("algorithm.kl_penalty", ["full", "full+"], "needs both distributions whole, which is not supported"),
        ("trainer.logger", ["wandb", "mlflow", "swanlab", "clearml", "vemlp_wandb", "trackio"], "not supported yet"),
        ("trainer.logger", ["file"], "is jsonl here"),
        ("rollout.kv_cache_dtype", ["fp8"], "is fp8_e4m3 here"),
        ("rollout.kv_cache_dtype", ["fp8_e5m2"], "not supported; fp8_e4m3 keeps one bit more"),
        ("rollout.kv_cache_dtype", ["bf16"], "is bfloat16 here"),
        (
            "rollout.kv_cache_dtype", ["float32", "fp32", "float16", "fp16", "half"],
            "the cache has model.dtype, which is auto, or bfloat16, or fp8_e4m3"
        ),
        ("rollout.quantization", ["fp8", "torchao", "bitsandbytes"], "not supported"),
        (
            "rollout.quantization", ["gptq", "awq", "gptq_marlin", "awq_marlin", "compressed-tensors"],
            "a checkpoint says itself how it is quantised"
        ),
        ("rollout.speculative.method", ["eagle", "eagle3", "medusa", "mtp", "draft_model"], "not supported yet"),
        ("model.dtype", ["float16", "fp16", "half"], "not supported; bfloat16 needs no loss scaling"),
        ("model.param_dtype", ["float16", "fp16", "half"], "not supported; bfloat16 needs no loss scaling"),
        ("model.dtype", ["bf16"], "is bfloat16 here"), ("model.dtype", ["fp32"], "is float32 here"),
        ("model.param_dtype", ["bf16"], "is bfloat16 here"), ("model.param_dtype", ["fp32"], "is float32 here"),
        (
            "model.attn_implementation", ["flash_attention_2", "sdpa", "eager"],
            "the kernel is chosen by device and shape"
        ),
        ("actor.optim.lr_scheduler_type", ["wsd", "cosine_with_restarts", "polynomial"], "not supported yet"),
        ("reward.type", ["naive", "dapo", "prime", "batch"], "verl's managers pick a reward by data_source; name it"),
    ]
}
