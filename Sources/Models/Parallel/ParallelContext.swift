public import Collectives
public import TensorCore

/// How ranks share one model: which of its parameters a rank holds, and whom its layers talk to. A model that is built with one is
/// this rank's part.
public struct ParallelContext {
    /// Ranks that share matrices by rows and columns; nil: this one has them whole.
    public let tensor: ProcessGroup?
    /// Ranks that share the tokens of every sequence, and while attending its heads (Ulysses: Jacobs et al. 2023).
    public let sequence: ProcessGroup?
    /// Ranks that share the experts, each with sequences of its own.
    public let expert: ProcessGroup?
    /// Ranks that share the layers, one run of them each.
    public let pipeline: ProcessGroup?
    /// Whether tensor ranks share the tokens too where layers work on each token for itself (Korthikanti et al. 2022): norms and the
    /// residual stream are then in memory once. Only while gradients are recorded; what is sent is as much.
    public let splitsTokens: Bool

    /// One rank with all of a model.
    public init() {
        (tensor, sequence, expert, pipeline) = (nil, nil, nil, nil)
        splitsTokens = false
    }

    /// This rank's place in a mesh. All ranks of the mesh make theirs at the same time.
    /// - Parameter sequenceParallel: ``splitsTokens``.
    public init(_ mesh: DeviceMesh, sequenceParallel: Bool = false) throws {
        tensor = try mesh.group(.tensor)
        sequence = try mesh.group(.sequence)
        expert = try mesh.group(.expert)
        pipeline = try mesh.group(.pipeline)
        splitsTokens = sequenceParallel && tensor != nil
    }

    public var tensorSize: Int { tensor?.size ?? 1 }

    /// Which of `units` things that cannot be divided this rank holds.
    /// - Parameter mayCopy: whether several ranks may hold the same one where there are fewer of them than ranks.
    func share(_ units: Int, of what: @autoclosure () -> String, mayCopy: Bool = false) throws -> Range<Int> {
        guard let tensor else { return 0..<units }
        if units % tensor.size == 0 {
            let count = units / tensor.size
            return tensor.rank * count..<(tensor.rank + 1) * count
        }
        if mayCopy, tensor.size % units == 0 {
            let own = tensor.rank / (tensor.size / units)
            return own..<own + 1
        }
        throw Self.refusal(units, what(), tensor.size, "tensor", mayCopy ? " and does not divide it either" : "")
    }

    /// Refuses heads that tensor ranks, or ranks along the sequence axis while attending, cannot share.
    func checkHeads(_ shape: ModelShape) throws {
        let query = try share(shape.queryHeads, of: "query heads").count
        let keys = try share(shape.keyValueHeads, of: "key-value heads", mayCopy: true).count
        guard let sequence else { return }
        let each = tensor == nil ? "" : " on each tensor parallel rank"
        guard query % sequence.size == 0 else {
            throw Self.refusal(query, "query heads\(each)", sequence.size, "sequence")
        }
        guard keys % sequence.size == 0 || sequence.size % keys == 0 else {
            throw Self.refusal(
                keys, "key-value heads\(each)", sequence.size, "sequence", " and does not divide it either")
        }
    }

    static func refusal(_ units: Int, _ what: String, _ ranks: Int, _ axis: String, _ more: String = "") -> ModelError {
        let fitting = (1...max(1, ranks)).filter { units % $0 == 0 }.map(String.init).joined(separator: ", ")
        return ModelError(
            .parallel,
            "\(what): \(units) is no multiple of \(ranks) \(axis) parallel ranks\(more); choose \(fitting) ranks for that axis"
        )
    }

    /// The least of the numbers that ranks which hold parts of one copy of the model have; all of them must ask.
    public func least(_ number: Int, on device: Device) throws(TorchError) -> Int {
        var least = number
        for case let group? in [tensor, pipeline] {
            let shared = try Tensor([Int64(least)], device: device)
            try group.allReduce([shared], .min)
            least = try shared.itemInt()
        }
        return least
    }

    /// How many ranks hold each of `units` things alike.
    func copies(_ units: Int) -> Int { max(1, tensorSize / max(1, units)) }
}

/// Whose gradients of a parameter make up the whole, besides those of ranks that see other sequences.
enum GradientShare {
    /// What a tensor rank computes is complete: it holds rows or columns of its own, or does what all others do.
    case complete
    /// Works on the residual stream: complete, unless tensor ranks share the tokens.
    case stream
    /// Whole on each tensor rank, which sees only what its own heads or columns make of it.
    case shared
    /// Of experts that no other expert rank has, and that see the tokens of all of them.
    case expert

    func axes(_ context: ParallelContext) -> [MeshAxis] {
        let all = MeshAxis.data + [.sequence]
        switch self {
        case .complete: return all
        case .stream: return context.splitsTokens ? all + [.tensor] : all
        case .shared: return context.tensor == nil ? all : all + [.tensor]
        case .expert: return all.filter { $0 != .expert }
        }
    }
}

/// How tensor ranks share a projection.
enum ProjectionShare {
    /// Not at all.
    case whole(GradientShare = .complete)
    /// Rows: each rank computes some of the outputs. `blocks` are the parts' rows in order, each shared on its own.
    case columns([RowBlock])
    /// Columns: each rank sees some of the inputs and gets a part of a sum; the bias joins the sum once. The inputs are as many units.
    case rows(units: Int)
}

/// Consecutive rows of a weight, in units that are not divided: heads, or single rows.
struct RowBlock {
    var rows: Int
    var units: Int
    /// Whether ranks may hold the same unit where there are fewer units than ranks.
    var mayCopy = false

    init(rows: Int) {
        self.rows = rows
        units = rows
    }

    init(heads: Int, size: Int, mayCopy: Bool = false) {
        rows = heads * size
        units = heads
        self.mayCopy = mayCopy
    }
}

/// Rows of a tensor of the checkpoint that a rank holds.
struct RowPiece {
    var name: String
    /// Rows of the whole tensor, and those held.
    var rows: Int
    var held: Range<Int>
}
