/// JSON text as bytes, for rows that are written by the million.
struct JSONBytes {
    var bytes: [UInt8] = []

    mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }

    mutating func append(_ text: StaticString) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func append(number: some BinaryInteger) { bytes.append(contentsOf: "\(number)".utf8) }

    /// A floating-point number by its shortest text. NaN is null, as pandas and Arrow take the two for one.
    /// - Throws: `DatasetError.malformedRow` for an infinity, which JSON has no form for.
    mutating func append(number: Double, _ text: @autoclosure () -> String) throws {
        if number.isNaN { return append("null") }
        guard number.isFinite else {
            throw DatasetError(.malformedRow, "an infinite number, which JSON has no form for")
        }
        bytes.append(contentsOf: text().utf8)
    }

    mutating func append(quoted text: String) {
        var text = text
        text.withUTF8 { append(quoted: $0) }
    }

    /// A string of UTF-8 bytes.
    mutating func append(quoted text: UnsafeBufferPointer<UInt8>) {
        bytes.reserveCapacity(bytes.count + text.count + 2)
        bytes.append(UInt8(ascii: "\""))
        var start = 0
        for index in 0..<text.count {
            let byte = text[index]
            guard byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") else { continue }
            bytes.append(contentsOf: text[start..<index])
            start = index + 1
            switch byte {
            case UInt8(ascii: "\n"): append("\\n")
            case UInt8(ascii: "\r"): append("\\r")
            case UInt8(ascii: "\t"): append("\\t")
            case UInt8(ascii: "\""): append("\\\"")
            case UInt8(ascii: "\\"): append("\\\\")
            default:
                append("\\u00")
                let digits: StaticString = "0123456789abcdef"
                bytes.append(digits.utf8Start[Int(byte >> 4)])
                bytes.append(digits.utf8Start[Int(byte & 15)])
            }
        }
        bytes.append(contentsOf: text[start...])
        bytes.append(UInt8(ascii: "\""))
    }

    /// A number with `scale` digits behind the point.
    mutating func append(decimal value: Int128, scale: Int) {
        if value < 0 { append("-") }
        let digits = Array("\(value.magnitude)".utf8)
        let whole = digits.count - scale
        if whole > 0 { bytes += digits[..<whole] } else { append("0") }
        guard scale > 0 else { return }
        append(".")
        bytes += Array(repeating: UInt8(ascii: "0"), count: max(0, -whole))
        bytes += digits[max(0, whole)...]
    }

    /// `"2024-02-29"` of the days since 1970.
    mutating func append(date days: Int64) {
        append("\"")
        appendCivil(days)
        append("\"")
    }

    /// `"2024-02-29T12:34:56.789"`, with `Z` in UTC.
    mutating func append(timestamp: Int64, ticksPerSecond: Int64, isUTC: Bool) {
        let (seconds, ticks) = timestamp.dividedDown(by: ticksPerSecond)
        let (days, second) = seconds.dividedDown(by: 86_400)
        append("\"")
        appendCivil(days)
        append("T")
        for (index, part) in [second / 3600, second / 60 % 60, second % 60].enumerated() {
            if index > 0 { append(":") }
            appendPadded(part, 2)
        }
        if ticks > 0 {
            append(".")
            let width = "\(ticksPerSecond)".utf8.count - 1
            appendPadded(ticks, width)
        }
        if isUTC { append("Z") }
        append("\"")
    }

    /// Year, month and day in the proleptic Gregorian calendar: Howard Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms", `civil_from_days`.
    private mutating func appendCivil(_ days: Int64) {
        let (era, dayOfEra) = (days + 719_468).dividedDown(by: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shifted + 2) / 5 + 1
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        appendPadded(yearOfEra + era * 400 + (month <= 2 ? 1 : 0), 4)
        append("-")
        appendPadded(month, 2)
        append("-")
        appendPadded(day, 2)
    }

    private mutating func appendPadded(_ number: Int64, _ width: Int) {
        if number < 0 { append("-") }
        let digits = "\(number.magnitude)".utf8
        bytes += Array(repeating: UInt8(ascii: "0"), count: max(0, width - digits.count))
        bytes += digits
    }
}

extension Int64 {
    /// Division that rounds down, with a remainder of at least 0.
    func dividedDown(by divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}
