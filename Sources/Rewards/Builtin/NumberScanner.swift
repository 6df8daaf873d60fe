/// Finds numbers in text: `42`, `-3.5`, `.5`, `1,234,567`, `6.02e23`, `1/2`.
///
/// A minus sign counts when no digit, letter or closing bracket is right before it, so `7-4` holds 7 and 4. Digits right
/// after a letter (`GPT4`) are no number, nor are runs such as `1.2.3` and `3/4/2025`. U+2212 is a minus sign too.
struct NumberScanner {
    struct Found {
        let value: ExactNumber
        /// Offsets into the text's UTF-8.
        let range: Range<Int>
    }

    private let bytes: [UInt8]
    private var position = 0

    init(_ text: String) { bytes = Array(text.utf8) }

    /// The whole text as one number; nil when it is anything else.
    static func number(_ text: String) -> ExactNumber? {
        var scanner = NumberScanner(text)
        guard let found = scanner.next(), found.range == 0..<scanner.bytes.count else { return nil }
        return found.value
    }

    static func all(in text: String) -> [Found] {
        var scanner = NumberScanner(text)
        var found: [Found] = []
        while let next = scanner.next() { found.append(next) }
        return found
    }

    mutating func next() -> Found? {
        while position < bytes.count {
            let start = position
            guard isDigit(position) || (bytes[position] == UInt8(ascii: ".") && isDigit(position + 1)) else {
                position += 1
                continue
            }
            let isGlued = start > 0 && (isWordByte(bytes[start - 1]) || bytes[start - 1] == UInt8(ascii: "."))
            let first = decimal()
            guard let first else {
                skipRun()
                continue
            }
            var denominator: [UInt8] = [0x31]
            if at(position) == UInt8(ascii: "/"), isDigit(position + 1), first.isWhole {
                position += 1
                denominator = digits()
            }
            if isGlued || continuesRun() {
                skipRun()
                continue
            }
            let sign = signLength(before: start)
            let value = ExactNumber(
                isNegative: sign > 0, digits: first.digits, exponent: first.exponent, denominator: denominator)
            if let value { return Found(value: value, range: start - sign..<position) }
        }
        return nil
    }

    private struct Decimal {
        var digits: [UInt8]
        var exponent = 0
        var isWhole: Bool { exponent == 0 }
    }

    private func at(_ index: Int) -> UInt8? { index >= 0 && index < bytes.count ? bytes[index] : nil }

    private func isDigit(_ index: Int) -> Bool { at(index).map { (0x30...0x39).contains($0) } ?? false }

    private func isWordByte(_ byte: UInt8) -> Bool {
        (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte)
            || byte == UInt8(ascii: "_")
    }

    private mutating func digits() -> [UInt8] {
        let start = position
        while isDigit(position) { position += 1 }
        return Array(bytes[start..<position])
    }

    /// Digits with thousands separators, a fraction and an exponent; nil when the digits are too many.
    private mutating func decimal() -> Decimal? {
        var number = Decimal(digits: digits())
        if (1...3).contains(number.digits.count) {
            while at(position) == UInt8(ascii: ","), isDigit(position + 1), isDigit(position + 2),
                isDigit(position + 3), !isDigit(position + 4)
            {
                position += 1
                number.digits += digits()
            }
        }
        if at(position) == UInt8(ascii: "."), isDigit(position + 1) {
            position += 1
            let fraction = digits()
            number.digits += fraction
            number.exponent = -fraction.count
        }
        let isExponent = at(position) == UInt8(ascii: "e") || at(position) == UInt8(ascii: "E")
        let signed = at(position + 1) == UInt8(ascii: "-") || at(position + 1) == UInt8(ascii: "+")
        if isExponent, isDigit(position + (signed ? 2 : 1)) {
            let isNegative = at(position + 1) == UInt8(ascii: "-")
            position += signed ? 2 : 1
            guard let power = Int(String(decoding: digits(), as: UTF8.self)), power <= 2 * ExactNumber.maximumDigits
            else { return nil }
            number.exponent += isNegative ? -power : power
        }
        return number.digits.count <= ExactNumber.maximumDigits ? number : nil
    }

    /// Whether the number found is only the head of something else: `1.2` of `1.2.3`, `3/4` of `3/4/2025`.
    private func continuesRun() -> Bool {
        guard let next = at(position), isDigit(position + 1) else { return false }
        return next == UInt8(ascii: ".") || next == UInt8(ascii: "/")
    }

    private mutating func skipRun() {
        while isDigit(position)
            || (at(position) == UInt8(ascii: ".") || at(position) == UInt8(ascii: "/")) && isDigit(position + 1)
        {
            position += 1
        }
    }

    /// Bytes of the minus sign right before `start`; 0 when there is none or it is an operator.
    private func signLength(before start: Int) -> Int {
        let isMinus = start >= 3 && bytes[start - 3..<start].elementsEqual([0xE2, 0x88, 0x92])
        let length = at(start - 1) == UInt8(ascii: "-") ? 1 : isMinus ? 3 : 0
        guard length > 0, let before = at(start - length - 1) else { return length }
        let isOperator = isWordByte(before) || before == UInt8(ascii: ")") || before == UInt8(ascii: "]")
        return isOperator ? 0 : length
    }
}
