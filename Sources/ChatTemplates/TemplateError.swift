/// Why a chat template could not be compiled or rendered, and where in the template.
///
/// `code` mirrors the kinds of failure that Jinja2 has; `limit` is ours and means that ``TemplateLimits`` stopped a
/// template that asked for too much.
public struct TemplateError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kind of failure; open, so that callers keep a default case.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        public let description: String
        public init(_ name: String) { description = name }

        /// The template's text is not valid Jinja.
        public static let syntax = Code("syntax")
        /// The template names a filter or test that does not exist.
        public static let unknownFilterOrTest = Code("unknown filter or test")
        /// The template itself called `raise_exception`; `message` is its own text.
        public static let raised = Code("raised by the template")
        /// A missing variable, attribute or element was used.
        public static let undefined = Code("undefined")
        /// An operation met values of the wrong type or the wrong arguments.
        public static let type = Code("type")
        /// The right type with a value that does not fit.
        public static let value = Code("value")
        /// An index or key that had to be there was not.
        public static let lookup = Code("lookup")
        public static let zeroDivision = Code("division by zero")
        /// The sandbox forbids what the template tried.
        public static let security = Code("security")
        /// Any other failure while rendering.
        public static let runtime = Code("runtime")
        /// One of ``TemplateLimits`` was reached.
        public static let limit = Code("limit")
        /// Input data (JSON) that cannot be read.
        public static let data = Code("data")
    }

    public let code: Code
    public let message: String
    /// Line and column (in code points) in the template, both from 1; nil where there is no place to name.
    public internal(set) var line: Int?
    public internal(set) var column: Int?

    public init(_ code: Code, _ message: String, line: Int? = nil, column: Int? = nil) {
        self.code = code
        self.message = message
        self.line = line
        self.column = column
    }

    public var description: String {
        guard let line, let column else { return "chat template: \(message) [\(code)]" }
        return "chat template, line \(line), column \(column): \(message) [\(code)]"
    }

    /// The same error with the place of a byte offset into `source` (newlines already normalised), unless it has one.
    func located(at offset: Int, in source: [UInt8]) -> TemplateError {
        guard line == nil else { return self }
        var located = self
        let before = source[..<min(max(offset, 0), source.count)]
        located.line = 1 + before.count { $0 == UInt8(ascii: "\n") }
        let lineStart = before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        located.column = 1 + before[lineStart...].count { $0 & 0xC0 != 0x80 }
        return located
    }
}
