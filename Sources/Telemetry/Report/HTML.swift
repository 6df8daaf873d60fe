/// A piece of HTML. What is interpolated into a literal is escaped, unless it is HTML itself, so that a model's answer
/// cannot become markup by oversight.
struct HTML: ExpressibleByStringInterpolation, Sendable {
    private(set) var text: String

    init(stringLiteral literal: String) { text = literal }
    init(stringInterpolation: StringInterpolation) { text = stringInterpolation.text }

    /// Text of the program's own that needs no escaping: a style sheet, a script.
    init(trusted text: String) { self.text = text }

    init(joining pieces: some Sequence<HTML>) { text = pieces.map(\.text).joined() }

    static func + (a: HTML, b: HTML) -> HTML { HTML(trusted: a.text + b.text) }

    struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var text = ""

        init(literalCapacity: Int, interpolationCount: Int) { text.reserveCapacity(literalCapacity) }

        mutating func appendLiteral(_ literal: String) { text += literal }
        mutating func appendInterpolation(_ html: HTML) { text += html.text }
        mutating func appendInterpolation(_ pieces: [HTML]) { for piece in pieces { text += piece.text } }
        mutating func appendInterpolation(_ number: Int) { text += String(number) }
        mutating func appendInterpolation(_ string: String) { text += HTML.escaped(string) }

        /// A length in SVG units.
        mutating func appendInterpolation(_ length: Double) { text += NumberText.fixed(length, 1) }
    }

    /// The text with every character that has a meaning in HTML, in attributes too, replaced.
    static func escaped(_ string: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in string.unicodeScalars {
            switch scalar {
            case "&": result.append(contentsOf: "&amp;".unicodeScalars)
            case "<": result.append(contentsOf: "&lt;".unicodeScalars)
            case ">": result.append(contentsOf: "&gt;".unicodeScalars)
            case "\"": result.append(contentsOf: "&quot;".unicodeScalars)
            case "'": result.append(contentsOf: "&#39;".unicodeScalars)
            case "\n", "\t": result.append(scalar)
            // Not allowed in HTML at all.
            case "\u{0}"..."\u{1F}", "\u{7F}"..."\u{9F}": result.append("\u{FFFD}")
            default: result.append(scalar)
            }
        }
        return String(result)
    }
}
