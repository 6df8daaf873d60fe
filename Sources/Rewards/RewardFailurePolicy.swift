/// What happens to a sample whose reward failed.
public enum RewardFailurePolicy: Hashable, Sendable {
    /// The sample is left out; its group goes on with the others, whose mean it does not touch.
    case dropSample
    /// All samples of the prompt are left out.
    case dropGroup
    /// The run ends.
    case abort
    /// The sample counts with this score. A failure then looks like an answer of that worth: use it only where it is.
    case scoreAs(Double)

    /// The scores to train on, nil for a sample to leave out.
    /// - Parameters:
    ///   - groups: each sample's group (its prompt); as many as `outcomes`.
    /// - Throws: `RewardError.scoringFailed` under `.abort`; `CancellationError` when scoring was cancelled.
    public func resolve(_ outcomes: [RewardOutcome], groups: [Int]) throws -> [Double?] {
        precondition(outcomes.count == groups.count, "\(outcomes.count) outcomes for \(groups.count) samples")
        let failures = outcomes.compactMap(\.failure)
        if failures.contains(where: { $0.kind == .cancelled }) { throw CancellationError() }
        guard let first = failures.first else { return outcomes.map(\.score) }
        switch self {
        case .dropSample: return outcomes.map(\.score)
        case .dropGroup:
            let broken = Set(zip(outcomes, groups).filter { $0.0.failure != nil }.map(\.1))
            return zip(outcomes, groups).map { broken.contains($1) ? nil : $0.score }
        case .abort:
            throw RewardError(
                .scoringFailed, "\(failures.count) of \(outcomes.count) rewards failed, the first: \(first)")
        case .scoreAs(let score): return outcomes.map { $0.score ?? score }
        }
    }
}
