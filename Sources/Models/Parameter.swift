public import TensorCore

/// One trainable tensor. Projections that read the same input are stored as one (`qkv`, `gate_up`): one matrix product instead
/// of three. `parts` says which rows are which Hugging Face tensor.
public struct Parameter {
    /// Rows of the tensor that are one tensor of the checkpoint.
    public struct Part: Sendable, Hashable {
        public var name: String
        public var rows: Range<Int>
    }

    public let name: String
    public let tensor: Tensor
    public let parts: [Part]

    /// Views of `tensor`, or of something of its shape such as its gradient, under the checkpoint's names.
    public func split(_ whole: Tensor? = nil) throws(TorchError) -> [(name: String, tensor: Tensor)] {
        let whole = whole ?? tensor
        guard parts.count > 1 else { return [(parts[0].name, whole)] }
        var all: [(String, Tensor)] = []
        for part in parts { all.append((part.name, try whole.narrowed(0, part.rows))) }
        return all
    }
}

/// Where a model's weights come from.
public protocol WeightSource {
    /// The tensor of a checkpoint by Hugging Face's name.
    func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor
    /// Called when the model is complete, with every name it asked for.
    func finish(used: Set<String>) throws
}

/// Gathers a model's parameters as its layers ask for them.
public final class ParameterBuilder {
    public private(set) var parameters: [Parameter] = []
    /// Every weight that is multiplied with.
    public private(set) var projections: [Projection] = []
    public let dtype: DType
    public let device: Device
    private let source: any WeightSource
    private var used: Set<String> = []

    public init(source: any WeightSource, dtype: DType, device: Device) {
        self.source = source
        self.dtype = dtype
        self.device = device
    }

    /// A parameter that is one tensor of the checkpoint.
    public func parameter(_ name: String, _ shape: [Int]) throws -> Tensor {
        try fused(name, [(name, shape[0])], columns: Array(shape.dropFirst()))
    }

    /// A parameter made of several, stacked by rows.
    public func fused(_ name: String, _ parts: [(name: String, rows: Int)], columns: [Int]) throws -> Tensor {
        var tensors: [Tensor] = [], ranges: [Parameter.Part] = [], rows = 0
        for part in parts {
            tensors.append(
                try source.weight(part.name, shape: [part.rows] + columns, dtype: dtype, device: device))
            ranges.append(Parameter.Part(name: part.name, rows: rows..<rows + part.rows))
            rows += part.rows
            used.insert(part.name)
        }
        // Own memory always: weights are trained in place, never a mapped file.
        let tensor = tensors.count == 1 ? try tensors[0].to(copy: true) : try Tensor.concatenate(tensors)
        parameters.append(Parameter(name: name, tensor: tensor, parts: ranges))
        return tensor
    }

    /// A parameter that no checkpoint holds.
    func newParameter(_ name: String, _ tensor: Tensor) -> Tensor {
        parameters.append(
            Parameter(name: name, tensor: tensor, parts: [Parameter.Part(name: name, rows: 0..<tensor.size(0))]))
        return tensor
    }

    /// A weight, already a parameter, that inputs are multiplied with.
    public func projection(_ weight: Tensor, bias: Tensor? = nil) -> Projection {
        let parameter = parameters.last { $0.tensor.isSame(as: weight) }
        let projection = Projection(weight: weight, bias: bias, parameter: parameter)
        projections.append(projection)
        return projection
    }

    public func finish() throws -> [Parameter] {
        try source.finish(used: used)
        return parameters
    }
}

/// Weights drawn from a normal distribution, for benchmarks and tests that need no files.
public final class RandomWeights: WeightSource {
    private let generator: RandomGenerator
    private let standardDeviation: Double

    public init(seed: UInt64, standardDeviation: Double = 0.02, device: Device = .cpu) throws(TorchError) {
        generator = try RandomGenerator(seed: seed, device: device)
        self.standardDeviation = standardDeviation
    }

    public func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
        if name.hasSuffix("norm.weight") { return try Tensor.ones(shape, dtype: dtype, device: device) }
        return try Tensor.randomNormal(shape, generator: generator).multiplied(by: standardDeviation)
            .to(device, dtype: dtype)
    }
    public func finish(used: Set<String>) {}
}
