import Datasets
import RolloutCore

/// The lines of a batch, in any order, without keeping them.
struct BatchInput: Sendable {
    let settings: BatchSettings
    private let file: RecordFile
    /// Lines to take at a time when all are looked at.
    private static let chunk = 512
    /// Bad lines that a message names.
    static let shownProblems = 20

    /// - Throws: `DatasetError`; ``BatchError`` `badInput` for a file without lines.
    init(_ settings: BatchSettings) throws {
        self.settings = settings
        file = try RecordFile(path: settings.input)
        if file.count == 0 { throw BatchError(.badInput, "'\(settings.input)' has no lines") }
    }

    var count: Int { file.count }

    /// What one look at all lines found.
    struct Survey: Sendable {
        /// Of all lines' bytes, in order.
        var fingerprint: UInt64 = 0
        /// Places of lines that cannot be used.
        var bad: Set<Int> = []
        /// The first of them: place, values, remedy.
        var problems: [String] = []
        /// How many lines have each member that is carried along, by name.
        var carried: [String: Int] = [:]
    }

    /// Reads every line, on all cores.
    /// - Parameter check: what else a line must stand.
    /// - Throws: ``BatchError`` `badInput` that names the first bad lines, unless they are to be skipped.
    func survey(_ check: @Sendable (BatchLine, Int) throws -> Void = { _, _ in }) throws -> Survey {
        struct Part: Sendable {
            var digests: [UInt64] = []
            var bad: [(index: Int, problem: String)] = []
            var carried: [String: Int] = [:]
        }
        let parts = try Parallel.map((count + Self.chunk - 1) / Self.chunk, grain: 1) { chunk in
            var part = Part()
            for index in chunk * Self.chunk..<min(count, (chunk + 1) * Self.chunk) {
                var digest: UInt64 = 0
                do {
                    let line: BatchLine
                    (line, digest) = try lineAndDigest(at: index)
                    try check(line, index)
                    for member in line.carried { part.carried[member.name, default: 0] += 1 }
                } catch let error where Self.isOfLine(error) {
                    part.bad.append((index, "\(error)"))
                }
                part.digests.append(digest)
            }
            return part
        }
        var survey = Survey()
        for part in parts {
            for digest in part.digests { survey.fingerprint = SplitMix64.mix(survey.fingerprint ^ digest) }
            survey.bad.formUnion(part.bad.map(\.index))
            survey.problems += part.bad.prefix(max(0, Self.shownProblems - survey.problems.count)).map(\.problem)
            survey.carried.merge(part.carried, uniquingKeysWith: +)
        }
        if !survey.bad.isEmpty, !settings.skipsBad || survey.bad.count == count { throw Self.refusal(survey) }
        return survey
    }

    /// The lines' own faults, not those of the disk.
    private static func isOfLine(_ error: any Error) -> Bool {
        if let error = error as? DatasetError { return error.code == .malformedRow }
        return (error as? BatchError)?.code == .badInput
    }

    private static func refusal(_ survey: Survey) -> BatchError {
        let (all, shown) = (survey.bad.count, survey.problems)
        if all == 1 { return BatchError(.badInput, shown[0] + " (--skip-bad leaves such lines out)") }
        var text = "\(all) lines cannot be used (--skip-bad leaves such lines out):"
        for problem in shown { text += "\n  \(problem)" }
        if all > shown.count { text += "\n  … and \(all - shown.count) more" }
        return BatchError(.badInput, text)
    }

    /// - Throws: `DatasetError`; ``BatchError`` `badInput` with the line's place.
    func line(at index: Int) throws -> BatchLine { try line(file.object(at: index), at: index) }

    private func lineAndDigest(at index: Int) throws -> (line: BatchLine, digest: UInt64) {
        let (object, digest) = try file.objectAndDigest(at: index)
        return (try line(object, at: index), digest)
    }

    private func line(_ object: JSONObject, at index: Int) throws -> BatchLine {
        try located(index) { () throws(BatchProblem) in
            try BatchLine(object, index: index, settings: settings)
        }
    }

    /// A problem with the place of its line.
    func located<Result>(_ index: Int, _ body: () throws(BatchProblem) -> Result) throws(BatchError) -> Result {
        do throws(BatchProblem) { return try body() } catch {
            throw BatchError(.badInput, "\(file.origin(at: index)): \(error)")
        }
    }
}
