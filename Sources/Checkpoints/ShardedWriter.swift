internal import Collectives
internal import Dispatch
internal import OrderedCollections
internal import Synchronization
internal import TensorCore

#if canImport(Musl)
    internal import Musl
#else
    internal import Glibc
#endif

/// The writing of one rank's part of a checkpoint, behind the back of training; that of rank 0 ends with the manifest, which makes the
/// checkpoint whole.
final class ShardedWriter: @unchecked Sendable {
    // Unchecked for the dispatch group alone, which any thread may use.
    /// What is written. Unchecked for the tensors: copies in host memory that nobody touches until ``wait()`` returned.
    struct Job: @unchecked Sendable {
        var store: CheckpointStore
        var step: Int
        var rank: Int
        var ranks: Int
        var mesh: String
        /// In the folder that rank 0 has made.
        var model: [(name: String, tensors: [(name: String, tensor: Tensor)])]
        var states: [(box: ShardBox, tensor: Tensor)]
        /// Small files, by their names in the checkpoint's folder.
        var files: [(name: String, bytes: [UInt8])]
        var partTimeout: Duration
    }

    /// What a rank wrote: files, and what of the tensors is in them.
    struct Part {
        var files: [WrittenFile] = []
        /// `file` counts within this part.
        var pieces: [CheckpointManifest.Piece] = []
    }

    private let outcome = Mutex<Result<Void, any Error>?>(nil)
    private let group = DispatchGroup()

    init(_ job: Job) {
        // A serial queue of its own is a thread of its own.
        DispatchQueue(label: "fledge.checkpoint").async(group: group) { [self] in
            let result = Result { try Self.write(job) }
            outcome.withLock { $0 = result }
        }
    }

    /// Returns when the part is written (rank 0: when the checkpoint is whole), or throws what went wrong.
    func wait() throws {
        group.wait()
        try outcome.withLock { $0 }?.get()
    }

    // MARK: - The thread's work

    static let partsFolder = "parts"

    private static func write(_ job: Job) throws {
        let folder = job.store.temporaryPath(of: job.step)
        do {
            let part = try writePart(job, folder)
            if job.rank > 0 { return try publish(part.bytes, job.rank, job.store.fileSystem, folder) }
            try finish(job, part, folder)
        } catch {
            // Rank 0 need not wait for this part: an empty file has room on a full disk too. The first error is the one to tell; what is
            // left over goes when all have ended.
            try? job.store.fileSystem.createFile(partPath(job.rank, folder) + ".failed").close()
            throw error
        }
    }

    private static func writePart(_ job: Job, _ folder: String) throws -> Part {
        var part = Part()
        let fileSystem = job.store.fileSystem
        func add(_ tensors: [(name: String, tensor: Tensor)], _ boxes: [String: ShardBox], _ name: String) throws {
            part.files.append(try SafetensorsWriter.writeFile(tensors, named: name, in: folder, fileSystem: fileSystem))
            // Read back: a header that does not parse is found now, not when it is needed.
            let written = try SafetensorsFile(path: folder + "/" + name)
            for key in written.tensorNames {
                let entry = try written.entry(named: key)
                part.pieces.append(
                    .init(
                        file: part.files.count - 1, key: key,
                        box: boxes[key] ?? ShardBox(whole: key, shape: entry.shape),
                        dtype: entry.dtype, offset: entry.range.lowerBound))
            }
        }
        for file in job.model { try add(file.tensors, [:], ShardedCheckpoint.modelFolder + "/" + file.name) }
        if !job.states.isEmpty {
            let keyed = job.states.map { (key: ShardedParts.key($0.box), state: $0) }
            try add(
                keyed.map { ($0.key, $0.state.tensor) },
                Dictionary(uniqueKeysWithValues: keyed.map { ($0.key, $0.state.box) }),
                "\(ShardedCheckpoint.statesFolder)/rank-\(padded(job.rank, 5)).safetensors")
        }
        for file in job.files {
            var writer = try HashingWriter(fileSystem, folder: folder, name: file.name)
            try writer.write(file.bytes)
            part.files.append(try writer.finish())
        }
        return part
    }

    private static func partPath(_ rank: Int, _ folder: String) -> String {
        "\(folder)/\(partsFolder)/rank-\(padded(rank, 5))"
    }

    /// Leaves a list of files for rank 0, whole or not at all.
    private static func publish(_ bytes: [UInt8], _ rank: Int, _ fileSystem: any FileSystem, _ folder: String) throws {
        let path = partPath(rank, folder), parent = parentFolder(path)
        var writer = try HashingWriter(
            fileSystem, folder: parent, name: String(path.dropFirst(parent.count + 1)) + ".tmp")
        try writer.write(bytes)
        _ = try writer.finish()
        try fileSystem.rename(path + ".tmp", to: path + ".part")
    }

    private static func finish(_ job: Job, _ own: Part, _ folder: String) throws {
        var files = own.files, pieces = own.pieces
        let fileSystem = job.store.fileSystem
        for rank in 1..<max(1, job.ranks) {
            let part = try Part(bytes: waitForPart(rank, job, folder), place: folder)
            pieces += part.pieces.map { piece in
                var piece = piece
                piece.file += files.count
                return piece
            }
            files += part.files
        }
        try fileSystem.remove(folder + "/" + partsFolder)
        let sharding = CheckpointManifest.Sharding(ranks: job.ranks, mesh: job.mesh, pieces: pieces)
        var manifest = try HashingWriter(fileSystem, folder: folder, name: CheckpointManifest.fileName)
        try manifest.write(CheckpointManifest(step: job.step, files: files, sharding: sharding).bytes)
        _ = try manifest.finish()
        for name in try entries(of: folder) where isDirectory(folder + "/" + name) {
            try fileSystem.syncDirectory(folder + "/" + name)
        }
        try fileSystem.syncDirectory(folder)
        try job.store.commit(folder, job.step)
    }

    /// Other ranks' parts come by way of the folder itself: a group's operations have their order on the training threads, and this is
    /// none of them.
    private static func waitForPart(_ rank: Int, _ job: Job, _ folder: String) throws -> [UInt8] {
        let name = partPath(rank, folder)
        let deadline = ContinuousClock.now + job.partTimeout
        var pause: UInt32 = 1000
        while true {
            if pathExists(name + ".part") { return try MappedFile.contents(of: name + ".part") }
            if pathExists(name + ".failed") {
                throw CheckpointError(.otherRank, folder, "rank \(rank) could not write its part of step \(job.step)")
            }
            guard ContinuousClock.now < deadline else {
                throw CheckpointError(
                    .inputOutput, folder,
                    "rank \(rank) has not written its part of step \(job.step) in \(job.partTimeout)",
                    remedy: "see what became of rank \(rank), and whether all ranks see this folder")
            }
            usleep(pause)
            pause = min(pause * 2, 50000)
        }
    }
}

extension ShardedWriter.Part {
    var bytes: [UInt8] {
        CheckpointManifest(step: 0, files: files, sharding: .init(ranks: 1, mesh: "", pieces: pieces)).bytes
    }

    /// - Throws: `CheckpointError.damaged`.
    init(bytes: [UInt8], place: String) throws {
        let manifest = try bytes.withUnsafeBytes { try CheckpointManifest(bytes: $0, path: place) }
        self.init(files: manifest.files, pieces: manifest.sharding?.pieces ?? [])
    }
}
