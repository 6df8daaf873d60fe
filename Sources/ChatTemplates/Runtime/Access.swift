import OrderedCollections

/// Attributes, elements and slices, with the sandbox's rules.
extension Interpreter {
    /// `object.name`: an attribute first, then an element of that key, else undefined.
    func attribute(_ name: String, of object: Value) throws -> Value {
        if case .undefined(let missing) = object {
            if Sandbox.commonInternals.contains(name) {
                return .undefined(Undefined(.unsafe(owner: object.typeName, name: name)))
            }
            throw missing.error
        }
        if let value = try ownAttribute(name, of: object) { return value }
        if case .dictionary(let mapping) = object, let value = mapping[name] { return value }
        return .undefined(Undefined(.attribute(owner: object.ownerName, name: name)))
    }

    /// `object[key]`: an element first, then, for a string, the attribute of that name, else undefined.
    func item(_ key: Value, of object: Value) throws -> Value {
        if case .undefined(let missing) = object { throw missing.error }
        try chargeWhole(key)
        if object.text != nil { try charge(object) }
        if let value = try element(key, of: object) { return value }
        guard let name = key.text else {
            let spelled = try Printer.repr(key, self)
            return .undefined(Undefined(.element(owner: object.ownerName, key: spelled)))
        }
        if let value = try ownAttribute(name, of: object) { return value }
        return .undefined(Undefined(.attribute(owner: object.ownerName, name: name)))
    }

    /// What `filter|attr` finds: attributes only.
    func ownAttribute(_ name: String, of object: Value) throws -> Value? {
        guard let value = try rawAttribute(name, of: object) else { return nil }
        if name.hasPrefix("_") || Sandbox.mutates(object, name) {
            return .undefined(Undefined(.unsafe(owner: object.typeName, name: name)))
        }
        return value
    }

    private func rawAttribute(_ name: String, of object: Value) throws -> Value? {
        if case .object(let instance) = object { return try instance.attribute(name, self) }
        if Sandbox.commonInternals.contains(name) { return Value.none }
        switch object {
        case .string, .markup: return StringMethods.method(name, of: object)
        case .dictionary(let mapping): return ContainerMethods.method(name, of: mapping)
        case .list(let elements):
            if Sandbox.listMutators.contains(name) { return Value.none }
            return ContainerMethods.method(name, of: elements, isList: true)
        case .tuple(let elements):
            if let field = elements.fieldNames.firstIndex(of: name) { return elements.items[field] }
            return ContainerMethods.method(name, of: elements, isList: false)
        case .callable(let callable): return callable.attributes[name]
        case .range(let range): return ContainerMethods.attribute(name, of: range)
        case .int, .bool, .double: return NumberMethods.attribute(name, of: object)
        case .bytes(let bytes): return StringMethods.method(name, of: bytes)
        default: return nil
        }
    }

    private func element(_ key: Value, of object: Value) throws -> Value? {
        switch object {
        case .dictionary(let mapping):
            switch key {
            case .list, .dictionary: return nil
            default: return mapping.entries[HashableValue(unchecked: key)]
            }
        case .list(let elements), .tuple(let elements):
            guard let index = position(key, count: elements.items.count) else { return nil }
            return elements.items[index]
        case .string(let text), .markup(let text):
            guard key.integer != nil else { return nil }
            guard let scalar = PythonText.scalar(of: text, at: key.integer ?? 0) else { return nil }
            if case .markup = object { return .markup(String(scalar)) }
            return .string(String(scalar))
        case .range(let range): return position(key, count: range.count).map { range[$0] }
        case .bytes(let bytes): return position(key, count: bytes.count).map { .int(Int(bytes[$0])) }
        default: return nil
        }
    }

    private func position(_ key: Value, count: Int) -> Int? {
        guard let index = key.integer, index < count, index >= -count else { return nil }
        return index < 0 ? index + count : index
    }

    // MARK: Slices

    func slice(_ object: Value, _ lower: Value?, _ upper: Value?, _ step: Value?) throws -> Value {
        if case .undefined(let missing) = object { throw missing.error }
        switch object {
        case .list(let elements):
            return try list(try indices(elements.items.count, lower, upper, step).map { elements.items[$0] })
        case .tuple(let elements):
            return try tuple(try indices(elements.items.count, lower, upper, step).map { elements.items[$0] })
        case .string(let text): return .string(try slice(text, lower, upper, step))
        case .markup(let text): return .markup(try slice(text, lower, upper, step))
        case .bytes(let bytes): return .bytes(try indices(bytes.count, lower, upper, step).map { bytes[$0] })
        case .range(let range):
            let positions = try indices(range.count, lower, upper, step)
            let first = range.start &+ (positions.first ?? 0) &* range.step
            let stride = positions.count > 1 ? (positions[1] - positions[0]) &* range.step : range.step
            let stop = first &+ positions.count &* stride
            return .range(PythonRange(start: first, count: positions.count, step: stride, stop: stop))
        default:
            // Jinja2 takes the error that Python gives here for a missing element.
            return .undefined(Undefined(.element(owner: object.ownerName, key: "slice")))
        }
    }

    private func slice(_ text: String, _ lower: Value?, _ upper: Value?, _ step: Value?) throws -> String {
        try allocate(text.utf8.count)
        let scalars = Array(text.unicodeScalars)
        var result = String.UnicodeScalarView()
        for index in try indices(scalars.count, lower, upper, step) { result.append(scalars[index]) }
        return String(result)
    }

    /// The positions that Python's `[lower:upper:step]` takes of `count` elements.
    private func indices(_ count: Int, _ lower: Value?, _ upper: Value?, _ step: Value?) throws -> [Int] {
        func bound(_ value: Value?) throws -> Int? {
            guard let value, !value.isNone else { return nil }
            guard let integer = value.integer else {
                throw TemplateError(
                    .type, "slice indices must be integers or None or have an __index__ method")
            }
            return integer
        }
        let stride = try bound(step) ?? 1
        guard stride != 0 else { throw TemplateError(.value, "slice step cannot be zero") }
        func clamped(_ index: Int?, default missing: Int) -> Int {
            guard let index else { return missing }
            let lowest = stride > 0 ? 0 : -1
            let highest = stride > 0 ? count : count - 1
            if index < -count { return lowest }
            return min(max(index < 0 ? index + count : index, lowest), highest)
        }
        let start = clamped(try bound(lower), default: stride > 0 ? 0 : count - 1)
        let stop = clamped(try bound(upper), default: stride > 0 ? count : -1)
        // A stride beyond the length takes the first position alone, and must not overflow.
        let step = min(max(stride, -count - 1), count + 1)
        try reserve(max(0, (stop - start) / step))
        return Array(Swift.stride(from: start, to: stop, by: step))
    }
}

/// What Jinja2's immutable sandbox keeps from templates.
enum Sandbox {
    static let listMutators: Set<String> = [
        "append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove",
    ]
    static let dictionaryMutators: Set<String> = ["clear", "pop", "popitem", "setdefault", "update"]

    /// Attributes that every Python object has and no template may read.
    static let commonInternals: Set<String> = [
        "__class__", "__delattr__", "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattribute__",
        "__getstate__", "__gt__", "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__", "__ne__",
        "__new__", "__reduce__", "__reduce_ex__", "__repr__", "__setattr__", "__sizeof__", "__str__",
        "__subclasshook__",
    ]

    static func mutates(_ object: Value, _ name: String) -> Bool {
        switch object {
        case .list: listMutators.contains(name)
        case .dictionary: dictionaryMutators.contains(name)
        default: false
        }
    }
}
