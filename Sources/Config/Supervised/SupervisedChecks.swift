/// Settings of a supervised run that are right alone and wrong together.
struct SupervisedChecks: LedgerChecks {
    let config: SupervisedConfig
    let ledger: Ledger

    func run() {
        checkLengths()
        checkColumns()
        checkObjective()
        checkCheckpointing(config.model)
        checkLoRA(config.model)
        checkTypes(config.model, config.train.fsdp, in: "train")
        checkSharding(config.train.fsdp, in: "train")
        checkModelParallel(config.model, config.train.megatron, in: "train")
        checkStages()
        checkCluster(config.cluster, config.trainer, config.device)
        checkSchedule(config.train.optim, config.trainer, in: "train")
        checkTrainer(config.trainer, valFiles: config.data.valFiles)
        if let eval = config.eval {
            refuse(
                eval.maxNewTokens > 0 && config.data.valFiles.isEmpty, "eval.max_new_tokens", "data.val_files",
                "there is no held-out prompt to answer", remedy: "set data.val_files, or eval.max_new_tokens to 0")
        }
    }

    private func checkLengths() {
        refuse(
            config.data.maxLength > config.train.maxTokenLenPerGPU, "train.max_token_len_per_gpu", "data.max_length",
            "such a sequence would fit no micro-batch",
            remedy: "make train.max_token_len_per_gpu at least \(config.data.maxLength)")
    }

    private func checkStages() {
        let name = "train.megatron.pipeline_model_parallel_size", size = config.train.megatron.pipelineSize
        refuse(
            size > 1 && config.train.routerAuxLossCoefficient > 0, name, "train.router_aux_loss_coef",
            "a stage sees its own layers' experts only", remedy: "make \(name) 1, or train.router_aux_loss_coef 0")
        if config.kind == .rewardModel, size > 1 {
            problem(
                name, "\(size): a reward model's layers are not shared out",
                remedy: "make it 1; train.megatron.tensor_model_parallel_size shares each matrix")
        }
    }

    private func checkColumns() {
        let names =
            config.kind == .sft
            ? [("data.messages_key", config.data.messagesKey), ("data.completion_key", config.data.completionKey)]
            : [("data.chosen_key", config.data.chosenKey), ("data.rejected_key", config.data.rejectedKey)]
        let all = [("data.prompt_key", config.data.promptKey)] + names
        for (index, (name, column)) in all.enumerated() {
            for (other, taken) in all[..<index] {
                refuse(
                    column == taken, name, other, "one column cannot be both", remedy: "give each its own column")
            }
        }
    }

    private func checkObjective() {
        guard case .dpo(let dpo) = config.objective else { return }
        refuse(
            !dpo.lossWeights.isEmpty && dpo.lossWeights.count != dpo.lossTypes.count, "dpo.loss_weights",
            "dpo.loss_type", "\(dpo.lossWeights.count) weights for \(dpo.lossTypes.count) losses",
            remedy: "give each loss a weight, or none")
        let smoothed: Set<DPOSettings.Loss> = [.sigmoid, .robust, .exoPair]
        refuse(
            dpo.labelSmoothing > 0 && smoothed.isDisjoint(with: dpo.lossTypes), "dpo.label_smoothing", "dpo.loss_type",
            "none of these losses smooths labels",
            remedy: "use sigmoid, robust or exo_pair, or set label_smoothing to 0")
        refuse(
            dpo.labelSmoothing == 0 && dpo.lossTypes.contains(.exoPair), "dpo.label_smoothing", "dpo.loss_type",
            "exo_pair takes the smoothing's logarithm", remedy: "make dpo.label_smoothing more than 0, as 1e-3")
        if dpo.lossTypes.isEmpty {
            problem("dpo.loss_type", "no loss is left", remedy: "give at least one, as [sigmoid]")
        }
        refuse(
            Set(dpo.lossTypes).count < dpo.lossTypes.count, "dpo.loss_type", "dpo.loss_weights",
            "a loss is named twice",
            remedy: "name it once, with its weight")
    }
}
