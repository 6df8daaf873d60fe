import ArgumentParser
import Models
import TensorCore

/// What layers keep between forward and backward, as benchmarks are told.
struct CheckpointingOptions: ParsableArguments {
    @Option(
        help:
            "What layers keep for backward: none (all of it), selective (their input and --keeps) or full (their input)."
    )
    var checkpointing: String?
    @Option(help: "How many of the first layers do so; the others keep all.") var checkpointingLayers: Int?
    @Option(help: "What selective keeps: of attention, query_key_value and gate_up, separated by commas.")
    var keeps = "attention,query_key_value"

    /// As asked for; nil: not at all.
    var choice: ActivationCheckpointing? {
        get throws {
            guard let checkpointing else { return nil }
            switch checkpointing {
            case "none": return ActivationCheckpointing.none
            case "full": return ActivationCheckpointing(.full, layers: checkpointingLayers)
            case "selective": return ActivationCheckpointing(.selective(try kept), layers: checkpointingLayers)
            default: throw ValidationError("--checkpointing '\(checkpointing)' is none of none, selective, full")
            }
        }
    }

    private var kept: KeptActivations {
        get throws {
            var kept = KeptActivations()
            for name in keeps.split(separator: ",") {
                switch name {
                case "attention": kept.insert(.attention)
                case "query_key_value": kept.insert(.queryKeyValue)
                case "gate_up": kept.insert(.gateUp)
                default: throw ValidationError("--keeps '\(name)' is none of attention, query_key_value, gate_up")
                }
            }
            return kept
        }
    }
}
