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
    /// The axes along which each rank has a part of the gradient: the whole is their sum.
    public var gradientAxes: [MeshAxis] = MeshAxis.data + [.sequence]
    /// The axes along which all ranks hold the same; along the others each holds a part of its own.
    public var copiedAxes: [MeshAxis] = MeshAxis.data + [.sequence, .tensor]
    /// Of a parameter that has no memory yet: gives it some and reads its weights, in a model that was built to wait for that.
    public internal(set) var load: (() throws -> Void)?

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
            var values = try weight(
                destination.name, shape: destination.box?.shape ?? tensor.shape, dtype: tensor.dtype,
                device: tensor.device)
            for (dim, range) in (destination.box?.ranges ?? []).enumerated() {
                values = try values.narrowed(dim, range)
            }
            try tensor.copy(from: values)
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
    /// How ranks share the model.
    public let parallel: ParallelContext
    private let source: any WeightSource
    private var used: Set<String> = []
    private var destinations: [TensorDestination] = []
    private var problems: [WeightProblem] = []
    /// What the names of tensors begin with that other stages of a pipeline hold.
    private var leftOut: [String] = []
    /// Whether the model's head is its embedding; set before the body is made.
    var tiesHead = false
    /// A configuration that fits the weights nowhere is given up on, before it asks for a million layers.
    private static let problemLimit = 1000

    /// Whether only names and shapes are looked at, nothing allocated and nothing read.
    private let isCheck: Bool
    private let defersLoading: Bool

    /// - Parameters:
    ///   - parallel: by which the builder allocates and reads what this rank holds, and nothing else.
    ///   - defersLoading: leaves every parameter without memory until its ``Parameter/load`` is called, for who shares parameters out one
    ///     by one and never has all of them whole.
    public init(
        source: any WeightSource, dtype: DType, device: Device, parallel: ParallelContext = ParallelContext(),
        defersLoading: Bool = false
    ) {
        self.defersLoading = defersLoading
        self.source = source
        self.dtype = dtype
        self.device = device
        self.parallel = parallel
        isCheck = false
    }

    /// A builder whose model is good for one thing: to see in ``finish()`` whether the source's tensors fit it.
    init(checking source: any WeightSource) {
        self.source = source
        dtype = .float32
        device = .cpu
        parallel = ParallelContext()
        isCheck = true
        defersLoading = false
    }

    /// A parameter that is one tensor of the checkpoint, whole on every rank.
    ///
    /// - Parameter storedAs: a second name that checkpoints may have it under; it is exported under the first.
    public func parameter(_ name: String, _ shape: [Int], storedAs other: String? = nil) throws -> Tensor {
        try parameter(name, shape, storedAs: other, gradient: .complete)
    }

    func parameter(
        _ name: String, _ shape: [Int], storedAs other: String? = nil, held: Range<Int>? = nil, gradient: GradientShare
    ) throws -> Tensor {
        try stacked(
            name, [RowPiece(name: name, rows: shape[0], held: held ?? 0..<shape[0])], columns: Array(shape.dropFirst()),
            storedAs: other.map { ($0, shape) }, gradient: gradient)
    }

    /// A tensor of the checkpoint that is read and exported, but not trained, and that keeps its own type.
    public func buffer(_ name: String, _ shape: [Int], dtype: DType) throws -> Tensor {
        let piece = RowPiece(name: name, rows: shape[0], held: 0..<shape[0])
        let buffer = try allocate(
            name, [piece], columns: Array(shape.dropFirst()), held: nil, dtype: dtype, storedAs: nil)
        buffers.append(buffer)
        return buffer.tensor
    }

    /// A parameter made of several, stacked by rows, whole on every rank.
    ///
    /// - Parameter storedAs: a tensor that checkpoints may hold in place of the parts, of the same elements in the same order.
    /// - Throws: ``ModelError`` when far too much is wrong to go on; what is missing or misshapen else shows in ``finish()``.
    public func fused(
        _ name: String, _ parts: [(name: String, rows: Int)], columns: [Int],
        storedAs whole: (name: String, shape: [Int])? = nil
    ) throws -> Tensor {
        let pieces = parts.map { RowPiece(name: $0.name, rows: $0.rows, held: 0..<$0.rows) }
        return try stacked(name, pieces, columns: columns, storedAs: whole, gradient: .complete)
    }

    /// A parameter made of what this rank holds of several tensors, stacked by rows.
    ///
    /// - Parameters:
    ///   - held: the columns that this rank holds; nil: all.
    ///   - storedAs: a tensor that checkpoints may hold in place of the parts, all of them whole, one after the other.
    func stacked(
        _ name: String, _ pieces: [RowPiece], columns: [Int], held: Range<Int>? = nil,
        storedAs whole: (name: String, shape: [Int])? = nil, gradient: GradientShare
    ) throws -> Tensor {
        let known = destinations.count
        var parameter = try allocate(name, pieces, columns: columns, held: held, dtype: dtype, storedAs: whole)
        if defersLoading { try wait(&parameter, Array(destinations[known...])) }
        parameter.gradientAxes = gradient.axes(parallel)
        let isWhole = parameter.parts.allSatisfy(\.box.isWhole)
        parameter.copiedAxes =
            MeshAxis.data.filter { $0 != .expert || gradient != .expert } + [.sequence] + (isWhole ? [.tensor] : [])
        parameters.append(parameter)
        return parameter.tensor
    }

    /// Takes a parameter's memory away, and what was to fill it.
    private func wait(_ parameter: inout Parameter, _ own: [TensorDestination]) throws {
        destinations.removeLast(own.count)
        let tensor = parameter.tensor, source = source
        try tensor.releaseStorage()
        parameter.load = {
            _ = try tensor.allocateStorage(tensor.shape)
            try withNoGrad { try source.load(own) }
        }
    }

    /// Memory of its own for a parameter, and what fills it.
    private func allocate(
        _ name: String, _ pieces: [RowPiece], columns: [Int], held: Range<Int>?, dtype: DType,
        storedAs whole: (name: String, shape: [Int])?
    ) throws -> Parameter {
        let isOther = whole.map { !source.contains(pieces[0].name) && source.contains($0.name) } ?? false
        let known = problems.count
        for (name, shape) in isOther ? whole.map { [$0] } ?? [] : pieces.map({ ($0.name, [$0.rows] + columns) }) {
            // A tensor of several blocks is asked for once.
            guard used.insert(name).inserted else { continue }
            if let problem = try source.problem(name, shape: shape) { problems.append(problem) }
        }
        var parts: [Parameter.Part] = [], rows = 0
        let local = held.map { [$0.count] + columns.dropFirst() } ?? columns
        for piece in pieces {
            var ranges = ([piece.rows] + columns).map { 0..<$0 }
            ranges[0] = piece.held
            if let held { ranges[1] = held }
            let end = rows + piece.held.count
            if piece.held.isEmpty { continue }
            parts.append(
                Parameter.Part(
                    name: piece.name, rows: rows..<end,
                    box: ShardBox(name: piece.name, shape: [piece.rows] + columns, ranges: ranges)))
            rows = end
        }
        let shape = [rows] + local
        guard problems.count == known, !isCheck else {
            if problems.count > Self.problemLimit { throw ModelError(problems, in: source.place) }
            // Takes no memory, whatever size a wrong configuration asks for.
            let stand = try Tensor.zeros([1], dtype: dtype, device: device).expanded(shape)
            return Parameter(name: name, tensor: stand, parts: parts)
        }
        // Own memory always: weights are trained in place, never a mapped file.
        let tensor = try Tensor.empty(shape, dtype: dtype, device: device)
        var before = 0, last = "", next = parts[...]
        for piece in pieces {
            defer {
                if piece.name != last { before += piece.rows }
                last = piece.name
            }
            guard !piece.held.isEmpty, let part = next.popFirst() else { continue }
            var box = part.box
            if isOther, let whole {
                // The stored tensor seen as rows of `columns`, all parts' one after the other.
                let all = whole.shape.reduce(1, *) / columns.reduce(1, *)
                let ranges = [before + piece.held.lowerBound..<before + piece.held.upperBound] + box.ranges.dropFirst()
                box = ShardBox(name: whole.name, shape: [all] + columns, ranges: ranges)
            }
            destinations.append(TensorDestination(box, tensor: try tensor.narrowed(0, part.rows)))
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

    /// Lets the tensors whose names begin so stay in the checkpoint.
    func leaveOut(_ prefix: String) { leftOut.append(prefix) }

    private func isElsewhere(_ name: String) -> Bool {
        leftOut.contains { name.hasPrefix($0) }
    }

    /// Fills the parameters.
    /// - Throws: ``ModelError`` that names every tensor that is missing, of another shape or type, or left over; what reading
    ///   throws.
    public func finish() throws -> [Parameter] {
        problems += source.tensorNames.filter { !used.contains($0) && !Self.isSpare($0) && !isElsewhere($0) }.map(
            WeightProblem.leftOver)
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
    private let seed: UInt64
    private let standardDeviation: Double

    private let isByName: Bool

    /// - Parameter byName: whether a tensor's values depend on its name alone, and not on what was asked for before: as they do
    ///   where ranks hold parts of a model.
    public init(
        seed: UInt64, standardDeviation: Double = 0.02, device: Device = .cpu, byName: Bool = false
    ) throws(TorchError) {
        self.seed = seed
        isByName = byName
        generator = try RandomGenerator(seed: seed, device: device)
        self.standardDeviation = standardDeviation
    }

    public func weight(_ name: String, shape: [Int], dtype: DType, device: Device) throws -> Tensor {
        if name.hasSuffix("norm.weight") { return try Tensor.ones(shape, dtype: dtype, device: device) }
        return try Tensor.randomNormal(shape, generator: generator).multiplied(by: standardDeviation)
            .to(device, dtype: dtype)
    }

    /// Ranks that hold parts of a model ask for different tensors, and must draw the same values all the same: by name.
    public func load(_ destinations: [TensorDestination]) throws {
        let isPart = isByName || destinations.contains { $0.box.map { !$0.isWhole } ?? false }
        var name = "", values: Tensor?
        for destination in destinations {
            let tensor = destination.tensor,
                box = destination.box ?? ShardBox(whole: destination.name, shape: tensor.shape)
            if destination.name != name || values == nil {
                let source = isPart ? try named(destination.name) : self
                values = try source.weight(
                    destination.name, shape: box.shape, dtype: tensor.dtype, device: tensor.device)
                name = destination.name
            }
            guard var part = values else { continue }
            for (dim, range) in box.ranges.enumerated() { part = try part.narrowed(dim, range) }
            try tensor.copy(from: part)
        }
    }

    private func named(_ name: String) throws(TorchError) -> RandomWeights {
        try RandomWeights(
            seed: LoRASeed.mix(seed, name), standardDeviation: standardDeviation, device: generator.device)
    }
}
