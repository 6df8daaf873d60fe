import TensorCore

/// How a checkpoint names the three matrices of an expert.
struct ExpertNames: Sendable {
    var gate = "gate_proj"
    var up = "up_proj"
    var down = "down_proj"

    static let hub = ExpertNames()
    static let mixtral = ExpertNames(gate: "w1", up: "w3", down: "w2")
}

/// The gated feed-forward networks of all experts of a layer. All gate and up matrices are one parameter and all down matrices
/// another, so that each is one grouped product; its `parts` are the checkpoint's tensors, one for each expert.
struct Experts {
    /// All, and those of this rank.
    let count: Int
    private let held: Range<Int>
    /// Ranks that share the experts.
    private let group: ProcessGroup?
    private let gateUp: Tensor  // [E * 2I, C]
    private let down: Tensor  // [E * C, I]
    private let activation: Activation

    /// - Parameters:
    ///   - name: what the names of single experts begin with, before their number.
    ///   - whole: what the names begin with where the checkpoint holds all experts of a layer as one tensor, `gate_up_proj`
    ///     `[E, 2I, C]` and `down_proj` `[E, C, I]`; nil: `name`.
    init(
        _ builder: ParameterBuilder, _ name: String, whole: String? = nil, count: Int, size: Int, intermediate: Int,
        activation: Activation, names: ExpertNames = .hub
    ) throws {
        self.count = count
        self.activation = activation
        let whole = whole ?? name, parallel = builder.parallel
        group = parallel.expert
        let held = try parallel.experts(count, of: name)
        self.held = held
        let columns = try parallel.share(intermediate, of: "intermediate size of \(name)")
        /// Rows of the experts held; of the others none.
        func pieces(_ kinds: [String], rows: Int, held own: Range<Int>) -> [RowPiece] {
            (0..<count).flatMap { index in
                kinds.map {
                    RowPiece(
                        name: "\(name).\(index).\($0).weight", rows: rows, held: held.contains(index) ? own : 0..<0)
                }
            }
        }
        gateUp = try builder.stacked(
            name + ".gate_up_proj.weight", pieces([names.gate, names.up], rows: intermediate, held: columns),
            columns: [size], storedAs: (whole + ".gate_up_proj", [count, 2 * intermediate, size]), gradient: .expert)
        down = try builder.stacked(
            name + ".down_proj.weight", pieces([names.down], rows: size, held: 0..<size), columns: [intermediate],
            held: columns, storedAs: (whole + ".down_proj", [count, size, intermediate]), gradient: .expert)
    }

    /// `x [T, C]` through the experts that were chosen, int64 `[T, K]`, times their weights, float32 `[T, K]`: `[T, C]`.
    func callAsFunction(_ x: Tensor, chosen: Tensor, weights: Tensor) throws(TorchError) -> Tensor {
        let rows = try ExpertRows(chosen: chosen, count: count)
        let gathered = try rows.gather(x)
        let output =
            if let group {
                try exchanged(gathered, rows.counts(), group)
            } else {
                try through(gathered, rows)
            }
        return try rows.combine(output, weights: weights)
    }

    /// Rows, sorted by this rank's experts, through them.
    private func through(_ x: Tensor, _ rows: ExpertRows) throws(TorchError) -> Tensor {
        let size = x.size(1), intermediate = down.size(1)
        let gated = try rows.linear(x, gateUp.reshaped([held.count, 2 * intermediate, size]))
        return try rows.linear(activation.gate(gated), down.reshaped([held.count, size, intermediate]))
    }

    /// Rows sorted by all experts, `counts` of each, through the ranks that have them and back.
    private func exchanged(_ x: Tensor, _ counts: [Int], _ group: ProcessGroup) throws(TorchError) -> Tensor {
        // What each rank sends to each of its peers' experts.
        let own = try Tensor(counts.map(Int64.init), device: x.device)
        let theirs = try Tensor.empty([counts.count], dtype: .int64, device: x.device)
        let each = [Int](repeating: held.count, count: group.size)
        try group.allToAll(own, into: theirs, inputRows: each, outputRows: each)
        let arriving = try theirs.to(.cpu).values(Int64.self).map { Int($0) }
        func perRank(_ counts: [Int]) -> [Int] {
            (0..<group.size).map { rank in counts[rank * held.count..<(rank + 1) * held.count].reduce(0, +) }
        }
        let sends = perRank(counts), receives = perRank(arriving)
        let received = try x.exchangedRows(in: group, inputRows: sends, outputRows: receives)
        // They come sorted by rank and then by expert.
        let experts = arriving.indices.flatMap { [Int64](repeating: Int64($0 % held.count), count: arriving[$0]) }
        let rows = try ExpertRows(
            chosen: Tensor(experts, shape: [experts.count, 1], device: x.device), count: held.count)
        // A rank whose experts nobody chose takes part all the same, backward too.
        let sorted = experts.isEmpty ? received : try rows.gather(received)
        var output = try through(sorted, rows)
        if !experts.isEmpty {
            output = try rows.combine(output, weights: Tensor.ones([experts.count, 1], device: x.device))
        }
        return try output.exchangedRows(in: group, inputRows: receives, outputRows: sends)
    }
}

extension ParallelContext {
    /// Which of `count` experts this rank holds.
    func experts(_ count: Int, of name: String) throws -> Range<Int> {
        guard let expert else { return 0..<count }
        guard count % expert.size == 0 else { throw Self.refusal(count, "number of \(name)", expert.size, "expert") }
        let size = count / expert.size
        return expert.rank * size..<(expert.rank + 1) * size
    }
}
