/// How a piece of text looks.
enum TerminalStyle: String {
    case plain = ""
    case bold = "1"
    case faint = "2"
    case red = "31"
    case green = "32"
    case yellow = "33"
    case blue = "34"
    case magenta = "35"
    case cyan = "36"

    /// The colours that phases take in turn.
    private static let phases: [TerminalStyle] = [.cyan, .green, .yellow, .magenta, .blue, .red]

    static func phase(_ place: Int) -> TerminalStyle { phases[place % phases.count] }
}

/// One line of a view: pieces with their styles, measured and clipped without counting escape sequences.
struct StyledLine {
    private(set) var pieces: [(text: String, style: TerminalStyle)] = []

    init() {}

    init(_ text: String, _ style: TerminalStyle = .plain) { append(text, style) }

    mutating func append(_ text: String, _ style: TerminalStyle = .plain) { pieces.append((text, style)) }

    var width: Int { pieces.reduce(0) { $0 + TerminalText.width($1.text) } }

    /// This line with another at the right edge, when both fit with a space between; else this one alone.
    func with(right: StyledLine, width cells: Int) -> StyledLine {
        let gap = cells - width - right.width
        guard gap >= 1 else { return self }
        var line = self
        line.append(String(repeating: " ", count: gap))
        line.pieces += right.pieces
        return line
    }

    /// The text, clipped to so many cells if a number is given, in the colours and characters that the reader shows.
    func rendered(width cells: Int? = nil, _ traits: TerminalTraits) -> String {
        var room = cells ?? .max
        var result = ""
        for (text, style) in pieces where room > 0 && !text.isEmpty {
            let clipped = TerminalText.clipped(text, to: room)
            room -= TerminalText.width(clipped)
            let shown = traits.usesUnicode ? clipped : TerminalText.ascii(clipped)
            result += traits.usesColor && style != .plain ? "\u{1B}[\(style.rawValue)m\(shown)\u{1B}[0m" : shown
        }
        return result
    }
}
