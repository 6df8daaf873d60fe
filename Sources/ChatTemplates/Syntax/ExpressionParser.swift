/// Jinja2's expression grammar. From loose to tight: conditional, or, and, not, comparisons, `+ -`, `~`, `* / // %`,
/// `**`, unary, postfix, filters and tests.
extension Parser {
    mutating func expression(withConditional: Bool = true) throws -> Expression {
        try nested { try withConditional ? $0.conditional() : $0.or() }
    }

    /// One expression, or several with commas between, which make a tuple.
    mutating func tupleExpression(
        withConditional: Bool = true, endingAt end: String? = nil, isParenthesized: Bool = false
    ) throws -> Expression {
        let start = stream.current.offset
        var items: [Expression] = []
        var isTuple = false
        while true {
            if !items.isEmpty { try stream.expect(.comma) }
            if isTupleEnd(end) { break }
            items.append(try expression(withConditional: withConditional))
            guard stream.isAt(.comma) else { break }
            isTuple = true
        }
        if !isTuple {
            if let only = items.first { return only }
            guard isParenthesized else {
                throw stream.failure("Expected an expression, got '\(stream.current.description)'")
            }
        }
        return try node(.tuple(items), at: start)
    }

    private func isTupleEnd(_ end: String?) -> Bool {
        switch stream.current.kind {
        case .outputEnd, .blockEnd, .symbol(.rightParenthesis): return true
        default: return end.map { stream.isAt(name: $0) } ?? false
        }
    }

    private mutating func conditional() throws -> Expression {
        var start = stream.current.offset
        var result = try or()
        while stream.isAt(name: "if") {
            stream.advance()
            let outer = isLenient
            isLenient = true
            defer { isLenient = outer }
            let test = try or()
            let otherwise = stream.take(name: "else") ? try nested { try $0.conditional() } : nil
            result = try node(.conditional(test: test, then: result, otherwise: otherwise), at: start)
            start = stream.current.offset
        }
        return result
    }

    private mutating func or() throws -> Expression {
        let start = stream.current.offset
        var left = try and()
        while stream.take(name: "or") { left = try node(.or(left, try and()), at: start) }
        return left
    }

    private mutating func and() throws -> Expression {
        let start = stream.current.offset
        var left = try not()
        while stream.take(name: "and") { left = try node(.and(left, try not()), at: start) }
        return left
    }

    private mutating func not() throws -> Expression {
        let start = stream.current.offset
        guard stream.take(name: "not") else { return try comparison() }
        return try node(.not(try nested { try $0.not() }), at: start)
    }

    private mutating func comparison() throws -> Expression {
        let start = stream.current.offset
        let left = try sum()
        var operations: [(operation: Comparison, right: Expression)] = []
        while let operation = takeComparison() { operations.append((operation, try sum())) }
        return operations.isEmpty ? left : try node(.compare(left, operations), at: start)
    }

    private mutating func takeComparison() -> Comparison? {
        let operation: Comparison? =
            switch stream.current.kind {
            case .symbol(.equal): .equal
            case .symbol(.notEqual): .notEqual
            case .symbol(.less): .less
            case .symbol(.lessOrEqual): .lessOrEqual
            case .symbol(.greater): .greater
            case .symbol(.greaterOrEqual): .greaterOrEqual
            case .name where stream.current.text == "in": .in
            case .name where stream.current.text == "not" && isName("in", stream.following): .notIn
            default: nil
            }
        if operation != nil { stream.advance() }
        if operation == .notIn { stream.advance() }
        return operation
    }

    private func isName(_ name: String, _ token: Token) -> Bool { token.kind == .name && token.text == name }

    private mutating func sum() throws -> Expression {
        var left = try concatenation()
        while true {
            let at = stream.current.offset
            guard let operation = takeOperation([.add: .add, .subtract: .subtract]) else { return left }
            left = try node(.binary(operation, left, try concatenation()), at: at)
        }
    }

    private mutating func concatenation() throws -> Expression {
        let start = stream.current.offset
        var parts = [try product()]
        while stream.take(.tilde) { parts.append(try product()) }
        return parts.count == 1 ? parts[0] : try node(.concatenate(parts), at: start)
    }

    private mutating func product() throws -> Expression {
        var left = try power()
        while true {
            let at = stream.current.offset
            let operations: [Token.Symbol: BinaryOperation] = [
                .multiply: .multiply, .divide: .divide, .floorDivide: .floorDivide, .modulo: .modulo,
            ]
            guard let operation = takeOperation(operations) else { return left }
            left = try node(.binary(operation, left, try power()), at: at)
        }
    }

    private mutating func power() throws -> Expression {
        var left = try unary()
        while true {
            let at = stream.current.offset
            guard let operation = takeOperation([.power: .power]) else { return left }
            left = try node(.binary(operation, left, try unary()), at: at)
        }
    }

    private mutating func takeOperation(_ operations: [Token.Symbol: BinaryOperation]) -> BinaryOperation? {
        guard case .symbol(let symbol) = stream.current.kind, let operation = operations[symbol] else { return nil }
        stream.advance()
        return operation
    }

    private mutating func unary(withFilters: Bool = true) throws -> Expression {
        let start = stream.current.offset
        var result: Expression
        if stream.take(.subtract) {
            result = try node(.negate(try nested { try $0.unary(withFilters: false) }), at: start)
        } else if stream.take(.add) {
            result = try node(.plus(try nested { try $0.unary(withFilters: false) }), at: start)
        } else {
            result = try primary()
        }
        result = try postfix(result)
        return withFilters ? try filtersAndTests(result) : result
    }

    private mutating func primary() throws -> Expression {
        let token = stream.current
        switch token.kind {
        case .name:
            stream.advance()
            return try node(nameOrConstant(token.text), at: token.offset)
        case .string:
            var text = ""
            while stream.current.kind == .string { text += stream.advance().text }
            return try node(.literal(.string(text)), at: token.offset)
        case .integer:
            stream.advance()
            return try node(.literal(.int(try integer(token))), at: token.offset)
        case .double:
            stream.advance()
            guard let value = Double(token.text) else { throw stream.failure("unreadable number \(token.text)") }
            return try node(.literal(.double(value)), at: token.offset)
        case .symbol(.leftParenthesis):
            stream.advance()
            let inner = try tupleExpression(isParenthesized: true)
            try stream.expect(.rightParenthesis)
            return inner
        case .symbol(.leftBracket): return try list()
        case .symbol(.leftBrace): return try dictionary()
        case .end: throw stream.failure("unexpected end of template")
        default: throw stream.failure("unexpected '\(token.description)'")
        }
    }

    private mutating func nameOrConstant(_ name: String) -> Expression.Kind {
        switch name {
        case "true", "True": return .literal(.bool(true))
        case "false", "False": return .literal(.bool(false))
        case "none", "None": return .literal(.none)
        default:
            noteRead(name)
            return .name(symbol(name))
        }
    }

    private func integer(_ token: Token) throws -> Int {
        let text = token.text.lowercased()
        let value: Int? =
            if text.hasPrefix("0x") {
                Int(text.dropFirst(2), radix: 16)
            } else if text.hasPrefix("0o") {
                Int(text.dropFirst(2), radix: 8)
            } else if text.hasPrefix("0b") {
                Int(text.dropFirst(2), radix: 2)
            } else {
                Int(text)
            }
        guard let value else {
            throw stream.failure("the integer \(token.text) does not fit 64 bits", at: token.offset)
        }
        return value
    }

    private mutating func list() throws -> Expression {
        let start = stream.advance().offset
        var items: [Expression] = []
        while !stream.isAt(.rightBracket) {
            if !items.isEmpty { try stream.expect(.comma) }
            if stream.isAt(.rightBracket) { break }
            items.append(try expression())
        }
        try stream.expect(.rightBracket)
        return try node(.list(items), at: start)
    }

    private mutating func dictionary() throws -> Expression {
        let start = stream.advance().offset
        var items: [(key: Expression, value: Expression)] = []
        while !stream.isAt(.rightBrace) {
            if !items.isEmpty { try stream.expect(.comma) }
            if stream.isAt(.rightBrace) { break }
            let key = try expression()
            try stream.expect(.colon)
            items.append((key, try expression()))
        }
        try stream.expect(.rightBrace)
        return try node(.dictionary(items), at: start)
    }

    // MARK: Postfix

    private mutating func postfix(_ operand: Expression) throws -> Expression {
        var result = operand
        while true {
            switch stream.current.kind {
            case .symbol(.dot): result = try dotted(result)
            case .symbol(.leftBracket): result = try subscripted(result)
            case .symbol(.leftParenthesis): result = try call(result)
            default: return result
            }
        }
    }

    /// A tree node, refused where the tree gets deeper than can be walked safely.
    func node(_ kind: Expression.Kind, at offset: SourceOffset) throws -> Expression {
        let node = Expression(kind, at: offset)
        guard node.depth <= nestingLimit else {
            throw stream.failure("the expression nests more than \(nestingLimit) deep", code: .limit, at: offset)
        }
        return node
    }

    private mutating func filtersAndTests(_ operand: Expression) throws -> Expression {
        var result = operand
        while true {
            if stream.isAt(.pipe) {
                result = try filterChain(on: result)
            } else if stream.isAt(name: "is") {
                result = try test(on: result)
            } else if stream.isAt(.leftParenthesis) {
                result = try call(result)
            } else {
                return result
            }
        }
    }

    private mutating func dotted(_ operand: Expression) throws -> Expression {
        let start = stream.advance().offset
        let name = stream.advance()
        switch name.kind {
        case .name: return try node(.attribute(operand, name.text), at: start)
        case .integer:
            let index = try node(.literal(.int(try integer(name))), at: name.offset)
            return try node(.item(operand, index), at: start)
        default: throw stream.failure("expected name or number", at: name.offset)
        }
    }

    private mutating func subscripted(_ operand: Expression) throws -> Expression {
        let start = stream.advance().offset
        var arguments: [Expression] = []
        while !stream.isAt(.rightBracket) {
            if !arguments.isEmpty { try stream.expect(.comma) }
            arguments.append(try subscriptArgument())
        }
        try stream.expect(.rightBracket)
        let argument = arguments.count == 1 ? arguments[0] : try node(.tuple(arguments), at: start)
        return try node(.item(operand, argument), at: start)
    }

    private mutating func subscriptArgument() throws -> Expression {
        let start = stream.current.offset
        var lower: Expression?
        if !stream.isAt(.colon) {
            let value = try expression()
            guard stream.isAt(.colon) else { return value }
            lower = value
        }
        try stream.expect(.colon)
        let upper = isSliceEnd || stream.isAt(.colon) ? nil : try expression()
        var step: Expression?
        if stream.take(.colon), !isSliceEnd { step = try expression() }
        return try node(.slice(lower, upper, step), at: start)
    }

    private var isSliceEnd: Bool { stream.isAt(.rightBracket) || stream.isAt(.comma) }

    private mutating func call(_ callee: Expression) throws -> Expression {
        let start = stream.current.offset
        return try node(.call(callee, try callArguments()), at: start)
    }

    private mutating func callArguments() throws -> CallArguments {
        let start = stream.current.offset
        try stream.expect(.leftParenthesis)
        var arguments = CallArguments()
        var needsComma = false
        func ensure(_ isValid: Bool) throws {
            if !isValid { throw stream.failure("invalid syntax for function call expression", at: start) }
        }
        while !stream.isAt(.rightParenthesis) {
            if needsComma {
                try stream.expect(.comma)
                if stream.isAt(.rightParenthesis) { break }
            }
            needsComma = true
            if stream.take(.multiply) {
                try ensure(arguments.spread == nil && arguments.keywordSpread == nil)
                arguments.spread = try expression()
            } else if stream.take(.power) {
                try ensure(arguments.keywordSpread == nil)
                arguments.keywordSpread = try expression()
            } else if stream.current.kind == .name, stream.following.kind == .symbol(.assign) {
                try ensure(arguments.keywordSpread == nil)
                let name = stream.advance().text
                stream.advance()
                guard arguments.keywords.count < Parser.maximumKeywords else {
                    throw stream.failure("more than \(Parser.maximumKeywords) keyword arguments", code: .limit)
                }
                guard !arguments.keywords.contains(where: { $0.name == name }) else {
                    throw stream.failure("keyword argument repeated: \(name)")
                }
                arguments.keywords.append((name, try expression()))
            } else {
                try ensure(
                    arguments.spread == nil && arguments.keywordSpread == nil && arguments.keywords.isEmpty)
                arguments.positional.append(try expression())
            }
        }
        try stream.expect(.rightParenthesis)
        return arguments
    }

    // MARK: Filters and tests

    /// `|name(…)|…` on an operand; `startsInline` for `{% filter name %}`, where the first bar is left out.
    mutating func filterChain(on operand: Expression?, startsInline: Bool = false) throws -> Expression {
        var result = operand
        var isInline = startsInline
        while isInline || stream.isAt(.pipe) {
            if !isInline { stream.advance() }
            isInline = false
            let (name, start) = try dottedName()
            let filter = Filter.named(name)
            if filter == nil, !isLenient { throw unknown("filter", name, at: start) }
            let arguments = stream.isAt(.leftParenthesis) ? try callArguments() : CallArguments()
            result = try node(.filter(result, name: name, filter, arguments), at: start)
        }
        guard let result else { throw stream.unexpected("name") }
        return result
    }

    private mutating func dottedName() throws -> (String, SourceOffset) {
        let token = try stream.expectName()
        var name = token.text
        while stream.take(.dot) { name += "." + (try stream.expectName().text) }
        return (name, token.offset)
    }

    private func unknown(_ what: String, _ name: String, at offset: SourceOffset) -> TemplateError {
        stream.failure("No \(what) named '\(name)'.", code: .unknownFilterOrTest, at: offset)
    }

    private mutating func test(on operand: Expression) throws -> Expression {
        stream.advance()
        let isNegated = stream.take(name: "not")
        let (name, start) = try dottedName()
        let test = Test.named(name)
        if test == nil, !isLenient { throw unknown("test", name, at: start) }
        var arguments = CallArguments()
        if stream.isAt(.leftParenthesis) {
            arguments = try callArguments()
        } else if startsTestArgument {
            if stream.isAt(name: "is") { throw stream.failure("You cannot chain multiple tests with is") }
            arguments.positional = [try nested { try $0.postfix(try $0.primary()) }]
        }
        let result = try node(.test(operand, name: name, test, arguments), at: start)
        return isNegated ? try node(.not(result), at: start) : result
    }

    private var startsTestArgument: Bool {
        switch stream.current.kind {
        case .string, .integer, .double, .symbol(.leftBracket), .symbol(.leftBrace): return true
        case .name: return !["else", "or", "and"].contains(stream.current.text)
        default: return false
        }
    }

    // MARK: Assignment targets

    /// Names, tuples of names, and (for `set`) attributes of namespaces.
    mutating func assignmentTarget(endingAt end: String?, withNamespace: Bool) throws -> AssignmentTarget {
        var targets: [AssignmentTarget] = []
        var isTuple = false
        while true {
            if !targets.isEmpty { try stream.expect(.comma) }
            if isTupleEnd(end) { break }
            targets.append(try nested { try $0.singleTarget(withNamespace: withNamespace) })
            guard stream.isAt(.comma) else { break }
            isTuple = true
        }
        if isTuple { return .tuple(targets) }
        guard let only = targets.first else {
            throw stream.failure("Expected an expression, got '\(stream.current.description)'")
        }
        return only
    }

    private mutating func singleTarget(withNamespace: Bool) throws -> AssignmentTarget {
        let token = stream.current
        if stream.take(.leftParenthesis) {
            let inner = try assignmentTarget(endingAt: nil, withNamespace: false)
            try stream.expect(.rightParenthesis)
            return inner
        }
        guard token.kind == .name else { throw stream.failure("can't assign to '\(token.description)'") }
        stream.advance()
        guard !["true", "false", "none", "True", "False", "None"].contains(token.text) else {
            throw stream.failure("can't assign to 'const'", at: token.offset)
        }
        if withNamespace, stream.take(.dot) {
            return .attribute(namespace: symbol(token.text), name: try stream.expectName().text)
        }
        noteStore(token.text)
        return .name(symbol(token.text))
    }
}
