/// Parameters of a built-in filter, method or function, and the reading of a call's arguments by them.
struct Parameters: Sendable {
    let function: String
    let names: [String]
    let required: Int

    /// A call's arguments in the order of `names`.
    func bind(_ arguments: Arguments) throws -> BoundArguments {
        guard arguments.positional.count <= names.count else {
            throw TemplateError(
                .type,
                "\(function)() takes at most \(names.count) argument(s) but \(arguments.positional.count) were given")
        }
        var values: [Value?] =
            arguments.positional + Array(repeating: nil, count: names.count - arguments.positional.count)
        for (name, value) in arguments.keywords {
            guard let index = names.firstIndex(of: name) else {
                throw TemplateError(.type, "\(function)() got an unexpected keyword argument '\(name)'")
            }
            guard values[index] == nil else {
                throw TemplateError(.type, "\(function)() got multiple values for argument '\(name)'")
            }
            values[index] = value
        }
        for index in 0..<required where values[index] == nil {
            throw TemplateError(.type, "\(function)() missing required argument: '\(names[index])'")
        }
        return BoundArguments(function: function, names: names, values: values)
    }
}

struct BoundArguments {
    let function: String
    let names: [String]
    let values: [Value?]

    subscript(index: Int) -> Value? { values[index] }

    func value(_ index: Int) -> Value { values[index] ?? .none }

    private func wrong(_ index: Int, _ wanted: String) -> TemplateError {
        TemplateError(
            .type, "\(function)(): '\(names[index])' must be \(wanted), not \(value(index).typeName)")
    }

    func integer(_ index: Int, default missing: Int) throws -> Int {
        guard let value = values[index] else { return missing }
        if case .undefined(let missing) = value { throw missing.error }
        guard let integer = value.integer else { throw wrong(index, "int") }
        return integer
    }

    /// Absent and None alike give nil.
    func optionalInteger(_ index: Int) throws -> Int? {
        guard let value = values[index], !value.isNone else { return nil }
        return try integer(index, default: 0)
    }

    func text(_ index: Int) throws -> String {
        guard let text = value(index).text else { throw wrong(index, "str") }
        return text
    }

    func optionalText(_ index: Int) throws -> String? {
        guard let value = values[index], !value.isNone else { return nil }
        return try text(index)
    }

    func flag(_ index: Int) -> Bool { values[index]?.isTruthy ?? false }
}
