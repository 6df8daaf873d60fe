extension CrossChecks {
    /// What sampling on devices of its own wants, and what is for it alone.
    func checkAsync() {
        let async = config.async, rollout = config.rollout, own = "rollout.n_gpus_per_node"
        refuse(
            async.mode != .synchronous && rollout.gpusPerNode == nil
                && !(config.mapping?.parts(.actor, .rollout) ?? false), "async_training.mode", own,
            "sampling overlaps with learning only on devices of its own",
            remedy: "give \(own), or a pool of its own (roles.rollout), or make async_training.mode synchronous")
        warn(
            rollout.gpusPerNode != nil && config.model.loraMerge, "model.lora_merge", own,
            "on GPUs, samplers that answer prompt by prompt compute the adapter beside the weights",
            remedy: "remove model.lora_merge")
        refuse(
            rollout.gpusPerNode != nil && config.trainer.gpusPerNode ?? 1 > 1, own, "trainer.n_gpus_per_node",
            "samplers on their own devices take weights from one training device",
            remedy: "make trainer.n_gpus_per_node 1")
        refuse(
            rollout.overSampleRate > 0 && async.mode == .fullyAsync, "rollout.over_sample_rate", "async_training.mode",
            "fully_async waits for no straggler and gives none up", remedy: "remove rollout.over_sample_rate")
        refuse(
            rollout.gpusPerNode != nil && rollout.stragglerShare != nil, own, "rollout.straggler_share",
            "it counts a whole step's samples, and samplers of a pool have several steps' at a time",
            remedy: "remove rollout.straggler_share, or take rollout.over_sample_rate")
        for (name, isSet) in [
            ("rollout.over_sample_rate", rollout.overSampleRate > 0),
            ("rollout.straggler_share", rollout.stragglerShare != nil),
        ] {
            refuse(
                rollout.multiTurn.enable && !config.samplesBeside && isSet, name, "rollout.multi_turn.enable",
                "episodes that take turns in batches are played each to its end", remedy: "remove \(name)")
        }
        refuse(
            config.algorithm.filterGroups.enable && rollout.overSampleRate > 0, "rollout.over_sample_rate",
            "algorithm.filter_groups.enable", "filtered groups are made good by sampling more already",
            remedy: "remove rollout.over_sample_rate")
        let isFull = async.mode == .fullyAsync
        for name in [
            "staleness_threshold", "trigger_parameter_sync_step", "partial_rollout", "replay_order", "replay_uses",
        ] {
            warn(
                !isFull && ledger.isChanged("async_training.\(name)"), "async_training.\(name)", "async_training.mode",
                "it is for fully_async alone", remedy: "remove async_training.\(name)")
        }
        let threshold = async.stalenessThreshold ?? async.triggerParameterSyncStep
        refuse(
            isFull && threshold < async.triggerParameterSyncStep, "async_training.staleness_threshold",
            "async_training.trigger_parameter_sync_step",
            "samples would be too old before the samplers get new weights",
            remedy: "make async_training.staleness_threshold at least \(async.triggerParameterSyncStep)")
    }
}
