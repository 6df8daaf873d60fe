internal import CProcess

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// One rank's process. Used from the launcher's thread alone.
final class RankProcess {
    let number: Int
    let process: pid_t
    let outputs: [RankOutput]
    private(set) var isRunning = true

    /// The descriptor at which rank 0 finds the store's socket.
    static let inheritedSocket: Int32 = 3

    /// What a process is started with.
    struct Start {
        /// What people call it, as `rank 1`.
        var name: String
        var executable: String
        /// After the program's name.
        var arguments: [String]
        var environment: [String: String]
        /// Whether it writes to this process's standard output itself.
        var sharesOutput = false
        /// Goes to ``inheritedSocket``.
        var socket: Int32?
    }

    /// Rank 0 writes to this process's standard output itself.
    convenience init(_ place: RankEnvironment, _ plan: Launcher.Plan, socket: Int32?) throws {
        try self.init(
            Start(
                name: "rank \(place.rank)", executable: plan.executable, arguments: plan.arguments,
                environment: plan.environment.merging(place.variables) { $1 }, sharesOutput: place.rank == 0,
                socket: socket), number: place.rank)
    }

    /// Starts it in a process group of its own, so that a Ctrl-C of the terminal reaches the launcher alone and a kill reaches all
    /// that it started.
    init(_ start: Start, number: Int) throws {
        self.number = number
        var outputs: [RankOutput] = []
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        var writers: [Int32] = []
        defer { for writer in writers { close(writer) } }
        for (descriptor, stream) in [(Int32(1), Launcher.Stream.output), (2, .errors)] {
            if start.sharesOutput, stream == .output { continue }
            let (reader, writer) = try Self.pipe()
            outputs.append(RankOutput(reader, stream))
            writers.append(writer)
            posix_spawn_file_actions_adddup2(&actions, writer, descriptor)
        }
        if let socket = start.socket { posix_spawn_file_actions_adddup2(&actions, socket, Self.inheritedSocket) }
        self.outputs = outputs

        // The launcher ignores some signals; the ranks begin with none ignored or blocked.
        var all = sigset_t(), none = sigset_t()
        sigfillset(&all)
        sigemptyset(&none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))

        var arguments = ([start.executable] + start.arguments).map { strdup($0) } + [nil]
        var environment = start.environment.map { strdup("\($0)=\($1)") } + [nil]
        defer {
            for text in arguments { free(text) }
            for text in environment { free(text) }
        }
        var process = pid_t()
        let status = posix_spawn(&process, start.executable, &actions, &attributes, &arguments, &environment)
        guard status == 0 else {
            throw ClusterError(
                .system,
                "\(start.name) cannot be started from \(start.executable): \(String(cString: strerror(status)))")
        }
        self.process = process
    }

    /// The reader never blocks.
    static func pipe() throws -> (reader: Int32, writer: Int32) {
        var ends: [Int32] = [0, 0]
        guard fledge_pipe(&ends) == 0 else {
            throw ClusterError(.system, "no pipe for a rank: \(String(cString: strerror(errno)))")
        }
        return (ends[0], ends[1])
    }

    /// Its last lines on standard error.
    var lastErrors: [String] { outputs.first { $0.stream == .errors }?.tail ?? [] }

    /// How it ended, once.
    func checkExit() -> RankExit? {
        guard isRunning else { return nil }
        var status: Int32 = 0
        guard waitpid(process, &status, WNOHANG) == process else { return nil }
        isRunning = false
        return RankExit(status: status)
    }

    /// Whether it was stopped, as by SIGSTOP: it cannot end by itself.
    var isStopped: Bool { Self.isStopped(process) }

    static func isStopped(_ process: pid_t) -> Bool {
        let descriptor = open("/proc/\(process)/stat", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 512)
        let count = read(descriptor, &buffer, buffer.count)
        // After the name in brackets, which may hold anything.
        guard count > 0, let bracket = buffer[..<count].lastIndex(of: UInt8(ascii: ")")), bracket + 2 < count else {
            return false
        }
        return buffer[bracket + 2] == UInt8(ascii: "T")
    }

    func reap() {
        var status: Int32 = 0
        while isRunning, waitpid(process, &status, 0) == -1, errno == EINTR {}
        isRunning = false
    }

    func send(_ signal: Int32) {
        if isRunning { _ = Glibc.kill(process, signal) }
    }

    /// It, and what it started and left in its process group.
    func kill() { _ = Glibc.kill(-process, SIGKILL) }
}
