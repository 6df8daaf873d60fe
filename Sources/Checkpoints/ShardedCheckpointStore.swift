public import Collectives
public import TensorCore

/// A folder of checkpoints that several ranks write together, each its part, while training goes on; a single rank is a special case.
/// Checkpoints of ``CheckpointStore`` in the same folder are found too.
///
/// A checkpoint's folder holds `model` (a Hugging Face folder), `states` (optimizer states, by boxes), `ranks` (what each rank keeps for
/// itself), `state.json` and, written last, `manifest.json`. All ranks must see the same folder. Every method must be called by all
/// ranks in the same order.
public final class ShardedCheckpointStore {
    /// What a rank gives to a checkpoint.
    public struct Contents {
        public var step: Int
        public var mesh: MeshShape
        /// The weights that this rank holds, under the checkpoint's names.
        public var model: [LocalShard]
        /// What the weights are written as.
        public var modelDType: DType
        /// Optimizer states, master weights: boxes of tensors whose names no weight has.
        public var states: [LocalShard] = []
        /// For the same rank of the same layout alone, such as random states; by custom JSON.
        public var rankState: [UInt8] = []
        /// Of rank 0: everything else, by custom JSON.
        public var state: [UInt8] = []
        /// Of rank 0: `config.json`, and tokenizer files, of the model's folder.
        public var config: ModelConfig?
        public var companions: [HuggingFaceExporter.CompanionFile] = []

        public init(step: Int, mesh: MeshShape, model: [LocalShard], modelDType: DType) {
            self.step = step
            self.mesh = mesh
            self.model = model
            self.modelDType = modelDType
        }
    }

    public let folder: String
    private let store: CheckpointStore
    private let group: ProcessGroup?
    private let device: Device
    private let partTimeout: Duration
    private let maxShardBytes: Int
    private let snapshot = ShardedSnapshot()
    private var writing: (step: Int, writer: ShardedWriter)?
    private var known: (model: ShardLayout, parts: ShardedParts, gathering: ShardedSnapshot.ModelGathering)?

    private var rank: Int { group?.rank ?? 0 }
    private var size: Int { group?.size ?? 1 }

    /// Opens the store; rank 0 makes its folder, and removes what interrupted saves left behind.
    ///
    /// - Parameters:
    ///   - keepLast: how many checkpoints to keep, 1 or more.
    ///   - group: all ranks; nil for one.
    ///   - device: where the weights, and the group's tensors, lie.
    ///   - partTimeout: how long rank 0 waits for another rank's part.
    public init(
        folder: String, keepLast: Int, group: ProcessGroup?, device: Device, partTimeout: Duration = .seconds(1800),
        maxShardBytes: Int = SafetensorsWriter.defaultShardBytes, fileSystem: any FileSystem = POSIXFileSystem()
    ) throws {
        self.folder = folder
        self.group = group
        self.device = device
        self.partTimeout = partTimeout
        self.maxShardBytes = maxShardBytes
        let isFirst = (group?.rank ?? 0) == 0
        var opened: CheckpointStore?
        try Self.together(group, device) {
            if isFirst { opened = try CheckpointStore(folder: folder, keepLast: keepLast, fileSystem: fileSystem) }
        }
        store = try opened ?? CheckpointStore(existing: folder, keepLast: keepLast, fileSystem: fileSystem)
    }

    // MARK: - Saving

    /// Takes copies of everything in host memory and returns; threads write them. Waits for the save before first.
    ///
    /// - Throws: what went wrong in the save before, on any rank; `CheckpointError.diskFull` with both numbers before anything is
    ///   written; `duplicate` for a state that is named as a weight. The checkpoints that were there stay.
    public func save(_ contents: Contents) throws {
        try settle()
        let model = try ShardLayout.exchanged(contents.model.map(\.spec), group, device: device)
        let states = try ShardLayout.exchanged(contents.states.map(\.spec), group, device: device)
        let (isTied, dtype) = try agreed(contents)
        var contents = contents
        contents.modelDType = dtype
        let parts = ShardedParts(
            model: model, states: states, dtype: dtype, isTied: isTied, maxShardBytes: maxShardBytes)
        let temporary = store.temporaryPath(of: contents.step)
        try Self.together(group, device) {
            if rank == 0 { try begin(contents, parts, model, temporary) }
        }
        let gathering: ShardedSnapshot.ModelGathering
        if let known, known.model == model, known.parts.modelFiles.map(\.tensors) == parts.modelFiles.map(\.tensors) {
            gathering = known.gathering
        } else {
            gathering = try ShardedSnapshot.ModelGathering(model, parts, group)
        }
        known = (model, parts, gathering)

        snapshot.reset()
        let whole = try snapshot.gather(contents.model, parts, gathering, device: device)
        let own = parts.states[rank]
        let copies = try snapshot.copy(own.map { contents.states[$0].tensor })
        try device.synchronize()
        var files: [(name: String, bytes: [UInt8])] = []
        if !contents.rankState.isEmpty { files.append((ShardedCheckpoint.rankFile(rank), contents.rankState)) }
        if rank == 0 { files += smallFiles(contents, parts) }
        let writer = ShardedWriter(
            .init(
                store: store, step: contents.step, rank: rank, ranks: size, mesh: contents.mesh.description,
                model: parts.modelFiles.filter { $0.writer == rank }.map { file in
                    (file.name, file.tensors.map { ($0.box.name, whole[$0.box.name]!) })
                },
                states: zip(own, copies).map { (contents.states[$0].box, $1) }, files: files, partTimeout: partTimeout))
        writing = (contents.step, writer)
    }

    /// Waits until the checkpoint under way is whole.
    /// - Throws: on every rank, what went wrong on any.
    public func settle() throws {
        guard let writing else { return }
        self.writing = nil
        do {
            try Self.together(group, device) { try writing.writer.wait() }
        } catch {
            // No rank writes any more; the first error is the one to tell.
            if rank == 0 { try? store.fileSystem.remove(store.temporaryPath(of: writing.step)) }
            throw error
        }
    }

    private func begin(
        _ contents: Contents, _ parts: ShardedParts, _ model: ShardLayout, _ temporary: String
    ) throws {
        guard contents.step >= 0 else {
            throw CheckpointError(.configuration, folder, "the step \(contents.step) is negative")
        }
        let weights = Set(model.ranks.joined().map(\.box.name))
        if let both = parts.stateLayout.ranks.joined().first(where: { weights.contains($0.box.name) }) {
            throw CheckpointError(.duplicate, folder, "a weight and a state are both named '\(both.box.name)'")
        }
        let small =
            smallFiles(contents, parts).reduce(0) { $0 + $1.bytes.count } + size * (65536 + contents.rankState.count)
        try requireSpace(parts.estimatedBytes + UInt64(small), at: folder, store.fileSystem)
        try store.fileSystem.remove(temporary)
        for name in [
            "", ShardedWriter.partsFolder, ShardedCheckpoint.modelFolder, ShardedCheckpoint.statesFolder,
            ShardedCheckpoint.ranksFolder,
        ] {
            try store.fileSystem.createDirectory(name.isEmpty ? temporary : temporary + "/" + name)
        }
        for file in contents.companions {
            guard HuggingFaceExporter.isPlain(file.name) else {
                throw CheckpointError(.unsafePath, folder, "'\(file.name)' is not a plain file name")
            }
            if file.name.contains("/") {
                try store.fileSystem.createDirectory(
                    parentFolder("\(temporary)/\(ShardedCheckpoint.modelFolder)/\(file.name)"))
            }
        }
    }

    private func smallFiles(_ contents: Contents, _ parts: ShardedParts) -> [(name: String, bytes: [UInt8])] {
        let model = ShardedCheckpoint.modelFolder + "/"
        var files = [(name: CheckpointManifest.stateName, bytes: contents.state)]
        if let config = contents.config {
            files.append((model + "config.json", Array(config.naming(dtype: contents.modelDType).text.utf8)))
        }
        for file in contents.companions { files.append((model + file.name, file.bytes)) }
        if let index = parts.index { files.append((model + "model.safetensors.index.json", index)) }
        return files
    }

    /// Rank 0's configuration decides, since only that one is written, and its type: others may hold states alone.
    private func agreed(_ contents: Contents) throws -> (isTied: Bool, dtype: DType) {
        struct Own: Codable {
            var isTied: Bool
            var dtype: DType
        }
        let own = Own(
            isTied: try contents.config?.bool("tie_word_embeddings", default: false) ?? false,
            dtype: contents.modelDType)
        let first = try group?.exchange(own, device: device)[0] ?? own
        return (first.isTied, first.dtype)
    }

    // MARK: - Loading

    /// The steps that have a checkpoint, in ascending order; not validated.
    public func steps() throws -> [Int] { try store.steps() }

    /// The checkpoint of the highest step that is whole, with those that were passed over because they are damaged; nil when there is
    /// none. The ranks share the reading of every byte, and come to one answer.
    public func latest() throws -> (checkpoint: CheckpointStore.Checkpoint?, skipped: [CheckpointStore.Skipped]) {
        try settle()
        var skipped: [CheckpointStore.Skipped] = []
        let own = try rank == 0 ? store.steps() : []
        let steps = try group?.exchange(own, device: device)[0] ?? own
        for step in steps.reversed() {
            do {
                return (try load(step), skipped)
            } catch let error as CheckpointError {
                skipped.append(CheckpointStore.Skipped(step: step, reason: error))
            }
        }
        return (nil, skipped)
    }

    /// Opens the checkpoint of `step`.
    /// - Throws: on every rank, what any found: `notFound`, `damaged` with the file and what does not match.
    public func load(_ step: Int) throws -> CheckpointStore.Checkpoint {
        try Self.load(step, store, group, device)
    }

    /// Opens one checkpoint by its folder, `…/step-000123`, as ``load(_:)`` does.
    public static func checkpoint(
        at path: String, group: ProcessGroup?, device: Device
    ) throws -> CheckpointStore.Checkpoint {
        let (folder, step) = try CheckpointStore.place(path)
        return try load(step, CheckpointStore(reading: folder), group, device)
    }

    private static func load(
        _ step: Int, _ store: CheckpointStore, _ group: ProcessGroup?, _ device: Device
    ) throws -> CheckpointStore.Checkpoint {
        var found: CheckpointStore.Checkpoint?
        // What is opened was verified by all before: what is damaged is told as that, not as what it led to.
        try together(group, device) { try store.verify(step, share: (group?.rank ?? 0, group?.size ?? 1)) }
        try together(group, device) { found = try store.open(step) }
        return found!
    }

    /// Removes every checkpoint, for a run that begins anew in the same folder.
    public func removeAll() throws {
        try settle()
        try Self.together(group, device) { if rank == 0 { try store.removeAll() } }
    }

    /// Runs `body` on every rank; when it fails on any, all throw: a rank's own error, unless that only says that another failed, else
    /// that of the first rank that has one.
    private static func together(_ group: ProcessGroup?, _ device: Device, _ body: () throws -> Void) throws {
        guard let group else { return try body() }
        var own: (any Error)?
        do { try body() } catch { own = error }
        let all = try group.exchange(own.map(Verdict.init), device: device).compactMap(\.self)
        if let own, (own as? CheckpointError)?.code != .otherRank { throw own }
        if let first = all.first(where: { $0.code != CheckpointError.Code.otherRank.name }) ?? all.first {
            throw first.error
        }
    }

    private struct Verdict: Codable {
        var code, place, message, remedy: String
        var needed, free: UInt64?

        init(_ error: any Error) {
            let known = error as? CheckpointError
            code = known?.code.name ?? CheckpointError.Code.inputOutput.name
            place = known?.place ?? "checkpoint"
            message = known?.message ?? "\(error)"
            remedy = known?.remedy ?? ""
            needed = known?.neededBytes
            free = known?.freeBytes
        }

        var error: CheckpointError {
            CheckpointError(.init(code), place, message, remedy: remedy, neededBytes: needed, freeBytes: free)
        }
    }
}
