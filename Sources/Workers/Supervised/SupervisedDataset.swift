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

    /// What encoding a row shows.
    struct Measured: Codable, Sendable {
        var isKept: Bool
        var longest: Int
        var hasMargin: Bool

        init(isKept: Bool, longest: Int, hasMargin: Bool) {
            self.isKept = isKept
            self.longest = longest
            self.hasMargin = hasMargin
        }

        // One number a row: ranks tell one another of all rows.
        init(from decoder: any Decoder) throws {
            let code = try decoder.singleValueContainer().decode(Int.self)
            self.init(isKept: code & 1 != 0, longest: code >> 2, hasMargin: code & 2 != 0)
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            try container.encode(longest << 2 | (hasMargin ? 2 : 0) | (isKept ? 1 : 0))
        }
    }

    /// Files of which every row is encoded once, on all cores, so that a bad one is found before training and not in its middle.
    struct Rows: Sendable {
        let files: SupervisedFiles
        let encoder: SupervisedEncoder
        let measured: [Measured]

        /// - Parameters:
        ///   - part: which part of the rows to encode, and of how many: ranks take one each.
        ///   - onRow: called for each.
        /// - Throws: `DatasetError` with file and line.
        init(
            paths: [String], columns: SupervisedColumns, encoder: SupervisedEncoder, part: (Int, of: Int) = (0, of: 1),
            onRow: @Sendable () -> Void = {}
        ) throws {
            let files = try SupervisedFiles(paths: paths, columns: columns)
            let start = files.count * part.0 / part.of, end = files.count * (part.0 + 1) / part.of
            measured = try Parallel.map(end - start, grain: 32) { index in
                onRow()
                let encoded = try encoder.encode(files.row(at: start + index))
                return Measured(
                    isKept: encoded.example != nil, longest: encoded.longest, hasMargin: encoded.example?.margin != nil)
            }
            self.files = files
            self.encoder = encoder
        }
    }

    init(paths: [String], columns: SupervisedColumns, encoder: SupervisedEncoder) throws {
        let rows = try Rows(paths: paths, columns: columns, encoder: encoder)
        try self.init(rows, measured: rows.measured)
    }

    /// - Parameter measured: of all rows.
    /// - Throws: `DatasetError` where none is left, or not all or none have a margin.
    init(_ rows: Rows, measured: [Measured]) throws {
        let files = rows.files, encoder = rows.encoder, limit = encoder.data.maxLength
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
                origin: files.origin(at: without), column: files.columns.margin)
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
