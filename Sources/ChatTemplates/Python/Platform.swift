#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#elseif canImport(Darwin)
    import Darwin
#endif

/// The few C library calls that are needed.
enum PlatformMath {
    static func power(_ base: Double, _ exponent: Double) throws -> Double {
        let result = pow(base, exponent)
        if result.isNaN, !base.isNaN, !exponent.isNaN {
            throw TemplateError(.value, "a negative number cannot be raised to a fractional power")
        }
        if result.isInfinite, base.isFinite, exponent.isFinite {
            throw TemplateError(.value, "\(base) ** \(exponent): result too large")
        }
        return result
    }

    /// `printf` of one double with a precision: `format` is like "%.*f". Rounded from the exact value, ties to even.
    static func format(_ format: String, precision: Int, _ value: Double) -> String {
        withVaList([CInt(clamping: precision), value]) { arguments in
            var buffer = [CChar](repeating: 0, count: 400 + max(0, precision))
            let length = vsnprintf(&buffer, buffer.count, format, arguments)
            return PythonText.string(buffer.prefix(Int(length)).map { UInt8(bitPattern: $0) })
        }
    }
}

/// A calendar date and time of day, as `strftime_now` sees it.
public struct TemplateTime: Hashable, Sendable {
    public var year: Int
    /// 1…12
    public var month: Int
    /// 1…31
    public var day: Int
    /// 0…23
    public var hour: Int
    public var minute: Int
    public var second: Int

    public init(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
        self.year = year
        self.month = month
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
    }

    /// The wall clock in the local time zone: what `transformers` gives to templates.
    public static func now() -> TemplateTime {
        var seconds = time(nil)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return TemplateTime(
            year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday),
            hour: Int(parts.tm_hour), minute: Int(parts.tm_min), second: Int(parts.tm_sec))
    }
}
