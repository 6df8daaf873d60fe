import Testing

@testable import Config

@Suite struct OptimizerSettingsTests {
    @Test func typesAndPlacesOfTheStatesAreRead() throws {
        let config = try RunConfig(
            yaml: minimal, file: "recipe.yaml",
            overrides: [
                "model.dtype=bfloat16", "model.param_dtype=bfloat16", "actor.optim.state_dtype=int8",
                "actor.optim.decay_vectors=false", "actor.optim.stochastic_rounding=false",
                "actor.fsdp_config={optimizer_offload: true, grad_dtype: bfloat16}", "trainer.plan=warn",
            ])
        #expect(config.model.paramDType == .bfloat16 && config.actor.optim.stateDType == .int8)
        #expect(!config.actor.optim.decaysVectors && !config.actor.optim.stochasticRounding)
        #expect(config.actor.fsdp.optimizerOffload && !config.actor.fsdp.paramOffload)
        #expect(config.actor.fsdp.gradDType == .bfloat16 && config.trainer.plan == .warn && config.warnings.isEmpty)
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
        let plain = try RunConfig(yaml: minimal, file: "recipe.yaml")
        #expect(plain.actor.optim.stateDType == .float32 && plain.actor.fsdp.gradDType == .float32)
        #expect(plain.actor.optim.decaysVectors && plain.trainer.plan == .refuse)
    }

    @Test(arguments: [
        (["model.param_dtype=bfloat16"], "their own masters"),
        (["actor.fsdp_config.grad_dtype=bfloat16"], "gradients of float32 weights"),
        (["actor.optim.state_dtype=fp8"], "not a choice"), (["actor.fsdp_config.param_offload=3"], "true or false"),
        (["actor.fsdp_config.mixed_precision.param_dtype=bf16"], "write model.dtype"),
        (["actor.fsdp_config.mixed_precision.reduce_dtype=fp32"], "write actor.fsdp_config.grad_dtype"),
        (["actor.fsdp_config.model_dtype=bf16"], "write model.param_dtype"),
        (["actor.fsdp_config.fsdp_size=4"], "one device"),
    ])
    func whatDoesNotGoTogetherIsRefused(overrides: [String], message: String) {
        let found = problems(minimal, overrides)
        #expect(found.contains { $0.description.contains(message) }, "\(found)")
    }

    @Test func mastersThatAreNotThereNeedNoOtherPlace() throws {
        for more in [[], ["model.dtype=bfloat16", "model.param_dtype=bfloat16"]] {
            let config = try RunConfig(
                yaml: minimal, file: "recipe.yaml", overrides: ["actor.fsdp_config.param_offload=true"] + more)
            #expect(config.warnings.count == 1 && config.warnings[0].description.contains("no master weights"))
        }
    }
}
