import OrderedCollections

/// Python's arithmetic. Integers are 64 bits wide: a result past that is an error, never a wrong number.
extension Interpreter {
    func apply(_ operation: BinaryOperation, _ left: Value, _ right: Value) throws -> Value {
        if case .undefined(let missing) = left { throw missing.error }
        if operation == .modulo, let format = left.text {
            return try string(try PercentFormat.format(format, right, self))
        }
        if case .undefined(let missing) = right { throw missing.error }
        if let a = left.integer, let b = right.integer { return try integers(operation, a, b) }
        if let a = left.number, let b = right.number { return try doubles(operation, a, b) }
        switch operation {
        case .add: return try add(left, right)
        case .multiply:
            if let count = right.integer { return try repeated(left, count, other: right) }
            if let count = left.integer { return try repeated(right, count, other: left) }
        default: break
        }
        throw unsupported(operation.rawValue, left, right)
    }

    private func unsupported(_ symbol: String, _ left: Value, _ right: Value) -> TemplateError {
        TemplateError(
            .type, "unsupported operand type(s) for \(symbol): '\(left.typeName)' and '\(right.typeName)'")
    }

    private func overflow(_ operation: BinaryOperation, _ a: Int, _ b: Int) -> TemplateError {
        TemplateError(.value, "\(a) \(operation.rawValue) \(b) does not fit 64 bits")
    }

    private func integers(_ operation: BinaryOperation, _ a: Int, _ b: Int) throws -> Value {
        let result: (partialValue: Int, overflow: Bool)
        switch operation {
        case .add: result = a.addingReportingOverflow(b)
        case .subtract: result = a.subtractingReportingOverflow(b)
        case .multiply: result = a.multipliedReportingOverflow(by: b)
        case .divide:
            guard b != 0 else { throw TemplateError(.zeroDivision, "division by zero") }
            return .double(Double(a) / Double(b))
        case .floorDivide:
            guard b != 0 else { throw TemplateError(.zeroDivision, "integer division or modulo by zero") }
            let quotient = a.dividedReportingOverflow(by: b)
            let isRoundedUp = !quotient.overflow && a % b != 0 && (a < 0) != (b < 0)
            result = (isRoundedUp ? quotient.partialValue - 1 : quotient.partialValue, quotient.overflow)
        case .modulo:
            guard b != 0 else { throw TemplateError(.zeroDivision, "integer modulo by zero") }
            let remainder = b == -1 ? 0 : a % b
            result = (remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder, false)
        case .power: return try power(a, b)
        }
        guard !result.overflow else { throw overflow(operation, a, b) }
        return .int(result.partialValue)
    }

    private func power(_ base: Int, _ exponent: Int) throws -> Value {
        if exponent < 0 { return try doubles(.power, Double(base), Double(exponent)) }
        if base == 0 || base == 1 { return .int(exponent == 0 ? 1 : base) }
        if base == -1 { return .int(exponent % 2 == 0 ? 1 : -1) }
        guard exponent < 64 else { throw overflow(.power, base, exponent) }
        var result = 1
        for _ in 0..<exponent {
            let (product, isTooLarge) = result.multipliedReportingOverflow(by: base)
            guard !isTooLarge else { throw overflow(.power, base, exponent) }
            result = product
        }
        return .int(result)
    }

    private func doubles(_ operation: BinaryOperation, _ a: Double, _ b: Double) throws -> Value {
        switch operation {
        case .add: return .double(a + b)
        case .subtract: return .double(a - b)
        case .multiply: return .double(a * b)
        case .divide:
            guard b != 0 else { throw TemplateError(.zeroDivision, "float division by zero") }
            return .double(a / b)
        case .floorDivide, .modulo:
            guard b != 0 else { throw TemplateError(.zeroDivision, "float floor division or modulo by zero") }
            var remainder = a.truncatingRemainder(dividingBy: b)
            if remainder != 0, (remainder < 0) != (b < 0) { remainder += b }
            if remainder == 0 { remainder = Double(signOf: b, magnitudeOf: 0) }
            if operation == .modulo { return .double(remainder) }
            let quotient = (a - remainder) / b
            let rounded = quotient.rounded(.down)
            return .double(quotient - rounded > 0.5 ? rounded + 1 : rounded)
        case .power:
            if a == 0, b < 0 {
                throw TemplateError(.zeroDivision, "0.0 cannot be raised to a negative power")
            }
            return .double(try PlatformMath.power(a, b))
        }
    }

    private func add(_ left: Value, _ right: Value) throws -> Value {
        switch (left, right) {
        case (.string(let a), .string(let b)):
            try allocate(a.utf8.count + b.utf8.count)
            return .string(a + b)
        case (.markup(let a), .markup(let b)): return .markup(try joined(a, b))
        case (.markup(let a), .string(let b)): return .markup(try joined(a, Markup.escape(b)))
        case (.string(let a), .markup(let b)): return .markup(try joined(Markup.escape(a), b))
        case (.list(let a), .list(let b)): return try list(a.items + b.items)
        case (.tuple(let a), .tuple(let b)): return try tuple(a.items + b.items)
        case (.bytes(let a), .bytes(let b)):
            try allocate(a.count + b.count)
            return .bytes(a + b)
        case (.string, _), (.markup, _):
            throw TemplateError(.type, "can only concatenate str (not \"\(right.typeName)\") to str")
        case (.list, _):
            throw TemplateError(.type, "can only concatenate list (not \"\(right.typeName)\") to list")
        case (.tuple, _):
            throw TemplateError(.type, "can only concatenate tuple (not \"\(right.typeName)\") to tuple")
        default: throw unsupported("+", left, right)
        }
    }

    private func joined(_ a: String, _ b: String) throws -> String {
        try allocate(a.utf8.count + b.utf8.count)
        return a + b
    }

    private func repeated(_ value: Value, _ count: Int, other: Value) throws -> Value {
        let count = max(count, 0)
        switch value {
        case .string(let text), .markup(let text):
            try allocate(count, times: text.utf8.count)
            let repeated = text.isEmpty ? "" : String(repeating: text, count: count)
            if case .markup = value { return .markup(repeated) }
            return .string(repeated)
        case .bytes(let bytes):
            try allocate(count, times: bytes.count)
            return .bytes(bytes.isEmpty ? [] : Array(repeatElement(bytes, count: count).joined()))
        case .list(let elements), .tuple(let elements):
            let (total, overflow) = count.multipliedReportingOverflow(by: elements.items.count)
            try reserve(overflow ? Int.max / 32 : total)
            let items = elements.items.isEmpty ? [] : Array(repeatElement(elements.items, count: count).joined())
            if case .list = value { return .list(items) }
            return .tuple(items)
        default: throw unsupported("*", value, other)
        }
    }

    func negate(_ value: Value) throws -> Value {
        if case .undefined(let missing) = value { throw missing.error }
        if let integer = value.integer {
            guard integer != .min else { throw TemplateError(.value, "-(\(integer)) does not fit 64 bits") }
            return .int(-integer)
        }
        if case .double(let number) = value { return .double(-number) }
        throw TemplateError(.type, "bad operand type for unary -: '\(value.typeName)'")
    }

    func plus(_ value: Value) throws -> Value {
        if case .undefined(let missing) = value { throw missing.error }
        if let integer = value.integer { return .int(integer) }
        if case .double = value { return value }
        throw TemplateError(.type, "bad operand type for unary +: '\(value.typeName)'")
    }

    /// Python's `needle in container`.
    func contains(_ container: Value, _ needle: Value) throws -> Bool {
        try chargeWhole(needle)
        switch container {
        case .string(let text), .markup(let text):
            guard let part = needle.text else {
                throw TemplateError(.type, "'in <string>' requires string as left operand, not \(needle.typeName)")
            }
            try charge(container)
            try chargeSearch(for: part, in: container)
            return PythonText.find(Array(part.utf8), in: Array(text.utf8)[...]) != nil
        case .dictionary(let mapping): return mapping.entries[try HashableValue(needle)] != nil
        case .view(let view) where view.kind == .keys: return view.mapping.entries[try HashableValue(needle)] != nil
        case .none, .bool, .int, .double, .callable:
            throw TemplateError(.type, "argument of type '\(container.typeName)' is not iterable")
        default:
            let values = try elements(of: container)
            try chargeSearch(for: needle, among: values.count)
            return values.contains { $0.equals(needle) }
        }
    }
}
