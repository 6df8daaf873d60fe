/// A way in which ranks divide the work.
public struct MeshAxis: Hashable, Sendable, Codable, CustomStringConvertible {
    public let name: String
    public init(_ name: String) { self.name = name }

    /// Layers, one run of them a rank.
    public static let pipeline = MeshAxis("pp")
    /// Batches, every rank with all of the parameters (of its shard group).
    public static let replicate = MeshAxis("dp")
    /// Batches, the parameters, gradients and optimizer states spread over the ranks.
    public static let shard = MeshAxis("fsdp")
    /// Batches, with the experts of a mixture spread over the ranks.
    public static let expert = MeshAxis("ep")
    /// The tokens of each sequence, heads while attending (Ulysses).
    public static let sequence = MeshAxis("sp")
    /// Rows and columns of the matrices.
    public static let tensor = MeshAxis("tp")

    /// All, from those whose neighbours are far apart to those whose neighbours talk most.
    public static let all: [MeshAxis] = [.pipeline, .replicate, .shard, .expert, .sequence, .tensor]
    /// Ranks along these see different sequences.
    public static let data: [MeshAxis] = [.replicate, .shard, .expert]

    public var description: String { name }
}

/// Ranks arranged in a grid whose axes have names. Ranks along the last axis are neighbours: 0, 1, 2, …
public struct MeshShape: Hashable, Sendable, Codable, CustomStringConvertible {
    /// One for each of ``MeshAxis/all``, in that order.
    private let sizes: [Int]

    /// - Parameter sizes: axes that are left out have one rank.
    public init(_ sizes: [MeshAxis: Int] = [:]) {
        precondition(sizes.values.allSatisfy { $0 > 0 }, "sizes of axes \(sizes) must be positive")
        precondition(sizes.keys.allSatisfy(MeshAxis.all.contains), "unknown axis among \(sizes.keys)")
        self.sizes = MeshAxis.all.map { sizes[$0] ?? 1 }
    }

    /// Ranks along an axis.
    public subscript(axis: MeshAxis) -> Int { sizes[Self.index(axis)] }

    public var rankCount: Int { sizes.reduce(1, *) }

    private static func index(_ axis: MeshAxis) -> Int {
        guard let index = MeshAxis.all.firstIndex(of: axis) else { preconditionFailure("unknown axis \(axis)") }
        return index
    }

    /// Where `rank` is along an axis.
    public func coordinate(_ axis: MeshAxis, of rank: Int) -> Int {
        precondition(rank >= 0 && rank < rankCount, "rank \(rank) of \(rankCount)")
        let index = Self.index(axis)
        return rank / sizes[(index + 1)...].reduce(1, *) % sizes[index]
    }

    /// The ranks that differ from `rank` along `axes` only, in ascending order; `rank` is one of them.
    public func group(of rank: Int, along axes: [MeshAxis]) -> [Int] {
        let others = MeshAxis.all.filter { !axes.contains($0) }
        return (0..<rankCount).filter { peer in
            others.allSatisfy { coordinate($0, of: peer) == coordinate($0, of: rank) }
        }
    }

    /// The place of `rank` in its group along `axes`.
    public func index(of rank: Int, along axes: [MeshAxis]) -> Int {
        guard let index = group(of: rank, along: axes).firstIndex(of: rank) else { preconditionFailure() }
        return index
    }

    /// `dp2×tp4`; `1` for a single rank.
    public var description: String {
        let parts = zip(MeshAxis.all, sizes).filter { $1 > 1 }.map { "\($0)\($1)" }
        return parts.isEmpty ? "1" : parts.joined(separator: "×")
    }
}
