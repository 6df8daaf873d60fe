/// Checks of settings that are right alone and wrong together, and how they are reported.
protocol LedgerChecks {
    var ledger: Ledger { get }
}

// MARK: - Checks of sections that several kinds of configuration have

extension LedgerChecks {
    func checkCheckpointing(_ model: ModelSettings) {
        let mode = "model.activation_checkpointing"
        refuse(
            model.checkpointing == .none && model.activationCheckpointingLayers != nil, mode + "_layers", mode,
            "no layer is checkpointed", remedy: "set \(mode) to selective or full, or remove \(mode)_layers")
        refuse(
            model.checkpointing == .none && model.activationOffload, "model.activation_offload", mode,
            "only what checkpointed layers keep is carried away",
            remedy: "set \(mode) to selective or full, or remove model.activation_offload")
        refuse(
            model.checkpointing != .selective && ledger.isChanged(mode + "_keeps"), mode + "_keeps", mode,
            "only selective keeps a choice", remedy: "set \(mode) to selective, or remove \(mode)_keeps")
        warn(
            model.enableGradientCheckpointing && model.activationCheckpointing == .selective,
            "model.enable_gradient_checkpointing", mode, "selective it is; the switch alone would mean full",
            remedy: "remove model.enable_gradient_checkpointing")
    }

    /// - Parameter section: the one around `fsdp_config`.
    func checkTypes(_ model: ModelSettings, _ fsdp: ShardingSettings, in section: String) {
        let isWide = model.dtype == .float32
        refuse(
            isWide && model.paramDType == .bfloat16, "model.param_dtype", "model.dtype",
            "weights that are computed with in float32 are their own masters",
            remedy: "make model.dtype bfloat16 too, or model.param_dtype float32")
        refuse(
            isWide && fsdp.gradDType == .bfloat16, "\(section).fsdp_config.grad_dtype", "model.dtype",
            "gradients of float32 weights are float32",
            remedy: "make model.dtype bfloat16, or remove \(section).fsdp_config.grad_dtype")
        warn(
            fsdp.paramOffload && (isWide || model.paramDType == .bfloat16),
            "\(section).fsdp_config.param_offload",
            isWide ? "model.dtype" : "model.param_dtype", "there are no master weights to keep elsewhere",
            remedy: "remove \(section).fsdp_config.param_offload")
        refuse(
            !fsdp.optimizerOffload && fsdp.optimizerOffloadRatio < 1, "\(section).fsdp_config.optimizer_offload_ratio",
            "\(section).fsdp_config.optimizer_offload", "no moments leave the GPU",
            remedy: "make \(section).fsdp_config.optimizer_offload true, or remove the ratio")
    }

    /// - Parameter section: the one around `fsdp_config`.
    func checkSharding(_ fsdp: ShardingSettings, in section: String) {
        if fsdp.fsdpSize == 0 {
            problem(
                "\(section).fsdp_config.fsdp_size", "no rank is no set of ranks",
                remedy: "write -1 for all ranks, or 1 for none")
        }
        warn(
            fsdp.fsdpSize == 1 && !fsdp.reshardAfterForward, "\(section).fsdp_config.reshard_after_forward",
            "\(section).fsdp_config.fsdp_size", "every rank has the whole weights all the time",
            remedy: "remove \(section).fsdp_config.reshard_after_forward")
    }

    /// Adapters, and ranks that share the model.
    /// - Parameters:
    ///   - section: the one around `megatron`.
    ///   - more: other sizes of such sets of ranks.
    func checkModelParallel(
        _ model: ModelSettings, _ megatron: ModelParallelSettings, in section: String,
        and more: [(name: String, size: Int)] = []
    ) {
        let tensor = "\(section).megatron.tensor_model_parallel_size"
        let shared =
            [
                (tensor, megatron.tensorSize),
                ("\(section).megatron.pipeline_model_parallel_size", megatron.pipelineSize),
                ("\(section).megatron.expert_model_parallel_size", megatron.expertSize),
            ] + more
        let adapters = [
            ("model.lora_rank", model.loraRank > 0), ("model.lora_adapter_path", model.loraAdapterPath != nil),
        ]
        for (name, size) in shared {
            for (adapter, isSet) in adapters {
                refuse(
                    size > 1 && isSet, name, adapter, "an adapter's matrices are not divided",
                    remedy: "make \(name) 1; \(section).fsdp_config.fsdp_size shares a model with an adapter out too")
            }
        }
        let split = "\(section).megatron.sequence_parallel"
        warn(
            ledger.isChanged(split) && megatron.tensorSize == 1, split, tensor, "no rank shares tokens with another",
            remedy: "remove \(split)")
    }

    func checkLoRA(_ model: ModelSettings) {
        let own = ["lora_alpha", "lora_dropout", "lora_use_rslora", "target_modules", "exclude_modules"].map {
            "model." + $0
        }
        if model.loraAdapterPath != nil {
            for name in ["model.lora_rank"] + own {
                refuse(
                    ledger.isChanged(name), name, "model.lora_adapter_path",
                    "the adapter's own adapter_config.json says that", remedy: "remove \(name)")
            }
        } else {
            for name in own + ["model.lora_merge"] {
                refuse(
                    model.loraRank == 0 && ledger.isChanged(name), name, "model.lora_rank", "there is no adapter",
                    remedy: "make model.lora_rank 1 or more, as 16, or remove \(name)")
            }
        }
    }

    /// - Parameter section: the one around `optim`.
    func checkSchedule(_ optim: OptimizerSettings, _ trainer: TrainerSettings, in section: String) {
        refuse(
            optim.lrWarmupSteps != nil && optim.lrWarmupStepsRatio > 0, "\(section).optim.lr_warmup_steps",
            "\(section).optim.lr_warmup_steps_ratio", "two lengths of one warm-up",
            remedy: "remove one (lr_warmup_steps: null, or lr_warmup_steps_ratio: 0)")
        for (name, total) in [
            ("\(section).optim.total_training_steps", optim.totalTrainingSteps),
            ("trainer.total_training_steps", trainer.totalTrainingSteps),
        ] {
            guard let total, let warmup = optim.lrWarmupSteps else { continue }
            warn(
                warmup >= total, "\(section).optim.lr_warmup_steps", name, "the warm-up lasts for all of the schedule",
                remedy: "make \(section).optim.lr_warmup_steps less than \(total)")
            break
        }
    }

    func checkTrainer(_ trainer: TrainerSettings, valFiles: [String]) {
        refuse(
            trainer.testFreq > 0 && valFiles.isEmpty, "trainer.test_freq", "data.val_files",
            "there is nothing to validate on", remedy: "set data.val_files, or trainer.test_freq to -1")
        refuse(
            trainer.resumeMode == .resumePath && trainer.resumeFromPath == nil, "trainer.resume_mode",
            "trainer.resume_from_path", "no checkpoint is named", remedy: "set trainer.resume_from_path")
        refuse(
            trainer.resumeMode != .resumePath && trainer.resumeFromPath != nil, "trainer.resume_from_path",
            "trainer.resume_mode", "the path would not be used", remedy: "make trainer.resume_mode resume_path")
    }
}

// MARK: - Reports

extension LedgerChecks {
    func refuse(_ condition: Bool, _ first: String, _ second: String, _ message: String, remedy: String) {
        guard condition, let (place, text) = describe(first, second, message) else { return }
        ledger.problems.append(Diagnostic(.conflict, at: place, first, text, remedy: remedy))
    }

    func warn(_ condition: Bool, _ first: String, _ second: String, _ message: String, remedy: String) {
        guard condition, let (place, text) = describe(first, second, message) else { return }
        ledger.warnings.append(Diagnostic(.warning, at: place, first, text, remedy: remedy))
    }

    func problem(_ name: String, _ message: String, remedy: String) {
        guard !ledger.refused.contains(name) else { return }
        ledger.refuse(.outOfRange, at: section(name), name, message, remedy: remedy)
    }

    /// Nil when a value was refused already: it is not the one that was meant.
    private func describe(_ first: String, _ second: String, _ message: String) -> (place: Place, text: String)? {
        guard !ledger.refused.contains(first), !ledger.refused.contains(second), let one = ledger[first],
            let other = ledger[second]
        else { return nil }
        let written = [one.place, other.place].compactMap { $0 }
        let place = written.first(where: \.isOverride) ?? written.first ?? section(first)
        return (place, "\(mention(one)) and \(mention(other)): \(message)")
    }

    private func mention(_ declaration: Declaration) -> String {
        guard case .setting(_, let value, _, _, _) = declaration.role else { return declaration.keyPath }
        return "\(declaration.keyPath) = \(shortened(value)) (\(declaration.place?.brief ?? "default"))"
    }

    /// The place of the nearest section around a setting that was written.
    func section(_ name: String) -> Place {
        var path = name.split(separator: ".").map(String.init)
        while !path.isEmpty {
            if let place = ledger[path.joined(separator: ".")]?.place { return place }
            path.removeLast()
        }
        return ledger.top
    }
}
