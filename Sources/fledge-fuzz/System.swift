#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// The few system calls of the harness.
enum System {
    struct Failure: Error, CustomStringConvertible {
        let description: String
        init(_ doing: String) { description = "\(doing): \(String(cString: strerror(errno)))" }
    }

    /// Nanoseconds of a clock that all processes share and nobody sets.
    static var now: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }

    /// The largest resident set of this process so far, in KiB.
    static var peakKiB: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss
    }

    /// Lets this process have `bytes` of address space beyond what it has mapped now, and no core file.
    static func limitMemory(_ bytes: Int) throws {
        guard let status = fopen("/proc/self/statm", "r") else { throw Failure("/proc/self/statm") }
        defer { fclose(status) }
        var line = [CChar](repeating: 0, count: 256)
        let text = fgets(&line, 256, status).map { String(cString: $0) } ?? ""
        let pages = text.split(separator: " ").first.flatMap { Int($0) } ?? 0
        let mapped = pages * Int(sysconf(Int32(_SC_PAGESIZE)))
        try limit(__rlimit_resource_t(RLIMIT_AS.rawValue), rlim_t(mapped + bytes), "RLIMIT_AS")
        try limit(__rlimit_resource_t(RLIMIT_CORE.rawValue), 0, "RLIMIT_CORE")
    }

    static func limitStack(_ bytes: Int) throws {
        try limit(__rlimit_resource_t(RLIMIT_STACK.rawValue), rlim_t(bytes), "RLIMIT_STACK")
    }

    private static func limit(_ resource: __rlimit_resource_t, _ value: rlim_t, _ name: String) throws {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { throw Failure("getrlimit \(name)") }
        limit.rlim_cur = min(value, limit.rlim_max)
        guard setrlimit(resource, &limit) == 0 else { throw Failure("setrlimit \(name)") }
    }

    enum Ending: Equatable {
        case exited(Int32)
        case signalled(Int32)
    }

    /// Starts this program again, its output going to a file.
    static func spawn(_ arguments: [String], environment: [String: String], output: String) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for descriptor: Int32 in [1, 2] {
            posix_spawn_file_actions_addopen(
                &actions, descriptor, output, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o644)
        }
        var argv = (["fledge-fuzz"] + arguments).map { strdup($0) } + [nil]
        var variables = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + variables { free(pointer) } }
        var process: pid_t = 0
        let result = posix_spawn(&process, "/proc/self/exe", &actions, nil, &argv, &variables)
        guard result == 0 else {
            errno = result
            throw Failure("posix_spawn")
        }
        return process
    }

    /// How a child ended, or nil while it runs.
    static func ending(of process: pid_t) throws -> Ending? {
        var status: Int32 = 0
        let found = waitpid(process, &status, WNOHANG)
        guard found >= 0 else { throw Failure("waitpid") }
        guard found == process else { return nil }
        return status & 0x7F == 0 ? .exited(status >> 8 & 0xFF) : .signalled(status & 0x7F)
    }

    static func kill(_ process: pid_t) throws {
        _ = Glibc.kill(process, SIGKILL)
        while try ending(of: process) == nil { pause(milliseconds: 5) }
    }

    static func pause(milliseconds: Int) { usleep(UInt32(milliseconds) * 1000) }
}
