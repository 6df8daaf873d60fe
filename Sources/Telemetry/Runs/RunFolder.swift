/// The folder that holds everything about one run, and where in it things lie.
public struct RunFolder: Hashable, Sendable {
    public let path: String

    public init(_ path: String) {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        self.path = path
    }

    /// The last component of the path.
    public var name: String { path.split(separator: "/").last.map(String.init) ?? path }

    /// The resolved configuration, with every default and override in it.
    public var config: String { path + "/config.yaml" }
    public var metrics: String { path + "/metrics.jsonl" }
    public var samples: String { path + "/samples.jsonl" }
    /// The folder of TensorBoard's event files.
    public var tensorBoard: String { path + "/tb" }
    public var checkpoints: String { path + "/checkpoints" }
    public var report: String { path + "/report.html" }
    public var summary: String { path + "/summary.json" }

    /// Makes the folder, if need be, and those above it.
    /// - Throws: `TelemetryError` with code `io`.
    public func create() throws(TelemetryError) { try Folder.create(path) }

    /// Whether a run left something here: its configuration, metrics or summary.
    public var holdsRun: Bool {
        [config, metrics, summary].contains { Folder.modificationTime($0) != nil }
    }

    /// Writes `config.yaml` atomically.
    /// - Throws: `TelemetryError` with code `io`.
    public func write(config text: String) throws(TelemetryError) {
        try PosixFile.replaceAtomically(config, with: Array(text.utf8))
    }

    /// The text of `config.yaml`; nil when there is none.
    /// - Throws: `TelemetryError` with code `io`.
    public func readConfig() throws(TelemetryError) -> String? {
        try PosixFile.read(config).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Writes `summary.json` atomically: temporary name, fsync, rename.
    /// - Throws: `TelemetryError` with code `io`.
    public func write(_ summary: RunSummary) throws(TelemetryError) {
        try PosixFile.replaceAtomically(self.summary, with: Array(summary.json.utf8))
    }

    /// The run's summary; nil when there is none.
    /// - Throws: `TelemetryError` when it cannot be read or is damaged.
    public func readSummary() throws(TelemetryError) -> RunSummary? {
        guard let bytes = try PosixFile.read(summary) else { return nil }
        return try RunSummary(parsing: bytes, path: summary)
    }

    /// When the run last wrote something, in seconds since 1970; nil when it never did.
    var lastWritten: Double? {
        [config, metrics, samples, summary].compactMap { Folder.modificationTime($0) }.max()
    }
}
