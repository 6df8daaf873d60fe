/// Runs a compiled template once: the state of one rendering. Statements are here, expressions in
/// `Evaluation.swift`, the counting against the limits in `Budget.swift`.
final class Interpreter {
    let tree: TemplateTree
    let limits: TemplateLimits
    let clock: @Sendable () -> TemplateTime
    /// The template's own variables, by symbol.
    var top: [Value?]
    /// What is being written: the rendered text, or a capture (macro, set block …) above it.
    var output = ""
    /// The place of the operation that runs, for errors.
    var offset: SourceOffset = 0
    var stepsLeft: Int
    var bytesLeft: Int
    var depth = 0
    var escapes = false
    private(set) var generations: [Generation] = []
    /// Rendered bytes below the captures, while capturing.
    private var renderedBytes: Int?
    /// Objects whose attributes can change, to break cycles at the end.
    private var namespaces: [Namespace] = []

    /// Scopes that hold macros which hold them.
    private var macroScopes: [Scope] = []

    /// A generation block that ran: where it began in the rendered text, and its own text.
    struct Generation {
        let start: Int
        let text: String
    }

    enum Flow { case next, leaveLoop, nextIteration }

    init(_ tree: TemplateTree, limits: TemplateLimits, clock: @escaping @Sendable () -> TemplateTime) {
        self.tree = tree
        self.limits = limits
        self.clock = clock
        stepsLeft = limits.steps
        bytesLeft = limits.allocatedBytes
        top = tree.symbols.map { Globals.table[$0]?() }
        if let own = tree.symbolIDs["self"] { top[own] = .object(BlocksReference()) }
    }

    func define(_ name: String, _ value: @autoclosure () -> Value) {
        if let symbol = tree.symbolIDs[name] { top[symbol] = value() }
    }

    func render() throws -> String {
        defer {
            for namespace in namespaces { namespace.removeAll() }
            for scope in macroScopes { scope.removeAll() }
        }
        _ = try execute(tree.body, nil)
        return output
    }

    func adopt(_ namespace: Namespace) { namespaces.append(namespace) }

    // MARK: Statements

    func execute(_ statements: [Statement], _ scope: Scope?) throws -> Flow {
        for statement in statements {
            let flow = try execute(statement, scope)
            if flow != .next { return flow }
        }
        return .next
    }

    private func execute(_ statement: Statement, _ scope: Scope?) throws -> Flow {
        switch statement {
        case .text(let text): try write(text)
        case .output(let expression): try write(try evaluate(expression, scope))
        case .branch(let branches, let otherwise):
            for (test, body) in branches where try evaluate(test, scope).isTruthy { return try execute(body, scope) }
            return try execute(otherwise, scope)
        case .loop(let loop): try run(loop, over: try evaluate(loop.iterable, scope), scope, depth: 0)
        case .set(let target, let value): try assign(try evaluate(value, scope), to: target, scope)
        case .leaveLoop: return .leaveLoop
        case .nextIteration: return .nextIteration
        default: return try executeRare(statement, scope)
        }
        return .next
    }

    private func executeRare(_ statement: Statement, _ scope: Scope?) throws -> Flow {
        switch statement {
        case .setBlock(let target, let filter, let body):
            let inner = Scope(parent: scope)
            var flow = Flow.next
            let text = try capture { flow = try $0.execute(body, inner) }
            // A `break` within leaves the loop, and nothing is assigned.
            if flow != .next { return flow }
            var value: Value = escapes ? .markup(text) : .string(text)
            if let filter { value = try evaluateFilters(filter, on: value, inner) }
            try assign(value, to: target, scope)
        case .macro(let macro): store(.callable(makeMacro(macro, scope)), macro.symbol, scope)
        case .callBlock(let macro, let call):
            try write(try evaluateCall(call, scope, caller: .callable(makeMacro(macro, scope))))
        case .filterBlock(let filter, let body):
            let inner = Scope(parent: scope)
            var flow = Flow.next
            let text = try capture { flow = try $0.execute(body, inner) }
            if flow != .next { return flow }
            try write(try evaluateFilters(filter, on: .string(text), inner))
        case .with(let bindings, let body):
            let inner = Scope(parent: scope)
            for (target, value) in bindings { try assign(try evaluate(value, scope), to: target, inner) }
            return try execute(body, inner)
        case .autoescape(let isOn, let body):
            let outer = escapes
            defer { escapes = outer }
            escapes = try evaluate(isOn, scope).isTruthy
            return try execute(body, Scope(parent: scope))
        case .generation(let body): try generate(body, scope)
        case .block(let block): return try execute(block.body, Scope(parent: nil))
        case .load(let template):
            offset = template.offset
            throw TemplateError(.type, "no loader for this environment specified")
        default: break
        }
        return .next
    }

    /// Runs `body` with its output apart, and returns what it wrote.
    func capture(_ body: (Interpreter) throws -> Void) throws -> String {
        let outer = output
        let outerBytes = renderedBytes
        if renderedBytes == nil { renderedBytes = outer.utf8.count }
        output = ""
        defer {
            output = outer
            renderedBytes = outerBytes
        }
        try enter()
        defer { leave() }
        try body(self)
        try allocate(output.utf8.count)
        return output
    }

    private func generate(_ body: [Statement], _ scope: Scope?) throws {
        let start = renderedBytes ?? output.utf8.count
        let text = try capture { _ = try $0.execute(body, Scope(parent: scope)) }
        generations.append(Generation(start: start, text: text))
        try write(text)
    }

    // MARK: Variables

    func lookup(_ symbol: SymbolID, _ scope: Scope?) -> Value {
        var scope = scope
        while let current = scope {
            if let value = current.lookup(symbol) { return value }
            scope = current.parent
        }
        return top[symbol] ?? .undefined(Undefined(.variable(tree.symbols[symbol])))
    }

    private func store(_ value: Value, _ symbol: SymbolID, _ scope: Scope?) {
        if let scope { scope.set(symbol, value) } else { top[symbol] = value }
    }

    func assign(_ value: Value, to target: AssignmentTarget, _ scope: Scope?) throws {
        switch target {
        case .name(let symbol): store(value, symbol, scope)
        case .attribute(let symbol, let name):
            guard case .object(let object) = lookup(symbol, scope), let namespace = object as? Namespace else {
                throw TemplateError(.runtime, "cannot assign attribute on non-namespace object")
            }
            namespace[name] = value
        case .tuple(let targets):
            let values: [Value]
            do {
                values = try elements(of: value)
            } catch let error as TemplateError where error.code == .type {
                throw TemplateError(.type, "cannot unpack non-iterable \(value.typeName) object")
            }
            guard values.count == targets.count else {
                let problem = values.count < targets.count ? "not enough values" : "too many values"
                throw TemplateError(.value, "\(problem) to unpack (expected \(targets.count), got \(values.count))")
            }
            for (target, value) in zip(targets, values) { try assign(value, to: target, scope) }
        }
    }

    // MARK: Loops

    func run(_ loop: ForLoop, over iterable: Value, _ scope: Scope?, depth: Int) throws {
        let values = try elements(of: iterable)
        let context = LoopContext(values, loop: loop, scope: scope, depth: depth)
        if let condition = loop.condition {
            context.condition = { value in
                let inner = Scope(parent: scope)
                try self.assign(value, to: loop.target, inner)
                return try self.evaluate(condition, inner).isTruthy
            }
        }
        try enter()
        defer {
            leave()
            // The condition holds the interpreter's scopes; a namespace may hold the loop.
            context.condition = nil
        }
        var completedOnce = false
        var inner = Scope(parent: scope)
        while let value = try context.next() {
            try step()
            if isKnownUniquelyReferenced(&inner) { inner.removeAll() } else { inner = Scope(parent: scope) }
            inner.set(loop.loopSymbol, .object(context))
            try assign(value, to: loop.target, inner)
            let flow = try execute(loop.body, inner)
            if flow == .leaveLoop { break }
            // As Jinja2 has it: `else` runs unless some iteration got to its end.
            if flow == .next { completedOnce = true }
        }
        if !completedOnce, !loop.otherwise.isEmpty { _ = try execute(loop.otherwise, Scope(parent: scope)) }
    }

    // MARK: Macros

    private func makeMacro(_ macro: Macro, _ scope: Scope?) -> Callable {
        if let scope { macroScopes.append(scope) }
        let names = macro.parameters.map { Value.string($0.name) }
        let attributes: [String: Value] = [
            "name": .string(macro.name), "arguments": .tuple(names),
            "catch_kwargs": .bool(macro.keywordRest != nil), "catch_varargs": .bool(macro.positionalRest != nil),
            "caller": .bool(macro.caller != nil),
        ]
        return Callable(macro.name, typeName: "Macro", attributes: attributes) { interpreter, arguments in
            try interpreter.call(macro, arguments, scope)
        }
    }

    private func call(_ macro: Macro, _ arguments: Arguments, _ scope: Scope?) throws -> Value {
        let inner = Scope(parent: scope)
        var keywords = arguments.keywords
        func takeKeyword(_ name: String) -> Value? {
            keywords.firstIndex { $0.name == name }.map { keywords.remove(at: $0).value }
        }
        var given: [Value?] = arguments.positional.prefix(macro.parameters.count).map { $0 }
        for parameter in macro.parameters.dropFirst(given.count) { given.append(takeKeyword(parameter.name)) }
        if let caller = macro.caller {
            inner.set(caller, takeKeyword("caller") ?? .undefined(Undefined(.hint("No caller defined"))))
        }
        if let rest = macro.keywordRest {
            inner.set(rest, try Globals.dictionary(keywords))
        } else if let extra = keywords.first {
            throw TemplateError(.type, "macro '\(macro.name)' takes no keyword argument '\(extra.name)'")
        }
        let extra = arguments.positional.dropFirst(macro.parameters.count)
        if let rest = macro.positionalRest {
            inner.set(rest, .tuple(Array(extra)))
        } else if !extra.isEmpty {
            let count = macro.parameters.count
            throw TemplateError(.type, "macro '\(macro.name)' takes not more than \(count) argument(s)")
        }
        let text = try capture { interpreter in
            for (parameter, value) in zip(macro.parameters, given) {
                if let value {
                    inner.set(parameter.symbol, value)
                } else if let defaultValue = parameter.defaultValue {
                    inner.set(parameter.symbol, try interpreter.evaluate(defaultValue, inner))
                } else {
                    let hint = "parameter '\(parameter.name)' was not provided"
                    inner.set(parameter.symbol, .undefined(Undefined(.hint(hint))))
                }
            }
            _ = try interpreter.execute(macro.body, inner)
        }
        return escapes ? .markup(text) : .string(text)
    }

    // MARK: Output

    private func write(_ text: String) throws {
        output += text
        if output.utf8.count > limits.outputBytes { throw Budget.tooLong(limits) }
    }

    private func write(_ value: Value) throws {
        switch value {
        case .string(let text) where !escapes: try write(text)
        case .markup(let text): try write(text)
        default:
            let text = try Printer.string(value, self)
            try write(escapes ? Markup.escape(text) : text)
        }
    }
}
