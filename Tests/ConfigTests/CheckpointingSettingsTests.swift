import Testing

@testable import Config

@Suite struct CheckpointingSettingsTests {
    @Test func theSwitchMeansFullUnlessAModeIsGiven() throws {
        #expect(try read().model.checkpointing == .none)
        #expect(try read(minimal, "model.enable_gradient_checkpointing=true").model.checkpointing == .full)
        #expect(try read(minimal, "model.activation_checkpointing=selective").model.checkpointing == .selective)
        let both = try read(
            minimal, "model.activation_checkpointing=selective", "model.enable_gradient_checkpointing=true")
        #expect(both.model.checkpointing == .selective && both.warnings.count == 1)
    }

    @Test func whatIsKeptIsAListOfKnownThings() throws {
        #expect(try read().model.activationCheckpointingKeeps == [.attention, .queryKeyValue])
        let one = try read(
            minimal, "model.activation_checkpointing=selective", "model.activation_checkpointing_keeps=gate_up",
            "model.activation_checkpointing_layers=3", "model.activation_offload=true")
        #expect(one.model.activationCheckpointingKeeps == [.gateUp])
        #expect(one.model.activationCheckpointingLayers == 3 && one.model.activationOffload)
        #expect(throws: ConfigError.self) { try read(minimal, "model.activation_checkpointing_keeps=[mlp]") }
        #expect(throws: ConfigError.self) { try read(minimal, "model.activation_checkpointing=some") }
    }

    @Test(arguments: [
        "model.activation_checkpointing_layers=3", "model.activation_offload=true",
        "model.activation_checkpointing_keeps=[gate_up]",
    ])
    func whatHasNoEffectIsRefused(setting: String) {
        #expect(throws: ConfigError.self) { try read(minimal, setting) }
    }
}
