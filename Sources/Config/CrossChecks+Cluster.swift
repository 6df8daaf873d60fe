extension LedgerChecks {
    /// Hosts, and who starts the ranks on them.
    func checkCluster(_ cluster: ClusterSettings, _ trainer: TrainerSettings, _ device: RunConfig.Device) {
        refuse(
            trainer.nodes > 1 && cluster.kind == .local, "trainer.nnodes", "cluster.type",
            "this command starts ranks on its own host only",
            remedy: "make cluster.type ray, or env under torchrun, mpirun or srun")
        refuse(
            cluster.kind == .ray && trainer.gpusPerNode == nil, "cluster.type", "trainer.n_gpus_per_node",
            "this host's GPUs say nothing of the cluster's", remedy: "set trainer.n_gpus_per_node")
        refuse(
            trainer.nodes > 1 && trainer.gpusPerNode == nil, "trainer.nnodes", "trainer.n_gpus_per_node",
            "the ranks of each host are not known", remedy: "set trainer.n_gpus_per_node")
        if case .cuda(.some) = device {
            refuse(
                cluster.kind == .ray, "device", "cluster.type", "Ray chooses each rank's GPU",
                remedy: "make device cuda")
        }
        refuse(
            cluster.kind == .ray && device == .auto, "cluster.type", "device",
            "what this host has says nothing of the cluster's nodes", remedy: "make device cuda or cpu")
        for name in ["address", "placement_strategy", "name", "cpus_per_worker", "resources", "executable"] {
            warn(
                cluster.kind != .ray && ledger.isChanged("cluster.ray.\(name)"), "cluster.ray.\(name)", "cluster.type",
                "no Ray cluster is used", remedy: "make cluster.type ray, or remove it")
        }
        warn(
            cluster.kind == .ray && trainer.nodes > 1 && cluster.ray.strategy == .strictPack,
            "cluster.ray.placement_strategy", "trainer.nnodes", "all places lie on one node",
            remedy: "make it PACK, SPREAD or STRICT_SPREAD, or trainer.nnodes 1")
    }
}
