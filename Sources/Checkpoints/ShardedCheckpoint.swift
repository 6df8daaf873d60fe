public import Collectives
internal import TensorCore

/// A checkpoint that several ranks wrote, to be read by any number of ranks in any layout.
public struct ShardedCheckpoint {
    public let step: Int
    public let folder: String
    /// How many ranks wrote it, and in which layout.
    public let ranks: Int
    public let mesh: String
    private let manifest: CheckpointManifest
    private let pieces: [String: [CheckpointManifest.Piece]]

    static let modelFolder = "model", statesFolder = "states", ranksFolder = "ranks"

    init(_ manifest: CheckpointManifest, _ sharding: CheckpointManifest.Sharding, folder: String) {
        self.manifest = manifest
        self.folder = folder
        step = manifest.step
        ranks = sharding.ranks
        mesh = sharding.mesh
        pieces = Dictionary(grouping: sharding.pieces, by: \.box.name)
    }

    /// What the manifest of a checkpoint's folder says, its files not verified; nil where one process wrote it.
    /// - Throws: `CheckpointError`: `damaged`, `unsupported`.
    public static func open(_ folder: String) throws -> ShardedCheckpoint? {
        let manifest = try CheckpointManifest(folder: folder)
        return manifest.sharding.map { ShardedCheckpoint(manifest, $0, folder: folder) }
    }

    /// The weights as a Hugging Face folder.
    public var modelFolder: String { folder + "/" + Self.modelFolder }

    /// The names of all tensors, weights and states, sorted by their bytes.
    public var tensorNames: [String] { pieces.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) } }

    /// Bytes of all files.
    public var byteCount: Int { manifest.files.reduce(0) { $0 + $1.size } }
    public var fileCount: Int { manifest.files.count }

    public func contains(_ name: String) -> Bool { pieces[name] != nil }

    public func shape(of name: String) -> [Int]? { pieces[name]?.first?.box.shape }

    /// What rank `rank` of those that wrote it kept for itself, such as its random states; nil when there is no such rank, or it kept
    /// nothing.
    public func rankState(_ rank: Int) throws -> [UInt8]? {
        let name = Self.rankFile(rank)
        guard manifest.files.contains(where: { $0.name == name }) else { return nil }
        return try MappedFile.contents(of: folder + "/" + name)
    }

    static func rankFile(_ rank: Int) -> String { "\(ranksFolder)/rank-\(padded(rank, 5)).json" }

    /// Fills `targets` with their boxes of the tensors of their names, converted to their types. Only the bytes that lie in the boxes are
    /// read: runs by threads in the order of the disk, strided parts through the page cache.
    ///
    /// - Throws: `CheckpointError` before anything is read: `missingTensor` with the range that no file holds, `malformed` for another
    ///   shape; `damaged` when a file is not what the manifest says.
    @discardableResult
    public func fill(_ targets: [LocalShard]) throws -> LoadStatistics {
        var parts: [Part] = []
        for target in targets { parts += try self.parts(of: target) }
        var files: [Int: SafetensorsFile] = [:]
        for part in parts where files[part.piece.file] == nil {
            files[part.piece.file] = try SafetensorsFile(path: folder + "/" + manifest.files[part.piece.file].name)
        }
        var order: [Int: Int] = [:], opened: [SafetensorsFile] = []
        for index in files.keys.sorted() {
            order[index] = opened.count
            opened.append(files[index]!)
        }
        var runs: [(file: Int, entry: SafetensorsFile.Entry)] = [], places: [Tensor] = [], strided = 0
        for part in parts {
            let piece = part.piece, file = opened[order[piece.file]!]
            guard let entry = try? file.entry(named: piece.key), entry.dtype == piece.dtype,
                entry.shape == piece.box.sizes,
                entry.range.lowerBound == piece.offset
            else {
                throw CheckpointError(
                    .damaged, file.path,
                    "'\(piece.key)' is not where and what the manifest says: \(piece.dtype)\(piece.box.sizes)")
            }
            let view = try part.target.view(of: part.box)
            if view.isContiguous, let first = piece.box.firstElement(ofRun: part.box) {
                let start = entry.range.lowerBound + first * entry.dtype.size
                let range = start..<start + part.box.count * entry.dtype.size
                runs.append((order[piece.file]!, .init(dtype: entry.dtype, shape: part.box.sizes, range: range)))
                places.append(view)
            } else {
                let stored = LocalShard(box: piece.box, tensor: try file.tensor(named: piece.key))
                try withNoGrad { try view.detached().copy(from: stored.view(of: part.box)) }
                strided += part.box.count * entry.dtype.size
            }
        }
        let plan = LoadPlan(opened, runs.map { (file: $0, entry: $1, box: nil) })
        var statistics = try withNoGrad {
            try StagedLoad(plan, places, modes: plan.modes(available: availableMemory())).run()
        }
        statistics.bytes += strided
        return statistics
    }

    private struct Part {
        let target: LocalShard
        let piece: CheckpointManifest.Piece
        let box: ShardBox
    }

    private func parts(of target: LocalShard) throws -> [Part] {
        let box = target.box
        guard let stored = pieces[box.name] else {
            throw CheckpointError(.missingTensor, folder, "there is no tensor '\(box.name)'")
        }
        guard stored[0].box.shape == box.shape else {
            throw CheckpointError(
                .malformed, folder, "tensor '\(box.name)' has shape \(stored[0].box.shape), \(box.shape) is wanted")
        }
        var missing = box.count == 0 ? [] : [box], parts: [Part] = []
        for piece in stored where !missing.isEmpty {
            var rest: [ShardBox] = []
            for region in missing {
                if let common = region.intersection(piece.box) {
                    parts.append(Part(target: target, piece: piece, box: common))
                }
                rest += region.subtracting(piece.box)
            }
            missing = rest
        }
        if let gap = missing.first {
            throw CheckpointError(
                .missingTensor, folder, "no file holds \(gap.summary)",
                remedy: "the checkpoint lacks the part of a rank")
        }
        return parts
    }
}

extension ShardBox {
    /// Where in this box's elements, in row-major order, those of `part` begin, when they follow one another; nil when they do not.
    func firstElement(ofRun part: ShardBox) -> Int? {
        var first = 0, stride = 1, isWhole = true
        for dim in ranges.indices.reversed() {
            // Once a dimension is cut, those before it must be a single index.
            if !isWhole, part.ranges[dim].count > 1 { return nil }
            if part.ranges[dim] != ranges[dim] { isWhole = false }
            first += (part.ranges[dim].lowerBound - ranges[dim].lowerBound) * stride
            stride *= ranges[dim].count
        }
        return first
    }
}
