public import TensorCore

/// Where the values of one tensor of a checkpoint go.
public struct TensorDestination {
    /// The checkpoint's name of the tensor.
    public let name: String
    /// Contiguous and of the tensor's shape, on any device, of any floating-point type; views of a larger parameter are usual.
    public let tensor: Tensor

    public init(name: String, tensor: Tensor) {
        self.name = name
        self.tensor = tensor
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
    /// Consecutive elements of one tensor.
    struct Piece {
        /// Index of the destination.
        let destination: Int
        let elements: Range<Int>
        let dtype: DType
        /// In the file.
        let range: Range<Int>
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

    /// - Parameter entries: for each destination, its file (an index into `files`) and its place there.
    init(_ files: [SafetensorsFile], _ entries: [(file: Int, entry: SafetensorsFile.Entry)]) {
        self.files = files
        bytes = entries.reduce(0) { $0 + $1.entry.range.count }
        let order = entries.indices.sorted {
            (entries[$0].file, entries[$0].entry.range.lowerBound)
                < (entries[$1].file, entries[$1].entry.range.lowerBound)
        }
        var reads: [Read] = []
        for index in order {
            let (file, entry) = entries[index]
            let width = entry.dtype.size
            let step = Self.readBytes / width
            for first in stride(from: 0, to: entry.range.count / width, by: step) {
                let last = min(first + step, entry.range.count / width)
                let range = entry.range.lowerBound + first * width..<entry.range.lowerBound + last * width
                let piece = Piece(destination: index, elements: first..<last, dtype: entry.dtype, range: range)
                if let open = reads.last, open.file == file, range.lowerBound <= open.range.upperBound + Self.gapBytes,
                    range.upperBound - open.range.lowerBound <= Self.readBytes
                {
                    reads[reads.count - 1].range = open.range.lowerBound..<max(open.range.upperBound, range.upperBound)
                    reads[reads.count - 1].pieces.append(piece)
                } else {
                    reads.append(Read(file: file, range: range, pieces: [piece]))
                }
            }
        }
        self.reads = reads
    }

    /// How to read each file: one that is for the most part in memory already is read from there, a large one else past the
    /// page cache, where it would push out everything else, and a small one stays in the cache for the next start.
    func modes(available: Int?) -> [ReadMode] {
        guard let available, bytes > available / 4 else { return files.map { _ in .cached } }
        return files.map { $0.file.residentShare() > 0.5 ? .cached : .direct }
    }
}
