extension CrossChecks {
    /// What ranks that share the model cannot do.
    func checkModelParallel() {
        let actor = config.actor, megatron = actor.megatron, rollout = config.rollout.engine
        let shared: [(name: String, size: Int)] = [
            ("actor.megatron.tensor_model_parallel_size", megatron.tensorSize),
            ("actor.megatron.pipeline_model_parallel_size", megatron.pipelineSize),
            ("actor.megatron.expert_model_parallel_size", megatron.expertSize),
            ("rollout.tensor_model_parallel_size", rollout.tensorParallelSize),
        ]
        let adapters = [
            ("model.lora_rank", config.model.loraRank > 0),
            ("model.lora_adapter_path", config.model.loraAdapterPath != nil),
        ]
        for (name, size) in shared {
            for (adapter, isSet) in adapters {
                refuse(
                    size > 1 && isSet, name, adapter, "an adapter's matrices are not divided",
                    remedy: "make \(name) 1; actor.fsdp_config.fsdp_size shares a model with an adapter out too")
            }
        }
        let pipeline = shared[1].name
        refuse(
            megatron.pipelineSize > 1 && actor.routerAuxLossCoefficient > 0, pipeline, "actor.router_aux_loss_coef",
            "a stage sees its own layers' experts only", remedy: "make \(pipeline) 1, or actor.router_aux_loss_coef 0")
        warn(
            ledger.isChanged("actor.megatron.sequence_parallel") && megatron.tensorSize == 1,
            "actor.megatron.sequence_parallel", shared[0].name, "no rank shares tokens with another",
            remedy: "remove actor.megatron.sequence_parallel")
    }
}
