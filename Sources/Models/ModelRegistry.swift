public import Checkpoints
public import TensorCore

/// The model families, by the first entry of a checkpoint's `architectures`. A new family is its file and one line here.
public enum ModelRegistry {
    public typealias Make = @Sendable (ModelConfig, ParameterBuilder) throws -> any CausalLanguageModel

    public static let families: [String: Make] = [
        "LlamaForCausalLM": { try LlamaModel(LlamaConfig($0), $1) }
    ]

    /// The model of a checkpoint, its weights read and converted.
    /// - Throws: ``ModelError`` for a family that is not known, or weights that do not fit; `CheckpointError`.
    public static func load(
        _ source: ModelSource, dtype: DType = .float32, device: Device = .cpu
    ) throws -> any CausalLanguageModel {
        guard let make = families[source.architecture] else {
            throw ModelError(
                .unknownArchitecture,
                "\(source.path): architecture '\(source.architecture)' is not known; known are "
                    + families.keys.sorted().joined(separator: ", "))
        }
        let weights = CheckpointWeights(source)
        return try make(source.config, ParameterBuilder(source: weights, dtype: dtype, device: device))
    }
}

/// A model that cannot be built from what the checkpoint holds.
public struct ModelError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        public static let unknownArchitecture = Code("unknownArchitecture")
        /// The checkpoint's settings ask for something that this family does not do here.
        public static let unsupported = Code("unsupported")
        /// A tensor is missing, left over, or of another shape.
        public static let weights = Code("weights")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

extension ModelError {
    /// The first few of what is wrong with a checkpoint's weights, and how many more there are.
    init(_ problems: [WeightProblem], in place: String) {
        let shown = 8
        let more = problems.count > shown ? "; and \(problems.count - shown) more" : ""
        let list = problems.prefix(shown).map(\.description).joined(separator: "; ")
        self.init(.weights, "\(place): the tensors do not fit the configuration: \(list)\(more)")
    }
}

/// A checkpoint's tensors.
struct CheckpointWeights: WeightSource {
    let source: ModelSource
    init(_ source: ModelSource) { self.source = source }

    var place: String { source.path }

    func problem(_ name: String, shape: [Int]) throws -> WeightProblem? {
        guard source.contains(name) else { return .missing(name) }
        let found = try source.shape(of: name)
        guard found == shape else { return .shape(name, found: found, wanted: shape) }
        if let type = try source.storedType(of: name), !type.isFloatingPoint { return .type(name, found: "\(type)") }
        return nil
    }

    func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
        if let problem = try problem(name, shape: shape) { throw ModelError([problem], in: place) }
        let tensor = try Tensor.empty(shape, dtype: dtype, device: device)
        try load([TensorDestination(name: name, tensor: tensor)])
        return tensor
    }

    func load(_ destinations: [TensorDestination]) throws { try source.load(destinations) }

    /// Buffers that old checkpoints carry and the model computes itself.
    private static let ignored = ["rotary_emb.inv_freq", "masked_bias", "attn.bias"]

    func leftOver(used: Set<String>) -> [String] {
        source.tensorNames.filter { name in
            if used.contains(name) || Self.ignored.contains(where: { name.hasSuffix($0) }) { return false }
            // A tied output projection may be stored beside the embedding that it equals.
            return name != "lm_head.weight"
        }
    }
}
