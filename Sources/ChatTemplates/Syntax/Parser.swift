/// Builds the tree of a template: statements here, expressions in `ExpressionParser.swift`.
struct Parser {
    var stream: TokenStream
    var symbols: [String] = []
    var symbolIDs: [String: SymbolID] = [:]
    var blocks: [String: TemplateBlock] = [:]
    var hasGeneration = false
    /// Special names (`caller`, `varargs`, `kwargs`) that the macros being parsed read and store, innermost last.
    var macroNames: [MacroNames] = []
    /// Whether unknown filters and tests wait until they are run: directly within `if`, as Jinja2's compiler has it.
    var isLenient = false
    var nesting = 0
    let nestingLimit: Int
    private var loopDepth = 0
    private var openTags: [String] = []
    private var endTags: [[String]] = []

    struct MacroNames {
        var read: Set<String> = []
        var stored: Set<String> = []
    }

    /// Of one call. Each is looked for among the others.
    static let maximumKeywords = 1000

    static let specialNames: Set<String> = ["caller", "varargs", "kwargs"]

    init(stream: TokenStream, nestingLimit: Int) {
        self.stream = stream
        self.nestingLimit = nestingLimit
    }

    static func parse(_ text: String, limits: TemplateLimits) throws -> (TemplateTree, source: [UInt8]) {
        guard text.utf8.count <= limits.sourceBytes else {
            throw TemplateError(
                .limit, "the template has \(text.utf8.count) bytes, more than the limit of \(limits.sourceBytes)")
        }
        var lexer = Lexer(text)
        let tokens = try lexer.tokenize()
        let stream = TokenStream(source: lexer.source, tokens: tokens)
        var parser = Parser(stream: stream, nestingLimit: limits.recursionDepth / 2)
        let body = try parser.statements(until: [])
        let tree = TemplateTree(
            body: body, symbols: parser.symbols, symbolIDs: parser.symbolIDs, blocks: parser.blocks,
            hasGeneration: parser.hasGeneration)
        return (tree, lexer.source)
    }

    mutating func symbol(_ name: String) -> SymbolID {
        if let known = symbolIDs[name] { return known }
        symbolIDs[name] = symbols.count
        symbols.append(name)
        return symbols.count - 1
    }

    /// Runs a part of the parser one level deeper, within the limit that keeps the stack safe.
    mutating func nested<Result>(_ parse: (inout Parser) throws -> Result) throws -> Result {
        nesting += 1
        defer { nesting -= 1 }
        guard nesting <= nestingLimit else {
            throw stream.failure("the template nests more than \(nestingLimit) deep", code: .limit)
        }
        return try parse(&self)
    }

    // MARK: Bodies

    /// Statements up to a block whose name is among `ends` (which stays current), or the end of the template.
    private mutating func statements(until ends: [String]) throws -> [Statement] {
        var body: [Statement] = []
        while true {
            switch stream.current.kind {
            case .data: body.append(.text(stream.advance().text))
            case .outputBegin:
                stream.advance()
                body.append(.output(try tupleExpression()))
                try stream.expect(.outputEnd, called: "end of print statement")
            case .blockBegin:
                stream.advance()
                if stream.current.kind == .name, ends.contains(stream.current.text) { return body }
                if let statement = try nested({ try $0.statement() }) { body.append(statement) }
                try stream.expect(.blockEnd, called: "end of statement block")
            default:
                guard ends.isEmpty else { throw wrongTag(nil) }
                return body
            }
        }
    }

    /// The body of a block: from the end of the opening tag to one of `ends`, whose name is returned and consumed.
    private mutating func body(until ends: String...) throws -> (statements: [Statement], end: String) {
        _ = stream.take(.colon)
        try stream.expect(.blockEnd, called: "end of statement block")
        endTags.append(ends)
        let statements = try statements(until: ends)
        endTags.removeLast()
        return (statements, stream.advance().text)
    }

    /// A body with a scope of its own, where `if`'s leniency towards unknown filters ends.
    private mutating func scopedBody(until ends: String...) throws -> (statements: [Statement], end: String) {
        let outer = isLenient
        isLenient = false
        defer { isLenient = outer }
        _ = stream.take(.colon)
        try stream.expect(.blockEnd, called: "end of statement block")
        endTags.append(ends)
        let statements = try statements(until: ends)
        endTags.removeLast()
        return (statements, stream.advance().text)
    }

    private func wrongTag(_ name: String?) -> TemplateError {
        var message = name.map { "Encountered unknown tag '\($0)'." } ?? "Unexpected end of template."
        if let due = endTags.last {
            let list = due.map { "'\($0)'" }.joined(separator: " or ")
            message += " Jinja was looking for the following tags: \(list)."
        }
        if let open = openTags.last { message += " The innermost block that needs to be closed is '\(open)'." }
        return stream.failure(message)
    }

    // MARK: Statements

    /// One statement; nil for those that leave nothing to run.
    private mutating func statement() throws -> Statement? {
        guard stream.current.kind == .name else { throw stream.failure("tag name expected") }
        let name = stream.current.text
        let parse: ((inout Parser) throws -> Statement)? =
            switch name {
            case "if": { try $0.ifStatement() }
            case "for": { try $0.forStatement() }
            case "set": { try $0.setStatement() }
            case "macro": { try $0.macroStatement() }
            case "call": { try $0.callStatement() }
            case "filter": { try $0.filterStatement() }
            case "with": { try $0.withStatement() }
            case "generation": { try $0.generationStatement() }
            case "autoescape": { try $0.autoescapeStatement() }
            case "block": { try $0.blockStatement() }
            case "print": { try $0.printStatement() }
            case "break", "continue": { try $0.loopControl() }
            case "extends", "include", "import", "from": { try $0.loadStatement() }
            default: nil
            }
        guard let parse else { throw wrongTag(name) }
        openTags.append(name)
        let statement = try parse(&self)
        openTags.removeLast()
        return statement
    }

    private mutating func ifStatement() throws -> Statement {
        let outer = isLenient
        isLenient = true
        defer { isLenient = outer }
        stream.advance()
        var branches: [(test: Expression, body: [Statement])] = []
        while true {
            let test = try tupleExpression(withConditional: false)
            let (body, end) = try body(until: "elif", "else", "endif")
            branches.append((test, body))
            if end == "else" { return .branch(branches, otherwise: try self.body(until: "endif").statements) }
            if end == "endif" { return .branch(branches, otherwise: []) }
        }
    }

    private mutating func forStatement() throws -> Statement {
        let start = stream.advance().offset
        let target = try assignmentTarget(endingAt: "in", withNamespace: false)
        try stream.expect(name: "in")
        let iterable = try tupleExpression(withConditional: false, endingAt: "recursive")
        let outerLenient = isLenient
        isLenient = false
        let condition = stream.take(name: "if") ? try expression() : nil
        isLenient = outerLenient
        let isRecursive = stream.take(name: "recursive")
        loopDepth += 1
        let storesBefore = storesOfLoop
        let (body, end) = try scopedBody(until: "endfor", "else")
        loopDepth -= 1
        let otherwise = end == "else" ? try scopedBody(until: "endfor").statements : []
        guard storesOfLoop == storesBefore, !target.stores(symbol("loop")) else {
            throw stream.failure("Can't assign to special loop variable in for-loop target", at: start)
        }
        return .loop(
            ForLoop(
                target: target, iterable: iterable, condition: condition, isRecursive: isRecursive, body: body,
                otherwise: otherwise, loopSymbol: symbol("loop")))
    }

    /// How often `loop` has been assigned so far.
    private var storesOfLoop = 0

    private mutating func setStatement() throws -> Statement {
        stream.advance()
        let target = try assignmentTarget(endingAt: nil, withNamespace: true)
        if target.stores(symbol("loop")) { storesOfLoop += 1 }
        if stream.take(.assign) { return .set(target, try tupleExpression()) }
        let filter = stream.isAt(.pipe) ? try filterChain(on: nil) : nil
        return .setBlock(target, filter: filter, body: try scopedBody(until: "endset").statements)
    }

    private mutating func withStatement() throws -> Statement {
        stream.advance()
        var bindings: [(target: AssignmentTarget, value: Expression)] = []
        while stream.current.kind != .blockEnd {
            if !bindings.isEmpty { try stream.expect(.comma) }
            let target = try assignmentTarget(endingAt: nil, withNamespace: false)
            try stream.expect(.assign)
            bindings.append((target, try expression()))
        }
        return .with(bindings, body: try scopedBody(until: "endwith").statements)
    }

    private mutating func filterStatement() throws -> Statement {
        stream.advance()
        let filter = try filterChain(on: nil, startsInline: true)
        return .filterBlock(filter, body: try scopedBody(until: "endfilter").statements)
    }

    private mutating func autoescapeStatement() throws -> Statement {
        stream.advance()
        return .autoescape(try expression(), body: try scopedBody(until: "endautoescape").statements)
    }

    private mutating func generationStatement() throws -> Statement {
        hasGeneration = true
        stream.advance()
        let outerDepth = loopDepth
        loopDepth = 0
        defer { loopDepth = outerDepth }
        return .generation(try scopedBody(until: "endgeneration").statements)
    }

    private mutating func blockStatement() throws -> Statement {
        stream.advance()
        let name = try stream.expectName()
        _ = stream.take(name: "scoped")
        _ = stream.take(name: "required")
        guard blocks[name.text] == nil else {
            throw stream.failure("block '\(name.text)' defined twice", at: name.offset)
        }
        let outerDepth = loopDepth
        loopDepth = 0
        let block = TemplateBlock(name: name.text, body: try scopedBody(until: "endblock").statements)
        loopDepth = outerDepth
        _ = stream.take(name: name.text)
        blocks[name.text] = block
        return .block(block)
    }

    private mutating func printStatement() throws -> Statement {
        let start = stream.advance().offset
        var parts: [Expression] = []
        while stream.current.kind != .blockEnd {
            if !parts.isEmpty { try stream.expect(.comma) }
            parts.append(try expression())
        }
        return .output(try node(.concatenate(parts), at: start))
    }

    private mutating func loopControl() throws -> Statement {
        let token = stream.advance()
        guard loopDepth > 0 else { throw stream.failure("'\(token.text)' outside loop", at: token.offset) }
        return token.text == "break" ? .leaveLoop : .nextIteration
    }

    private mutating func loadStatement() throws -> Statement {
        stream.advance()
        let template = try expression()
        while stream.current.kind != .blockEnd, stream.current.kind != .end { stream.advance() }
        return .load(template)
    }

    // MARK: Macros

    private mutating func macroStatement() throws -> Statement {
        stream.advance()
        let name = try stream.expectName()
        noteStore(name.text)
        return .macro(try macro(named: name.text, at: name.offset, until: "endmacro"))
    }

    private mutating func callStatement() throws -> Statement {
        let start = stream.advance().offset
        macroNames.append(MacroNames())
        let parameters = stream.isAt(.leftParenthesis) ? try macroParameters() : []
        let special = macroNames.removeLast()
        let call = try expression()
        guard case .call = call.kind else { throw stream.failure("expected call", at: start) }
        let body = try macroBody(parameters, names: special, named: "caller", at: start, until: "endcall")
        return .callBlock(body, call: call)
    }

    private mutating func macro(named name: String, at start: SourceOffset, until end: String) throws -> Macro {
        macroNames.append(MacroNames())
        let parameters = try macroParameters()
        let special = macroNames.removeLast()
        return try macroBody(parameters, names: special, named: name, at: start, until: end)
    }

    private mutating func macroParameters() throws -> [Macro.Parameter] {
        try stream.expect(.leftParenthesis)
        var parameters: [Macro.Parameter] = []
        while !stream.isAt(.rightParenthesis) {
            if !parameters.isEmpty { try stream.expect(.comma) }
            let name = try stream.expectName()
            var defaultValue: Expression?
            if stream.take(.assign) {
                defaultValue = try expression()
            } else if let last = parameters.last, last.defaultValue != nil {
                throw stream.failure("non-default argument follows default argument", at: name.offset)
            }
            parameters.append(
                Macro.Parameter(name: name.text, symbol: symbol(name.text), defaultValue: defaultValue))
        }
        try stream.expect(.rightParenthesis)
        return parameters
    }

    private mutating func macroBody(
        _ parameters: [Macro.Parameter], names: MacroNames, named name: String, at start: SourceOffset,
        until end: String
    ) throws -> Macro {
        macroNames.append(names)
        let outerDepth = loopDepth
        loopDepth = 0
        let body = try scopedBody(until: end).statements
        loopDepth = outerDepth
        let read = macroNames.removeLast().read
        for special in read { noteRead(special) }
        let declared = Set(parameters.map(\.name))
        if read.contains("caller"), let caller = parameters.first(where: { $0.name == "caller" }),
            caller.defaultValue == nil
        {
            throw stream.failure(
                "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a"
                    + " default.", at: start)
        }
        func special(_ name: String, _ symbols: [String: SymbolID]) -> SymbolID? {
            read.contains(name) && !declared.contains(name) ? symbols[name] : nil
        }
        return Macro(
            name: name, symbol: symbol(name), parameters: parameters, body: body,
            caller: special("caller", symbolIDs), keywordRest: special("kwargs", symbolIDs),
            positionalRest: special("varargs", symbolIDs))
    }

    mutating func noteRead(_ name: String) {
        guard Parser.specialNames.contains(name), let innermost = macroNames.indices.last,
            !macroNames[innermost].stored.contains(name)
        else { return }
        macroNames[innermost].read.insert(name)
    }

    mutating func noteStore(_ name: String) {
        if Parser.specialNames.contains(name), let innermost = macroNames.indices.last {
            macroNames[innermost].stored.insert(name)
        }
    }
}

extension AssignmentTarget {
    func stores(_ symbol: SymbolID) -> Bool {
        switch self {
        case .name(let name): name == symbol
        case .tuple(let targets): targets.contains { $0.stores(symbol) }
        case .attribute: false
        }
    }
}
