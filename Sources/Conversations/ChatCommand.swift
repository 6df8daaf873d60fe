/// A line that a person typed into a chat.
public enum ChatCommand: Hashable, Sendable {
    case say(String)
    case help
    case reset
    /// Nil shows the system turn; an empty text takes it away.
    case system(String?)
    /// Nil shows it.
    case temperature(Double?)
    case undo
    case save(String)
    /// Shows the conversation's tokens, with who wrote them.
    case tokens
    case quit
    /// A command that cannot be obeyed, and why.
    case mistake(String)

    /// Reads a line. A message may begin with a slash if it begins with two.
    public init(_ line: String) {
        guard line.utf8.first == UInt8(ascii: "/"), line.utf8.dropFirst().first != UInt8(ascii: "/") else {
            let isEscaped = line.utf8.starts(with: "//".utf8)
            self = .say(isEscaped ? String(line.unicodeScalars.dropFirst()) : line)
            return
        }
        let parts = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false)
        let rest = parts.count > 1 ? String(parts[1].drop { $0 == " " }) : nil
        switch parts[0] {
        case "/help", "/?": self = .help
        case "/reset": self = .reset
        case "/system": self = .system(rest.map { $0 == "-" ? "" : $0 })
        case "/temperature", "/temp":
            guard let rest, !rest.isEmpty else {
                self = .temperature(nil)
                return
            }
            guard let value = Double(rest), value >= 0, value.isFinite else {
                self = .mistake("/temperature takes a number from 0 (greedy) up, not '\(rest)'")
                return
            }
            self = .temperature(value)
        case "/undo": self = .undo
        case "/save":
            let path = rest ?? ""
            self = path.isEmpty ? .mistake("/save takes the name of a file") : .save(path)
        case "/tokens": self = .tokens
        case "/quit", "/exit", "/bye": self = .quit
        default:
            self = .mistake("there is no command \(parts[0]); /help lists them, and // begins a message with a slash")
        }
    }

    /// What `/help` says.
    public static let commands: [(command: String, meaning: String)] = [
        ("/system TEXT", "sets the system turn and begins anew; - takes it away"),
        ("/temperature X", "0 is greedy"),
        ("/undo", "takes back the last question and its answer"),
        ("/reset", "begins anew"),
        ("/tokens", "shows the conversation's tokens and who wrote them"),
        ("/save FILE", "writes messages, token ids, mask and log-probabilities as JSON"),
        ("/quit", "ends, as Ctrl-D does; Ctrl-C stops an answer"),
    ]
}
