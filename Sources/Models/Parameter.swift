public import Checkpoints
public import Collectives
public import TensorCore

/// One trainable tensor. Projections that read the same input are stored as one (`qkv`, `gate_up`): one matrix product instead
/// of three. `parts` says which rows are which Hugging Face tensor.
public struct Parameter {
    /// Rows of the tensor that are one tensor of the checkpoint.
    public struct Part: Sendable, Hashable {
        public var name: String
        public var rows: Range<Int>
        /// What of the checkpoint's tensor these rows are: all of it, unless ranks share the model's tensors out.
        public var box: ShardBox

        public init(name: String, rows: Range<Int>, box: ShardBox) {
            self.name = name
            self.rows = rows
            self.box = box
        }

        /// Rows that are the whole of a tensor with `columns` as its further dimensions.
        public init(whole name: String, rows: Range<Int>, columns: [Int]) {
            self.init(name: name, rows: rows, box: ShardBox(whole: name, shape: [rows.count] + columns))
        }
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

    /// What `tensor`, which holds the rows `rows` of this parameter (or of something of its shape, such as its optimizer state), is of
    /// the checkpoint's tensors. Views, not copies.
    public func shards(of tensor: Tensor, rows: Range<Int>) throws(TorchError) -> [LocalShard] {
        precondition(tensor.size(0) == rows.count, "\(tensor.size(0)) rows of '\(name)' for \(rows)")
        var all: [LocalShard] = []
        for part in parts {
            let common = part.rows.clamped(to: rows)
            if common.isEmpty { continue }
            let first = part.rows.lowerBound, start = rows.lowerBound
            all.append(
                LocalShard(
                    box: part.box.rows(common.lowerBound - first..<common.upperBound - first),
                    tensor: try tensor.narrowed(0, common.lowerBound - start..<common.upperBound - start)))
        }
        return all
    }

    /// All of this parameter.
    public func shards() throws(TorchError) -> [LocalShard] { try shards(of: tensor, rows: 0..<tensor.size(0)) }
}

/// Where a model's weights come from.
public protocol WeightSource {
    /// For messages: the checkpoint's path.
    var place: String { get }
    /// What keeps the tensor from being used as `shape`; nil when nothing does. Asked before memory is taken.
    func problem(_ name: String, shape: [Int]) throws -> WeightProblem?
    /// The tensor of a checkpoint by Hugging Face's name, in memory that may be shared.
    func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor
    /// Whether there is a tensor of this name; asked only where a checkpoint may hold the same under another.
    func contains(_ name: String) -> Bool
    /// Fills tensors, asked for in the model's order, with the weights of their names.
    func load(_ destinations: [TensorDestination]) throws
    /// Everything that the source holds: what the model, once complete, has not asked for is refused.
    var tensorNames: [String] { get }
}

extension WeightSource {
    public var place: String { "weights" }
    public func problem(_ name: String, shape: [Int]) throws -> WeightProblem? { nil }
    public func load(_ destinations: [TensorDestination]) throws {
        for destination in destinations {
            let tensor = destination.tensor
            try tensor.copy(
                from: weight(destination.name, shape: tensor.shape, dtype: tensor.dtype, device: tensor.device))
        }
    }
    public var tensorNames: [String] { [] }
    public func contains(_ name: String) -> Bool { true }
}

/// A tensor that cannot be what the model needs.
public enum WeightProblem: Sendable, Hashable, CustomStringConvertible {
    case missing(String)
    case shape(String, found: [Int], wanted: [Int])
    /// Integers where numbers belong, as quantised checkpoints store them.
    case type(String, found: String)
    case leftOver(String)

    public var description: String {
        switch self {
        case .missing(let name): "'\(name)' is missing"
        case .shape(let name, let found, let wanted):
            "'\(name)' has shape \(found); the configuration asks for \(wanted)"
        case .type(let name, let found): "'\(name)' holds \(found), no floating-point numbers"
        case .leftOver(let name): "'\(name)' is not part of the architecture"
        }
    }
}

/// Gathers a model's parameters as its layers ask for them. Each is allocated once, where and as it stays; ``finish()`` reads the
/// checkpoint into all of them, in the order of the disk. Until then their values are undefined: a layer's initialiser may keep
/// and view them, never compute with them.
public final class ParameterBuilder {
    public private(set) var parameters: [Parameter] = []
    /// Tensors of the checkpoint that are not trained.
    public private(set) var buffers: [Parameter] = []
    /// Every weight that is multiplied with.
    public private(set) var projections: [Projection] = []
    public let dtype: DType
    public let device: Device
    private let source: any WeightSource
    private var used: Set<String> = []
    private var destinations: [TensorDestination] = []
    private var problems: [WeightProblem] = []
    /// A configuration that fits the weights nowhere is given up on, before it asks for a million layers.
    private static let problemLimit = 1000

    /// Whether only names and shapes are looked at, nothing allocated and nothing read.
    private let isCheck: Bool

    public init(source: any WeightSource, dtype: DType, device: Device) {
        self.source = source
        self.dtype = dtype
        self.device = device
        isCheck = false
    }

    /// A builder whose model is good for one thing: to see in ``finish()`` whether the source's tensors fit it.
    init(checking source: any WeightSource) {
        self.source = source
        dtype = .float32
        device = .cpu
        isCheck = true
    }

    /// A parameter that is one tensor of the checkpoint.
    ///
    /// - Parameter storedAs: a second name that checkpoints may have it under; it is exported under the first.
    public func parameter(_ name: String, _ shape: [Int], storedAs other: String? = nil) throws -> Tensor {
        try fused(name, [(name, shape[0])], columns: Array(shape.dropFirst()), storedAs: other.map { ($0, shape) })
    }

    /// A tensor of the checkpoint that is read and exported, but not trained, and that keeps its own type.
    public func buffer(_ name: String, _ shape: [Int], dtype: DType) throws -> Tensor {
        let part = Parameter.Part(whole: name, rows: 0..<shape[0], columns: Array(shape.dropFirst()))
        let buffer = try allocate(name, [part], shape: shape, dtype: dtype, stored: [(name, shape)])
        buffers.append(buffer)
        return buffer.tensor
    }

    /// A parameter made of several, stacked by rows.
    ///
    /// - Parameter storedAs: a tensor that checkpoints may hold in place of the parts, of the same elements in the same order.
    /// - Throws: ``ModelError`` when far too much is wrong to go on; what is missing or misshapen else shows in ``finish()``.
    public func fused(
        _ name: String, _ parts: [(name: String, rows: Int)], columns: [Int],
        storedAs whole: (name: String, shape: [Int])? = nil
    ) throws -> Tensor {
        var ranges: [Parameter.Part] = [], rows = 0
        for part in parts {
            ranges.append(Parameter.Part(whole: part.name, rows: rows..<rows + part.rows, columns: columns))
            rows += part.rows
        }
        var stored = parts.map { (name: $0.name, shape: [$0.rows] + columns) }
        if let whole, !source.contains(parts[0].name), source.contains(whole.name) { stored = [whole] }
        let parameter = try allocate(name, ranges, shape: [rows] + columns, dtype: dtype, stored: stored)
        parameters.append(parameter)
        return parameter.tensor
    }

    /// Memory of its own for a parameter, and what fills it: tensors of the checkpoint that lie in it one after the other.
    private func allocate(
        _ name: String, _ parts: [Parameter.Part], shape: [Int], dtype: DType, stored: [(name: String, shape: [Int])]
    ) throws -> Parameter {
        let known = problems.count
        for (name, shape) in stored {
            used.insert(name)
            if let problem = try source.problem(name, shape: shape) { problems.append(problem) }
        }
        guard problems.count == known, !isCheck else {
            if problems.count > Self.problemLimit { throw ModelError(problems, in: source.place) }
            // Takes no memory, whatever size a wrong configuration asks for.
            let stand = try Tensor.zeros([1], dtype: dtype, device: device).expanded(shape)
            return Parameter(name: name, tensor: stand, parts: parts)
        }
        // Own memory always: weights are trained in place, never a mapped file.
        let tensor = try Tensor.empty(shape, dtype: dtype, device: device)
        let flat = try tensor.reshaped([tensor.count])
        var start = 0
        for (name, shape) in stored {
            let end = start + shape.reduce(1, *)
            destinations.append(
                TensorDestination(name: name, tensor: try flat.narrowed(0, start..<end).reshaped(shape)))
            start = end
        }
        return Parameter(name: name, tensor: tensor, parts: parts)
    }

    /// A parameter that no checkpoint holds.
    func newParameter(_ name: String, _ tensor: Tensor) -> Tensor {
        let part = Parameter.Part(whole: name, rows: 0..<tensor.size(0), columns: Array(tensor.shape.dropFirst()))
        parameters.append(Parameter(name: name, tensor: tensor, parts: [part]))
        return tensor
    }

    /// A weight, already a parameter, that inputs are multiplied with.
    public func projection(_ weight: Tensor, bias: Tensor? = nil) -> Projection {
        let parameter = parameters.last { $0.tensor.isSame(as: weight) }
        let projection = Projection(weight: weight, bias: bias, parameter: parameter)
        projections.append(projection)
        return projection
    }

    /// Whether a tensor may be there without being asked for: buffers that old checkpoints carry and the model computes itself,
    /// and a tied output projection stored beside the embedding that it equals.
    private static func isSpare(_ name: String) -> Bool {
        name == "lm_head.weight" || ["rotary_emb.inv_freq", "masked_bias", "attn.bias"].contains { name.hasSuffix($0) }
    }

    /// Fills the parameters.
    /// - Throws: ``ModelError`` that names every tensor that is missing, of another shape or type, or left over; what reading
    ///   throws.
    public func finish() throws -> [Parameter] {
        problems += source.tensorNames.filter { !used.contains($0) && !Self.isSpare($0) }.map(WeightProblem.leftOver)
        guard problems.isEmpty else { throw ModelError(problems, in: source.place) }
        if isCheck { return parameters }
        try withNoGrad { try source.load(destinations) }
        destinations = []
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
}
