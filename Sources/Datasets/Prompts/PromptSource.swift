/// Rows that can be read in any order, each as often as wanted, with the same answer each time.
public protocol PromptSource: Sendable {
    var count: Int { get }
    /// Tells these rows from others, so that a saved position is not taken for one in other data; nil where rows follow
    /// from settings that are checked anyway.
    var fingerprint: UInt64? { get }

    /// - Parameter index: in `0..<count`.
    /// - Throws: `DatasetError` when the row cannot be read or is not a valid one.
    func row(at index: Int) throws -> PromptRow
}

extension PromptSource {
    public var fingerprint: UInt64? { nil }
}

/// Rows in memory.
public struct PromptList: PromptSource {
    public let rows: [PromptRow]

    public init(_ rows: [PromptRow]) { self.rows = rows }

    public var count: Int { rows.count }

    public func row(at index: Int) -> PromptRow { rows[index] }
}

/// Some rows of another source, in an order of their own.
public struct PromptSubset: PromptSource {
    public let base: any PromptSource
    public let indices: [Int]

    public init(of base: any PromptSource, indices: [Int]) {
        self.base = base
        self.indices = indices
    }

    public var count: Int { indices.count }
    public var fingerprint: UInt64? { base.fingerprint }

    public func row(at index: Int) throws -> PromptRow { try base.row(at: indices[index]) }
}

extension PromptSource {
    /// Two disjoint parts that cover all rows: `validationCount` rows drawn by the seed, and the rest; each part keeps
    /// the order of the whole.
    /// - Throws: `DatasetError.badSetting` unless both parts have rows.
    public func split(validationCount: Int, seed: UInt64) throws -> (training: PromptSubset, validation: PromptSubset) {
        guard validationCount > 0, validationCount < count else {
            throw DatasetError(
                .badSetting, "cannot set \(validationCount) of \(count) rows aside; use 1 to \(max(1, count - 1))")
        }
        var generator = SplitMix64(seed: seed)
        let order = generator.permutation(count: count)
        var isValidation = [Bool](repeating: false, count: count)
        for index in order.prefix(validationCount) { isValidation[Int(index)] = true }
        let all = 0..<count
        return (
            PromptSubset(of: self, indices: all.filter { !isValidation[$0] }),
            PromptSubset(of: self, indices: all.filter { isValidation[$0] })
        )
    }
}
