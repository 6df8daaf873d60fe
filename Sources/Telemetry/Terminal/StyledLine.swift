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
    static let phases: [TerminalStyle] = [.cyan, .green, .yellow, .magenta, .blue, .red]
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

    /// The text, clipped to so many cells, with escape sequences if colours are wanted.
    func rendered(width cells: Int, color: Bool) -> String {
        var room = cells
        var result = ""
        for (text, style) in pieces where room > 0 {
            let clipped = TerminalText.clipped(text, to: room)
            room -= TerminalText.width(clipped)
            result += color && style != .plain ? "\u{1B}[\(style.rawValue)m\(clipped)\u{1B}[0m" : clipped
        }
        return result
    }
}
