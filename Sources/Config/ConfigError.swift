/// One thing wrong (or, among `RunConfig.warnings`, odd) in a configuration, and where.
public struct Diagnostic: Hashable, Sendable {
    public let code: ConfigError.Code
    /// The file's name as it was given; `command line` for an override.
    public let file: String
    /// From 1; nil for an override.
    public let line: Int?
    /// From 1, in Unicode scalars; nil for an override.
    public let column: Int?
    /// The override as it was typed; nil in a file.
    public let argument: String?
    /// The setting's full name, as in `actor.optim.lr`; empty when the problem is the file's.
    public let keyPath: String
    public let message: String
    /// What to do about it.
    public let remedy: String?

    init(_ code: ConfigError.Code, at place: Place, _ keyPath: String, _ message: String, remedy: String? = nil) {
        self.code = code
        self.keyPath = keyPath
        self.message = message
        self.remedy = remedy
        switch place {
        case .file(let name, let line, let column):
            (file, self.line, self.column, argument) = (name, line, column, nil)
        case .override(let text):
            (file, line, column, argument) = ("command line", nil, nil, text)
        }
    }
}

extension Diagnostic: CustomStringConvertible {
    /// `recipe.yaml:12:3: rollout.n: 0 is out of range; give an integer from 1 to 4096`.
    public var description: String {
        var text = file
        if let line, let column { text += ":\(line):\(column)" }
        let subject = argument.map { shortened($0, to: 100) } ?? keyPath
        // Two settings at odds are both named by the message.
        if !subject.isEmpty && !message.utf8.starts(with: "\(keyPath) = ".utf8) { text += ": \(subject)" }
        text += ": \(message)"
        if let remedy { text += "; \(remedy)" }
        return text
    }
}

/// Everything that is wrong with a configuration, found in one reading, before any work began.
public struct ConfigError: Error, Sendable {
    /// What kind of problem; open, so that further kinds break no caller's `switch`.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private let name: String
        public var description: String { name }
        private init(_ name: String) { self.name = name }

        public static let unreadableFile = Code("unreadableFile")
        public static let syntax = Code("syntax")
        /// The text is larger, deeper or repeats more by aliases than a recipe can need.
        public static let tooLarge = Code("tooLarge")
        public static let duplicateKey = Code("duplicateKey")
        public static let unknownKey = Code("unknownKey")
        /// A setting or value that verl or TRL has and Fledge does not, or has under another name.
        public static let notSupported = Code("notSupported")
        public static let wrongType = Code("wrongType")
        public static let outOfRange = Code("outOfRange")
        public static let missing = Code("missing")
        /// Two settings at odds.
        public static let conflict = Code("conflict")
        /// A command-line argument that is not `key=value`.
        public static let badOverride = Code("badOverride")
        /// Allowed, and likely not meant.
        public static let warning = Code("warning")
    }

    /// At least one; those of the file by line, then those of the command line.
    public let diagnostics: [Diagnostic]
    /// How many more there were than are listed.
    public let omitted: Int
    /// The first problem's kind.
    public var code: Code { diagnostics[0].code }

    /// The most problems that are listed.
    static let limit = 100

    init(_ diagnostics: [Diagnostic], omitted: Int = 0) {
        precondition(!diagnostics.isEmpty, "an error needs a problem")
        let ranked = diagnostics.enumerated().sorted { left, right in
            (left.element.line ?? .max, left.element.column ?? .max, left.offset)
                < (right.element.line ?? .max, right.element.column ?? .max, right.offset)
        }
        self.diagnostics = ranked.prefix(Self.limit).map(\.element)
        self.omitted = omitted + max(0, diagnostics.count - Self.limit)
    }
}

extension ConfigError: CustomStringConvertible {
    /// One line for one problem; else a heading and a line for each.
    public var description: String {
        if diagnostics.count == 1 && omitted == 0 { return diagnostics[0].description }
        var lines = ["\(diagnostics.count + omitted) problems in the configuration:"]
        lines += diagnostics.map { "  \($0)" }
        if omitted > 0 { lines.append("  … and \(omitted) more") }
        return lines.joined(separator: "\n")
    }
}

func shortened(_ text: String, to limit: Int = 60) -> String {
    let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
    return line.count <= limit ? line : line.prefix(limit - 1) + "…"
}
