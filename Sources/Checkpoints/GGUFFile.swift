public import OrderedCollections
public import TensorCore

/// One GGUF file (versions 2 and 3, little-endian), mapped: metadata and tensor table are checked whole at opening.
public final class GGUFFile {
    /// Where one tensor lies.
    public struct Entry: Sendable, Hashable {
        public let type: GGMLType
        /// Row-major, as torch has it: the reverse of the file's order.
        public let shape: [Int]
        /// Byte range in the file.
        public let range: Range<Int>
    }

    public let file: MappedFile
    public let version: Int
    public let metadata: OrderedDictionary<String, GGUFValue>
    /// llama.cpp's names, in file order.
    public let tensors: OrderedDictionary<String, Entry>
    /// Where the header ends and the tensors' data starts.
    let dataStart: Int

    public var path: String { file.path }

    /// - Throws: `CheckpointError` naming the file and the key or tensor: `truncated`, `malformed`, `unsupported`,
    ///   `duplicate`, `gitLFSPointer`, `notFound`.
    public init(path: String) throws {
        file = try MappedFile(path: path)
        try file.refuseGitLFSPointer()
        var cursor = GGUFCursor(file)
        let magic = try cursor.read(UInt32.self, "the magic number")
        guard magic == 0x4655_4747 else {
            throw CheckpointError(
                .malformed, path, "does not start with 'GGUF' but with bytes 0x\(String(magic.byteSwapped, radix: 16))",
                remedy: "this is not a GGUF file")
        }
        let version = try cursor.read(UInt32.self, "the version")
        guard version == 2 || version == 3 else {
            let why = version.byteSwapped < 256 ? "is big-endian" : "has version \(version); 2 and 3 are read"
            throw CheckpointError(
                .unsupported, path, "the GGUF file \(why)", remedy: "convert it with a newer llama.cpp")
        }
        self.version = Int(version)
        // A tensor's entry takes at least 24 bytes, a pair of metadata 13.
        let tensorCount = try cursor.count(minimumSize: 24, "the number of tensors")
        let pairCount = try cursor.count(minimumSize: 13, "the number of metadata pairs")

        var metadata: OrderedDictionary<String, GGUFValue> = [:]
        for index in 0..<pairCount {
            let key = try cursor.name("metadata key \(index)")
            let value = try cursor.value(of: key)
            guard metadata.updateValue(value, forKey: key) == nil else {
                throw CheckpointError(.duplicate, path, "the metadata key '\(key)' appears twice")
            }
        }
        self.metadata = metadata

        var table: [(name: String, type: GGMLType, shape: [Int], bytes: Int, offset: UInt64)] = []
        for index in 0..<tensorCount {
            let name = try cursor.name("the name of tensor \(index)")
            let rank = try cursor.read(UInt32.self, "the rank of tensor '\(name)'")
            guard rank <= 8 else { throw cursor.malformed("tensor '\(name)' has rank \(rank)") }
            var shape: [Int] = []
            for _ in 0..<rank {
                let size = try cursor.read(UInt64.self, "the shape of tensor '\(name)'")
                guard let size = Int(exactly: size), size > 0 else {
                    throw cursor.malformed("tensor '\(name)' has a dimension of \(size)")
                }
                shape.append(size)
            }
            let rawType = try cursor.read(UInt32.self, "the type of tensor '\(name)'")
            guard let type = GGMLType(rawValue: rawType) else {
                throw CheckpointError(
                    .unsupported, path, "tensor '\(name)' has the type \(GGMLType.describe(rawType))",
                    remedy: "these are read: " + GGMLType.allCases.map(\.name).joined(separator: ", "))
            }
            let row = shape.first ?? 1
            guard row % type.blockSize == 0 else {
                throw cursor.malformed(
                    "tensor '\(name)': rows of \(row) are no whole number of \(type.name) blocks of \(type.blockSize)")
            }
            guard let elements = byteCount(shape, elementSize: 1), elements < Int.max / 8 else {
                throw cursor.malformed("tensor '\(name)': its shape \(shape) has too many elements")
            }
            let offset = try cursor.read(UInt64.self, "the offset of tensor '\(name)'")
            table.append((name, type, shape.reversed(), elements / type.blockSize * type.blockBytes, offset))
        }

        let alignment = metadata["general.alignment"].map { $0.intValue ?? -1 } ?? 32
        guard alignment > 0, alignment <= 1 << 20, alignment & (alignment - 1) == 0 else {
            throw CheckpointError(.malformed, path, "general.alignment is \(alignment), not a power of two")
        }
        let dataStart = (cursor.offset + alignment - 1) / alignment * alignment
        self.dataStart = dataStart
        tensors = try Self.place(table, after: dataStart, alignment: alignment, in: file)
    }

    private static func place(
        _ table: [(name: String, type: GGMLType, shape: [Int], bytes: Int, offset: UInt64)], after dataStart: Int,
        alignment: Int, in file: MappedFile
    ) throws -> OrderedDictionary<String, Entry> {
        var tensors: OrderedDictionary<String, Entry> = [:]
        tensors.reserveCapacity(table.count)
        for (name, type, shape, bytes, offset) in table {
            guard offset % UInt64(alignment) == 0 else {
                throw CheckpointError(
                    .malformed, file.path, "tensor '\(name)' is at \(offset), not a multiple of \(alignment)")
            }
            let room = max(0, file.count - dataStart)
            guard offset <= UInt64(room), bytes <= room - Int(offset) else {
                throw CheckpointError(
                    .truncated, file.path,
                    "tensor '\(name)' of \(bytes) bytes at \(offset) does not fit in the \(room) bytes of data",
                    remedy: "the file is cut short: fetch it again")
            }
            let start = dataStart + Int(offset)
            let entry = Entry(type: type, shape: shape, range: start..<(start + bytes))
            guard tensors.updateValue(entry, forKey: name) == nil else {
                throw CheckpointError(.duplicate, file.path, "two tensors are named '\(name)'")
            }
        }
        var end = dataStart
        for (name, entry) in tensors.elements.sorted(by: { $0.value.range.lowerBound < $1.value.range.lowerBound }) {
            guard entry.range.lowerBound >= end else {
                throw CheckpointError(.malformed, file.path, "tensor '\(name)' overlaps the one before it")
            }
            end = entry.range.upperBound
        }
        return tensors
    }

    public func entry(named name: String) throws -> Entry {
        guard let entry = tensors[name] else {
            throw CheckpointError(.missingTensor, path, "there is no tensor '\(name)'")
        }
        return entry
    }

    /// The tensor, dequantised to `dtype`, on the CPU. float32 data is borrowed from the map when nothing has to change.
    ///
    /// - Parameter dtype: a floating-point type.
    public func tensor(named name: String, dtype: DType = .float32) throws -> Tensor {
        try tensor(named: name, dtype: dtype, rowOrder: nil)
    }

    func tensor(named name: String, dtype: DType, rowOrder: RowOrder?) throws -> Tensor {
        let entry = try entry(named: name)
        guard dtype.isFloatingPoint else {
            throw CheckpointError(.unsupported, path, "tensor '\(name)' cannot be read as \(dtype)")
        }
        let direct: DType = dtype == .bfloat16 ? .bfloat16 : .float32
        if rowOrder == nil, entry.type == .f32, dtype == .float32 {
            return try Tensor.mapped(file, entry.range, shape: entry.shape, dtype: .float32)
        }
        if rowOrder == nil, entry.type == .bf16, dtype == .bfloat16 {
            return try Tensor.mapped(file, entry.range, shape: entry.shape, dtype: .bfloat16)
        }
        let tensor = try Tensor.empty(entry.shape, dtype: direct)
        try expand(entry, name, into: tensor, rowOrder: rowOrder)
        return direct == dtype ? tensor : try tensor.to(dtype: dtype)
    }

    /// Fills `tensor`, of the shape of the entry, on any device and of any floating-point type.
    func load(_ name: String, into tensor: Tensor, rowOrder: RowOrder?) throws {
        if tensor.device == .cpu, [.float32, .bfloat16].contains(tensor.dtype) {
            try expand(try entry(named: name), name, into: tensor, rowOrder: rowOrder)
        } else {
            let dtype: DType = tensor.dtype == .bfloat16 ? .bfloat16 : .float32
            try tensor.copy(from: self.tensor(named: name, dtype: dtype, rowOrder: rowOrder))
        }
    }

    /// Expands the blocks into a contiguous CPU tensor of float32 or bfloat16.
    private func expand(_ entry: Entry, _ name: String, into tensor: Tensor, rowOrder: RowOrder?) throws {
        // A row order moves whole rows of the first dimension, a bias included.
        let rows = rowOrder == nil ? entry.shape.dropLast().reduce(1, *) : entry.shape.first ?? 1
        let columns = rowOrder == nil ? entry.shape.last ?? 1 : entry.shape.dropFirst().reduce(1, *)
        guard rowOrder == nil || (columns % entry.type.blockSize == 0 && rows % rowOrder!.headSize == 0) else {
            throw CheckpointError(
                .malformed, path, "tensor '\(name)' of shape \(entry.shape) does not split into attention heads")
        }
        file.willNeed(entry.range)
        let dtype = tensor.dtype
        try tensor.withUnsafeMutableBytes { destination in
            Dequantizer.run(
                entry.type, UnsafeRawBufferPointer(rebasing: file.bytes[entry.range]), rows: rows, columns: columns,
                into: destination.baseAddress!, dtype: dtype, rowOrder: rowOrder)
        }
    }
}
