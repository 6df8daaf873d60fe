#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// How a rank's process ended.
public enum RankExit: Sendable, Hashable, CustomStringConvertible {
    case exited(Int32)
    case signaled(Int32)

    /// The exit code of a rank that ended because of another one: it failed at nothing itself, and the run can go on from its
    /// last checkpoint. That of sysexits.h for what may succeed later.
    public static let lostOther: Int32 = 75

    /// From `waitpid`.
    init(status: Int32) {
        let signal = status & 0x7F
        self = signal == 0 ? .exited((status >> 8) & 0xFF) : .signaled(signal)
    }

    public var isSuccess: Bool { self == .exited(0) }

    public var description: String {
        switch self {
        case .exited(let code): "ended with exit code \(code)"
        case .signaled(let signal): "was killed by \(Self.name(signal))"
        }
    }

    private static func name(_ signal: Int32) -> String {
        let names: [Int32: String] = [
            SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGILL: "SIGILL", SIGTRAP: "SIGTRAP",
            SIGABRT: "SIGABRT", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE",
            SIGKILL: "SIGKILL (the kernel does this too when memory runs out)",
            SIGSEGV: "SIGSEGV", SIGPIPE: "SIGPIPE", SIGTERM: "SIGTERM",
        ]
        return names[signal] ?? "signal \(signal)"
    }
}

/// What a run of several ranks comes to, from how each ended, in the order in which they did.
func exitCode(of exits: [RankExit]) -> Int32 {
    // A rank that failed by itself says more than those that lost it.
    for case .exited(let code) in exits where code != 0 && code != RankExit.lostOther { return code }
    return exits.allSatisfy(\.isSuccess) ? 0 : RankExit.lostOther
}
