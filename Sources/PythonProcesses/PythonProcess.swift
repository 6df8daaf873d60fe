import FoundationEssentials
import Subprocess
import SystemPackage

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A Python program that speaks frames over its standard input and output.
///
/// It runs in a process group of its own: the terminal's Ctrl-C does not reach it, and all that it starts in that group
/// goes with it.
public struct PythonProcess: Sendable {
    /// A path; see ``find(_:)``.
    public var interpreter: String
    /// The program's text. It is called with this process's id and then ``arguments``.
    public var program: String
    public var arguments: [String] = []
    /// Variables to set beside the few that are passed on (PATH, HOME, USER, LANG, LC_ALL, LC_CTYPE, TZ, TMPDIR,
    /// LD_LIBRARY_PATH); no other variable of this process reaches the program, since some hold secrets.
    public var environment: [String: String] = [:]
    /// The most bytes of a frame that the program sends.
    public var maximumFrame = 1 << 20
    /// How the program's output is cut into frames.
    public var framing = FrameReader.Framing.lengths

    public init(interpreter: String, program: String) {
        self.interpreter = interpreter
        self.program = program
    }

    /// What a running program is spoken with by.
    public struct Channel {
        public let writer: Writer
        public var reader: FrameReader
        /// The program's process id, which is its group's.
        public let group: Int32
    }

    public struct Writer: Sendable {
        let input: StandardInputWriter

        /// False when the program is gone.
        public func write(_ bytes: [UInt8]) async -> Bool { (try? await input.write(bytes)) == bytes.count }
    }

    /// How a program ended.
    public enum Ending: Hashable, Sendable {
        case exited(Int)
        case signalled(Int)
    }

    /// Starts the program, runs the body with it, and ends what is left of its group.
    /// - Parameter tail: gets what the program writes to standard error.
    /// - Throws: what keeps the program from starting.
    public func run<Result: Sendable>(
        tail: StandardErrorTail, _ body: (consuming Channel) async -> Result
    ) async throws -> (result: Result, ending: Ending) {
        // A program that died while we write to it is an error to handle, not a signal to die of.
        _ = signal(SIGPIPE, SIG_IGN)
        let outcome = try await Subprocess.run(
            .path(FilePath(interpreter)),
            arguments: Arguments(["-u", "-X", "utf8", "-c", program, String(getpid())] + arguments),
            environment: inherited, platformOptions: options, input: .inputWriter, output: .sequence, error: .sequence
        ) { execution in
            let group = execution.processIdentifier.value
            let errors = execution.standardError
            return await withTaskGroup(of: Void.self) { tasks in
                tasks.addTask {
                    // The end of the process ends this, also when the read fails.
                    try? await { for try await chunk in errors { chunk.withUnsafeBytes { tail.append($0) } } }()
                }
                let result = await body(
                    Channel(
                        writer: Writer(input: execution.standardInputWriter),
                        reader: FrameReader(
                            execution.standardOutput, maximumLength: maximumFrame, framing: framing), group: group))
                // The process is not reaped before this closure returns, so the number is still its group's.
                kill(-group, SIGKILL)
                await tasks.waitForAll()
                return result
            }
        }
        switch outcome.terminationStatus {
        case .exited(let code): return (outcome.closureResult, .exited(Int(code)))
        case .signaled(let signal): return (outcome.closureResult, .signalled(Int(signal)))
        }
    }

    /// Runs the body; when it takes longer, ends the process group, which ends the body.
    public static func within<Result>(
        _ time: Duration, killing group: Int32, _ body: () async -> Result
    ) async -> (Result, isLate: Bool) {
        await withTaskGroup(of: Bool.self) { tasks in
            tasks.addTask {
                do {
                    try await Task.sleep(for: time)
                } catch {
                    return false
                }
                kill(-group, SIGKILL)
                return true
            }
            let result = await body()
            tasks.cancelAll()
            return (result, await tasks.next() ?? false)
        }
    }

    /// The path of an interpreter: a name is looked up in PATH; nil when it is not there or not executable.
    public static func find(_ interpreter: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"
        let candidates =
            interpreter.utf8.contains(UInt8(ascii: "/"))
            ? [interpreter] : path.split(separator: ":").map { "\($0)/\(interpreter)" }
        return candidates.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    private var inherited: Environment {
        let passed = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"]
        // Sets and dicts of strings iterate in the same order in every run, and each worker keeps to its own core.
        var values: [Environment.Key: String] = ["PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"]
        let own = ProcessInfo.processInfo.environment
        for name in passed {
            if let value = own[name] { values[.init(stringLiteral: name)] = value }
        }
        for (name, value) in environment { values[.init(stringLiteral: name)] = value }
        return .custom(values)
    }

    private var options: PlatformOptions {
        var options = PlatformOptions()
        options.processGroupID = 0
        options.teardownSequence = [.send(signal: .kill, toProcessGroup: true, allowedDurationToNextStep: .seconds(1))]
        return options
    }
}

extension PythonProcess.Ending: CustomStringConvertible {
    public var description: String {
        switch self {
        case .exited(let code): "ended with exit code \(code)"
        case .signalled(Int(SIGKILL)):
            "was killed: by the system (out of memory?), or here because it closed its replies"
        case .signalled(let signal): "ended by signal \(signal)"
        }
    }

    /// Whether RLIMIT_CPU ended it.
    public var isProcessorTime: Bool { self == .signalled(Int(SIGXCPU)) }
}
