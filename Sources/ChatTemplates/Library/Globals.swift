import OrderedCollections

/// The names that every template can use.
enum Globals {
    /// Made anew for each rendering; only those that a template mentions.
    static let table: [String: @Sendable () -> Value] = [
        "range": { function("range") { try range($0, $1) } },
        "dict": {
            .callable(
                Callable("dict", typeName: "type", attributes: ["fromkeys": fromKeys]) { interpreter, arguments in
                    try interpreter.dictionary(try entries(arguments, interpreter))
                })
        },
        "namespace": {
            function("namespace") { interpreter, arguments in
                var attributes: OrderedDictionary<ByteString, Value> = [:]
                for (key, value) in try entries(arguments, interpreter) {
                    attributes[ByteString(try Printer.string(key.value, interpreter))] = value
                }
                let namespace = Namespace(attributes)
                interpreter.adopt(namespace)
                return .object(namespace)
            }
        },
        "cycler": {
            function("cycler") { interpreter, arguments in
                guard !arguments.positional.isEmpty else {
                    throw TemplateError(.runtime, "at least one item has to be provided")
                }
                let items = Elements(arguments.positional)
                try interpreter.check(depth: items.depth)
                return .object(Cycler(items))
            }
        },
        "joiner": {
            function("joiner") { interpreter, arguments in
                let bound = try Parameters(function: "joiner", names: ["sep"], required: 0).bind(arguments)
                let separator = bound[0] ?? .string(", ")
                try interpreter.check(depth: separator.depth)
                return .object(Joiner(separator))
            }
        },
        "raise_exception": {
            function("raise_exception") { interpreter, arguments in
                let bound = try Parameters(function: "raise_exception", names: ["message"], required: 1).bind(arguments)
                throw TemplateError(.raised, try Printer.string(bound.value(0), interpreter))
            }
        },
        "strftime_now": {
            function("strftime_now") { interpreter, arguments in
                let bound = try Parameters(function: "strftime_now", names: ["format"], required: 1).bind(arguments)
                return try interpreter.string(TimeFormat.format(try bound.text(0), interpreter.clock()))
            }
        },
        "lipsum": {
            function("lipsum") { _, _ in
                throw TemplateError(.runtime, "lipsum is not supported: its text is random")
            }
        },
    ]

    private static func function(
        _ name: String, _ body: @escaping (Interpreter, Arguments) throws -> Value
    ) -> Value { .callable(Callable(name, body: body)) }

    static var fromKeys: Value {
        function("fromkeys") { interpreter, arguments in
            let bound = try Parameters(function: "fromkeys", names: ["iterable", "value"], required: 1).bind(arguments)
            var entries: OrderedDictionary<HashableValue, Value> = [:]
            for key in try interpreter.elements(of: bound.value(0)) {
                entries[try HashableValue(key)] = bound.value(1)
            }
            return try interpreter.dictionary(entries)
        }
    }

    static func dictionary(_ keywords: [(name: String, value: Value)]) throws -> Value {
        var entries: OrderedDictionary<HashableValue, Value> = [:]
        for (name, value) in keywords { entries[HashableValue(unchecked: .string(name))] = value }
        return .dictionary(Mapping(entries))
    }

    /// What `dict(…)` makes of its arguments: a mapping or pairs, then keywords.
    private static func entries(
        _ arguments: Arguments, _ interpreter: Interpreter
    ) throws -> OrderedDictionary<HashableValue, Value> {
        guard arguments.positional.count <= 1 else {
            throw TemplateError(
                .type, "dict expected at most 1 argument, got \(arguments.positional.count)")
        }
        var entries: OrderedDictionary<HashableValue, Value> = [:]
        if let first = arguments.positional.first {
            if case .dictionary(let mapping) = first {
                entries = mapping.entries
            } else {
                for pair in try interpreter.elements(of: first) {
                    let items = try interpreter.elements(of: pair)
                    guard items.count == 2 else {
                        throw TemplateError(.value, "dict: an element has length \(items.count); 2 is required")
                    }
                    entries[try HashableValue(items[0])] = items[1]
                }
            }
        }
        for (name, value) in arguments.keywords { entries[HashableValue(unchecked: .string(name))] = value }
        return entries
    }

    private static func range(_ interpreter: Interpreter, _ arguments: Arguments) throws -> Value {
        guard arguments.keywords.isEmpty, (1...3).contains(arguments.positional.count) else {
            throw TemplateError(.type, "range expected 1 to 3 arguments, got \(arguments.positional.count)")
        }
        let bounds = try arguments.positional.map { value in
            if case .undefined(let missing) = value { throw missing.error }
            guard let integer = value.integer else {
                throw TemplateError(.type, "'\(value.typeName)' object cannot be interpreted as an integer")
            }
            return integer
        }
        let start = bounds.count > 1 ? bounds[0] : 0
        let stop = bounds.count > 1 ? bounds[1] : bounds[0]
        let step = bounds.count > 2 ? bounds[2] : 1
        guard step != 0 else { throw TemplateError(.value, "range() arg 3 must not be zero") }
        let isEmpty = step > 0 ? start >= stop : start <= stop
        let span = start < stop ? UInt(bitPattern: stop &- start) : UInt(bitPattern: start &- stop)
        let count = isEmpty ? 0 : (span - 1) / step.magnitude + 1
        guard count <= UInt(interpreter.limits.rangeLength) else {
            throw TemplateError(
                .value,
                "Range too big. The sandbox blocks ranges larger than MAX_RANGE (\(interpreter.limits.rangeLength)).")
        }
        return .range(PythonRange(start: start, count: Int(count), step: step, stop: stop))
    }
}
