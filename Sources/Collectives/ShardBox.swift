public import TensorCore

/// A box-shaped part of one of a checkpoint's tensors: what one rank holds of it.
public struct ShardBox: Hashable, Sendable, Codable {
    /// The tensor's name in a Hugging Face checkpoint.
    public var name: String
    /// The whole tensor's shape.
    public var shape: [Int]
    /// One range for each dimension.
    public var ranges: [Range<Int>]

    public init(name: String, shape: [Int], ranges: [Range<Int>]) {
        precondition(
            shape.count == ranges.count && zip(shape, ranges).allSatisfy { $1.lowerBound >= 0 && $1.upperBound <= $0 },
            "\(ranges) of '\(name)' \(shape)")
        self.name = name
        self.shape = shape
        self.ranges = ranges
    }

    /// All of a tensor.
    public init(whole name: String, shape: [Int]) {
        self.init(name: name, shape: shape, ranges: shape.map { 0..<$0 })
    }

    public var isWhole: Bool { zip(shape, ranges).allSatisfy { $1 == 0..<$0 } }
    public var sizes: [Int] { ranges.map(\.count) }
    public var count: Int { sizes.reduce(1, *) }

    /// The part with rows `rows` of this box, counted from the box's first.
    public func rows(_ rows: Range<Int>) -> ShardBox {
        precondition(rows.upperBound <= ranges[0].count, "rows \(rows) of a box with \(ranges[0].count)")
        var part = self
        let first = ranges[0].lowerBound
        part.ranges[0] = first + rows.lowerBound..<first + rows.upperBound
        return part
    }

    /// What both hold; nil where that is nothing.
    public func intersection(_ other: ShardBox) -> ShardBox? {
        guard name == other.name, shape == other.shape else { return nil }
        var common = self
        for (dim, range) in ranges.enumerated() {
            let both = range.clamped(to: other.ranges[dim])
            if both.isEmpty { return nil }
            common.ranges[dim] = both
        }
        return common
    }
}

/// A part of a checkpoint's tensor in this process's memory.
public struct LocalShard {
    public let box: ShardBox
    /// Of the box's sizes; a view, contiguous or not.
    public let tensor: Tensor

    public init(box: ShardBox, tensor: Tensor) {
        precondition(tensor.shape == box.sizes, "a tensor \(tensor.shape) for a box \(box.sizes) of '\(box.name)'")
        self.box = box
        self.tensor = tensor
    }

    /// A view of the part that `part`, a box within this one, names.
    public func view(of part: ShardBox) throws(TorchError) -> Tensor {
        var view = tensor
        for (dim, range) in part.ranges.enumerated() where range != box.ranges[dim] {
            let first = box.ranges[dim].lowerBound
            view = try view.narrowed(dim, range.lowerBound - first..<range.upperBound - first)
        }
        return view
    }
}
