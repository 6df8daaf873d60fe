import OrderedCollections

/// Expressions.
extension Interpreter {
    func evaluate(_ expression: Expression, _ scope: Scope?) throws -> Value {
        try step()
        switch expression.kind {
        case .literal(let literal): return Value(literal)
        case .name(let symbol): return lookup(symbol, scope)
        default: break
        }
        try enter()
        defer { leave() }
        switch expression.kind {
        case .attribute(let operand, let name):
            let object = try evaluate(operand, scope)
            offset = expression.offset
            return try attribute(name, of: object)
        case .item(let operand, let key): return try evaluateItem(operand, key, at: expression.offset, scope)
        case .binary(let operation, let left, let right):
            let left = try evaluate(left, scope)
            let right = try evaluate(right, scope)
            offset = expression.offset
            return try apply(operation, left, right)
        case .and(let left, let right):
            let left = try evaluate(left, scope)
            return left.isTruthy ? try evaluate(right, scope) : left
        case .or(let left, let right):
            let left = try evaluate(left, scope)
            return left.isTruthy ? left : try evaluate(right, scope)
        case .not(let operand): return .bool(!(try evaluate(operand, scope).isTruthy))
        case .compare(let first, let operations):
            return .bool(try evaluateComparisons(first, operations, at: expression.offset, scope))
        case .filter(let operand?, let name, let filter, let arguments):
            let value = try evaluate(operand, scope)
            return try applyFilter(
                name, filter, to: value, try evaluateArguments(arguments, scope), at: expression.offset)
        case .test(let operand, let name, let test, let arguments):
            let value = try evaluate(operand, scope)
            return .bool(
                try applyTest(name, test, to: value, try evaluateArguments(arguments, scope), at: expression.offset))
        case .call: return try evaluateCall(expression, scope, caller: nil)
        default: return try evaluateOther(expression, scope)
        }
    }

    private func evaluateOther(_ expression: Expression, _ scope: Scope?) throws -> Value {
        switch expression.kind {
        case .list(let items): return try list(try items.map { try evaluate($0, scope) })
        case .tuple(let items): return try tuple(try items.map { try evaluate($0, scope) })
        case .dictionary(let items):
            var entries: OrderedDictionary<HashableValue, Value> = [:]
            for (key, value) in items {
                let key = try evaluate(key, scope)
                let value = try evaluate(value, scope)
                offset = expression.offset
                try chargeWhole(key)
                entries[try HashableValue(key)] = value
            }
            return try dictionary(entries)
        case .conditional(let test, let then, let otherwise):
            if try evaluate(test, scope).isTruthy { return try evaluate(then, scope) }
            if let otherwise { return try evaluate(otherwise, scope) }
            return .undefined(
                Undefined(
                    .hint(
                        "the inline if-expression evaluated to false and no else section was defined.")))
        case .concatenate(let parts): return try concatenate(parts, scope)
        case .negate(let operand):
            let value = try evaluate(operand, scope)
            offset = expression.offset
            return try negate(value)
        case .plus(let operand):
            let value = try evaluate(operand, scope)
            offset = expression.offset
            return try plus(value)
        default: throw TemplateError(.type, "a slice can only stand in a subscript")
        }
    }

    func dictionary(_ entries: OrderedDictionary<HashableValue, Value>) throws -> Value {
        try reserve(2 * entries.count)
        let mapping = Mapping(entries)
        try check(depth: mapping.depth)
        return .dictionary(mapping)
    }

    private func concatenate(_ parts: [Expression], _ scope: Scope?) throws -> Value {
        let values = try parts.map { try evaluate($0, scope) }
        guard escapes else {
            var text = ""
            for value in values { try Printer.write(value, to: &text, self) }
            return try string(text)
        }
        var text = ""
        for value in values {
            if case .markup(let safe) = value {
                text += safe
            } else {
                text += Markup.escape(try Printer.string(value, self))
            }
        }
        try allocate(text.utf8.count)
        return .markup(text)
    }

    private func evaluateComparisons(
        _ first: Expression, _ operations: [(operation: Comparison, right: Expression)], at place: SourceOffset,
        _ scope: Scope?
    ) throws -> Bool {
        var left = try evaluate(first, scope)
        for (operation, right) in operations {
            let right = try evaluate(right, scope)
            offset = place
            guard try holds(operation, left, right) else { return false }
            left = right
        }
        return true
    }

    func holds(_ operation: Comparison, _ left: Value, _ right: Value) throws -> Bool {
        if operation != .in, operation != .notIn { try chargeComparison(left, right) }
        switch operation {
        case .equal: return left.equals(right)
        case .notEqual: return !left.equals(right)
        case .in: return try contains(right, left)
        case .notIn: return !(try contains(right, left))
        case .less: return try left.compare(right, symbol: "<") == .less
        case .lessOrEqual:
            let order = try left.compare(right, symbol: "<=")
            return order == .less || order == .equal
        case .greater: return try left.compare(right, symbol: ">") == .greater
        case .greaterOrEqual:
            let order = try left.compare(right, symbol: ">=")
            return order == .greater || order == .equal
        }
    }

    private func evaluateItem(
        _ operand: Expression, _ key: Expression, at place: SourceOffset, _ scope: Scope?
    ) throws -> Value {
        let object = try evaluate(operand, scope)
        guard case .slice(let lower, let upper, let step) = key.kind else {
            let key = try evaluate(key, scope)
            offset = place
            return try item(key, of: object)
        }
        let bounds = try [lower, upper, step].map { try $0.map { try evaluate($0, scope) } }
        offset = place
        return try slice(object, bounds[0], bounds[1], bounds[2])
    }

    // MARK: Calls

    func evaluateArguments(_ arguments: CallArguments, _ scope: Scope?) throws -> Arguments {
        var result = Arguments()
        for argument in arguments.positional { result.positional.append(try evaluate(argument, scope)) }
        if let spread = arguments.spread {
            result.positional += try elements(of: try evaluate(spread, scope))
        }
        for (name, value) in arguments.keywords { result.keywords.append((name, try evaluate(value, scope))) }
        if let spread = arguments.keywordSpread {
            let value = try evaluate(spread, scope)
            guard case .dictionary(let mapping) = value else {
                throw TemplateError(.type, "argument after ** must be a mapping, not \(value.typeName)")
            }
            for (key, value) in mapping.entries {
                try step(result.keywords.count)
                guard let name = key.value.text else { throw TemplateError(.type, "keywords must be strings") }
                guard !result.keywords.contains(where: { $0.name == name }) else {
                    throw TemplateError(.type, "got multiple values for keyword argument '\(name)'")
                }
                result.keywords.append((name, value))
            }
        }
        return result
    }

    func evaluateCall(_ expression: Expression, _ scope: Scope?, caller: Value?) throws -> Value {
        guard case .call(let callee, let arguments) = expression.kind else { return .none }
        let function = try evaluate(callee, scope)
        var values = try evaluateArguments(arguments, scope)
        if let caller { values.keywords.append(("caller", caller)) }
        offset = expression.offset
        return try call(function, values)
    }

    func call(_ function: Value, _ arguments: Arguments) throws -> Value {
        try enter()
        defer { leave() }
        switch function {
        case .callable(let callable): return try callable.body(self, arguments)
        case .object(let object): return try object.call(arguments, self)
        case .undefined(let missing): throw missing.error
        default: throw TemplateError(.type, "'\(function.typeName)' object is not callable")
        }
    }

    // MARK: Filters and tests

    func applyFilter(
        _ name: String, _ filter: Filter?, to value: Value, _ arguments: Arguments, at place: SourceOffset
    ) throws -> Value {
        offset = place
        guard let filter else { throw TemplateError(.unknownFilterOrTest, "No filter named '\(name)'.") }
        try charge(value, with: arguments)
        if Filter.comparing.contains(name) { try chargeWhole(value) }
        return try filter.apply(self, value, arguments)
    }

    func applyTest(
        _ name: String, _ test: Test?, to value: Value, _ arguments: Arguments, at place: SourceOffset
    ) throws -> Bool {
        offset = place
        guard let test else { throw TemplateError(.unknownFilterOrTest, "No test named '\(name)'.") }
        try charge(value, with: arguments)
        if let other = arguments.positional.first { try chargeComparison(value, other) }
        return try test.apply(self, value, arguments)
    }

    /// A chain of filters whose innermost operand is left out, applied to `value`.
    func evaluateFilters(_ expression: Expression, on value: Value, _ scope: Scope?) throws -> Value {
        guard case .filter(let operand, let name, let filter, let arguments) = expression.kind else {
            return try evaluate(expression, scope)
        }
        let value = try operand.map { try evaluateFilters($0, on: value, scope) } ?? value
        return try applyFilter(
            name, filter, to: value, try evaluateArguments(arguments, scope), at: expression.offset)
    }
}
