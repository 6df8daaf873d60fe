/// Python's spelling of numbers and its conversions from text.
enum Numbers {
    /// Python's `repr` of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16.
    static func repr(_ value: Double) -> String {
        if value.isNaN { return "nan" }
        if value.isInfinite { return value < 0 ? "-inf" : "inf" }
        if value == 0 { return value.sign == .minus ? "-0.0" : "0.0" }
        let (digits, exponent) = shortestDigits(value.magnitude)
        let sign = value < 0 ? "-" : ""
        if exponent < -4 || exponent >= 16 {
            let rest = digits.count > 1 ? "." + digits.dropFirst() : ""
            let power = abs(exponent)
            return "\(sign)\(digits.prefix(1))\(rest)e\(exponent < 0 ? "-" : "+")\(power < 10 ? "0" : "")\(power)"
        }
        if exponent < 0 { return sign + "0." + String(repeating: "0", count: -exponent - 1) + digits }
        if digits.count <= exponent + 1 {
            return sign + digits + String(repeating: "0", count: exponent + 1 - digits.count) + ".0"
        }
        return sign + digits.prefix(exponent + 1) + "." + digits.dropFirst(exponent + 1)
    }

    /// The shortest decimal digits that read back as `value`, and the power of ten of the first one.
    private static func shortestDigits(_ value: Double) -> (digits: String, exponent: Int) {
        // The standard library's own description has the same digits, spelled differently.
        let parts = value.description.split(separator: "e")
        let mantissa = parts[0].split(separator: ".", omittingEmptySubsequences: false)
        let whole = mantissa[0]
        let fraction = mantissa.count > 1 ? mantissa[1] : ""
        var exponent = (parts.count > 1 ? Int(parts[1]) ?? 0 : 0) + whole.count - 1
        var digits = Substring(String(whole + fraction))
        while digits.first == "0" {
            digits.removeFirst()
            exponent -= 1
        }
        while digits.count > 1, digits.last == "0" { digits.removeLast() }
        return (String(digits), exponent)
    }

    /// Python's `round(value, places)`: correctly rounded from the exact value, ties to even.
    static func round(_ value: Double, places: Int) -> Double {
        guard value.isFinite, places <= 323 else { return value }
        if places >= 0 { return Double(PlatformMath.format("%.*f", precision: places, value)) ?? value }
        if places < -308 { return Double(signOf: value, magnitudeOf: 0) }
        let scientific = PlatformMath.format("%.*f", precision: 0, value)
        let digits = scientific.drop { $0 == "-" }
        guard digits.count + places >= 0 else { return Double(signOf: value, magnitudeOf: 0) }
        var scale = 1.0
        for _ in 0..<(-places) { scale *= 10 }
        return (value / scale).rounded(.toNearestOrEven) * scale
    }

    /// Python's `int(text, base)`; nil where it raises.
    static func integer(_ text: String, base: Int) -> Int? {
        guard base == 0 || (2...36).contains(base) else { return nil }
        var digits = PythonText.strip(text, .both, where: \.isPythonSpace)[...]
        var sign = ""
        if let first = digits.first, first == "-" || first == "+" {
            if first == "-" { sign = "-" }
            digits.removeFirst()
        }
        var radix = base == 0 ? 10 : base
        for (prefix, value) in [("0x", 16), ("0o", 8), ("0b", 2)] where base == 0 || base == value {
            if digits.lowercased().hasPrefix(prefix) {
                digits.removeFirst(2)
                if digits.first == "_" { digits.removeFirst() }
                radix = value
            }
        }
        guard let plain = withoutUnderscores(digits), plain.first != "-", plain.first != "+" else { return nil }
        return Int(sign + plain, radix: radix)
    }

    /// Python's `float(text)`; nil where it raises.
    static func double(_ text: String) -> Double? {
        let trimmed = PythonText.strip(text, .both, where: \.isPythonSpace)
        switch trimmed.lowercased() {
        case "nan", "+nan", "-nan": return .nan
        case "inf", "+inf", "infinity", "+infinity": return .infinity
        case "-inf", "-infinity": return -.infinity
        default: break
        }
        guard let plain = withoutUnderscores(trimmed[...]) else { return nil }
        // Swift also reads hexadecimal, which Python does not.
        guard plain.utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || "+-.eE".utf8.contains($0) }) else { return nil }
        var spelled = plain
        if spelled.hasSuffix(".") { spelled += "0" }
        spelled = spelled.hasPrefix(".") ? "0" + spelled : spelled
        if spelled.contains(".e") || spelled.contains(".E") { spelled.replace(".e", with: ".0e") }
        return Double(spelled)
    }

    /// Digits in ASCII without single underscores between them; nil for underscores elsewhere.
    private static func withoutUnderscores(_ text: Substring) -> String? {
        var result = ""
        var previous: Character = "_"
        for character in text {
            var character = character
            if character == "_" {
                guard previous.isASCII, previous.isHexDigit || previous.isLetter else { return nil }
            } else {
                // Python takes any script's decimal digits.
                if !character.isASCII, let digit = character.wholeNumberValue, (0...9).contains(digit) {
                    character = Character(String(digit))
                }
                result.append(character)
            }
            previous = character
        }
        return previous == "_" ? nil : result
    }
}
