import OrderedCollections

/// Pools of devices, the roles on them, and layouts that must fit them.
extension CrossChecks {
    private static let pools = "resource_pools"

    func checkMapping() {
        let pools = Self.pools, sizes = config.resourcePools
        for (role, name) in config.roles.pools.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            let known = sizes.keys.joined(separator: ", ")
            refuse(
                sizes[name] == nil, role.setting, pools, "there is no pool '\(name)'",
                remedy: sizes.isEmpty ? "give \(pools), as {train: 1, \(name): 1}" : "name one of \(known)")
        }
        checkAbsentRoles()
        checkRestarts()
        guard !sizes.isEmpty, config.roles.pools.values.allSatisfy({ sizes[$0] != nil }) else { return }
        let total = sizes.values.reduce(0, +)
        refuse(
            config.trainer.gpusPerNode.map { $0 * config.trainer.nodes != total } ?? false, "trainer.n_gpus_per_node",
            pools,
            "the pools have \(total) devices together",
            remedy: "remove trainer.n_gpus_per_node, or make it \(total)"
                + (config.trainer.nodes > 1 ? ", divided by trainer.nnodes \(config.trainer.nodes)" : ""))
        refuse(
            config.rollout.gpusPerNode != nil, "rollout.n_gpus_per_node", pools, "two ways to give sampling devices",
            remedy: "remove rollout.n_gpus_per_node, and name a pool in roles.rollout")
        for name in sizes.keys {
            // One that an absent role names is told of with that.
            let isUsed =
                config.presentRoles.contains { config.pool(of: $0) == name } || config.roles.pools.values.contains(name)
            refuse(
                !isUsed, pools, Role.actor.setting, "no role is on pool '\(name)'",
                remedy: "name it in roles (actor, rollout, critic, reference, reward_model), or remove it")
        }
        checkRolesApart()
        checkPoolLayouts()
    }

    private func checkAbsentRoles() {
        let named = config.roles.pools
        refuse(
            named[.critic] != nil && !config.hasCritic, Role.critic.setting, "algorithm.adv_estimator",
            "there is no critic", remedy: "make algorithm.adv_estimator gae, or remove roles.critic")
        refuse(
            named[.reference] != nil && !config.needsReferenceModel, Role.reference.setting, "actor.use_kl_loss",
            "nothing compares with a reference",
            remedy: "make actor.use_kl_loss or algorithm.use_kl_in_reward true, or remove roles.reference")
        refuse(
            named[.rewardModel] != nil && config.reward.model == nil, Role.rewardModel.setting, "reward.model.path",
            "there is no reward model", remedy: "give reward.model.path, or remove roles.reward_model")
    }

    /// Samplers can be lost while the others go on where they are by themselves, and this command starts them.
    private func checkRestarts() {
        let name = "rollout.max_restarts", isSet = ledger.isChanged(name)
        warn(
            isSet && config.samplersAlone == nil, name, Self.pools, "no pool does nothing but sample",
            remedy: "give samplers a pool of their own (roles.rollout), or remove \(name)")
        warn(
            isSet && config.samplersAlone != nil && config.cluster.kind != .local, name, "cluster.type",
            "all ranks are started anew together there", remedy: "set trainer.max_restarts")
    }

    /// What roles on one pool can do and roles on two cannot.
    private func checkRolesApart() {
        guard let mapping = config.mapping else { return }
        for (name, isSet) in [
            ("model.lora_rank", config.model.loraRank > 0),
            ("model.lora_adapter_path", config.model.loraAdapterPath != nil),
        ] {
            refuse(
                mapping.parts(.actor, .reference) && isSet, shown(.reference), name,
                "the reference is what lies below the adapter, where that is trained",
                remedy: "put reference on the actor's pool, or remove \(name)")
        }
        refuse(
            mapping.parts(.actor, .critic) && config.critic.sharesTrunk, shown(.critic), "critic.shares_trunk",
            "a head on the policy's trunk is where the policy is",
            remedy: "put the critic on the actor's pool, or remove critic.shares_trunk")
        let samplesApart = mapping.parts(.actor, .rollout), overlaps = config.async.mode != .synchronous
        warn(
            samplesApart && overlaps && config.model.loraMerge, "model.lora_merge", "async_training.mode",
            "on GPUs, samplers that answer prompt by prompt compute the adapter beside the weights",
            remedy: "remove model.lora_merge")
        for (name, isSet) in [
            ("rollout.tensor_model_parallel_size", config.rollout.engine.tensorParallelSize > 1),
            ("rollout.straggler_share", config.rollout.stragglerShare != nil),
        ] {
            refuse(
                samplesApart && overlaps && isSet, "async_training.mode", name,
                "samplers that answer prompt by prompt do not do it",
                remedy: "make async_training.mode synchronous, or remove \(name)")
        }
    }

    /// The setting that says where a role is: its own, or the actor's.
    private func shown(_ role: Role) -> String { config.roles.pools[role] == nil ? Role.actor.setting : role.setting }

    private func checkPoolLayouts() {
        let actor = config.actor, megatron = actor.megatron, sizes = config.resourcePools
        let shared: [(name: String, size: Int)] = [
            ("actor.megatron.tensor_model_parallel_size", megatron.tensorSize),
            ("actor.megatron.pipeline_model_parallel_size", megatron.pipelineSize),
            ("actor.megatron.expert_model_parallel_size", megatron.expertSize),
            ("actor.ulysses_sequence_parallel_size", actor.ulyssesSize),
        ]
        let set = shared.reduce(1) { $0 * $1.size }, trained = Set([Role.actor, .critic, .reference])
        let largest = shared.max { $0.size < $1.size }?.name ?? shared[0].name
        for (name, size) in sizes {
            let roles = config.presentRoles.filter { config.pool(of: $0) == name }
            if !roles.isDisjoint(with: trained) {
                let held = roles.intersection(trained).map(\.rawValue).sorted().joined(separator: ", ")
                refuse(
                    size % set != 0, Self.pools, largest,
                    "pool '\(name)' (\(held)) of \(size) does not divide into sets of \(set), the product of tensor, pipeline, "
                        + "expert and sequence parallel sizes", remedy: "make '\(name)' a multiple of \(set)")
                let batches = max(1, size / set), fsdp = actor.fsdp.fsdpSize
                refuse(
                    size % set == 0 && fsdp > 0 && batches % fsdp != 0, Self.pools, "actor.fsdp_config.fsdp_size",
                    "the \(batches) that divide the batches of pool '\(name)' do not divide into sets of \(fsdp)",
                    remedy: "make actor.fsdp_config.fsdp_size a divisor of \(batches), or -1")
            }
            let together = config.rollout.engine.tensorParallelSize
            refuse(
                roles.contains(.rollout) && size % together != 0, Self.pools, "rollout.tensor_model_parallel_size",
                "pool '\(name)' of \(size) does not divide into sets of \(together)",
                remedy: "make rollout.tensor_model_parallel_size a divisor of \(size)")
        }
    }
}
