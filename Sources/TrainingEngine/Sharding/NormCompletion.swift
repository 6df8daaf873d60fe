import Collectives
import Models
import TensorCore

/// Makes a rank's sum of squared gradients that of the whole model, counting what several ranks hold once.
struct NormCompletion {
    private let group: ProcessGroup?
    /// Ranks that hold the same of everything.
    private let copies: ProcessGroup?
    /// What another rank counts: all of a parameter's rows here, or some of them.
    private let counted: [(member: ShardedParameter, rows: Range<Int>)]

    init(_ trained: [ShardedParameter], mesh: DeviceMesh) throws {
        // Axes along which all is copied need no sum. Stages hold different parameters and must choose alike.
        let apart: [MeshAxis] = [.pipeline, .expert, .tensor]
        let axes = MeshAxis.all.filter { axis in
            apart.contains(axis) || trained.contains { !$0.axes.copied.contains(axis) }
        }
        group = try mesh.group(axes)
        copies = try mesh.group(MeshAxis.all.filter { !axes.contains($0) })
        let isElsewhere = trained.map { member in
            axes.contains { member.axes.copied.contains($0) && mesh.coordinate($0) != 0 }
        }
        let whole = zip(trained, isElsewhere).filter(\.1).map { ($0.0, 0..<$0.0.rows.count) }
        let others = zip(trained, isElsewhere).filter { !$0.1 }.map(\.0)
        counted = try whole + Self.repeated(others, mesh)
    }

    /// Rows that a lower rank of the same model holds as well: heads of which there are fewer than tensor ranks, an embedding that is
    /// another stage's head.
    private static func repeated(
        _ members: [ShardedParameter], _ mesh: DeviceMesh
    ) throws -> [(member: ShardedParameter, rows: Range<Int>)] {
        guard let group = try mesh.group(.pipeline, .tensor) else { return [] }
        let own = members.flatMap { member in member.heldBoxes.map { (member: member, box: $0.box, rows: $0.rows) } }
        let all = try group.exchange(own.map(\.box), device: mesh.device)
        let lower = Set(all[..<group.rank].joined())
        return own.filter { lower.contains($0.box) }.map { ($0.member, $0.rows) }
    }

    /// - Parameter squares: float64 `[1]`, changed in place.
    func callAsFunction(_ squares: Tensor) throws(TorchError) {
        for (member, rows) in counted {
            guard let grad = try member.gradient(), !rows.isEmpty else { continue }
            try squares.add(grad.narrowed(0, rows).to(dtype: .float64).squared().sum(), scale: -1)
        }
        try group?.allReduce([squares])
        // Sums in other orders differ in their last bits, and copies of the weights would drift apart.
        try copies?.broadcast([squares], root: 0)
    }
}
