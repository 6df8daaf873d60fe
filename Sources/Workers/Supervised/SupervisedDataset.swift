import Config
import Datasets
import TrainingEngine

/// The rows of a run's files that can be learnt from; read and encoded when they are asked for, but checked at once.
struct SupervisedDataset: Sendable {
    private let files: SupervisedFiles
    private let encoder: SupervisedEncoder
    /// Places of the rows that are kept.
    private let kept: [Int]
    /// Rows that are left out, rows that are cut, tokens of the longest sequence and of all sequences.
    let dropped, cut, longest: Int

    var count: Int { kept.count }
    /// Of the rows, and of what the settings make of them.
    let fingerprint: UInt64

    /// Encodes every row once, on all cores, so that a bad one is found before training and not in its middle.
    /// - Throws: `DatasetError` with file and line.
    init(paths: [String], columns: SupervisedColumns, encoder: SupervisedEncoder) throws {
        let files = try SupervisedFiles(paths: paths, columns: columns)
        let limit = encoder.data.maxLength
        let measured = try Parallel.map(files.count, grain: 32) { index in
            let encoded = try encoder.encode(files.row(at: index))
            return (isKept: encoded.example != nil, longest: encoded.longest, hasMargin: encoded.example?.margin != nil)
        }
        self.files = files
        self.encoder = encoder
        kept = measured.indices.filter { measured[$0].isKept }
        dropped = measured.count - kept.count
        cut = kept.count { measured[$0].longest > limit }
        longest = measured.map(\.longest).max() ?? 0
        fingerprint = files.fingerprint ^ UInt64(truncatingIfNeeded: dropped)
        guard !kept.isEmpty else {
            throw DatasetError(
                .empty,
                "all \(files.count) rows are longer than data.max_length (\(limit)); the longest sequence has \(longest) "
                    + "tokens")
        }
        // A margin is part of every pair's loss or of none's.
        if let with = kept.first(where: { measured[$0].hasMargin }),
            let without = kept.first(where: { !measured[$0].hasMargin })
        {
            throw DatasetError(
                .badColumn, "missing, while \(files.origin(at: with)) has one; give every row a margin, or none",
                origin: files.origin(at: without), column: columns.margin)
        }
    }

    /// - Parameter index: among the kept rows.
    func example(at index: Int) throws -> SupervisedExample {
        guard let example = try encoder.encode(files.row(at: kept[index])).example else {
            preconditionFailure("row \(kept[index]) was kept and now is not")
        }
        return example
    }

    func examples(_ indices: [Int]) throws -> [SupervisedExample] {
        try Parallel.map(indices.count, grain: 8) { try example(at: indices[$0]) }
    }

    func questions() throws -> [HeldOutQuestion] {
        try Parallel.map(count, grain: 8) { try encoder.question(files.row(at: kept[$0])) }
    }
}
