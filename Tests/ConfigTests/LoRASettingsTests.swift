import Testing

@testable import Config

@Suite struct LoRASettingsTests {
    @Test func adaptersAreReadByVerlsNames() throws {
        let yaml = minimal.replacing(
            "path: model",
            with: """
                path: model
                  lora_rank: 8
                  lora_alpha: 32
                  target_modules: [q_proj, layers.0.mlp.up_proj]
                  exclude_modules: v_proj
                  lora_dropout: 0.1
                """)
        let model = try RunConfig(yaml: yaml, file: "recipe.yaml").model
        #expect(model.usesLoRA && model.loraRank == 8 && model.loraAlpha == 32 && model.loraDropout == 0.1)
        #expect(model.targetModules == ["q_proj", "layers.0.mlp.up_proj"] && model.excludeModules == ["v_proj"])
        let bare = try RunConfig(yaml: minimal, file: "recipe.yaml", overrides: ["model.target_modules=all-linear"])
        #expect(!bare.model.usesLoRA && bare.model.targetModules == nil && bare.model.excludeModules.isEmpty)
        let null = minimal.replacing(
            "path: model", with: "path: model\n  exclude_modules: null\n  lora_adapter_path: null")
        #expect(try RunConfig(yaml: null, file: "recipe.yaml").model == bare.model)
        let config = try RunConfig(yaml: yaml, file: "recipe.yaml")
        #expect(try RunConfig(yaml: config.resolvedYAML(), file: "resolved.yaml") == config)
    }

    @Test(arguments: [
        (["model.lora_rank=8", "model.target_modules=.*_proj"], "regular expressions are not supported"),
        (["model.lora_rank=8", "model.target_modules=[q_proj, all-linear]"], "no module's name"),
        (["model.lora_rank=8", "model.target_modules=[]"], "empty"), (["model.lora_rank=-1"], "out of range"),
        (["model.lora_rank=8", "model.lora_dropout=1"], "out of range"),
        (["model.lora_rank=8", "model.lora_alpha=0"], "out of range"),
        (["actor_rollout_ref.model.lora_rank=8"], "write model.lora_rank"),
        (["model.lora.rank=8"], "write model.lora_rank"),
        (["model.target_parameters=[x]"], "experts"),
    ])
    func whatMakesNoAdapterIsRefused(overrides: [String], message: String) throws {
        let found = problems(minimal, overrides)
        try #require(found.count == 1, "\(found)")
        #expect(found[0].description.contains(message), "\(found[0])")
    }
}
