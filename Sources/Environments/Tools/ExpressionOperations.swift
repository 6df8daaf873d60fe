#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension Expression {
    /// An exact result that does not fit is refused rather than rounded: a tool that is wrong in the last digit is no
    /// calculator.
    private static func exact(_ value: ExactRational?) throws(Problem) -> Value {
        guard let value else { throw Problem(message: "the exact result does not fit 64 bits") }
        return .exact(value)
    }

    static func real(_ value: Double) throws(Problem) -> Value {
        guard !value.isNaN else { throw Problem(message: "the result is not a number") }
        guard value.isFinite else { throw Problem(message: "the result is too large") }
        return .real(value)
    }

    static func negate(_ value: Value) -> Value {
        switch value {
        case .exact(let value): .exact(value.negated)
        case .real(let value): .real(-value)
        }
    }

    static func add(_ left: Value, _ right: Value) throws(Problem) -> Value {
        if case .exact(let a) = left, case .exact(let b) = right { return try exact(a + b) }
        return try real(left.double + right.double)
    }

    static func multiply(_ left: Value, _ right: Value) throws(Problem) -> Value {
        if case .exact(let a) = left, case .exact(let b) = right { return try exact(a * b) }
        return try real(left.double * right.double)
    }

    static func divide(_ left: Value, _ right: Value) throws(Problem) -> Value {
        guard right.double != 0 else { throw Problem(message: "division by zero") }
        if case .exact(let a) = left, case .exact(let b) = right { return try exact(a / b) }
        return try real(left.double / right.double)
    }

    static func floorDivide(_ left: Value, _ right: Value) throws(Problem) -> Value { try floored(divide(left, right)) }

    static func modulo(_ left: Value, _ right: Value) throws(Problem) -> Value {
        try add(left, negate(multiply(right, floorDivide(left, right))))
    }

    static func power(_ base: Value, _ exponent: Value) throws(Problem) -> Value {
        if case .exact(let a) = base, case .exact(let b) = exponent, b.isWhole {
            if a.numerator == 0, b.isNegative { throw Problem(message: "division by zero") }
            // One and zero are what they are to any power; nothing else fits beyond this.
            guard abs(b.numerator) <= 64 || abs(a.numerator) <= 1 && a.isWhole else {
                throw Problem(message: "the exact result does not fit 64 bits")
            }
            return try exact(a.power(b.numerator))
        }
        guard base.double >= 0 else { throw Problem(message: "a fractional power of a negative number") }
        return try real(pow(base.double, exponent.double))
    }

    private static func floored(_ value: Value) throws(Problem) -> Value {
        switch value {
        case .exact(let value): .exact(ExactRational(value.floor))
        case .real(let value): try real(value.rounded(.down))
        }
    }

    static func apply(_ name: String, _ arguments: [Value]) throws(Problem) -> Value {
        let allowed: ClosedRange<Int> =
            switch name {
            case "min", "max": 1...64
            case "round": 1...2
            default: 1...1
            }
        guard allowed.contains(arguments.count) else {
            throw Problem(message: "'\(name)' takes \(allowed.upperBound) argument(s), not \(arguments.count)")
        }
        let value = arguments[0], double = value.double
        switch name {
        case "abs": return double < 0 ? negate(value) : value
        case "floor": return try floored(value)
        case "ceil": return try negate(floored(negate(value)))
        case "min", "max":
            return arguments.dropFirst().reduce(value) { best, next in
                isLess(next, best) == (name == "min") && next != best ? next : best
            }
        case "round": return try round(value, arguments.count > 1 ? arguments[1] : .exact(ExactRational(0)))
        case "sqrt":
            guard double >= 0 else { throw Problem(message: "the square root of a negative number") }
            return try root(value)
        case "exp": return try real(exp(double))
        case "ln", "log":
            guard double > 0 else { throw Problem(message: "the logarithm of a number that is not above 0") }
            return try real(name == "ln" ? log(double) : log10(double))
        case "sin": return try real(sin(double))
        case "cos": return try real(cos(double))
        case "tan": return try real(tan(double))
        default: throw Problem(message: "there is no function '\(name)'")
        }
    }

    private static func isLess(_ left: Value, _ right: Value) -> Bool {
        if case .exact(let a) = left, case .exact(let b) = right { return a < b }
        return left.double < right.double
    }

    /// Whole squares have whole roots.
    private static func root(_ value: Value) throws(Problem) -> Value {
        if case .exact(let exact) = value {
            let top = Int(Double(exact.numerator).squareRoot()), bottom = Int(Double(exact.denominator).squareRoot())
            if let found = ExactRational(top, bottom), found * found == exact { return .exact(found) }
        }
        return try real(value.double.squareRoot())
    }

    /// Halves go to the even neighbour, as in Python.
    private static func round(_ value: Value, _ digits: Value) throws(Problem) -> Value {
        guard case .exact(let places) = digits, places.isWhole, (-18...18).contains(places.numerator) else {
            throw Problem(message: "'round' takes a whole number of places from -18 to 18")
        }
        let scale = try power(.exact(ExactRational(10)), .exact(places))
        guard case .exact(let scaled) = try multiply(value, scale) else {
            return try divide(real((value.double * scale.double).rounded(.toNearestOrEven)), scale)
        }
        var whole = scaled.floor
        guard let rest = scaled + ExactRational(-whole), let twice = rest + rest else {
            throw Problem(message: "the exact result does not fit 64 bits")
        }
        if ExactRational(1) < twice || twice == ExactRational(1) && whole % 2 != 0 { whole += 1 }
        return try divide(.exact(ExactRational(whole)), scale)
    }
}
