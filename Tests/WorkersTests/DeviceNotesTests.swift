import Config
import TensorCore
import Testing

@testable import Workers

@Suite struct DeviceNotesTests {
    @Test(arguments: [
        (["dtype: float32"], false, [String]()), (["dtype: float32"], true, ["model.dtype is float32"]),
        (["dtype: bfloat16"], true, []),
        (["dtype: bfloat16", "activation_checkpointing: full", "activation_offload: true"], true, []),
        (
            ["activation_checkpointing: full", "activation_offload: true"], false,
            ["model.activation_offload has no effect"]
        ),
    ])
    func slowAndIdleSettingsAreTold(settings: [String], isOnGPU: Bool, words: [String]) throws {
        let config = try RunConfig(
            yaml: """
                model: {path: model, \(settings.joined(separator: ", "))}
                data: {train_files: builtin:arithmetic}
                reward: {type: exact_match}
                """, file: "recipe.yaml", overrides: [])
        let device = isOnGPU ? Device.cuda(0) : .cpu, notes = config.model.notes(on: device, samples: true)
        #expect(notes.count == words.count)
        for (note, word) in zip(notes, words) { #expect(note.hasPrefix(word)) }
        #expect(config.model.notes(on: device, samples: false) == notes.filter { !$0.hasPrefix("model.dtype") })
    }
}
