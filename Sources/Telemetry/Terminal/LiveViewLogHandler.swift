public import Logging

/// Sends log lines through the live view, so that they stand above its panel and do not tear it.
public struct LiveViewLogHandler: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var metadataProvider: Logger.MetadataProvider?
    public var logLevel: Logger.Level
    private let label: String
    private let view: LiveView

    public init(label: String, view: LiveView, logLevel: Logger.Level = .info) {
        self.label = label
        self.view = view
        self.logLevel = logLevel
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let own = event.metadata { all.merge(own) { $1 } }
        let tail = all.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
        // A log handler cannot throw. Standard error itself is gone then, and the next step's line will say so.
        try? view.printLine("\(event.level) \(label): \(event.message)\(tail)")
    }
}
