import TrainingEngine

/// The reference's log-probabilities of a dataset's rows, computed once, before the weights move, and used in every epoch.
///
/// Rows are computed in blocks with fixed borders, so that a row's bits do not depend on which others are wanted: a resumed run
/// has the same.
struct ReferenceTable: Sendable {
    static let block = 64
    private var values: [Int: [Float]] = [:]

    init() {}

    /// - Parameters:
    ///   - rows: the rows that will be asked for.
    ///   - compute: each example's sums, in order.
    init(
        of rows: Set<Int>, in dataset: SupervisedDataset,
        compute: ([SupervisedExample]) async throws -> [[Float]]
    ) async throws {
        for block in Set(rows.map { $0 / Self.block }).sorted() {
            let indices = Array(block * Self.block..<min((block + 1) * Self.block, dataset.count))
            for (index, sums) in zip(indices, try await compute(dataset.examples(indices))) { values[index] = sums }
        }
    }

    /// `examples`, which are these rows, with their references.
    func added(to examples: [SupervisedExample], rows: [Int]) -> [SupervisedExample] {
        if values.isEmpty { return examples }
        return zip(examples, rows).map { example, row in
            guard let sums = values[row] else { preconditionFailure("row \(row) has no reference") }
            var example = example
            example.references = sums
            return example
        }
    }
}
