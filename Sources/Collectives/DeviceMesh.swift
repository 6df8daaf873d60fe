public import TensorCore

/// This process's place in a mesh, and its process groups along the mesh's axes.
public final class DeviceMesh {
    public let shape: MeshShape
    public let rank: Int
    public let device: Device
    /// The mesh's ranks in the numbers of all ranks; nil: 0, 1, 2, …
    private let members: [Int]?
    private let makeGroup: (_ name: String, _ rank: Int, _ ranks: [Int]) throws -> ProcessGroup
    private var groups: [[MeshAxis]: ProcessGroup] = [:]

    /// - Parameters:
    ///   - members: the mesh's ranks, where it has some of more; by these numbers groups are named and given to `makeGroup`.
    ///   - makeGroup: connects this process, as `rank`, to the group of a name that has these of the mesh's ranks; called for
    ///     groups of more than one rank, by all ranks of the mesh in the same order.
    public init(
        _ shape: MeshShape, rank: Int, device: Device, members: [Int]? = nil,
        makeGroup: @escaping (_ name: String, _ rank: Int, _ ranks: [Int]) throws -> ProcessGroup
    ) {
        precondition(rank >= 0 && rank < shape.rankCount, "rank \(rank) of a mesh of \(shape.rankCount)")
        precondition(members?.count ?? shape.rankCount == shape.rankCount, "\(members ?? []) for a mesh of \(shape)")
        self.members = members
        self.shape = shape
        self.rank = rank
        self.device = device
        self.makeGroup = makeGroup
    }

    /// A mesh whose groups are Gloo's for the CPU and NCCL's for CUDA devices.
    /// - Parameters:
    ///   - host: this host's address, as the other ranks reach it.
    ///   - timeout: of connecting, and without a watch of each of Gloo's operations.
    ///   - watch: that names late and dead ranks; its board's ranks are the mesh's, or have `members` among them.
    ///   - members: the mesh's ranks in the board's numbers, where those are more.
    ///   - name: of the mesh, where the same ranks have several.
    public convenience init(
        _ shape: MeshShape, rank: Int, store: RendezvousStore, device: Device = .cpu, host: String = "127.0.0.1",
        timeout: Duration = .seconds(60), watch: RankWatch? = nil, members: [Int]? = nil, name: String = ""
    ) {
        let prefix = name.isEmpty ? "" : name + "/"
        self.init(shape, rank: rank, device: device, members: members) { name, rank, ranks in
            let name = prefix + name
            let watch = watch.map { GroupWatch($0, ranks: ranks) }
            if device == .cpu {
                return try .gloo(
                    store, name: name, rank: rank, size: ranks.count, host: host, timeout: timeout, watch: watch)
            }
            return try .nccl(store, name: name, rank: rank, size: ranks.count, device: device, watch: watch)
        }
    }

    /// This rank's group along `axes`, in which ranks keep the order that they have in the mesh; nil where that is this rank alone.
    /// All ranks of the mesh must ask for the same groups in the same order.
    public func group(_ axes: MeshAxis...) throws -> ProcessGroup? { try group(axes) }

    public func group(_ axes: [MeshAxis]) throws -> ProcessGroup? {
        let key = MeshAxis.all.filter { axes.contains($0) && shape[$0] > 1 }
        if key.isEmpty { return nil }
        if let known = groups[key] { return known }
        let ranks = shape.group(of: rank, along: key).map { members?[$0] ?? $0 }
        let name = key.map(\.name).joined(separator: "×") + ":" + ranks.map(String.init).joined(separator: ",")
        let group = try makeGroup(name, shape.index(of: rank, along: key), ranks)
        groups[key] = group
        return group
    }

    public func coordinate(_ axis: MeshAxis) -> Int { shape.coordinate(axis, of: rank) }
    public func size(_ axis: MeshAxis) -> Int { shape[axis] }
}
