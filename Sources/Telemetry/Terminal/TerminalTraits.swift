#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What the reader of an output can show.
public struct TerminalTraits: Sendable {
    /// Whether lines can be redrawn: a terminal, not a pipe, a file or a CI log.
    public var isInteractive: Bool
    public var usesColor: Bool
    /// Whether characters beyond ASCII show.
    public var usesUnicode: Bool
    /// The width in cells now; asked at each drawing, since a window may be resized.
    public var width: @Sendable () -> Int

    public init(isInteractive: Bool, usesColor: Bool, usesUnicode: Bool, width: @escaping @Sendable () -> Int) {
        self.isInteractive = isInteractive
        self.usesColor = usesColor
        self.usesUnicode = usesUnicode
        self.width = width
    }

    /// A pipe or a file: no redrawing, no colour.
    public static func plain(width: Int = 100, usesUnicode: Bool = true) -> TerminalTraits {
        TerminalTraits(isInteractive: false, usesColor: false, usesUnicode: usesUnicode, width: { width })
    }

    /// Looks at a stream (1: output, 2: error) and the environment: `NO_COLOR`, `TERM`, `CI`, `COLUMNS`, `LC_ALL`.
    public static func detect(descriptor: Int32) -> TerminalTraits {
        detect(
            isTerminal: isatty(descriptor) == 1, environment: SystemFacts.environment,
            measuredWidth: { measuredWidth(descriptor) })
    }

    static func detect(
        isTerminal: Bool, environment: (String) -> String?, measuredWidth: @escaping @Sendable () -> Int?
    ) -> TerminalTraits {
        func set(_ name: String) -> String? { environment(name).flatMap { $0.isEmpty ? nil : $0 } }
        let isInteractive = isTerminal && set("TERM") != "dumb" && set("CI") == nil
        let columns = set("COLUMNS").flatMap { Int($0) }.flatMap { $0 > 0 ? $0 : nil }
        // With no locale at all, as in most containers, the terminal outside still shows UTF-8.
        let locale = set("LC_ALL") ?? set("LC_CTYPE") ?? set("LANG")
        return TerminalTraits(
            isInteractive: isInteractive, usesColor: isInteractive && set("NO_COLOR") == nil,
            usesUnicode: locale != "C" && locale != "POSIX",
            width: { (isTerminal ? measuredWidth() : nil) ?? columns ?? (isTerminal ? 80 : 100) })
    }

    private static func measuredWidth(_ descriptor: Int32) -> Int? {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
        return Int(size.ws_col)
    }
}

/// Where a view writes. Tests keep what is written instead.
public protocol TerminalOutput: Sendable {
    /// Writes all the bytes at once.
    func write(_ bytes: [UInt8]) throws(TelemetryError)
}

/// A standard stream of the process, unbuffered.
public struct StandardStream: TerminalOutput {
    private let descriptor: Int32
    private let name: String

    public static let output = StandardStream(descriptor: 1, name: "standard output")
    public static let error = StandardStream(descriptor: 2, name: "standard error")

    public var traits: TerminalTraits { .detect(descriptor: descriptor) }

    public func write(_ bytes: [UInt8]) throws(TelemetryError) {
        try writeAll(bytes, to: descriptor, path: name)
    }
}
