import OrderedCollections

/// `namespace(…)`: the one object whose attributes a template can set.
final class Namespace: RuntimeObject {
    private(set) var attributes: OrderedDictionary<ByteString, Value>

    init(_ attributes: OrderedDictionary<ByteString, Value>) { self.attributes = attributes }

    override var typeName: String { "Namespace" }

    subscript(name: String) -> Value? {
        get { attributes[ByteString(name)] }
        set { attributes[ByteString(name)] = newValue }
    }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? { self[name] }

    func removeAll() { attributes = [:] }
}

/// `loop` within a for loop.
final class LoopContext: RuntimeObject {
    private let loop: ForLoop
    private let scope: Scope?
    private let nesting: Int
    private var items: [Value]
    private var position = 0
    /// The loop's own filter; it runs as late as possible, since the body may change what it reads.
    var condition: ((Value) throws -> Bool)?
    private var index = -1
    private var current: Value?
    private var previous: Value?
    private var upcoming: Value?
    private var lastChanged: [Value]?
    private let itemDepth: Int

    init(_ items: [Value], loop: ForLoop, scope: Scope?, depth: Int) {
        self.items = items
        self.loop = loop
        self.scope = scope
        nesting = depth
        itemDepth = 1 + items.reduce(0) { max($0, $1.depth) }
    }

    override var typeName: String { "jinja2.runtime.LoopContext" }
    override var depth: Int { itemDepth }
    override var isCallable: Bool { true }

    private func pull() throws -> Value? {
        while position < items.count {
            let item = items[position]
            position += 1
            if try condition?(item) ?? true { return item }
        }
        return nil
    }

    func next() throws -> Value? {
        let taken = upcoming
        upcoming = nil
        guard let value = try taken ?? pull() else { return nil }
        index += 1
        previous = current
        current = value
        return value
    }

    private func peek() throws -> Value? {
        if upcoming == nil { upcoming = try pull() }
        return upcoming
    }

    private func count() throws -> Int {
        guard condition != nil else { return items.count }
        var rest: [Value] = []
        while let value = try pull() { rest.append(value) }
        condition = nil
        let before = index + 1 + (upcoming == nil ? 0 : 1)
        // Keep positions in step with what passed: only the rest is still to come.
        items = [Value](repeating: .none, count: before) + rest
        position = before
        return items.count
    }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        switch name {
        case "index": .int(index + 1)
        case "index0": .int(index)
        case "first": .bool(index == 0)
        case "last": .bool(try peek() == nil)
        case "length": .int(try count())
        case "revindex": .int(try count() - index)
        case "revindex0": .int(try count() - index - 1)
        case "depth": .int(nesting + 1)
        case "depth0": .int(nesting)
        case "previtem":
            index == 0 ? missing("there is no previous item") : previous ?? missing("there is no previous item")
        case "nextitem": try peek() ?? missing("there is no next item")
        case "cycle":
            .callable(
                Callable("cycle", depth: depth + 1) { [self] _, arguments in
                    guard !arguments.positional.isEmpty else {
                        throw TemplateError(.type, "no items for cycling given")
                    }
                    return arguments.positional[index % arguments.positional.count]
                })
        case "changed":
            .callable(
                Callable("changed", depth: depth + 1) { [self] _, arguments in
                    let values = arguments.positional
                    let isSame = lastChanged.map { Value.tuple($0).equals(.tuple(values)) } ?? false
                    if !isSame { lastChanged = values }
                    return .bool(!isSame)
                })
        default: nil
        }
    }

    private func missing(_ hint: String) -> Value { .undefined(Undefined(.hint(hint))) }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        guard loop.isRecursive else {
            throw TemplateError(
                .type, "The loop must have the 'recursive' marker to be called recursively.")
        }
        guard let iterable = arguments.positional.first, arguments.positional.count == 1 else {
            throw TemplateError(.type, "loop() takes one argument")
        }
        return .string(
            try interpreter.capture { try $0.run(loop, over: iterable, scope, depth: nesting + 1) })
    }

    override var length: Int? { try? count() }

    override func shown(_ interpreter: Interpreter) throws -> String { "<LoopContext \(index + 1)/\(try count())>" }

    override func elements() throws -> [Value]? {
        var rest: [Value] = []
        while let value = try next() { rest.append(.tuple([value, .object(self)])) }
        return rest
    }
}

/// `cycler(…)`.
final class Cycler: RuntimeObject {
    private let items: Elements
    private var position = 0

    init(_ items: Elements) { self.items = items }

    override var typeName: String { "Cycler" }
    override var depth: Int { items.depth + 1 }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        switch name {
        case "current": items.items[position]
        case "items": .tuple(items)
        case "pos": .int(position)
        case "next":
            .callable(
                Callable("next", depth: depth + 1) { [self] _, _ in
                    defer { position = (position + 1) % items.items.count }
                    return items.items[position]
                })
        case "reset":
            .callable(
                Callable("reset", depth: depth + 1) { [self] _, _ in
                    position = 0
                    return .none
                })
        default: nil
        }
    }
}

/// `joiner(…)`: nothing the first time it is called, the separator after that.
final class Joiner: RuntimeObject {
    private let separator: Value
    private var isUsed = false

    init(_ separator: Value) { self.separator = separator }

    override var typeName: String { "Joiner" }
    override var depth: Int { separator.depth + 1 }
    override var isCallable: Bool { true }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        switch name {
        case "sep": separator
        case "used": .bool(isUsed)
        default: nil
        }
    }

    override func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        defer { isUsed = true }
        return isUsed ? separator : .string("")
    }
}

/// `self`: the template's blocks as functions.
final class BlocksReference: RuntimeObject {
    override var typeName: String { "TemplateReference" }

    override func shown(_ interpreter: Interpreter) throws -> String { "<TemplateReference None>" }

    override func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? {
        guard let block = interpreter.tree.blocks[name] else { return nil }
        return .callable(
            Callable(name, typeName: "BlockReference") { interpreter, _ in
                .string(try interpreter.capture { _ = try $0.execute(block.body, Scope(parent: nil)) })
            })
    }
}
