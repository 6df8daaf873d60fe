import OrderedCollections

/// Python's equality, hashing and ordering.
extension Value {
    func equals(_ other: Value) -> Bool {
        switch (self, other) {
        case (.string(let a), .string(let b)), (.string(let a), .markup(let b)), (.markup(let a), .string(let b)),
            (.markup(let a), .markup(let b)):
            return a.hasSameBytes(as: b)
        case (.none, .none), (.undefined, .undefined): return true
        case (.int(let a), .int(let b)): return a == b
        case (.bool(let a), .bool(let b)): return a == b
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            return a === b || (a.items.count == b.items.count && zip(a.items, b.items).allSatisfy { $0.equals($1) })
        case (.dictionary(let a), .dictionary(let b)):
            if a === b { return true }
            return a.entries.count == b.entries.count
                && a.entries.allSatisfy { key, value in b.entries[key].map { value.equals($0) } ?? false }
        case (.bytes(let a), .bytes(let b)): return a == b
        case (.range(let a), .range(let b)):
            return a.count == b.count && (a.count == 0 || a.start == b.start && (a.count == 1 || a.step == b.step))
        case (.object(let a), .object(let b)): return a === b
        case (.callable(let a), .callable(let b)): return a === b
        case (.iterator(let a), .iterator(let b)): return a === b
        case (.view(let a), .view(let b)): return a === b
        default: return compareNumbers(other) == .some(.equal)
        }
    }

    enum Order { case less, equal, greater, unordered }

    /// Nil unless both are numbers; an integer and a double are compared exactly.
    private func compareNumbers(_ other: Value) -> Order? {
        if let a = integer, let b = other.integer { return a < b ? .less : a == b ? .equal : .greater }
        guard let a = number, let b = other.number else { return nil }
        if a != b || a.magnitude < 0x1p53 { return a < b ? .less : a == b ? .equal : a > b ? .greater : .unordered }
        // Beyond 2^53 the conversion above may have rounded the integer.
        let exactA = integer ?? Int(exactly: a)
        let exactB = other.integer ?? Int(exactly: b)
        guard let exactA, let exactB else {
            return exactA == nil && exactB == nil ? .equal : (exactA == nil ? .greater : .less)
        }
        return exactA < exactB ? .less : exactA == exactB ? .equal : .greater
    }

    /// Python's order, `symbol` being the operator for the error message.
    func compare(_ other: Value, symbol: String = "<") throws -> Order {
        if let order = compareNumbers(other) { return order }
        switch (self, other) {
        case (.undefined(let missing), _), (_, .undefined(let missing)): throw missing.error
        case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
            for (left, right) in zip(a.items, b.items) where !left.equals(right) {
                return try left.compare(right, symbol: symbol)
            }
            let (a, b) = (a.items.count, b.items.count)
            return a < b ? .less : a == b ? .equal : .greater
        default:
            if let a = text, let b = other.text {
                if a.hasSameBytes(as: b) { return .equal }
                // UTF-8's byte order is the order of code points.
                return a.utf8.lexicographicallyPrecedes(b.utf8) ? .less : .greater
            }
            throw TemplateError(
                .type, "'\(symbol)' not supported between instances of '\(typeName)' and '\(other.typeName)'")
        }
    }
}

/// A value that can be a dict's key.
struct HashableValue: Hashable {
    let value: Value

    /// - Throws: for lists and dicts, which Python cannot hash.
    init(_ value: Value) throws {
        try HashableValue.check(value)
        self.value = value
    }

    init(unchecked value: Value) { self.value = value }

    private static func check(_ value: Value) throws {
        switch value {
        case .list, .dictionary: throw TemplateError(.type, "unhashable type: '\(value.typeName)'")
        case .tuple(let elements): for item in elements.items { try check(item) }
        default: break
        }
    }

    static func == (left: HashableValue, right: HashableValue) -> Bool { left.value.equals(right.value) }

    func hash(into hasher: inout Hasher) {
        switch value {
        case .string(let text), .markup(let text): text.hashBytes(into: &hasher)
        case .bool, .int: hasher.combine(value.integer)
        case .double(let number): Int(exactly: number).map { hasher.combine(Optional($0)) } ?? hasher.combine(number)
        case .tuple(let elements): for item in elements.items { HashableValue(unchecked: item).hash(into: &hasher) }
        case .bytes(let bytes): hasher.combine(bytes)
        case .callable(let callable): hasher.combine(ObjectIdentifier(callable))
        case .object(let object): hasher.combine(ObjectIdentifier(object))
        default: hasher.combine(0)
        }
    }
}
