extension CrossChecks {
    /// What ranks that share the model cannot do.
    func checkModelParallel() {
        let actor = config.actor, pipeline = "actor.megatron.pipeline_model_parallel_size"
        checkModelParallel(
            config.model, actor.megatron, in: "actor",
            and: [("rollout.tensor_model_parallel_size", config.rollout.engine.tensorParallelSize)])
        refuse(
            actor.megatron.pipelineSize > 1 && actor.routerAuxLossCoefficient > 0, pipeline,
            "actor.router_aux_loss_coef", "a stage sees its own layers' experts only",
            remedy: "make \(pipeline) 1, or actor.router_aux_loss_coef 0")
    }
}
