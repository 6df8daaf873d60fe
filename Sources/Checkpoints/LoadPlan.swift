public import Collectives
public import TensorCore

/// Where the values of one tensor of a checkpoint, or of a part of it, go.
public struct TensorDestination {
    /// The checkpoint's name of the tensor.
    public let name: String
    /// Contiguous and of the tensor's shape or the part's, on any device, of any floating-point type; views of a larger parameter are
    /// usual.
    public let tensor: Tensor
    /// The part of the checkpoint's tensor; nil: all of it. The box's shape may be another one than the file's for the same elements in
    /// the same order.
    public let box: ShardBox?

    public init(name: String, tensor: Tensor) {
        self.name = name
        self.tensor = tensor
        box = nil
    }

    public init(_ box: ShardBox, tensor: Tensor) {
        name = box.name
        self.tensor = tensor
        self.box = box
    }

    /// Whether `stored`, the shape of the checkpoint's tensor, has what the destination takes.
    func fits(_ stored: [Int]) -> Bool {
        guard let box else { return stored == tensor.shape && tensor.isContiguous }
        return box.shape.reduce(1, *) == stored.reduce(1, *) && box.sizes == tensor.shape && tensor.isContiguous
    }
}

extension TensorDestination {
    /// Fills the destination by way of `fill`, which fills whole tensors only: where a part is wanted, one of `shape` in host memory.
    func filled(from shape: [Int], _ fill: (Tensor) throws -> Void) throws {
        guard let box else { return try fill(tensor) }
        let whole = try Tensor.empty(shape, dtype: tensor.dtype)
        try fill(whole)
        var part = try whole.reshaped(box.shape)
        for (dim, range) in box.ranges.enumerated() { part = try part.narrowed(dim, range) }
        try tensor.copy(from: part)
    }
}

/// What a load read.
public struct LoadStatistics: Sendable, Hashable {
    /// Bytes of the checkpoint's tensors.
    public var bytes = 0
    /// How each file was read, by path.
    public var modes: [String: ReadMode] = [:]
}

/// The reads that fill a set of destinations, in the order of the disk.
struct LoadPlan {
    /// Elements of one tensor that lie together where they go: in the file too, or there in rows that are evenly apart.
    struct Piece {
        /// Index of the destination.
        let destination: Int
        let elements: Range<Int>
        let dtype: DType
        /// In the file, from the first element to the last.
        let range: Range<Int>
        /// Rows of the file that it is made of, and how many elements lie between the beginnings of two.
        var rows = 1
        var stride = 0

        /// Elements of a row.
        var run: Int { elements.count / rows }
    }

    /// Neighbouring pieces that one read brings.
    struct Read {
        let file: Int
        var range: Range<Int>
        var pieces: [Piece]
    }

    /// Large enough that the disk's latency does not count, small enough that a ring of them is little memory.
    static let readBytes = 8 << 20
    /// A gap that is cheaper to read over than to seek past.
    private static let gapBytes = 64 << 10

    let files: [SafetensorsFile]
    let reads: [Read]
    let bytes: Int

    /// - Parameter entries: for each destination, its file (an index into `files`), its tensor's place there, and the part that is
    ///   wanted (nil: all).
    init(_ files: [SafetensorsFile], _ entries: [(file: Int, entry: SafetensorsFile.Entry, box: ShardBox?)]) {
        self.files = files
        var pieces: [(file: Int, piece: Piece)] = []
        for (index, (file, entry, box)) in entries.enumerated() {
            let count = entry.range.count / entry.dtype.size
            var filled = 0
            for rows in box.map(StridedRows.of) ?? [StridedRows(start: 0, run: count, stride: count, count: 1)] {
                pieces += Self.pieces(rows, index, entry, filled: &filled).map { (file, $0) }
            }
        }
        pieces.sort { ($0.file, $0.piece.range.lowerBound) < ($1.file, $1.piece.range.lowerBound) }
        bytes = pieces.reduce(0) { $0 + $1.piece.elements.count * $1.piece.dtype.size }
        var reads: [Read] = []
        for (file, piece) in pieces {
            let range = piece.range
            if let open = reads.last, open.file == file, range.lowerBound <= open.range.upperBound + Self.gapBytes,
                max(open.range.upperBound, range.upperBound) - open.range.lowerBound <= Self.readBytes
            {
                reads[reads.count - 1].range = open.range.lowerBound..<max(open.range.upperBound, range.upperBound)
                reads[reads.count - 1].pieces.append(piece)
            } else {
                reads.append(Read(file: file, range: range, pieces: [piece]))
            }
        }
        self.reads = reads
    }

    /// The pieces of rows that go to a destination after the `filled` elements that it has: of several rows where what lies between
    /// them is cheaper to read over than to seek past.
    private static func pieces(
        _ rows: StridedRows, _ destination: Int, _ entry: SafetensorsFile.Entry, filled: inout Int
    ) -> [Piece] {
        let width = entry.dtype.size
        var pieces: [Piece] = []
        func add(_ start: Int, _ count: Int, rows rowCount: Int = 1, span: Int) {
            let first = entry.range.lowerBound + start * width
            pieces.append(
                Piece(
                    destination: destination, elements: filled..<filled + count, dtype: entry.dtype,
                    range: first..<first + span * width, rows: rowCount, stride: rows.stride))
            filled += count
        }
        let together =
            rows.run < rows.stride && (rows.stride - rows.run) * width <= gapBytes
            ? max(1, min(rows.count, (readBytes / width - rows.run) / rows.stride + 1)) : 1
        for first in stride(from: 0, to: rows.count, by: together) {
            let count = min(together, rows.count - first), start = rows.start + first * rows.stride
            if count > 1 {
                add(start, count * rows.run, rows: count, span: (count - 1) * rows.stride + rows.run)
                continue
            }
            for offset in stride(from: 0, to: rows.run, by: readBytes / width) {
                let length = min(readBytes / width, rows.run - offset)
                add(start + offset, length, span: length)
            }
        }
        return pieces
    }

    /// How to read each file: one that is for the most part in memory already is read from there, a large one else past the
    /// page cache, where it would push out everything else, and a small one stays in the cache for the next start.
    func modes(available: Int?) -> [ReadMode] {
        guard let available, bytes > available / 4 else { return files.map { _ in .cached } }
        return files.map { $0.file.residentShare() > 0.5 ? .cached : .direct }
    }
}

/// Rows of a tensor, seen as one run of elements: `count` of `run` elements each, their beginnings `stride` apart.
struct StridedRows: Hashable {
    var start, run, stride, count: Int

    /// A box's elements, in order. Dimensions that the box has all of are one with those before them.
    static func of(_ box: ShardBox) -> [StridedRows] {
        let partial = box.shape.indices.filter { box.ranges[$0] != 0..<box.shape[$0] }
        /// Elements of one step along a dimension.
        func width(_ dim: Int) -> Int { box.shape[(dim + 1)...].reduce(1, *) }
        guard box.count > 0 else { return [] }
        guard let inner = partial.last else {
            return [StridedRows(start: 0, run: box.count, stride: box.count, count: 1)]
        }
        let run = box.ranges[inner].count * width(inner), stride = box.shape[inner] * width(inner)
        let offset = box.ranges[inner].lowerBound * width(inner)
        // The dimensions from `middle` up to `inner` are one sequence of rows.
        let middle = partial.dropLast().last ?? 0
        guard inner > 0 else { return [StridedRows(start: offset, run: run, stride: stride, count: 1)] }
        let rows = box.shape[(middle + 1)..<inner].reduce(1, *)
        var starts = [box.ranges[middle].lowerBound * width(middle)]
        for dim in (0..<middle).reversed() {
            starts = box.ranges[dim].flatMap { index in starts.map { index * width(dim) + $0 } }
        }
        return starts.map {
            StridedRows(start: $0 + offset, run: run, stride: stride, count: box.ranges[middle].count * rows)
        }
    }
}
