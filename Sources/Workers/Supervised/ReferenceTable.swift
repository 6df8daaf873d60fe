import TrainingEngine

/// The reference's log-probabilities of a dataset's rows, computed once, before the weights move, and used in every epoch.
///
/// Rows are computed in blocks with fixed borders, so that a row's bits do not depend on which others are wanted: a resumed run
/// of as many ranks has the same.
struct ReferenceTable: Sendable {
    /// Rows that one rank computes at a time; of several ranks as many each.
    static let rowsOfRank = 64
    private var values: [Int: [Float]] = [:]

    init() {}

    /// - Parameters:
    ///   - rows: the rows that will be asked for.
    ///   - ranks: that share each block out.
    ///   - compute: each example's sums, in order.
    init(
        of rows: Set<Int>, in dataset: SupervisedDataset, ranks: Int = 1,
        compute: ([SupervisedExample]) async throws -> [[Float]]
    ) async throws {
        let size = Self.rowsOfRank * ranks
        for block in Set(rows.map { $0 / size }).sorted() {
            let indices = Array(block * size..<min((block + 1) * size, dataset.count))
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
