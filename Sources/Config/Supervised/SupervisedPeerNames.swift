/// Settings of TRL's and verl's supervised trainers that have another name here, are not needed, or are not supported yet.
enum SupervisedPeerNames {
    private static let packed: PeerNames.Answer = .needless("sequences are always packed, never padded")
    private static let budgeted: PeerNames.Answer = .needless(
        "micro-batches are cut by tokens, and the loss does not depend on the cut; see train.max_token_len_per_gpu")

    // swift-format-ignore
    static let table: PeerTable = [
        // TRL
        ("learning_rate", .here("train.optim.lr")), ("lr_scheduler_type", .here("train.optim.lr_scheduler_type")),
        ("warmup_steps", .here("train.optim.lr_warmup_steps")), ("warmup_ratio", .here("train.optim.lr_warmup_steps_ratio")),
        ("weight_decay", .here("train.optim.weight_decay")), ("max_grad_norm", .here("train.grad_clip")),
        ("per_device_train_batch_size", .here("data.train_batch_size")), ("gradient_accumulation_steps", budgeted),
        ("num_train_epochs", .here("trainer.total_epochs")), ("max_steps", .here("trainer.total_training_steps")),
        ("save_steps", .here("trainer.save_freq")), ("eval_steps", .here("trainer.test_freq")),
        ("output_dir", .here("trainer.default_local_dir")), ("report_to", .here("trainer.logger")),
        ("model_name_or_path", .here("model.path")), ("max_length", .here("data.max_length")),
        ("truncation_mode", .here("data.truncation")), ("assistant_only_loss", .here("data.assistant_only_loss")),
        ("completion_only_loss", .here("data.assistant_only_loss")), ("packing", packed), ("padding_free", packed),
        ("packing_strategy", packed), ("eval_packing", packed), ("bf16", .here("model.dtype")),
        ("gradient_checkpointing", .here("model.enable_gradient_checkpointing")),
        ("dataset_name", .here("data.train_files")), ("dataset_text_field", .notYet("give messages, or a prompt and a completion")),
        ("chat_template_path", .here("model.chat_template")), ("use_peft", .here("model.lora_rank")),
        ("lora_r", .here("model.lora_rank")), ("lora_alpha", .here("model.lora_alpha")),
        ("lora_dropout", .here("model.lora_dropout")), ("lora_target_modules", .here("model.target_modules")),
        ("beta", .here("dpo.beta")), ("loss_type", .here("dpo.loss_type or sft.loss_type")),
        ("loss_weights", .here("dpo.loss_weights")), ("label_smoothing", .here("dpo.label_smoothing")),
        ("precompute_ref_log_probs", .needless("the reference's log-probabilities are computed once, before the first step")),
        ("dpo.precompute_ref_log_probs", .needless("the reference's log-probabilities are computed once, before the first step")),
        ("dpo.reference_free", .notYet("remove it")), ("dpo.f_divergence_type", .notYet("remove it")),
        ("dpo.ld_alpha", .notYet("remove it")), ("dpo.use_weighting", .notYet("remove it")),
        ("dpo.rpo_alpha", .here("dpo.loss_type: [sigmoid, sft] with dpo.loss_weights")),
        ("ref_model", .notYet("the reference is the model as it begins, or the base under the adapter")),
        ("center_rewards_coefficient", .here("reward_model.center_rewards_coefficient")),
        // verl
        ("optim", .here("train.optim")), ("data.micro_batch_size_per_gpu", budgeted), ("data.micro_batch_size", budgeted),
        ("data.max_token_len_per_gpu", .here("train.max_token_len_per_gpu")), ("data.use_dynamic_bsz", budgeted),
        ("data.pad_mode", packed), ("data.response_key", .here("data.completion_key")),
        ("data.multiturn", .needless("rows with messages are whole conversations; see data.messages_key")),
        ("train.optim.clip_grad", .here("train.grad_clip")),
        ("ulysses_sequence_parallel_size", .here("train.ulysses_sequence_parallel_size")),
        ("trainer.critic_warmup", .needless("there is no critic")),
        ("trainer.take_turns", .needless("there is but one model")),
        ("trainer.device", .here("device")),
        ("trainer.seed", .here("seed")), ("trainer.project_name", .here("project_name")),
        ("trainer.experiment_name", .here("experiment_name")), ("use_remove_padding", packed),
        // fledge train
        ("actor", .here("train")), ("rollout", .needless("nothing is sampled in training; see eval.max_new_tokens")),
        ("reward", .needless("rows say themselves what is right")), ("algorithm", .needless("rows say themselves what is right")),
    ]
}
