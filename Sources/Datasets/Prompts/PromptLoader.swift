/// Some rows of one pass.
public struct PromptBatch: Sendable {
    /// The pass over the data that these rows belong to, from 0.
    public let epoch: Int
    /// Each row's index in the source.
    public let indices: [Int]
    public let rows: [PromptRow]
}

/// Hands out batches of prompts, pass after pass: a ``RowLoader`` with the rows themselves.
public struct PromptLoader: Sendable {
    public let source: any PromptSource
    private var loader: RowLoader

    public var mix: PromptMix? { loader.mix }
    public var epochs: Int? { loader.epochs }
    public var state: LoaderState { loader.state }
    public var batchesPerEpoch: Int { loader.batchesPerEpoch }

    /// - Throws: what ``RowLoader`` does.
    public init(
        source: any PromptSource, mix: PromptMix? = nil, batchSize: Int, seed: UInt64, shuffles: Bool = true,
        dropsLast: Bool = true,
        epochs: Int? = nil
    ) throws {
        self.source = source
        loader = try RowLoader(
            count: source.count, fingerprint: source.fingerprint, mix: mix, batchSize: batchSize, seed: seed,
            shuffles: shuffles, dropsLast: dropsLast, epochs: epochs)
    }

    /// Goes on where `saved` was taken.
    /// - Throws: `DatasetError.stateMismatch` when the data or the settings are others than then.
    public mutating func restore(_ saved: LoaderState) throws { try loader.restore(saved) }

    /// The next batch; nil when all passes are made. A row that cannot be read leaves the position where it was.
    public mutating func next() throws -> PromptBatch? {
        var ahead = loader
        guard let (epoch, indices) = ahead.next() else { return nil }
        let rows = try indices.map { try source.row(at: $0) }
        loader = ahead
        return PromptBatch(epoch: epoch, indices: indices, rows: rows)
    }
}
