/// When a sink asks the system to put what was written on the disk.
public enum SyncPolicy: Hashable, Sendable {
    /// When `flush()` is called. A killed process loses nothing, a power cut may lose the last seconds.
    case onFlush
    /// After every step.
    case everyStep
}

/// An append-only JSON-lines file whose lines carry rising steps, which can go back to an earlier step.
struct JSONLinesFile: ~Copyable {
    enum Steps { case onceEach, repeated }

    private let file: PosixFile
    private let steps: Steps
    private let sync: SyncPolicy
    private(set) var lastStep: Int?
    /// The length up to which the file is whole, in bytes.
    private var length: Int
    private var isTorn: Bool

    init(_ path: String, steps: Steps, sync: SyncPolicy) throws(TelemetryError) {
        let file = try PosixFile(path, .append)
        let bytes = try file.content()
        let content = try JSONLines(bytes, path: path)
        self.file = file
        self.steps = steps
        self.sync = sync
        lastStep = content.lines.last?.step
        length = content.tornAt ?? bytes.count
        isTorn = content.tornAt != nil
    }

    /// Adds whole lines (each ending in a line feed) that belong to one step.
    /// - Throws: `TelemetryError`: `outOfOrder` when the step is not after those in the file, `malformed` when the file
    ///   ends in a torn line, `io`. After a failed write the file is as it was before, if the system allows.
    mutating func append(_ lines: [UInt8], step: Int) throws(TelemetryError) {
        if isTorn {
            throw TelemetryError(
                .malformed, "the last line is cut off; call truncate(afterStep:) when resuming, before writing",
                path: file.path)
        }
        if let lastStep, step < lastStep || (step == lastStep && steps == .onceEach) {
            throw TelemetryError(
                .outOfOrder,
                "step \(step) after step \(lastStep); call truncate(afterStep:) when resuming, or choose a new folder",
                path: file.path)
        }
        do throws(TelemetryError) {
            try file.write(lines)
        } catch {
            // The report is of the write; if the half line cannot be taken back either, remember that it is there.
            do throws(TelemetryError) { try file.truncate(to: length) } catch { isTorn = true }
            throw error
        }
        length += lines.count
        lastStep = step
        if sync == .everyStep { try file.sync() }
    }

    /// Drops the lines of later steps and a torn last line. One system call does it, so a kill leaves all or nothing.
    mutating func truncate(afterStep step: Int) throws(TelemetryError) {
        let bytes = try file.content()
        let content = try JSONLines(bytes, path: file.path)
        let later = content.lines.firstIndex { $0.step > step }
        let kept = later ?? content.lines.count
        if let stray = content.lines[kept...].first(where: { $0.step <= step }) {
            throw TelemetryError(
                .malformed, "step \(stray.step) stands after step \(content.lines[kept].step); the file is damaged",
                path: file.path)
        }
        let end = later.map { content.lines[$0].start } ?? content.tornAt ?? bytes.count
        if end < bytes.count {
            try file.truncate(to: end)
            try file.sync()
        }
        length = end
        isTorn = false
        lastStep = content.lines[..<kept].last?.step
    }

    func flush() throws(TelemetryError) { try file.sync() }
}
