/// Where a loader is: enough to go on exactly there.
public struct LoaderState: Hashable, Sendable, Codable {
    public var seed: UInt64
    /// Passes over the data that are complete.
    public var epoch: Int
    /// Rows of this pass that were handed out.
    public var position: Int
    /// Rows of the source, to notice another dataset on resume.
    public var rowCount: Int
    public var batchSize: Int
    public var shuffles: Bool
    public var dropsLast: Bool
    /// How many rows of each part a pass has, where parts are mixed; nil where they are not.
    public var mix: [Int]?
    /// `PromptSource.fingerprint`, where the source has one.
    public var fingerprint: UInt64?
}

/// Hands out rows of a source by their places, pass after pass, each pass in an order of its own that the seed decides.
public struct RowLoader: Sendable {
    /// The shares of the source's parts; nil where each row comes once in a pass.
    public let mix: PromptMix?
    /// Passes to make; nil is no end.
    public let epochs: Int?
    public private(set) var state: LoaderState
    private var order: [UInt32] = []
    private var orderEpoch: Int?

    /// - Parameters:
    ///   - count: rows of the source.
    ///   - fingerprint: tells these rows from others; nil for none.
    ///   - mix: the shares of the source's parts; nil for each row once in a pass.
    ///   - batchSize: rows in a batch (verl's `data.train_batch_size`).
    ///   - shuffles: whether each pass has its own order (verl's `data.shuffle`); else the source's.
    ///   - dropsLast: whether a last batch of fewer rows is left out. verl does so in training, so that every step has
    ///     the same size, and not in validation.
    /// - Throws: `DatasetError.empty` when a pass would have no batch, `.badSetting` for a batch size under 1.
    public init(
        count: Int, fingerprint: UInt64? = nil, mix: PromptMix? = nil, batchSize: Int, seed: UInt64,
        shuffles: Bool = true, dropsLast: Bool = true, epochs: Int? = nil
    ) throws {
        guard batchSize > 0 else {
            throw DatasetError(.badSetting, "a batch of \(batchSize) rows; data.train_batch_size must be at least 1")
        }
        guard count > 0 else { throw DatasetError(.empty, "the dataset has no rows") }
        guard !dropsLast || count >= batchSize else {
            throw DatasetError(
                .empty, "\(count) rows make no full batch of \(batchSize); lower data.train_batch_size or add rows")
        }
        self.mix = mix
        self.epochs = epochs
        state = LoaderState(
            seed: seed, epoch: 0, position: 0, rowCount: count, batchSize: batchSize, shuffles: shuffles,
            dropsLast: dropsLast, mix: mix?.quotas, fingerprint: fingerprint)
    }

    /// Goes on where `saved` was taken.
    /// - Throws: `DatasetError.stateMismatch` when the data or the settings are others than then.
    public mutating func restore(_ saved: LoaderState) throws {
        var expected = state
        expected.epoch = saved.epoch
        expected.position = saved.position
        // A position that was saved before there were fingerprints has none.
        if saved.fingerprint == nil { expected.fingerprint = nil }
        guard saved == expected, saved.epoch >= 0, (0...saved.rowCount).contains(saved.position) else {
            throw DatasetError(
                .stateMismatch,
                "the saved position \(saved) is not one of this loader, \(state); use the run's own data settings")
        }
        (state.epoch, state.position) = (saved.epoch, saved.position)
    }

    /// Batches in a pass.
    public var batchesPerEpoch: Int {
        state.dropsLast
            ? state.rowCount / state.batchSize : (state.rowCount + state.batchSize - 1) / state.batchSize
    }

    /// The next batch's pass and rows; nil when all passes are made.
    public mutating func next() -> (epoch: Int, indices: [Int])? {
        var (epoch, position) = (state.epoch, state.position)
        let left = state.rowCount - position
        if left == 0 || (state.dropsLast && left < state.batchSize) { (epoch, position) = (epoch + 1, 0) }
        if let epochs, epoch >= epochs { return nil }
        if orderEpoch != epoch { arrange(epoch) }
        let end = min(state.rowCount, position + state.batchSize)
        let indices = (position..<end).map { order.isEmpty ? $0 : Int(order[$0]) }
        (state.epoch, state.position) = (epoch, end)
        return (epoch, indices)
    }

    private mutating func arrange(_ epoch: Int) {
        orderEpoch = epoch
        if let mix {
            order = mix.order(pass: epoch, seed: state.seed, shuffles: state.shuffles)
            return
        }
        guard state.shuffles else { return }
        var generator = SplitMix64(seed: state.seed, part: UInt64(epoch))
        order = generator.permutation(count: state.rowCount)
    }
}
