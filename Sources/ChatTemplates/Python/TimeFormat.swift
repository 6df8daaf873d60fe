/// `strftime` in the C locale, for a naive time (no zone), as Python's `datetime.now().strftime`.
enum TimeFormat {
    private static let weekdays = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ]

    static func format(_ format: String, _ time: TemplateTime) -> String {
        var result = ""
        var scalars = format.unicodeScalars[...]
        while let scalar = scalars.popFirst() {
            guard scalar == "%", let directive = scalars.popFirst() else {
                result.unicodeScalars.append(scalar)
                continue
            }
            if directive == "-", let padded = scalars.first, let text = field(padded, time) {
                scalars.removeFirst()
                // glibc's flag for no padding.
                let trimmed = text.drop { $0 == "0" || $0 == " " }
                result += trimmed.isEmpty && !text.isEmpty ? "0" : String(trimmed)
            } else if let text = field(directive, time) {
                result += text
            } else {
                result.unicodeScalars.append("%")
                result.unicodeScalars.append(directive)
            }
        }
        return result
    }

    private static func padded(_ value: Int, _ width: Int, _ pad: Character = "0") -> String {
        let digits = String(value)
        return String(repeating: pad, count: max(0, width - digits.count)) + digits
    }

    private static func field(_ directive: Unicode.Scalar, _ time: TemplateTime) -> String? {
        let weekday = weekday(time)
        let hour12 = time.hour % 12 == 0 ? 12 : time.hour % 12
        let isMonthKnown = (1...12).contains(time.month)
        switch directive {
        case "Y": return padded(time.year, 1)
        case "y": return padded(time.year % 100, 2)
        case "C": return padded(time.year / 100, 2)
        case "m": return padded(time.month, 2)
        case "d": return padded(time.day, 2)
        case "e": return padded(time.day, 2, " ")
        case "H": return padded(time.hour, 2)
        case "I": return padded(hour12, 2)
        case "k": return padded(time.hour, 2, " ")
        case "l": return padded(hour12, 2, " ")
        case "M": return padded(time.minute, 2)
        case "S": return padded(time.second, 2)
        case "f": return padded(0, 6)
        case "p": return time.hour < 12 ? "AM" : "PM"
        case "P": return time.hour < 12 ? "am" : "pm"
        case "B": return isMonthKnown ? months[time.month - 1] : "?"
        case "b", "h": return isMonthKnown ? String(months[time.month - 1].prefix(3)) : "?"
        case "A": return weekdays[weekday]
        case "a": return String(weekdays[weekday].prefix(3))
        case "w": return String(weekday)
        case "u": return String(weekday == 0 ? 7 : weekday)
        case "j": return padded(dayOfYear(time), 3)
        case "U": return padded((dayOfYear(time) + 6 - weekday) / 7, 2)
        case "W": return padded((dayOfYear(time) + 6 - (weekday + 6) % 7) / 7, 2)
        case "V": return padded(isoWeek(time).week, 2)
        case "G": return padded(isoWeek(time).year, 1)
        case "D", "x": return format("%m/%d/%y", time)
        case "F": return format("%Y-%m-%d", time)
        case "T", "X": return format("%H:%M:%S", time)
        case "R": return format("%H:%M", time)
        case "r": return format("%I:%M:%S %p", time)
        case "c": return format("%a %b %e %H:%M:%S %Y", time)
        case "n": return "\n"
        case "t": return "\t"
        case "%": return "%"
        case "z", "Z": return ""
        default: return nil
        }
    }

    /// Days since 1970-01-01 in the Gregorian calendar (Hinnant's `days_from_civil`).
    private static func days(_ time: TemplateTime) -> Int {
        let year = time.month <= 2 ? time.year - 1 : time.year
        let era = (year >= 0 ? year : year - 399) / 400
        let yearOfEra = year - era * 400
        let dayOfYear = (153 * (time.month + (time.month > 2 ? -3 : 9)) + 2) / 5 + time.day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    /// 0 is Sunday.
    private static func weekday(_ time: TemplateTime) -> Int { ((days(time) + 4) % 7 + 7) % 7 }

    private static func dayOfYear(_ time: TemplateTime) -> Int {
        days(time) - days(TemplateTime(year: time.year, month: 1, day: 1)) + 1
    }

    private static func isoWeek(_ time: TemplateTime) -> (year: Int, week: Int) {
        let day = (weekday(time) + 6) % 7
        let week = (dayOfYear(time) - day + 9) / 7
        func weeks(_ year: Int) -> Int {
            let last = weekday(TemplateTime(year: year, month: 12, day: 31))
            let lastBefore = weekday(TemplateTime(year: year - 1, month: 12, day: 31))
            return last == 4 || lastBefore == 3 ? 53 : 52
        }
        if week < 1 { return (time.year - 1, weeks(time.year - 1)) }
        if week > weeks(time.year) { return (time.year + 1, 1) }
        return (time.year, week)
    }
}
