import OrderedCollections

/// Filters that take or give sequences.
enum SequenceFilters {
    static let table: [String: Filter] = [
        "length": Filter("length") { interpreter, value, _ in .int(try length(value, interpreter)) },
        "list": Filter("list") { interpreter, value, _ in
            try interpreter.list(try interpreter.elements(of: value))
        },
        "first": Filter("first") { interpreter, value, _ in
            if case .iterator(let iterator) = value {
                return try iterator.next() ?? nothing("No first item, sequence was empty.")
            }
            return try interpreter.elements(of: value).first ?? nothing("No first item, sequence was empty.")
        },
        "last": Filter("last") { interpreter, value, _ in
            try reversed(value, interpreter).first ?? nothing("No last item, sequence was empty.")
        },
        "random": Filter("random") { interpreter, value, _ in
            _ = try length(value, interpreter)
            return try interpreter.elements(of: value).randomElement()
                ?? nothing("No random item, sequence was empty.")
        },
        "reverse": Filter("reverse") { interpreter, value, _ in
            if let text = value.text {
                let reversed = String(String.UnicodeScalarView(text.unicodeScalars.reversed()))
                if case .markup = value { return .markup(reversed) }
                return try interpreter.string(reversed)
            }
            if case .iterator(let iterator) = value { return try interpreter.list(try iterator.remaining().reversed()) }
            let values = try reversed(value, interpreter)
            return .iterator(try ValueIterator(typeName: "\(value.typeName)_reverseiterator") { values })
        },
        "join": Filter("join", ["d", "attribute"]) { interpreter, value, arguments in
            try join(interpreter, value, arguments)
        },
        "map": Filter(raw: { try map($0, $1, $2) }),
        "select": Filter(raw: { try select($0, $1, $2, keeps: true, byAttribute: false) }),
        "reject": Filter(raw: { try select($0, $1, $2, keeps: false, byAttribute: false) }),
        "selectattr": Filter(raw: { try select($0, $1, $2, keeps: true, byAttribute: true) }),
        "rejectattr": Filter(raw: { try select($0, $1, $2, keeps: false, byAttribute: true) }),
        "items": Filter("items") { interpreter, value, _ in
            if value.isUndefined { return .iterator(try ValueIterator { [] }) }
            return .iterator(
                try ValueIterator {
                    guard case .dictionary(let mapping) = value else {
                        throw TemplateError(.type, "Can only get item pairs from a mapping.")
                    }
                    try interpreter.reserve(2 * mapping.entries.count)
                    return mapping.pairs
                })
        },
        "dictsort": Filter("dictsort", ["case_sensitive", "by", "reverse"]) { interpreter, value, arguments in
            try sortedPairs(interpreter, value, arguments)
        },
        "sort": Filter("sort", ["reverse", "case_sensitive", "attribute"]) { interpreter, value, arguments in
            let keys = try AttributePath.list(arguments[2], foldsCase: !arguments.flag(1))
            let items = try interpreter.elements(of: value)
            let keyed = try items.map { item in (key: try keys.map { try $0.value(of: item, interpreter) }, item: item)
            }
            let sorted = try interpreter.sorted(keyed, isDescending: arguments.flag(0)) { .tuple($0.key) }
            return try interpreter.list(sorted.map(\.item))
        },
        "unique": Filter("unique", ["case_sensitive", "attribute"]) { interpreter, value, arguments in
            let path = try AttributePath(arguments[1], foldsCase: !arguments.flag(0))
            return .iterator(
                try ValueIterator {
                    var seen: Set<HashableValue> = []
                    return try interpreter.elements(of: value).filter {
                        seen.insert(try HashableValue(try path.value(of: $0, interpreter))).inserted
                    }
                })
        },
        "min": Filter("min", ["case_sensitive", "attribute"]) { interpreter, value, arguments in
            try extreme(interpreter, value, arguments, .less)
        },
        "max": Filter("max", ["case_sensitive", "attribute"]) { interpreter, value, arguments in
            try extreme(interpreter, value, arguments, .greater)
        },
        "sum": Filter("sum", ["attribute", "start"]) { interpreter, value, arguments in
            let path = try AttributePath(arguments[0])
            if arguments[1]?.text != nil {
                throw TemplateError(.type, "sum() can't sum strings [use ''.join(seq) instead]")
            }
            return try interpreter.elements(of: value).reduce(arguments[1] ?? .int(0)) { total, item in
                try interpreter.apply(.add, total, try path.value(of: item, interpreter))
            }
        },
        "groupby": Filter("groupby", ["attribute", "default", "case_sensitive"], required: 1) {
            try groups($0, $1, $2)
        },
        "batch": Filter("batch", ["linecount", "fill_with"], required: 1) { interpreter, value, arguments in
            .iterator(try ValueIterator { try batches(interpreter, value, arguments) })
        },
        "slice": Filter("slice", ["slices", "fill_with"], required: 1) { interpreter, value, arguments in
            .iterator(try ValueIterator { try columns(interpreter, value, arguments) })
        },
    ]

    static func nothing(_ hint: String) -> Value { .undefined(Undefined(.hint(hint))) }

    static func length(_ value: Value, _ interpreter: Interpreter) throws -> Int {
        switch value {
        case .string(let text), .markup(let text): return PythonText.count(text)
        case .bytes(let bytes): return bytes.count
        case .list(let elements), .tuple(let elements): return elements.items.count
        case .dictionary(let mapping): return mapping.entries.count
        case .view(let view): return view.mapping.entries.count
        case .range(let range): return range.count
        case .undefined: return 0
        case .object(let object): if let length = object.length { return length }
        default: break
        }
        throw TemplateError(.type, "object of type '\(value.typeName)' has no len()")
    }

    private static func reversed(_ value: Value, _ interpreter: Interpreter) throws -> [Value] {
        switch value {
        case .iterator, .none, .bool, .int, .double, .callable, .object:
            if case .iterator = value { throw TemplateError(.type, "'\(value.typeName)' object is not reversible") }
            throw TemplateError(.type, "'\(value.typeName)' object is not reversible")
        default: return try interpreter.elements(of: value).reversed()
        }
    }

    private static func join(_ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments) throws -> Value {
        let separator = try arguments[0].map { try Printer.string($0, interpreter) } ?? ""
        let path = try AttributePath(arguments[1])
        var result = ""
        var isFirst = true
        for item in try interpreter.elements(of: value) {
            if !isFirst { result += separator }
            isFirst = false
            try Printer.write(try path.value(of: item, interpreter), to: &result, interpreter)
            if result.utf8.count > interpreter.limits.outputBytes { throw Budget.tooLong(interpreter.limits) }
        }
        return try interpreter.string(result)
    }

    // MARK: map, select and kin

    private static func map(_ interpreter: Interpreter, _ value: Value, _ arguments: Arguments) throws -> Value {
        .iterator(
            try ValueIterator {
                guard value.isTruthy else { return [] }
                let items = try interpreter.elements(of: value)
                var arguments = arguments
                if arguments.positional.isEmpty,
                    let place = arguments.keywords.firstIndex(where: { $0.name == "attribute" })
                {
                    let attribute = arguments.keywords.remove(at: place).value
                    let missing = arguments.keywords.firstIndex { $0.name == "default" }
                        .map { arguments.keywords.remove(at: $0).value }
                    if let extra = arguments.keywords.first {
                        throw TemplateError(.type, "Unexpected keyword argument '\(extra.name)'")
                    }
                    let path = try AttributePath(attribute, missing: missing)
                    return try items.map { try path.value(of: $0, interpreter) }
                }
                guard let name = arguments.positional.first?.text else {
                    throw TemplateError(.type, "map requires a filter argument")
                }
                arguments.positional.removeFirst()
                let place = interpreter.offset
                return try items.map { item in
                    try interpreter.step()
                    return try interpreter.applyFilter(name, Filter.named(name), to: item, arguments, at: place)
                }
            })
    }

    private static func select(
        _ interpreter: Interpreter, _ value: Value, _ arguments: Arguments, keeps: Bool, byAttribute: Bool
    ) throws -> Value {
        .iterator(
            try ValueIterator {
                guard value.isTruthy else { return [] }
                var arguments = arguments
                var path: AttributePath?
                if byAttribute {
                    guard let attribute = arguments.positional.first else {
                        throw TemplateError(.type, "Missing parameter for attribute name")
                    }
                    path = try AttributePath(attribute)
                    arguments.positional.removeFirst()
                }
                var testName: String?
                if let first = arguments.positional.first {
                    guard let name = first.text else {
                        throw TemplateError(.unknownFilterOrTest, "a test's name must be a string")
                    }
                    testName = name
                    arguments.positional.removeFirst()
                }
                let place = interpreter.offset
                return try interpreter.elements(of: value).filter { item in
                    try interpreter.step()
                    let subject = try path?.value(of: item, interpreter) ?? item
                    guard let testName else { return subject.isTruthy == keeps }
                    let test = Test.named(testName)
                    return try interpreter.applyTest(testName, test, to: subject, arguments, at: place) == keeps
                }
            })
    }

    // MARK: Order and groups

    private static func sortedPairs(
        _ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments
    ) throws -> Value {
        let by = try arguments[1].map { _ in try arguments.text(1) } ?? "key"
        guard by == "key" || by == "value" else {
            throw TemplateError(.value, "You can only sort by either \"key\" or \"value\"")
        }
        if case .undefined(let missing) = value { throw missing.error }
        guard case .dictionary(let mapping) = value else {
            throw TemplateError(.undefined, "'\(value.typeName)' object has no attribute 'items'")
        }
        try interpreter.reserve(2 * mapping.entries.count)
        let isCaseSensitive = arguments.flag(0)
        let sorted = try interpreter.sorted(Array(mapping.entries), isDescending: arguments.flag(2)) { entry in
            let key = by == "key" ? entry.key.value : entry.value
            return isCaseSensitive ? key : key.caseFolded
        }
        return try interpreter.list(sorted.map { .tuple([$0.key.value, $0.value]) })
    }

    private static func extreme(
        _ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments, _ wanted: Value.Order
    ) throws -> Value {
        let path = try AttributePath(arguments[1], foldsCase: !arguments.flag(0))
        var best: (key: Value, item: Value)?
        for item in try interpreter.elements(of: value) {
            try interpreter.step()
            let key = try path.value(of: item, interpreter)
            if let current = best {
                if try key.compare(current.key) == wanted { best = (key, item) }
            } else {
                best = (key, item)
            }
        }
        return best?.item ?? nothing("No aggregated item, sequence was empty.")
    }

    private static func groups(_ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments) throws -> Value
    {
        let path = try AttributePath(arguments[0], foldsCase: !arguments.flag(2), missing: arguments[1])
        let shown = try AttributePath(arguments[0], missing: arguments[1])
        let keyed = try interpreter.elements(of: value).map { (key: try path.value(of: $0, interpreter), item: $0) }
        let sorted = try interpreter.sorted(keyed) { $0.key }
        var groups: [(key: Value, items: [Value])] = []
        for (key, item) in sorted {
            if let last = groups.indices.last, groups[last].key.equals(key) {
                groups[last].items.append(item)
            } else {
                groups.append((key, [item]))
            }
        }
        return try interpreter.list(
            try groups.map { group in
                let key = try shown.value(of: group.items[0], interpreter)
                let items = try interpreter.list(group.items)
                return .tuple(Elements([key, items], fieldNames: ["grouper", "list"]))
            })
    }

    private static func batches(
        _ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments
    ) throws -> [Value] {
        let size = try arguments.integer(0, default: 0)
        let items = try interpreter.elements(of: value)
        guard !items.isEmpty else { return [] }
        // Python's loop never cuts where the size is not positive.
        let width = size > 0 ? size : items.count
        try interpreter.reserve(items.count)
        var batches: [[Value]] = stride(from: 0, to: items.count, by: width).map { start in
            Array(items[start..<(start + min(width, items.count - start))])
        }
        if let fill = arguments[1], !fill.isNone, let last = batches.last, last.count < size {
            try interpreter.reserve(size - last.count)
            batches[batches.count - 1] += Array(repeating: fill, count: size - last.count)
        }
        return batches.map { .list($0) }
    }

    private static func columns(
        _ interpreter: Interpreter, _ value: Value, _ arguments: BoundArguments
    ) throws -> [Value] {
        let items = try interpreter.elements(of: value)
        let count = try arguments.integer(0, default: 0)
        guard count != 0 else { throw TemplateError(.zeroDivision, "integer division or modulo by zero") }
        guard count > 0 else { return [] }
        // Apart: their sum may not fit an integer.
        try interpreter.reserve(count)
        try interpreter.reserve(items.count)
        let (size, larger) = (items.count / count, items.count % count)
        var start = 0
        return (0..<count).map { index in
            let end = start + size + (index < larger ? 1 : 0)
            defer { start = end }
            var column = Array(items[start..<end])
            if let fill = arguments[1], !fill.isNone, index >= larger { column.append(fill) }
            return .list(column)
        }
    }
}

extension Interpreter {
    /// A stable sort by Python's order of the keys.
    func sorted<Item>(_ items: [Item], isDescending: Bool = false, by key: (Item) throws -> Value) throws -> [Item] {
        let keyed = try items.enumerated().map { (key: try key($1), position: $0) }
        try step(items.count * 16)
        let sorted = try keyed.sorted { left, right in
            let order = try left.key.compare(right.key)
            if order == .equal || order == .unordered { return left.position < right.position }
            return (order == .less) != isDescending
        }
        return sorted.map { items[$0.position] }
    }
}

extension Value {
    /// Strings in lower case, other values as they are: the key of case-insensitive sorting.
    var caseFolded: Value { text.map { .string(PythonCase.lower($0)) } ?? self }
}

/// `attribute="a.b.0"` of map, sort and kin.
struct AttributePath {
    private let parts: [Value]
    private let foldsCase: Bool
    private let missing: Value?

    init(_ attribute: Value?, foldsCase: Bool = false, missing: Value? = nil) throws {
        self.foldsCase = foldsCase
        self.missing = missing.flatMap { $0.isNone ? nil : $0 }
        guard let attribute, !attribute.isNone else {
            parts = []
            return
        }
        guard let text = attribute.text else {
            parts = [attribute]
            return
        }
        parts = AttributePath.parts(text)
    }

    private init(_ text: String, foldsCase: Bool) {
        parts = AttributePath.parts(text)
        self.foldsCase = foldsCase
        missing = nil
    }

    private static func parts(_ text: String) -> [Value] {
        PythonText.split(text, by: ".", limit: -1).map { part in
            let isNumber = !part.isEmpty && part.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 }
            return isNumber ? Int(part).map(Value.int) ?? .string(part) : .string(part)
        }
    }

    /// `attribute="a,b"` of sort.
    static func list(_ attribute: Value?, foldsCase: Bool) throws -> [AttributePath] {
        guard let text = attribute?.text else { return [try AttributePath(attribute, foldsCase: foldsCase)] }
        return PythonText.split(text, by: ",", limit: -1).map { AttributePath($0, foldsCase: foldsCase) }
    }

    func value(of item: Value, _ interpreter: Interpreter) throws -> Value {
        var value = item
        for part in parts {
            value = try interpreter.item(part, of: value)
            if let missing, value.isUndefined { value = missing }
        }
        return foldsCase ? value.caseFolded : value
    }
}
