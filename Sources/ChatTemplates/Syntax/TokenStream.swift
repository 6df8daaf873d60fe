/// A template's tokens with a place in them.
struct TokenStream {
    let source: [UInt8]
    private let tokens: [Token]
    private var index = 0

    init(source: [UInt8], tokens: [Token]) {
        self.source = source
        self.tokens = tokens
    }

    var current: Token { tokens[index] }

    /// The token after the current one; at the end, the end again.
    var following: Token { tokens[min(index + 1, tokens.count - 1)] }

    @discardableResult
    mutating func advance() -> Token {
        let token = tokens[index]
        if index < tokens.count - 1 { index += 1 }
        return token
    }

    func isAt(_ symbol: Token.Symbol) -> Bool { current.kind == .symbol(symbol) }
    func isAt(name: String) -> Bool { current.kind == .name && current.text == name }

    mutating func take(_ symbol: Token.Symbol) -> Bool {
        guard isAt(symbol) else { return false }
        advance()
        return true
    }

    mutating func take(name: String) -> Bool {
        guard isAt(name: name) else { return false }
        advance()
        return true
    }

    mutating func expect(_ symbol: Token.Symbol) throws {
        guard take(symbol) else { throw unexpected(symbol.rawValue) }
    }

    mutating func expect(name: String) throws {
        guard take(name: name) else { throw unexpected(name) }
    }

    mutating func expectName() throws -> Token {
        guard current.kind == .name else { throw unexpected("name") }
        return advance()
    }

    mutating func expect(_ kind: Token.Kind, called name: String) throws {
        guard current.kind == kind else { throw unexpected(name) }
        advance()
    }

    func unexpected(_ expected: String) -> TemplateError {
        if current.kind == .end { return failure("unexpected end of template, expected '\(expected)'") }
        return failure("expected token '\(expected)', got '\(current.description)'")
    }

    func failure(_ message: String, code: TemplateError.Code = .syntax, at offset: SourceOffset? = nil) -> TemplateError
    {
        TemplateError(code, message).located(at: Int(offset ?? current.offset), in: source)
    }
}
