import Datasets
import Telemetry

/// The output file: what an earlier run left in it, and what this one adds.
final class BatchOutput {
    private var file: LineFile
    private let isOrdered: Bool
    /// By line.
    private(set) var isDone: [Bool]
    private(set) var doneCount = 0
    /// Bytes of a last line that a kill had cut off.
    let tornBytes: Int
    /// Finished lines that wait for those before them.
    private var held: [Int: [UInt8]] = [:]
    /// The first line that is not written yet; in ordered output.
    private var next = 0
    private var skipped: Set<Int> = []

    /// Opens the output, to go on with what it holds.
    /// - Throws: ``BatchError`` `conflict` when it was made otherwise, `damagedOutput`; `TelemetryError`.
    init(_ settings: BatchSettings, _ manifest: BatchManifest) throws {
        let path = settings.output
        try Self.checkName(path)
        isOrdered = settings.isOrdered
        guard case .number(let lines)? = Datasets.JSONObject(manifest.members)["lines"], let count = Int(lines) else {
            preconditionFailure("a manifest counts its lines")
        }
        isDone = Array(repeating: false, count: count)
        file = try LineFile(path)
        let sidecar = BatchManifest.path(output: path)
        if settings.overwrites { try file.removeAll() }
        guard !file.isEmpty else {
            // What an empty output was to be made with binds nobody.
            tornBytes = 0
            try LineFile.replace(sidecar, with: Array(manifest.text.utf8))
            return
        }
        guard let earlier = try BatchManifest(reading: sidecar) else {
            throw BatchError(
                .conflict,
                "'\(path)' is there already and \(sidecar), which would say what made it, is not; give another --output, "
                    + "or --overwrite")
        }
        let differences = manifest.differences(from: earlier)
        guard differences.isEmpty else {
            throw BatchError(
                .conflict,
                "'\(path)' was begun otherwise (\(sidecar)): \(differences.joined(separator: "; ")); give the same again "
                    + "to go on, another --output, or --overwrite")
        }
        tornBytes = try file.cutTornLine()
        if !file.isEmpty { try readDone(path) }
    }

    private static func checkName(_ path: String) throws {
        if let format = RecordFormat(extensionOf: path), format != .jsonLines {
            throw BatchError(
                .badSetting,
                "--output '\(path)': JSON Lines are written; end the name with .jsonl, not .\(format.rawValue)")
        }
    }

    private func readDone(_ path: String) throws {
        do {
            try RecordReader(path: path).forEach { object, origin in
                guard case .number(let digits)? = object["index"], let index = Int(digits),
                    isDone.indices.contains(index),
                    object["samples"] != nil
                else { throw Self.damaged("\(origin): is no line of this batch") }
                guard !isDone[index] else { throw Self.damaged("\(origin): line \(index) is there a second time") }
                guard !isOrdered || index >= next else {
                    throw Self.damaged("\(origin): line \(index) is out of order")
                }
                isDone[index] = true
                doneCount += 1
                next = index + 1
                return true
            }
        } catch let error as DatasetError {
            throw Self.damaged("\(error)")
        }
    }

    private static func damaged(_ what: String) -> BatchError {
        BatchError(.damagedOutput, "\(what); mend it, give another --output, or --overwrite")
    }

    /// Says which lines will never come.
    /// - Throws: ``BatchError`` `damagedOutput` when ordered output lacks a line before its last.
    func skip(_ lines: Set<Int>) throws {
        skipped = lines
        guard isOrdered else { return }
        if let gap = isDone[..<next].indices.first(where: { !isDone[$0] && !lines.contains($0) }) {
            throw Self.damaged("\(file.path): line \(gap) is missing among those before it ends")
        }
        passSkipped()
    }

    /// Writes a finished line; in ordered output once all before it are written.
    func add(_ line: [UInt8], at index: Int) throws(TelemetryError) {
        guard isOrdered else { return try write(line, at: index) }
        held[index] = line
        while let ready = held[next] {
            try write(ready, at: next)
            held[next] = nil
            next += 1
            passSkipped()
        }
    }

    private func passSkipped() { while skipped.contains(next) { next += 1 } }

    private func write(_ line: [UInt8], at index: Int) throws(TelemetryError) {
        try file.append(line)
        isDone[index] = true
        doneCount += 1
    }

    func sync() throws(TelemetryError) { try file.sync() }
}
