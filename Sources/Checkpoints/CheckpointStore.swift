internal import OrderedCollections
public import TensorCore

/// A folder of training checkpoints, `step-000123` each, that survives a kill at any moment.
///
/// A checkpoint is written into `tmp-…`, every file and the folder made durable, and renamed: what is called `step-…` is whole.
/// Its `manifest.json` holds the size and hash of every file, checked again when it is read. One process writes to a store at a
/// time.
public struct CheckpointStore {
    /// A checkpoint whose every byte matched its manifest when it was opened.
    public struct Checkpoint {
        public let step: Int
        public let folder: String
        /// What was passed to `save`.
        public let state: [UInt8]
        /// Of one process: its tensors; of several ranks: the weights alone, in ``ShardedCheckpoint/modelFolder``.
        public let tensors: SafetensorsModel
        /// What several ranks wrote; nil for a checkpoint of one process.
        public let sharded: ShardedCheckpoint?
    }

    /// A checkpoint that was passed over, and why.
    public struct Skipped: Sendable, CustomStringConvertible {
        public let step: Int
        public let reason: CheckpointError
        public var description: String { "skipped the checkpoint of step \(step): \(reason)" }
    }

    public let folder: String
    public let keepLast: Int
    let fileSystem: any FileSystem

    /// Opens the store, creating its folder; what interrupted saves left behind is removed.
    ///
    /// - Parameter keepLast: how many checkpoints to keep, 1 or more.
    public init(folder: String, keepLast: Int, fileSystem: any FileSystem = POSIXFileSystem()) throws {
        try self.init(existing: folder, keepLast: keepLast, fileSystem: fileSystem)
        if !pathExists(folder) {
            try fileSystem.createDirectory(folder)
            // A checkpoint is as durable as the folder that holds it.
            try fileSystem.syncDirectory(parentFolder(folder))
        }
        for name in try entries(of: folder) {
            if name.hasPrefix("tmp-") {
                try fileSystem.remove(folder + "/" + name)
            } else if name.hasPrefix("old-step-") {
                // Set aside for a replacement (see `install`): it comes back unless the replacement is there.
                let original = folder + "/" + name.dropFirst(4)
                if pathExists(original) {
                    try fileSystem.remove(folder + "/" + name)
                } else {
                    try fileSystem.rename(folder + "/" + name, to: original)
                }
            }
        }
    }

    /// A store to read from while another process may write to it: nothing is made, and nothing removed.
    public init(reading folder: String) throws {
        try self.init(existing: folder, keepLast: Int.max, fileSystem: POSIXFileSystem())
    }

    /// A store that another process has opened, and cleaned.
    init(existing folder: String, keepLast: Int, fileSystem: any FileSystem) throws {
        guard keepLast > 0 else {
            throw CheckpointError(.configuration, folder, "keepLast is \(keepLast); it must be 1 or more")
        }
        self.folder = folder
        self.keepLast = keepLast
        self.fileSystem = fileSystem
    }

    /// The steps that have a checkpoint, in ascending order; not validated.
    public func steps() throws -> [Int] {
        guard pathExists(folder) else { return [] }
        return try entries(of: folder).compactMap { name in
            guard name.hasPrefix("step-"), let step = Int(name.dropFirst(5)), Self.name(of: step) == name else {
                return nil
            }
            return step
        }.sorted()
    }

    private static func name(of step: Int) -> String { "step-" + padded(step, 6) }

    /// Where the checkpoint of `step` is, or would be.
    public func path(of step: Int) -> String { folder + "/" + Self.name(of: step) }

    /// Where the checkpoint of `step` is while it is written.
    func temporaryPath(of step: Int) -> String { folder + "/tmp-" + Self.name(of: step) }

    // MARK: Saving

    /// Writes a checkpoint, makes it durable, and only then removes those beyond `keepLast`. One of the same step is replaced.
    ///
    /// - Parameters:
    ///   - tensors: written straight from their memory; those not on the CPU are brought over one by one.
    ///   - state: everything else, by custom as JSON; stored as it is in `state.json`.
    /// - Throws: `CheckpointError.diskFull` before anything is written when there is not room enough, or during the write; the
    ///   checkpoints that were there stay in either case.
    public func save(
        step: Int, tensors: [(name: String, tensor: Tensor)], state: [UInt8],
        maxShardBytes: Int = SafetensorsWriter.defaultShardBytes
    ) throws {
        guard step >= 0 else { throw CheckpointError(.configuration, folder, "the step \(step) is negative") }
        let writer = try SafetensorsWriter(
            tensors, baseName: CheckpointManifest.tensorsName, maxShardBytes: maxShardBytes, fileSystem: fileSystem)
        try requireSpace(writer.estimatedBytes + UInt64(state.count) + 65536, at: folder, fileSystem)
        let temporary = temporaryPath(of: step)
        try fileSystem.remove(temporary)
        do {
            try fileSystem.createDirectory(temporary)
            var files = try writer.write(into: temporary)
            var stateWriter = try HashingWriter(fileSystem, folder: temporary, name: CheckpointManifest.stateName)
            try stateWriter.write(state)
            files.append(try stateWriter.finish())
            var manifest = try HashingWriter(fileSystem, folder: temporary, name: CheckpointManifest.fileName)
            try manifest.write(CheckpointManifest(step: step, files: files).bytes)
            _ = try manifest.finish()
            try fileSystem.syncDirectory(temporary)
            try install(temporary, step)
        } catch {
            // The first error is the one to tell; the next opening of the store removes what stays.
            try? fileSystem.remove(temporary)
            throw error
        }
        try prune(keeping: step)
    }

    /// Gives a finished and durable folder its name, and only then removes the checkpoints beyond `keepLast`.
    func commit(_ temporary: String, _ step: Int) throws {
        try install(temporary, step)
        try prune(keeping: step)
    }

    /// Gives the finished folder its name. A checkpoint of the same step is set aside first, under a name that the next opening
    /// knows, so that at every moment one of the two is found.
    private func install(_ temporary: String, _ step: Int) throws {
        let target = path(of: step)
        let aside = folder + "/old-" + Self.name(of: step)
        let replaces = pathExists(target)
        if replaces { try fileSystem.rename(target, to: aside) }
        do {
            try fileSystem.rename(temporary, to: target)
        } catch {
            // Best effort: a store that is opened again does the same.
            if replaces { try? fileSystem.rename(aside, to: target) }
            throw error
        }
        try fileSystem.syncDirectory(folder)
        if replaces { try fileSystem.remove(aside) }
    }

    /// Removes what is beyond `keepLast`: first steps above the one just saved (damaged ones that were passed over, or those of a
    /// run that was set back), then the lowest.
    private func prune(keeping saved: Int) throws {
        let others = try steps().filter { $0 != saved }
        var excess = others.filter { $0 > saved } + others.filter { $0 < saved }
        excess.removeLast(min(keepLast - 1, excess.count))
        for step in excess { try remove(step) }
    }

    /// Renamed first: a kill in the middle of a removal must not leave half a checkpoint under its name.
    private func remove(_ step: Int) throws {
        let doomed = folder + "/tmp-pruned-" + Self.name(of: step)
        try fileSystem.remove(doomed)
        try fileSystem.rename(path(of: step), to: doomed)
        try fileSystem.remove(doomed)
    }

    // MARK: Loading

    /// The checkpoint of the highest step that is whole, with those that were passed over because they are damaged; nil when
    /// there is none.
    public func latest() throws -> (checkpoint: Checkpoint?, skipped: [Skipped]) {
        var skipped: [Skipped] = []
        for step in try steps().reversed() {
            do {
                return (try load(step), skipped)
            } catch let error as CheckpointError {
                skipped.append(Skipped(step: step, reason: error))
            }
        }
        return (nil, skipped)
    }

    /// Opens the checkpoint of `step`, reading every byte to check it.
    ///
    /// - Throws: `CheckpointError`: `notFound`, `damaged` with the file and what does not match.
    public func load(_ step: Int) throws -> Checkpoint {
        try verify(step, share: (0, 1))
        return try open(step)
    }

    /// Reads every byte of a share of the files of the checkpoint of `step`, that of rank `share.rank` of `share.size` processes.
    func verify(_ step: Int, share: (rank: Int, size: Int)) throws {
        let place = path(of: step), files = try manifest(of: step).files
        for (index, file) in files.enumerated() where index % share.size == share.rank { try file.verify(in: place) }
    }

    /// Opens a checkpoint whose files were verified.
    func open(_ step: Int) throws -> Checkpoint {
        let place = path(of: step), manifest = try manifest(of: step)
        let state = try MappedFile.contents(of: place + "/" + CheckpointManifest.stateName)
        guard let sharding = manifest.sharding else {
            let tensors = try SafetensorsModel(folder: place, name: CheckpointManifest.tensorsName)
            return Checkpoint(step: step, folder: place, state: state, tensors: tensors, sharded: nil)
        }
        let sharded = ShardedCheckpoint(manifest, sharding, folder: place)
        return Checkpoint(
            step: step, folder: place, state: state, tensors: try SafetensorsModel(folder: sharded.modelFolder),
            sharded: sharded)
    }

    private func manifest(of step: Int) throws -> CheckpointManifest {
        let place = path(of: step)
        guard pathExists(place) else {
            let others = try steps().map(String.init).joined(separator: ", ")
            throw CheckpointError(
                .notFound, place, "there is no checkpoint of step \(step)",
                remedy: others.isEmpty ? "the store is empty" : "there are: \(others)")
        }
        let manifest = try CheckpointManifest(folder: place)
        guard manifest.step == step else {
            throw CheckpointError(.damaged, place, "the manifest is of step \(manifest.step)")
        }
        return manifest
    }
}

extension CheckpointStore {
    /// Opens one checkpoint by its folder, `…/step-000123`.
    /// - Throws: `CheckpointError`: `notFound` when the path is not such a folder, `damaged`.
    public static func checkpoint(at path: String) throws -> Checkpoint {
        let (folder, step) = try place(path)
        return try CheckpointStore(reading: folder).load(step)
    }

    /// The store and the step of a checkpoint's folder.
    static func place(_ path: String) throws -> (folder: String, step: Int) {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard let name = parts.last, name.hasPrefix("step-"), let step = Int(name.dropFirst(5)), pathExists(path) else {
            throw CheckpointError(
                .notFound, path, "this is no checkpoint", remedy: "name a folder such as RUN/checkpoints/step-000100")
        }
        let parent = parts.dropLast().joined(separator: "/")
        return (parent.isEmpty ? "." : parent, step)
    }

    /// Removes every checkpoint, for a run that begins anew in the same folder.
    public func removeAll() throws {
        for step in try steps() { try remove(step) }
    }
}
