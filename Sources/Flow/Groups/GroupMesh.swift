/// How the workers of a group divide the work: a grid whose axes have names. Workers along the last axis are neighbours.
public struct GroupMesh: Sendable, Hashable, Codable, CustomStringConvertible {
    public struct Axis: Sendable, Hashable, Codable {
        public var name: String
        public var size: Int

        public init(_ name: String, _ size: Int) {
            precondition(size > 0, "axis \(name) of \(size) workers")
            self.name = name
            self.size = size
        }
    }

    public let axes: [Axis]
    /// Axes whose workers see different rows.
    public let dataAxes: Set<String>

    public init(_ axes: [Axis], data: Set<String>) {
        precondition(Set(axes.map(\.name)).count == axes.count, "an axis is named twice in \(axes.map(\.name))")
        self.axes = axes
        dataAxes = data
    }

    /// Workers that each see rows of their own.
    public static func data(_ count: Int) -> GroupMesh { GroupMesh([Axis("data", count)], data: ["data"]) }

    public var count: Int { axes.reduce(1) { $0 * $1.size } }

    /// Where `worker` is along an axis; 0 along one that this mesh does not have.
    public func coordinate(_ axis: String, of worker: Int) -> Int {
        guard let index = axes.firstIndex(where: { $0.name == axis }) else { return 0 }
        return worker / axes[(index + 1)...].reduce(1) { $0 * $1.size } % axes[index].size
    }

    /// Workers along several axes taken together.
    public func size(along names: Set<String>) -> Int {
        axes.reduce(1) { $0 * (names.contains($1.name) ? $1.size : 1) }
    }

    /// Where `worker` is along several axes taken together, the last of them the fastest.
    public func place(along names: Set<String>, of worker: Int) -> Int {
        axes.filter { names.contains($0.name) }.reduce(0) { $0 * $1.size + coordinate($1.name, of: worker) }
    }

    /// Whether `worker` is the first of those that differ from it along other axes than `names` only.
    public func isFirst(of worker: Int, besides names: Set<String>) -> Bool {
        axes.allSatisfy { names.contains($0.name) || coordinate($0.name, of: worker) == 0 }
    }

    public var description: String { axes.map { "\($0.name) \($0.size)" }.joined(separator: " × ") }
}
