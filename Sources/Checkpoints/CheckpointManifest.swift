internal import OrderedCollections

/// `manifest.json`: what a checkpoint's folder must hold.
struct CheckpointManifest {
    static let fileName = "manifest.json"
    static let stateName = "state.json"
    static let tensorsName = "tensors"
    private static let format = "fledge-checkpoint"
    private static let version = 1

    let step: Int
    let files: [WrittenFile]

    init(step: Int, files: [WrittenFile]) {
        self.step = step
        self.files = files
    }

    private var object: JSONObject {
        [
            "format": .string(Self.format), "version": .int(Self.version), "step": .int(step),
            "files": .array(
                files.map {
                    .object(["name": .string($0.name), "size": .int($0.size), "xxh64": .string($0.digest)])
                }),
        ]
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
        func damaged(_ message: String) -> CheckpointError { CheckpointError(.damaged, path, message) }
        guard pathExists(path) else { throw damaged("the manifest is missing") }
        let file = try MappedFile(path: path)
        guard let value = try? JSONParser.parse(file.bytes, rejectsDuplicates: true), var object = value.objectValue
        else { throw damaged("the manifest is not JSON") }
        guard let digest = object.removeValue(forKey: "xxh64")?.stringValue, digest == Self.digest(object) else {
            throw damaged("the manifest does not match its own hash")
        }
        guard object["format"]?.stringValue == Self.format, let version = object["version"]?.intValue else {
            throw damaged("this is not a checkpoint's manifest")
        }
        guard version == Self.version else {
            throw CheckpointError(
                .unsupported, path, "the checkpoint has version \(version); \(Self.version) is read",
                remedy: "use the release that wrote it")
        }
        guard let step = object["step"]?.intValue, let entries = object["files"]?.arrayValue else {
            throw damaged("the manifest lacks its step or files")
        }
        self.step = step
        files = try entries.map { entry in
            guard let entry = entry.objectValue, let name = entry["name"]?.stringValue,
                let size = entry["size"]?.intValue, let digest = entry["xxh64"]?.stringValue, !name.contains("/")
            else { throw damaged("the manifest has a bad entry") }
            return WrittenFile(name: name, size: size, digest: digest)
        }
    }
}

extension WrittenFile {
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
