/// Finds the end of a number as Jinja2's patterns do: `1_000`, `0x1f`, `1.5e-3`; a float may not follow a dot.
struct NumberScanner {
    let source: [UInt8]
    let start: Int

    func scan() -> (end: Int, isDouble: Bool)? {
        guard isDigit(start) else { return nil }
        let followsDot = start > 0 && source[start - 1] == UInt8(ascii: ".")
        if !followsDot, let end = doubleEnd() { return (end, true) }
        return (integerEnd(), false)
    }

    private func isDigit(_ index: Int) -> Bool {
        index < source.count && source[index] >= 0x30 && source[index] <= 0x39
    }

    private func digitsEnd(from index: Int, _ isDigit: (UInt8) -> Bool) -> Int {
        var index = index
        while index < source.count {
            if isDigit(source[index]) {
                index += 1
            } else if source[index] == UInt8(ascii: "_"), index + 1 < source.count, isDigit(source[index + 1]) {
                index += 2
            } else {
                break
            }
        }
        return index
    }

    private func decimalEnd(from index: Int) -> Int { digitsEnd(from: index) { $0 >= 0x30 && $0 <= 0x39 } }

    private func doubleEnd() -> Int? {
        var end = decimalEnd(from: start)
        var isDouble = false
        if end < source.count, source[end] == UInt8(ascii: "."), isDigit(end + 1) {
            end = decimalEnd(from: end + 1)
            isDouble = true
        }
        if end < source.count, source[end] | 0x20 == UInt8(ascii: "e") {
            var exponent = end + 1
            if exponent < source.count, source[exponent] == UInt8(ascii: "+") || source[exponent] == UInt8(ascii: "-") {
                exponent += 1
            }
            if isDigit(exponent) {
                end = decimalEnd(from: exponent)
                isDouble = true
            }
        }
        return isDouble ? end : nil
    }

    private func integerEnd() -> Int {
        guard source[start] == UInt8(ascii: "0") else { return decimalEnd(from: start) }
        if start + 1 < source.count {
            let prefix = source[start + 1] | 0x20
            let isDigit: ((UInt8) -> Bool)? =
                switch prefix {
                case UInt8(ascii: "b"): { $0 == 0x30 || $0 == 0x31 }
                case UInt8(ascii: "o"): { $0 >= 0x30 && $0 <= 0x37 }
                case UInt8(ascii: "x"): { ($0 >= 0x30 && $0 <= 0x39) || ($0 | 0x20 >= 0x61 && $0 | 0x20 <= 0x66) }
                default: nil
                }
            if let isDigit {
                let end = digitsEnd(from: start + 2, isDigit)
                if end > start + 2 { return end }
            }
        }
        return digitsEnd(from: start) { $0 == 0x30 }
    }
}

/// Python's escapes in a template's string literals.
enum StringEscapes {
    /// Decodes the bytes between the quotes. Jinja2 first writes what is not ASCII as escapes, so a backslash before
    /// such a character escapes a backslash: `'\é'` is the four characters `\xe9`.
    static func decode(_ bytes: ArraySlice<UInt8>) throws -> String {
        guard bytes.contains(UInt8(ascii: "\\")) else { return String(decoding: bytes, as: UTF8.self) }
        var scalars = Array(String(decoding: bytes, as: UTF8.self).unicodeScalars)[...]
        var decoded = String.UnicodeScalarView()
        while let scalar = scalars.popFirst() {
            guard scalar == "\\" else {
                decoded.append(scalar)
                continue
            }
            guard let escaped = scalars.popFirst() else { throw TemplateError(.syntax, "\\ at end of string") }
            switch escaped {
            case "\n": break
            case "n": decoded.append("\n")
            case "t": decoded.append("\t")
            case "r": decoded.append("\r")
            case "a": decoded.append("\u{7}")
            case "b": decoded.append("\u{8}")
            case "f": decoded.append("\u{C}")
            case "v": decoded.append("\u{B}")
            case "\\", "'", "\"": decoded.append(escaped)
            case "0"..."7":
                var code = escaped.value - 48
                for _ in 0..<2 {
                    guard let next = scalars.first, ("0"..."7").contains(next) else { break }
                    code = code * 8 + next.value - 48
                    scalars.removeFirst()
                }
                decoded.append(try scalarValue(code))
            case "x": decoded.append(try scalarValue(try hexadecimal(2, &scalars)))
            case "u": decoded.append(try scalarValue(try hexadecimal(4, &scalars)))
            case "U": decoded.append(try scalarValue(try hexadecimal(8, &scalars)))
            case "N": throw TemplateError(.syntax, "\\N{…} escapes are not supported; write the character itself")
            default:
                decoded.append("\\")
                if escaped.isASCII {
                    decoded.append(escaped)
                } else {
                    decoded.append(contentsOf: PythonText.backslashEscape(escaped).unicodeScalars.dropFirst())
                }
            }
        }
        return String(decoded)
    }

    private static func scalarValue(_ code: UInt32) throws -> Unicode.Scalar {
        guard let scalar = Unicode.Scalar(code) else {
            throw TemplateError(.syntax, "an escape names U+\(String(code, radix: 16, uppercase: true)), no character")
        }
        return scalar
    }

    private static func hexadecimal(_ count: Int, _ scalars: inout ArraySlice<Unicode.Scalar>) throws -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<count {
            guard let scalar = scalars.popFirst(), scalar.isASCII, let digit = Character(scalar).hexDigitValue,
                code < 0x1000_0000
            else { throw TemplateError(.syntax, "truncated or wrong hexadecimal escape") }
            code = code << 4 | UInt32(digit)
        }
        return code
    }
}
