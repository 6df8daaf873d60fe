public import Checkpoints
public import TensorCore

extension ModelRegistry {
    /// The model that a configuration describes, as its family's code makes it, with tensors that have shapes and take no memory:
    /// good for counting, never for computing.
    /// - Throws: as ``load(_:dtype:device:)`` for the configuration.
    public static func outline(_ config: ModelConfig, architecture: String) throws -> any CausalLanguageModel {
        guard let make = families[architecture] else {
            throw ModelError(
                .unknownArchitecture,
                "\(config.path): architecture '\(architecture)' is not known; known are "
                    + families.keys.sorted().joined(separator: ", "))
        }
        return try make(config, ParameterBuilder(checking: AnyShape()))
    }

    /// Has every tensor in the shape that is asked for.
    private struct AnyShape: WeightSource {
        func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
            throw ModelError(.weights, "'\(name)' has no values: only its shape was asked for")
        }
    }
}
