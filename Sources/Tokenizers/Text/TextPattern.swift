/// What a `Split` or `Replace` looks for.
enum TextPattern: Sendable {
    case literal([UInt8])
    case expression(Pattern)

    /// Reads `{"String": …}` or `{"Regex": …}`.
    init(_ node: JSONNode?, at place: String) throws {
        if let text = node?["String"]?.stringBytes {
            self = .literal(text)
        } else if let source = node?["Regex"]?.string {
            self = .expression(try Pattern(source))
        } else {
            throw TokenizerError(.invalidField, "\(place): expected {\"String\": text} or {\"Regex\": pattern}")
        }
    }

    func forEachMatch(in text: UnsafeBufferPointer<UInt8>, _ body: (Int, Int) throws -> Void) throws {
        switch self {
        case .expression(let pattern): try pattern.forEachMatch(in: text, body)
        case .literal(let literal):
            guard !literal.isEmpty else {
                // An empty text is found between all scalars.
                try Pattern("").forEachMatch(in: text, body)
                return
            }
            guard literal.count <= text.count else { return }
            var position = 0
            let first = literal[0]
            while position <= text.count - literal.count {
                if text[position] == first,
                    literal.indices.allSatisfy({ text[position + $0] == literal[$0] })
                {
                    try body(position, position + literal.count)
                    position += literal.count
                } else {
                    position += 1
                }
            }
        }
    }
}
