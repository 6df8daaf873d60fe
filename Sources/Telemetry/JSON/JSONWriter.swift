/// Writes JSON text as UTF-8 bytes, keys in the order given.
///
/// Doubles are written in the shortest form that reads back to the same bits, so equal doubles give equal bytes.
/// JSON has no NaN or infinity: those are written as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, which keeps
/// the information and stays valid JSON.
public struct JSONWriter: Sendable {
    public struct Style: Hashable, Sendable {
        /// Spaces per level; nil puts everything on one line.
        var indent: Int?
        /// Also escapes what could end or open an element when the text stands inside HTML.
        var escapesMarkup: Bool

        public static let compact = Style(indent: nil, escapesMarkup: false)
        public static let pretty = Style(indent: 2, escapesMarkup: false)
        public static let embeddable = Style(indent: nil, escapesMarkup: true)
    }

    public private(set) var bytes: [UInt8] = []
    private let style: Style
    private var depth = 0
    private var needsComma = false
    private var followsKey = false

    public init(style: Style = .compact) { self.style = style }

    public var text: String { String(decoding: bytes, as: UTF8.self) }

    public mutating func object(_ members: (inout JSONWriter) -> Void) {
        container("{", "}", members)
    }

    public mutating func array(_ elements: (inout JSONWriter) -> Void) {
        container("[", "]", elements)
    }

    public mutating func key(_ name: String) {
        separate()
        appendQuoted(name)
        bytes.append(UInt8(ascii: ":"))
        if style.indent != nil { bytes.append(UInt8(ascii: " ")) }
        followsKey = true
    }

    public mutating func value(_ text: String) {
        separate()
        appendQuoted(text)
    }

    public mutating func value(_ number: Int) { scalar(String(number)) }
    public mutating func value(_ flag: Bool) { scalar(flag ? "true" : "false") }
    public mutating func null() { scalar("null") }

    public mutating func value(_ number: Double) {
        if number.isFinite { scalar(number.description) } else { value(number.jsonName) }
    }

    public mutating func value(_ number: Double?) {
        if let number { value(number) } else { null() }
    }

    public mutating func value(_ text: String?) {
        if let text { value(text) } else { null() }
    }

    /// A value that is JSON text already.
    public mutating func value(json text: String) { scalar(text) }

    private mutating func scalar(_ text: String) {
        separate()
        bytes.append(contentsOf: text.utf8)
    }

    private mutating func container(_ open: Unicode.Scalar, _ close: Unicode.Scalar, _ body: (inout JSONWriter) -> Void)
    {
        separate()
        bytes.append(UInt8(ascii: open))
        depth += 1
        needsComma = false
        body(&self)
        depth -= 1
        if needsComma { breakLine() }
        bytes.append(UInt8(ascii: close))
        needsComma = true
    }

    private mutating func separate() {
        if followsKey {
            followsKey = false
            needsComma = true
            return
        }
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        if depth > 0 { breakLine() }
        needsComma = true
    }

    private mutating func breakLine() {
        guard let indent = style.indent else { return }
        bytes.append(UInt8(ascii: "\n"))
        bytes.append(contentsOf: repeatElement(UInt8(ascii: " "), count: indent * depth))
    }

    private mutating func appendQuoted(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": bytes.append(contentsOf: #"\""#.utf8)
            case "\\": bytes.append(contentsOf: #"\\"#.utf8)
            case "\n": bytes.append(contentsOf: #"\n"#.utf8)
            case "\r": bytes.append(contentsOf: #"\r"#.utf8)
            case "\t": bytes.append(contentsOf: #"\t"#.utf8)
            case "\u{0}"..."\u{1F}", "\u{7F}": appendEscape(scalar)
            case "<", ">", "&", "\u{2028}", "\u{2029}":
                if style.escapesMarkup { appendEscape(scalar) } else { bytes.append(contentsOf: UTF8.encode(scalar)!) }
            default: bytes.append(contentsOf: UTF8.encode(scalar)!)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func appendEscape(_ scalar: Unicode.Scalar) {
        let digits = String(scalar.value, radix: 16)
        bytes.append(contentsOf: "\\u".utf8)
        bytes.append(contentsOf: repeatElement(UInt8(ascii: "0"), count: 4 - digits.utf8.count))
        bytes.append(contentsOf: digits.utf8)
    }
}

extension Double {
    /// How a number that is not finite is written in JSON.
    var jsonName: String { isNaN ? "NaN" : (self > 0 ? "Infinity" : "-Infinity") }

    init?(jsonName: String) {
        switch jsonName {
        case "NaN": self = .nan
        case "Infinity": self = .infinity
        case "-Infinity": self = -.infinity
        default: return nil
        }
    }
}
