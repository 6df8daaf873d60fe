/// A file that grows by whole lines. What a killed process leaves of it is whole but for a last line, and what a write that
/// failed leaves is as before. One process at a time.
public struct LineFile: ~Copyable {
    private let file: PosixFile
    private var length: Int
    public var path: String { file.path }

    /// Opens the file, or makes it.
    /// - Throws: `TelemetryError`: `busy` when another process has it open as this, `io`.
    public init(_ path: String) throws(TelemetryError) {
        let opened = try PosixFile(path, .append)
        guard try opened.lock() else {
            throw TelemetryError(.busy, "another process writes it; wait for its end or give another name", path: path)
        }
        length = try opened.size()
        file = opened
    }

    public var isEmpty: Bool { length == 0 }

    /// Removes a last line that lacks its end.
    /// - Returns: how many bytes went.
    public mutating func cutTornLine() throws(TelemetryError) -> Int {
        var end = length
        let whole = length
        while end > 0 {
            let start = max(0, end - (1 << 16))
            let bytes = try file.bytes(start..<end)
            if let last = bytes.lastIndex(of: UInt8(ascii: "\n")) {
                end = start + last + 1
                break
            }
            end = start
        }
        if end < whole { try cut(to: end) }
        return whole - end
    }

    public mutating func removeAll() throws(TelemetryError) { try cut(to: 0) }

    private mutating func cut(to end: Int) throws(TelemetryError) {
        try file.truncate(to: end)
        length = end
    }

    /// Adds whole lines, each with its line feed.
    public mutating func append(_ lines: [UInt8]) throws(TelemetryError) {
        do throws(TelemetryError) {
            try file.write(lines)
        } catch {
            // The report is of the write; a half line that stays behind is cut by the next to open the file.
            do throws(TelemetryError) { try file.truncate(to: length) } catch { _ = error }
            throw error
        }
        length += lines.count
    }

    /// Makes what was written survive a power cut.
    public func sync() throws(TelemetryError) { try file.sync() }

    /// Replaces a small file so that a reader, or a power cut, sees either the old or the new whole.
    public static func replace(_ path: String, with bytes: [UInt8]) throws(TelemetryError) {
        try PosixFile.replaceAtomically(path, with: bytes)
    }

    /// The content of a small file; nil when there is none.
    public static func content(of path: String) throws(TelemetryError) -> [UInt8]? { try PosixFile.read(path) }
}
