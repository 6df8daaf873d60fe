import OrderedCollections

/// Methods of dicts, lists, tuples and ranges that do not change them.
enum ContainerMethods {
    private static func callable(
        _ name: String, depth: Int, _ parameters: [String] = [], required: Int = 0,
        _ body: @escaping (Interpreter, BoundArguments) throws -> Value
    ) -> Value {
        let parameters = Parameters(function: name, names: parameters, required: required)
        return .callable(
            Callable(name, typeName: "builtin_function_or_method", depth: depth + 1) { interpreter, arguments in
                try body(interpreter, try parameters.bind(arguments))
            })
    }

    static func method(_ name: String, of mapping: Mapping) -> Value? {
        let depth = mapping.depth
        switch name {
        case "get":
            return callable(name, depth: depth, ["key", "default"], required: 1) { interpreter, arguments in
                try interpreter.chargeWhole(arguments.value(0))
                return mapping.entries[try HashableValue(arguments.value(0))] ?? arguments.value(1)
            }
        case "items": return callable(name, depth: depth) { _, _ in .view(MappingView(.items, of: mapping)) }
        case "keys": return callable(name, depth: depth) { _, _ in .view(MappingView(.keys, of: mapping)) }
        case "values": return callable(name, depth: depth) { _, _ in .view(MappingView(.values, of: mapping)) }
        case "copy":
            return callable(name, depth: depth) { interpreter, _ in
                try interpreter.step(mapping.entries.count)
                return .dictionary(Mapping(mapping.entries))
            }
        case "fromkeys": return Globals.fromKeys
        default: return Sandbox.dictionaryMutators.contains(name) ? Value.none : nil
        }
    }

    static func method(_ name: String, of elements: Elements, isList: Bool) -> Value? {
        switch name {
        case "count":
            return callable(name, depth: elements.depth, ["value"], required: 1) { interpreter, arguments in
                try interpreter.chargeSearch(for: arguments.value(0), among: elements.items.count)
                return .int(elements.items.count { $0.equals(arguments.value(0)) })
            }
        case "index":
            return callable(name, depth: elements.depth, ["value", "start", "stop"], required: 1) {
                interpreter, arguments in
                let count = elements.items.count
                try interpreter.chargeSearch(for: arguments.value(0), among: count)
                func clamped(_ index: Int) -> Int { min(index < 0 ? max(index + count, 0) : index, count) }
                let start = clamped(max(try arguments.integer(1, default: 0), -count))
                let stop = clamped(max(try arguments.integer(2, default: count), -count))
                let place = elements.items[start..<max(start, stop)].firstIndex { $0.equals(arguments.value(0)) }
                guard let place else { throw TemplateError(.value, "the value is not in the list") }
                return .int(place)
            }
        case "copy" where isList: return callable(name, depth: elements.depth) { _, _ in .list(elements) }
        default: return nil
        }
    }

    static func attribute(_ name: String, of range: PythonRange) -> Value? {
        switch name {
        case "start": .int(range.start)
        case "stop": .int(range.stop)
        case "step": .int(range.step)
        case "count":
            callable(name, depth: 0, ["value"], required: 1) { interpreter, arguments in
                .int(try interpreter.elements(of: .range(range)).count { $0.equals(arguments.value(0)) })
            }
        case "index":
            callable(name, depth: 0, ["value"], required: 1) { interpreter, arguments in
                let values = try interpreter.elements(of: .range(range))
                guard let place = values.firstIndex(where: { $0.equals(arguments.value(0)) }) else {
                    throw TemplateError(.value, "the value is not in range")
                }
                return .int(place)
            }
        default: nil
        }
    }
}

/// Attributes of numbers.
enum NumberMethods {
    static func attribute(_ name: String, of value: Value) -> Value? {
        func function(_ result: @autoclosure @escaping () throws -> Value) -> Value {
            .callable(Callable(name, typeName: "builtin_function_or_method") { _, _ in try result() })
        }
        if case .double(let number) = value {
            switch name {
            case "real": return value
            case "imag": return .double(0)
            case "is_integer": return function(.bool(number.isFinite && number == number.rounded()))
            case "conjugate": return function(value)
            default: return nil
            }
        }
        guard let integer = value.integer else { return nil }
        switch name {
        case "real", "numerator": return .int(integer)
        case "imag": return .int(0)
        case "denominator": return .int(1)
        case "conjugate": return function(.int(integer))
        case "bit_length": return function(.int(Int.bitWidth - integer.magnitude.leadingZeroBitCount))
        case "bit_count": return function(.int(integer.magnitude.nonzeroBitCount))
        default: return nil
        }
    }
}
