public import TensorCore

/// A part of a tensor as every rank knows it: its box and type, not its memory.
public struct ShardSpec: Hashable, Sendable, Codable {
    public var box: ShardBox
    public var dtype: DType

    public init(box: ShardBox, dtype: DType) {
        self.box = box
        self.dtype = dtype
    }

    public var byteCount: Int { box.count * dtype.size }
}

extension LocalShard {
    public var spec: ShardSpec { ShardSpec(box: box, dtype: tensor.dtype) }
}

/// What every rank has of a model, or is to have.
public struct ShardLayout: Hashable, Sendable, Codable {
    /// One list for each rank, in that rank's own order.
    public var ranks: [[ShardSpec]]

    public init(ranks: [[ShardSpec]]) { self.ranks = ranks }

    public var rankCount: Int { ranks.count }
    /// What a rank's parts take in memory.
    public func byteCount(of rank: Int) -> Int { ranks[rank].reduce(0) { $0 + $1.byteCount } }

    /// Tells every rank of `group` the parts of every other.
    /// - Parameter device: where the group's tensors lie.
    public static func exchanged(_ own: [ShardSpec], _ group: ProcessGroup?, device: Device) throws -> ShardLayout {
        guard let group else { return ShardLayout(ranks: [own]) }
        return ShardLayout(ranks: try group.exchange(own, device: device))
    }
}

extension ShardBox {
    /// What of this box lies outside of `other`, in at most two pieces a dimension.
    public func subtracting(_ other: ShardBox) -> [ShardBox] {
        guard let common = intersection(other) else { return [self] }
        var pieces: [ShardBox] = []
        var rest = self
        for dim in ranges.indices {
            let (mine, cut) = (rest.ranges[dim], common.ranges[dim])
            for outside in [mine.lowerBound..<cut.lowerBound, cut.upperBound..<mine.upperBound] where !outside.isEmpty {
                var piece = rest
                piece.ranges[dim] = outside
                pieces.append(piece)
            }
            rest.ranges[dim] = cut
        }
        return pieces
    }

    /// The box in pieces of at most `limit` elements, cut across its first dimensions, so that what is contiguous stays so.
    func split(limit: Int) -> [ShardBox] {
        let count = count
        guard count > limit, let dim = ranges.firstIndex(where: { $0.count > 1 }) else { return [self] }
        let range = ranges[dim], each = max(1, limit / (count / range.count))
        return stride(from: range.lowerBound, to: range.upperBound, by: each).flatMap { start in
            var piece = self
            piece.ranges[dim] = start..<min(start + each, range.upperBound)
            return piece.split(limit: limit)
        }
    }

    /// `'w'[0..<4, 8..<16] of [8, 16]`, for messages.
    public var summary: String {
        "'\(name)'[\(ranges.map { "\($0.lowerBound)..<\($0.upperBound)" }.joined(separator: ", "))] of \(shape)"
    }
}
