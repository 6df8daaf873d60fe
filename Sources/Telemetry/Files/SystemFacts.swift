#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What the system knows about itself and this process.
public enum SystemFacts {
    /// The wall clock, in seconds since 1970.
    @Sendable public static func secondsSince1970() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    public static var processIdentifier: Int32 { getpid() }

    public static var hostName: String {
        var bytes = [UInt8](repeating: 0, count: 256)
        let result = bytes.withUnsafeMutableBytes {
            gethostname($0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count - 1)
        }
        let name = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        return result == 0 && !name.isEmpty && !name.contains("/") ? name : "localhost"
    }

    /// A variable of the environment; nil when it is not set.
    static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    static let alreadyExists = EEXIST
}
