/// A test: what may follow `is`.
struct Test: Sendable {
    let apply: @Sendable (Interpreter, Value, Arguments) throws -> Bool

    static func named(_ name: String) -> Test? { table[name] }

    private init(_ apply: @escaping @Sendable (Interpreter, Value, Arguments) throws -> Bool) { self.apply = apply }

    private static func unary(_ holds: @escaping @Sendable (Value) throws -> Bool) -> Test {
        Test { _, value, arguments in
            guard arguments.positional.isEmpty, arguments.keywords.isEmpty else {
                throw TemplateError(.type, "the test takes no argument")
            }
            return try holds(value)
        }
    }

    private static func binary(_ holds: @escaping @Sendable (Interpreter, Value, Value) throws -> Bool) -> Test {
        Test { interpreter, value, arguments in
            guard arguments.positional.count + arguments.keywords.count == 1,
                let other = arguments.positional.first ?? arguments.keywords.first?.value
            else { throw TemplateError(.type, "the test takes one argument") }
            return try holds(interpreter, value, other)
        }
    }

    private static func comparison(_ operation: Comparison) -> Test {
        binary { interpreter, value, other in try interpreter.holds(operation, value, other) }
    }

    private static let table: [String: Test] = {
        var table: [String: Test] = [
            "odd": binaryModulo(2, is: 1),
            "even": binaryModulo(2, is: 0),
            "divisibleby": binary { interpreter, value, other in
                try interpreter.apply(.modulo, value, other).equals(.int(0))
            },
            "defined": unary { !$0.isUndefined },
            "undefined": unary { $0.isUndefined },
            "filter": unary { $0.text.map { Filter.named($0) != nil } ?? false },
            "test": unary { $0.text.map { Test.named($0) != nil } ?? false },
            "none": unary { $0.isNone },
            "boolean": unary { if case .bool = $0 { true } else { false } },
            "true": unary { if case .bool(true) = $0 { true } else { false } },
            "false": unary { if case .bool(false) = $0 { true } else { false } },
            "integer": unary { if case .int = $0 { true } else { false } },
            "float": unary { if case .double = $0 { true } else { false } },
            "number": unary { $0.number != nil },
            "string": unary { $0.text != nil },
            "mapping": unary { if case .dictionary = $0 { true } else { false } },
            "lower": Test { interpreter, value, _ in
                PythonCase.isAll(try Printer.string(value, interpreter), lower: true)
            },
            "upper": Test { interpreter, value, _ in
                PythonCase.isAll(try Printer.string(value, interpreter), lower: false)
            },
            "sequence": unary { $0.isSequence },
            "iterable": unary { $0.isIterable },
            "callable": unary { $0.isCallable },
            "escaped": unary { if case .markup = $0 { true } else { false } },
            "sameas": binary { _, value, other in value.isSame(as: other) },
            "in": comparisonReversed,
        ]
        let comparisons: [(Comparison, [String])] = [
            (.equal, ["eq", "equalto", "=="]), (.notEqual, ["ne", "!="]), (.less, ["lt", "lessthan", "<"]),
            (.lessOrEqual, ["le", "<="]), (.greater, ["gt", "greaterthan", ">"]), (.greaterOrEqual, ["ge", ">="]),
        ]
        for (operation, names) in comparisons { for name in names { table[name] = comparison(operation) } }
        return table
    }()

    private static let comparisonReversed = binary { interpreter, value, other in
        try interpreter.contains(other, value)
    }

    private static func binaryModulo(_ divisor: Int, is remainder: Int) -> Test {
        Test { interpreter, value, _ in
            try interpreter.apply(.modulo, value, .int(divisor)).equals(.int(remainder))
        }
    }
}

extension Value {
    /// Has a length and elements: what Jinja2 calls a sequence, dicts and strings included.
    var isSequence: Bool {
        switch self {
        case .string, .markup, .bytes, .list, .tuple, .dictionary, .range: true
        // An undefined has a length, but reading its `__getitem__` does not raise either.
        case .undefined: true
        default: false
        }
    }

    var isIterable: Bool {
        switch self {
        case .string, .markup, .bytes, .list, .tuple, .dictionary, .range, .view, .iterator, .undefined: true
        case .object(let object): object is LoopContext
        default: false
        }
    }

    var isCallable: Bool {
        switch self {
        case .callable, .undefined: true
        case .object(let object): object.isCallable
        default: false
        }
    }

    /// Python's `is`, as far as it can be told.
    func isSame(as other: Value) -> Bool {
        switch (self, other) {
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)): a === b
        case (.dictionary(let a), .dictionary(let b)): a === b
        case (.undefined(let a), .undefined(let b)): a === b
        case (.int(let a), .int(let b)): a == b
        case (.bool(let a), .bool(let b)): a == b
        case (.double(let a), .double(let b)): a == b
        case (.string(let a), .string(let b)): a.hasSameBytes(as: b)
        case (.none, .none): true
        case (.object(let a), .object(let b)): a === b
        case (.callable(let a), .callable(let b)): a === b
        default: false
        }
    }
}
