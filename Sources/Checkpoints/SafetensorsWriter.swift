internal import OrderedCollections
public import TensorCore

/// Writes safetensors straight from the tensors' memory, in one file or in shards with an index.
public struct SafetensorsWriter {
    /// What the Hub prefers: a file that fetches in one go.
    public static let defaultShardBytes = 5_000_000_000

    /// One file's tensors, with its header laid out.
    private struct Shard {
        var tensors: [(name: String, tensor: Tensor)] = []
        var bytes = 0
    }

    private let fileSystem: any FileSystem
    private let metadata: [(key: String, value: String)]
    private let shards: [Shard]
    private let baseName: String

    /// - Parameters:
    ///   - tensors: written in this order, except that within a file those of wider types come first, which keeps every one
    ///     aligned.
    ///   - metadata: `__metadata__`; "format" is "pt" unless given.
    ///   - maxShardBytes: a file holds at most this many bytes of tensors, or one tensor that is larger.
    /// - Throws: `CheckpointError.duplicate` when two tensors share a name.
    init(
        _ tensors: [(name: String, tensor: Tensor)], metadata: [String: String] = [:], baseName: String = "model",
        maxShardBytes: Int = defaultShardBytes, fileSystem: any FileSystem = POSIXFileSystem()
    ) throws {
        var seen: Set<String> = ["__metadata__"]
        var shards = [Shard()]
        for (name, tensor) in tensors {
            guard seen.insert(name).inserted else {
                throw CheckpointError(.duplicate, baseName, "two tensors are named '\(name)'")
            }
            let size = tensor.byteCount
            if !shards[shards.count - 1].tensors.isEmpty, shards[shards.count - 1].bytes + size > maxShardBytes {
                shards.append(Shard())
            }
            shards[shards.count - 1].tensors.append((name, tensor))
            shards[shards.count - 1].bytes += size
        }
        for index in shards.indices {
            // Stable, so that the order is the caller's within one width.
            let ordered = shards[index].tensors.enumerated().sorted {
                ($1.element.tensor.dtype.size, $0.offset) < ($0.element.tensor.dtype.size, $1.offset)
            }
            shards[index].tensors = ordered.map(\.element)
        }
        self.shards = shards
        self.fileSystem = fileSystem
        self.baseName = baseName
        self.metadata = metadata.merging(["format": "pt"]) { given, _ in given }
            .map { (key: $0.key, value: $0.value) }
            .sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    }

    /// The bytes that the files will take, the headers estimated generously.
    var estimatedBytes: UInt64 {
        shards.reduce(0) { $0 + UInt64($1.bytes) + UInt64($1.tensors.count) * 512 + 4096 }
    }

    /// Writes one file to `path` under a temporary name, makes it durable and renames it.
    public static func write(
        _ tensors: [(name: String, tensor: Tensor)], metadata: [String: String] = [:], to path: String,
        fileSystem: any FileSystem = POSIXFileSystem()
    ) throws {
        let writer = try SafetensorsWriter(
            tensors, metadata: metadata, maxShardBytes: .max, fileSystem: fileSystem)
        let folder = parentFolder(path)
        let name = temporaryName(for: path)
        try fileSystem.remove(folder + "/" + name)
        do {
            _ = try writer.write(writer.shards[0], name, in: folder)
            try fileSystem.rename(folder + "/" + name, to: path)
            try fileSystem.syncDirectory(folder)
        } catch {
            // The first error is the one to tell.
            try? fileSystem.remove(folder + "/" + name)
            throw error
        }
    }

    /// Writes one file into a folder that is written as a whole: in place, and durable.
    static func writeFile(
        _ tensors: [(name: String, tensor: Tensor)], named name: String, in folder: String, fileSystem: any FileSystem
    ) throws -> WrittenFile {
        let writer = try SafetensorsWriter(tensors, maxShardBytes: .max, fileSystem: fileSystem)
        return try writer.write(writer.shards[0], name, in: folder)
    }

    /// Writes the files, `BASE.safetensors` or the shards and `BASE.safetensors.index.json`, into a folder that exists and
    /// makes each durable. The folder itself is the caller's to sync and to rename.
    func write(into folder: String) throws -> [WrittenFile] {
        guard shards.count > 1 else { return [try write(shards[0], baseName + ".safetensors", in: folder)] }
        var files: [WrittenFile] = []
        var map: JSONObject = [:]
        for (index, shard) in shards.enumerated() {
            let name = "\(baseName)-\(padded(index + 1, 5))-of-\(padded(shards.count, 5)).safetensors"
            files.append(try write(shard, name, in: folder))
            for (tensor, _) in shard.tensors { map[tensor] = .string(name) }
        }
        let total = shards.reduce(0) { $0 + $1.bytes }
        let index = JSONValue.object([
            "metadata": .object(["total_size": .int(total)]), "weight_map": .object(map),
        ])
        var writer = try HashingWriter(fileSystem, folder: folder, name: baseName + ".safetensors.index.json")
        try writer.write(Array((index.text() + "\n").utf8))
        files.append(try writer.finish())
        return files
    }

    private func write(_ shard: Shard, _ name: String, in folder: String) throws -> WrittenFile {
        var writer = try HashingWriter(fileSystem, folder: folder, name: name)
        try writer.write(header(shard))
        for (_, tensor) in shard.tensors {
            // A tensor elsewhere, or a strided view, is brought over alone: one copy at a time.
            let host = try tensor.detached().to(.cpu).contiguous()
            try host.withUnsafeBytes { try writer.write($0) }
        }
        return try writer.finish()
    }

    private func header(_ shard: Shard) -> [UInt8] {
        var object: JSONObject = [:]
        object["__metadata__"] = .object(
            JSONObject(uniqueKeysWithValues: metadata.map { ($0.key, JSONValue.string($0.value)) }))
        var offset = 0
        for (name, tensor) in shard.tensors {
            let end = offset + tensor.byteCount
            object[name] = .object([
                "dtype": .string(tensor.dtype.safetensorsName), "shape": .array(tensor.shape.map(JSONValue.int)),
                "data_offsets": .array([.int(offset), .int(end)]),
            ])
            offset = end
        }
        var json = Array(JSONValue.object(object).text(indented: false).utf8)
        // Spaces up to 8 bytes, as the format asks, so that the data is aligned.
        while json.count % 8 != 0 { json.append(UInt8(ascii: " ")) }
        return withUnsafeBytes(of: UInt64(json.count).littleEndian) { Array($0) } + json
    }
}

/// `number` with zeros in front, `width` digits or more.
func padded(_ number: Int, _ width: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}
