import Testing

@testable import Config

@Suite struct ClusterSettingsTests {
    private static let whole = """
        device: cpu
        trainer: {nnodes: 2, n_gpus_per_node: 4}
        cluster:
          type: ray
          interface: eth0
          ray:
            address: 10.0.0.1:6379
            placement_strategy: STRICT_SPREAD
            cpus_per_worker: 3
            resources: {rack1: 0.5, tpu: 2}
        """

    @Test func clustersAreRead() throws {
        let config = try RunConfig(yaml: minimal + Self.whole, file: "recipe.yaml")
        let cluster = config.cluster
        #expect(cluster.kind == .ray && cluster.interface == "eth0")
        #expect(cluster.ray.address == "10.0.0.1:6379" && cluster.ray.strategy == .strictSpread)
        #expect(cluster.ray.cpusPerWorker == 3 && "\(cluster.ray.resources)" == "[\"rack1\": 0.5, \"tpu\": 2.0]")
        #expect(config.trainer.nodes == 2 && config.warnings.isEmpty)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        let bare = try RunConfig(yaml: minimal, file: "recipe.yaml").cluster
        #expect(bare.kind == .local && bare.ray.strategy == .pack)
        let env = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: ["cluster.type=env", "trainer.nnodes=2", "trainer.n_gpus_per_node=1"])
        #expect(env.cluster.kind == .environment)
    }

    @Test(arguments: [
        (
            ["trainer.nnodes=2", "trainer.n_gpus_per_node=1"],
            "trainer.nnodes = 2 (command line) and cluster.type = local"
        ),
        (["cluster.type=ray", "device=cpu"], "set trainer.n_gpus_per_node"),
        (["cluster.type=env", "trainer.nnodes=2"], "the ranks of each host are not known"),
        (["cluster.type=ray", "trainer.n_gpus_per_node=1"], "make device cuda or cpu"),
        (["cluster.type=ray", "trainer.n_gpus_per_node=1", "device=cuda:1"], "Ray chooses each rank's GPU"),
        (["cluster.type=env", "rollout.n_gpus_per_node=1"], "samplers on GPUs of their own are started beside"),
        (["cluster.type=slurm"], "local, ray or env"), (["cluster.ray.placement_strategy=spread"], "STRICT_SPREAD"),
        (["cluster.ray.resources=[1]"], "mapping"), (["cluster.ray.resources={a: -1}"], "at least 0"),
        (["cluster.ray.resources={a: x}"], "number"), (["cluster.adress=x"], "unknown key"),
        (["ray_kwargs.ray_init.address=x"], "write cluster.ray.address"), (["ray_init.num_cpus=8"], "places only"),
    ])
    func whatCannotBeIsRefused(overrides: [String], message: String) {
        let found = problems(minimal, overrides)
        #expect(found.count == 1, "\(found)")
        #expect(found.first?.description.contains(message) == true, "\(found)")
    }

    @Test func settingsOfNoUseAreWarnedOf() throws {
        let config = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: ["cluster.ray.address=h:1"])
        #expect(config.warnings.count == 1 && "\(config.warnings)".contains("no Ray cluster is used"))
        let packed = try RunConfig(
            yaml: minimal + Self.whole, file: "recipe.yaml", overrides: ["cluster.ray.placement_strategy=STRICT_PACK"])
        #expect("\(packed.warnings)".contains("all places lie on one node"))
    }
}
