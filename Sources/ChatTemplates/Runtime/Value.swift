import OrderedCollections

/// A value while a template runs: Python's, as far as chat templates can reach them.
enum Value {
    case undefined(Undefined)
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    /// markupsafe's `Markup`, made by `safe` and `escape`: adding plain text to it escapes that text.
    case markup(String)
    case bytes([UInt8])
    case list(Elements)
    case tuple(Elements)
    case dictionary(Mapping)
    case range(PythonRange)
    /// A one-shot iterator: what `map`, `select`, `reverse` … give.
    case iterator(ValueIterator)
    case view(MappingView)
    case callable(Callable)
    case object(RuntimeObject)
}

/// What is missing, for the message of the error that using it gives.
final class Undefined {
    enum Reason {
        case variable(String)
        case attribute(owner: String, name: String)
        case element(owner: String, key: String)
        case unsafe(owner: String, name: String)
        case hint(String)
    }

    let reason: Reason
    init(_ reason: Reason) { self.reason = reason }

    var error: TemplateError {
        switch reason {
        case .variable(let name): TemplateError(.undefined, "'\(name)' is undefined")
        case .attribute(let owner, let name): TemplateError(.undefined, "'\(owner)' has no attribute '\(name)'")
        case .element(let owner, let key): TemplateError(.undefined, "\(owner) has no element \(key)")
        case .unsafe(let owner, let name):
            TemplateError(.security, "access to attribute '\(name)' of '\(owner)' object is unsafe.")
        case .hint(let hint): TemplateError(.undefined, hint)
        }
    }
}

/// The immutable contents of a list or tuple. `depth` counts how deep values nest, so that no walk (printing,
/// comparing, freeing) goes deeper than the limit allows.
final class Elements {
    let items: [Value]
    let depth: Int
    /// Steps that walking all of it takes; at most `Value.largestSize`.
    let size: Int
    /// Names of the elements of a named tuple, as `groupby` makes them.
    let fieldNames: [String]

    init(_ items: [Value], fieldNames: [String] = []) {
        self.items = items
        self.fieldNames = fieldNames
        depth = 1 + items.reduce(0) { max($0, $1.depth) }
        size = items.reduce(1) { min($0 + 1 + $1.size, Value.largestSize) }
    }
}

/// The immutable contents of a dict, keys in order.
final class Mapping {
    let entries: OrderedDictionary<HashableValue, Value>
    let depth: Int
    /// As that of ``Elements``.
    let size: Int

    init(_ entries: OrderedDictionary<HashableValue, Value>) {
        self.entries = entries
        var (depth, size) = (0, 1)
        for (key, value) in entries {
            depth = max(depth, key.value.depth, value.depth)
            size = min(size + 2 + key.value.size + value.size, Value.largestSize)
        }
        self.depth = depth + 1
        self.size = size
    }

    subscript(name: String) -> Value? { entries[HashableValue(unchecked: .string(name))] }

    var pairs: [Value] { entries.map { .tuple(Elements([$0.key.value, $0.value])) } }
}

struct PythonRange {
    let start: Int
    let count: Int
    let step: Int
    /// As written, for printing.
    let stop: Int

    /// Every element fits an integer, but the product on the way to it need not: it may wrap and come back.
    subscript(index: Int) -> Value { .int(start &+ index &* step) }
    var values: [Value] { (0..<count).map { self[$0] } }
}

/// A dict's `keys()`, `values()` or `items()`.
final class MappingView {
    enum Kind: String { case keys = "dict_keys", values = "dict_values", items = "dict_items" }
    let kind: Kind
    let mapping: Mapping

    init(_ kind: Kind, of mapping: Mapping) {
        self.kind = kind
        self.mapping = mapping
    }

    var values: [Value] {
        switch kind {
        case .keys: mapping.entries.keys.map(\.value)
        case .values: Array(mapping.entries.values)
        case .items: mapping.pairs
        }
    }
}

/// Values that can be taken once. They are computed when the iterator is made; an error that came up then is thrown
/// when they are taken, as Python's generators, which compute late, would have it.
final class ValueIterator {
    private var outcome: Result<[Value], any Error>
    private var position = 0
    let typeName: String
    let depth: Int

    init(typeName: String = "generator", _ compute: () throws -> [Value]) throws {
        self.typeName = typeName
        do {
            let values = try compute()
            depth = 1 + values.reduce(0) { max($0, $1.depth) }
            outcome = .success(values)
        } catch let error as TemplateError where error.code != .limit {
            outcome = .failure(error)
            depth = 1
        }
    }

    func next() throws -> Value? {
        let values = try outcome.get()
        guard position < values.count else { return nil }
        position += 1
        return values[position - 1]
    }

    func remaining() throws -> [Value] {
        let values = try outcome.get()
        defer { position = values.count }
        return Array(values[position...])
    }
}

/// Something that can be called.
final class Callable {
    typealias Body = (Interpreter, Arguments) throws -> Value

    let name: String
    let typeName: String
    let depth: Int
    /// Attributes that a template can read (`name`, `arguments` of a macro; `fromkeys` of `dict`).
    let attributes: [String: Value]
    let body: Body

    init(
        _ name: String, typeName: String = "function", depth: Int = 1, attributes: [String: Value] = [:],
        body: @escaping Body
    ) {
        self.name = name
        self.typeName = typeName
        self.depth = depth
        self.attributes = attributes
        self.body = body
    }
}

/// An object with identity and attributes: a namespace, `loop`, a cycler …
class RuntimeObject {
    var typeName: String { "object" }
    var depth: Int { 1 }
    func attribute(_ name: String, _ interpreter: Interpreter) throws -> Value? { nil }
    func call(_ arguments: Arguments, _ interpreter: Interpreter) throws -> Value {
        throw TemplateError(.type, "'\(typeName)' object is not callable")
    }
    var isCallable: Bool { false }
    /// Python's `repr`.
    func shown(_ interpreter: Interpreter) throws -> String { "<\(typeName) object>" }
    /// What iterating over it gives; nil where it cannot be iterated.
    func elements() throws -> [Value]? { nil }
    var length: Int? { nil }
}

/// The arguments of a call.
struct Arguments {
    var positional: [Value] = []
    var keywords: [(name: String, value: Value)] = []
}

extension Value {
    /// Larger values count as this large: lists that hold lists twice over double at each level.
    static let largestSize = 1 << 40

    /// Steps that comparing or hashing the whole value takes.
    var size: Int {
        switch self {
        case .string(let text), .markup(let text): text.utf8.count / 64
        case .list(let elements), .tuple(let elements): elements.size
        case .dictionary(let mapping): mapping.size
        case .bytes(let bytes): bytes.count / 64
        default: 0
        }
    }

    var depth: Int {
        switch self {
        case .list(let elements), .tuple(let elements): elements.depth
        case .dictionary(let mapping): mapping.depth
        case .iterator(let iterator): iterator.depth
        case .view(let view): view.mapping.depth + 1
        case .callable(let callable): callable.depth
        case .object(let object): object.depth
        default: 0
        }
    }

    /// Python's name of the type.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .int: "int"
        case .double: "float"
        case .string: "str"
        case .markup: "Markup"
        case .bytes: "bytes"
        case .list: "list"
        case .tuple: "tuple"
        case .dictionary: "dict"
        case .range: "range"
        case .iterator(let iterator): iterator.typeName
        case .view(let view): view.kind.rawValue
        case .callable(let callable): callable.typeName
        case .object(let object): object.typeName
        }
    }

    /// How Jinja2's messages about missing attributes call it.
    var ownerName: String {
        if case .none = self { return "None" }
        return typeName + " object"
    }

    var text: String? {
        switch self {
        case .string(let text), .markup(let text): text
        default: nil
        }
    }

    var isUndefined: Bool {
        if case .undefined = self { return true }
        return false
    }

    var isNone: Bool {
        if case .none = self { return true }
        return false
    }

    /// A bool counts as 0 or 1, as in Python.
    var integer: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    var number: Double? {
        if case .double(let value) = self { return value }
        return integer.map(Double.init)
    }

    var isTruthy: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .double(let value): value != 0
        case .string(let text), .markup(let text): !text.isEmpty
        case .bytes(let bytes): !bytes.isEmpty
        case .list(let elements), .tuple(let elements): !elements.items.isEmpty
        case .dictionary(let mapping): !mapping.entries.isEmpty
        case .range(let range): range.count > 0
        case .view(let view): !view.mapping.entries.isEmpty
        case .iterator, .callable: true
        case .object(let object): object.length.map { $0 > 0 } ?? true
        }
    }

    init(_ value: TemplateValue) {
        switch value {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .int(let value): self = .int(Int(value))
        case .double(let value): self = .double(value)
        case .string(let value): self = .string(value)
        case .array(let values): self = .list(Elements(values.map(Value.init)))
        case .object(let object):
            var entries = OrderedDictionary<HashableValue, Value>(minimumCapacity: object.count)
            for (key, value) in object.entries {
                entries[HashableValue(unchecked: .string(key.text))] = Value(value)
            }
            self = .dictionary(Mapping(entries))
        }
    }

    init(_ literal: Literal) {
        switch literal {
        case .none: self = .none
        case .bool(let value): self = .bool(value)
        case .int(let value): self = .int(value)
        case .double(let value): self = .double(value)
        case .string(let value): self = .string(value)
        }
    }

    static func list(_ items: [Value]) -> Value { .list(Elements(items)) }
    static func tuple(_ items: [Value]) -> Value { .tuple(Elements(items)) }
}
