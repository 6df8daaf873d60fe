internal import OrderedCollections
public import TensorCore

/// The safetensors of one folder, in one file or in shards under an index.
public final class SafetensorsModel {
    public let folder: String
    /// In the order of the index, or of the single file's data.
    public let tensorNames: [String]
    public let files: [SafetensorsFile]
    private let fileOf: [String: Int]

    /// Opens `NAME.safetensors.index.json` when it is there, else `NAME.safetensors`.
    ///
    /// - Throws: `CheckpointError`: a shard is missing, the index promises a tensor that its shard lacks, or a shard's name
    ///   leads out of the folder.
    public init(folder: String, name: String = "model") throws {
        self.folder = folder
        let indexPath = folder + "/" + name + ".safetensors.index.json"
        guard pathExists(indexPath) else {
            let file = try SafetensorsFile(path: folder + "/" + name + ".safetensors")
            files = [file]
            tensorNames = file.tensorNames
            fileOf = Dictionary(uniqueKeysWithValues: file.tensorNames.map { ($0, 0) })
            return
        }
        let index = try MappedFile(path: indexPath)
        try index.refuseGitLFSPointer()
        guard
            let map = try JSONParser.parse(index.bytes, from: indexPath, rejectsDuplicates: true)
                .objectValue?["weight_map"]?.objectValue
        else { throw CheckpointError(.malformed, indexPath, "there is no object 'weight_map'") }
        var numbers: OrderedDictionary<String, Int> = [:]
        var files: [SafetensorsFile] = []
        var fileOf: [String: Int] = [:]
        for (tensor, value) in map {
            guard case .string(let shard) = value else {
                throw CheckpointError(.malformed, indexPath, "the shard of tensor '\(tensor)' is \(value.kind)")
            }
            let number: Int
            if let known = numbers[shard] {
                number = known
            } else {
                files.append(try Self.open(shard, in: folder, indexPath))
                number = files.count - 1
                numbers[shard] = number
            }
            guard files[number].contains(tensor) else {
                throw CheckpointError(
                    .missingTensor, indexPath, "tensor '\(tensor)' should be in \(shard), which does not hold it",
                    remedy: "index and shards are of different models: fetch them again")
            }
            fileOf[tensor] = number
        }
        // What a shard holds beyond the index is the model's too: whoever builds it must not find it silently left out.
        var names = Array(map.keys)
        for (number, file) in files.enumerated() {
            for tensor in file.tensorNames where fileOf[tensor] != number {
                if let other = fileOf[tensor] {
                    throw CheckpointError(
                        .duplicate, indexPath,
                        "tensor '\(tensor)' is in two shards, \(numbers.keys[other]) and \(numbers.keys[number])",
                        remedy: "index and shards are of different models: fetch them again")
                }
                fileOf[tensor] = number
                names.append(tensor)
            }
        }
        self.files = files
        self.fileOf = fileOf
        tensorNames = names
    }

    private static func open(_ shard: String, in folder: String, _ indexPath: String) throws -> SafetensorsFile {
        guard isPlainName(shard) else {
            throw CheckpointError(.unsafePath, indexPath, "the shard name '\(shard)' is not a plain file name")
        }
        let path = folder + "/" + shard
        guard pathExists(path) else {
            throw CheckpointError(
                .notFound, path, "the shard that the index names is missing", remedy: "fetch the model again")
        }
        return try SafetensorsFile(path: path)
    }

    /// A shard is a plain file name: anything with a separator could point at any file on the machine.
    public static func isPlainName(_ shard: String) -> Bool {
        !shard.isEmpty && shard != "." && shard != ".." && !shard.utf8.contains(UInt8(ascii: "/"))
            && !shard.utf8.contains(UInt8(ascii: "\\")) && !shard.utf8.contains(0)
    }

    private func file(holding name: String) throws -> SafetensorsFile {
        guard let number = fileOf[name] else {
            throw CheckpointError(.missingTensor, folder, "there is no tensor '\(name)'")
        }
        return files[number]
    }

    public func contains(_ name: String) -> Bool { fileOf[name] != nil }

    public func entry(named name: String) throws -> SafetensorsFile.Entry {
        try file(holding: name).entry(named: name)
    }

    /// As ``SafetensorsFile/tensor(named:)``.
    public func tensor(named name: String) throws -> Tensor { try file(holding: name).tensor(named: name) }

    /// As ``ModelSource/load(_:mode:)``, shapes checked by the caller.
    func load(_ destinations: [TensorDestination], mode: ReadMode?) throws -> LoadStatistics {
        let entries = try destinations.map { destination in
            let entry = try entry(named: destination.name)
            return (file: fileOf[destination.name] ?? 0, entry: entry, box: destination.box)
        }
        let plan = LoadPlan(files, entries)
        let modes = mode.map { mode in files.map { _ in mode } } ?? plan.modes(available: availableMemory())
        return try StagedLoad(plan, destinations.map(\.tensor), modes: modes).run()
    }
}
