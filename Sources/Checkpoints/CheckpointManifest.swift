internal import Collectives
internal import OrderedCollections
internal import TensorCore

/// `manifest.json`: what a checkpoint's folder must hold. Version 1 is one process's, version 2 that of several ranks.
struct CheckpointManifest {
    static let fileName = "manifest.json"
    static let stateName = "state.json"
    static let tensorsName = "tensors"
    private static let format = "fledge-checkpoint"
    private static let versions = 1...2

    /// A box of a tensor in one of the files.
    struct Piece: Hashable {
        /// Index into the manifest's files.
        var file: Int
        /// The name in the file.
        var key: String
        var box: ShardBox
        var dtype: DType
        /// Of its first byte in the file.
        var offset: Int
    }

    /// What a checkpoint of several ranks says beside its files.
    struct Sharding: Hashable {
        var ranks: Int
        /// Such as `fsdp2×tp2`; for people.
        var mesh: String
        var pieces: [Piece]
    }

    let step: Int
    let files: [WrittenFile]
    let sharding: Sharding?

    init(step: Int, files: [WrittenFile], sharding: Sharding? = nil) {
        self.step = step
        self.files = files
        self.sharding = sharding
    }

    private var object: JSONObject {
        let pieces = Dictionary(grouping: sharding?.pieces ?? [], by: \.file)
        var object: JSONObject = [
            "format": .string(Self.format), "version": .int(sharding == nil ? 1 : 2), "step": .int(step),
        ]
        if let sharding {
            object["ranks"] = .int(sharding.ranks)
            object["mesh"] = .string(sharding.mesh)
        }
        object["files"] = .array(
            files.enumerated().map { index, file in
                var entry = file.object
                if let own = pieces[index] { entry["tensors"] = .array(own.map { .object($0.object) }) }
                return .object(entry)
            })
        return object
    }

    /// The text; its last entry is the hash of the others, so that a flipped bit in the manifest itself shows.
    var bytes: [UInt8] {
        var object = object
        object["xxh64"] = .string(Self.digest(object))
        return Array((JSONValue.object(object).text() + "\n").utf8)
    }

    private static func digest(_ object: JSONObject) -> String {
        var hash = XXHash64()
        hash.update(JSONValue.object(object).text(indented: false))
        return hash.hexadecimal
    }

    /// - Throws: `CheckpointError.damaged` when it is missing, unreadable or changed; `unsupported` for a later version.
    init(folder: String) throws {
        let path = folder + "/" + Self.fileName
        guard pathExists(path) else { throw CheckpointError(.damaged, path, "the manifest is missing") }
        let file = try MappedFile(path: path)
        self = try withExtendedLifetime(file) { try CheckpointManifest(bytes: file.bytes, path: path) }
    }

    /// - Throws: as ``init(folder:)``.
    init(bytes: UnsafeRawBufferPointer, path: String) throws {
        func damaged(_ message: String) -> CheckpointError { CheckpointError(.damaged, path, message) }
        guard let value = try? JSONParser.parse(bytes, rejectsDuplicates: true), var object = value.objectValue
        else { throw damaged("the manifest is not JSON") }
        guard let digest = object.removeValue(forKey: "xxh64")?.stringValue, digest == Self.digest(object) else {
            throw damaged("the manifest does not match its own hash")
        }
        guard object["format"]?.stringValue == Self.format, let version = object["version"]?.intValue else {
            throw damaged("this is not a checkpoint's manifest")
        }
        guard Self.versions.contains(version) else {
            throw CheckpointError(
                .unsupported, path, "the checkpoint has version \(version); \(Self.versions) are read",
                remedy: "use the release that wrote it")
        }
        guard let step = object["step"]?.intValue, let entries = object["files"]?.arrayValue else {
            throw damaged("the manifest lacks its step or files")
        }
        self.step = step
        var pieces: [Piece] = []
        files = try entries.enumerated().map { index, value in
            guard let entry = value.objectValue, let file = WrittenFile(entry, deep: version > 1) else {
                throw damaged("the manifest has a bad entry")
            }
            for tensor in entry["tensors"]?.arrayValue ?? [] {
                guard let piece = Piece(tensor, file: index) else {
                    throw damaged("the manifest has a bad tensor in '\(file.name)'")
                }
                pieces.append(piece)
            }
            return file
        }
        if version == 1 {
            sharding = nil
        } else {
            guard let ranks = object["ranks"]?.intValue, ranks > 0, let mesh = object["mesh"]?.stringValue else {
                throw damaged("the manifest lacks its ranks")
            }
            sharding = Sharding(ranks: ranks, mesh: mesh, pieces: pieces)
        }
    }
}

extension CheckpointManifest.Piece {
    var object: JSONObject {
        [
            "name": .string(box.name), "key": .string(key), "dtype": .string(dtype.safetensorsName),
            "shape": .array(box.shape.map(JSONValue.int)),
            "box": .array(box.ranges.map { .array([.int($0.lowerBound), .int($0.upperBound)]) }),
            "offset": .int(offset),
        ]
    }

    /// nil for what is no such object, or a box outside of its tensor.
    init?(_ value: JSONValue, file: Int) {
        guard let object = value.objectValue, let name = object["name"]?.stringValue,
            let key = object["key"]?.stringValue,
            let dtype = object["dtype"]?.stringValue.flatMap(DType.init(safetensors:)),
            let sizes = object["shape"]?.arrayValue, let bounds = object["box"]?.arrayValue,
            sizes.count == bounds.count,
            let offset = object["offset"]?.intValue, offset >= 0
        else { return nil }
        var shape: [Int] = [], ranges: [Range<Int>] = []
        for (size, bound) in zip(sizes, bounds) {
            guard let size = size.intValue, let bound = bound.arrayValue, bound.count == 2, let low = bound[0].intValue,
                let high = bound[1].intValue, low >= 0, low <= high, high <= size
            else { return nil }
            shape.append(size)
            ranges.append(low..<high)
        }
        guard Checkpoints.byteCount(shape, elementSize: dtype.size) != nil else { return nil }
        self.init(
            file: file, key: key, box: ShardBox(name: name, shape: shape, ranges: ranges), dtype: dtype, offset: offset)
    }
}

extension WrittenFile {
    var object: JSONObject { ["name": .string(name), "size": .int(size), "xxh64": .string(digest)] }

    /// - Parameter deep: whether a file may lie in a folder of the checkpoint's.
    init?(_ object: JSONObject, deep: Bool) {
        guard let name = object["name"]?.stringValue, let size = object["size"]?.intValue, size >= 0,
            let digest = object["xxh64"]?.stringValue
        else { return nil }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count <= (deep ? 3 : 1), parts.allSatisfy(SafetensorsModel.isPlainName) else { return nil }
        self.init(name: name, size: size, digest: digest)
    }

    /// - Throws: `CheckpointError.damaged` when the file is missing or differs from what was written.
    func verify(in folder: String) throws {
        let path = folder + "/" + name
        guard pathExists(path) else { throw CheckpointError(.damaged, path, "the file is missing") }
        let file = try MappedFile(path: path)
        guard file.count == size else {
            throw CheckpointError(.damaged, path, "the file has \(file.count) bytes, but \(size) were written")
        }
        file.willNeed(0..<file.count)
        var hash = XXHash64()
        withExtendedLifetime(file) { hash.update(file.bytes) }
        guard hash.hexadecimal == digest else {
            throw CheckpointError(
                .damaged, path, "the content hashes to \(hash.hexadecimal), but \(digest) was written")
        }
    }
}
