public import TensorCore

/// This process's place in a mesh, and its process groups along the mesh's axes.
public final class DeviceMesh {
    public let shape: MeshShape
    public let rank: Int
    public let device: Device
    private let makeGroup: (_ name: String, _ rank: Int, _ size: Int) throws -> ProcessGroup
    private var groups: [[MeshAxis]: ProcessGroup] = [:]

    /// - Parameter makeGroup: connects this process, as `rank` of `size`, to the group of a name; called for groups of more than one
    ///   rank, by all ranks of the mesh in the same order.
    public init(
        _ shape: MeshShape, rank: Int, device: Device,
        makeGroup: @escaping (_ name: String, _ rank: Int, _ size: Int) throws -> ProcessGroup
    ) {
        precondition(rank >= 0 && rank < shape.rankCount, "rank \(rank) of a mesh of \(shape.rankCount)")
        self.shape = shape
        self.rank = rank
        self.device = device
        self.makeGroup = makeGroup
    }

    /// A mesh over Gloo groups in host memory.
    public convenience init(
        _ shape: MeshShape, rank: Int, store: RendezvousStore, device: Device = .cpu, timeout: Duration = .seconds(60)
    ) {
        self.init(shape, rank: rank, device: device) { name, rank, size in
            try ProcessGroup.gloo(store, name: name, rank: rank, size: size, timeout: timeout)
        }
    }

    /// This rank's group along `axes`, in which ranks keep the order that they have in the mesh; nil where that is this rank alone.
    /// All ranks of the mesh must ask for the same groups in the same order.
    public func group(_ axes: MeshAxis...) throws -> ProcessGroup? { try group(axes) }

    public func group(_ axes: [MeshAxis]) throws -> ProcessGroup? {
        let key = MeshAxis.all.filter { axes.contains($0) && shape[$0] > 1 }
        if key.isEmpty { return nil }
        if let known = groups[key] { return known }
        let ranks = shape.group(of: rank, along: key)
        let name = key.map(\.name).joined(separator: "×") + ":" + ranks.map(String.init).joined(separator: ",")
        let group = try makeGroup(name, shape.index(of: rank, along: key), ranks.count)
        groups[key] = group
        return group
    }

    public func coordinate(_ axis: MeshAxis) -> Int { shape.coordinate(axis, of: rank) }
    public func size(_ axis: MeshAxis) -> Int { shape[axis] }
}
