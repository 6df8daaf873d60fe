import ChatTemplates
import Conversations
import PythonProcesses

/// Something that strangers' code is kept from. What of it holds on this host is tried out, not assumed.
public enum SandboxMeasure: String, Hashable, Sendable, CaseIterable, Comparable {
    /// No sockets.
    case network
    /// No further processes or programs.
    case processes
    /// No file is made, changed or removed.
    case fileWrites = "file_writes"
    /// No file is read but Python's own and the system's libraries.
    case fileReads = "file_reads"
    /// No signals to other processes.
    case signals
    case memory
    /// Processor time is limited, and the code cannot raise the limit.
    case processorTime = "processor_time"

    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// How code of strangers is run.
public struct SandboxConfiguration: Hashable, Sendable {
    /// A name to look up in PATH, or a path.
    public var interpreter = "python3"
    /// Modules that are imported once, before any code runs; others are imported by the code that wants them.
    public var preloaded: [String] = []
    /// The most time of one piece of code, and its most processor time in whole seconds.
    public var time: Duration = .seconds(10)
    public var processorSeconds = 5
    /// The most address space in bytes (RLIMIT_AS), the interpreter and what it has preloaded included.
    public var memory = 1 << 30
    /// The most bytes written to standard output and error together; code that writes more is stopped.
    public var outputBytes = 16 << 10
    /// The most bytes of code.
    public var codeBytes = 64 << 10
    public var openFiles = 64
    /// How many pieces of code run at the same time; others wait.
    public var concurrency = 8
    /// What this host need not enforce. Anything else that it cannot makes the sandbox refuse to start.
    public var waived: Set<SandboxMeasure> = []

    public init() {}

    func check() throws {
        let isValid =
            time > .zero && processorSeconds > 0 && memory >= 64 << 20 && outputBytes > 0 && codeBytes > 0
            && openFiles >= 16 && concurrency > 0
        guard isValid else {
            throw EnvironmentError(
                .badSetting,
                "a sandbox needs times, output, code and concurrency above 0, at least 64 MiB of memory and 16 open "
                    + "files; it has \(self)")
        }
    }
}

/// Runs pieces of Python code that nobody trusts, each in a process of its own without network, files, processes, and
/// with little memory and time. See `docs/environments.md` for what that does and does not keep away.
public final class PythonSandbox: Sendable {
    public let configuration: SandboxConfiguration
    /// What was tried and found to hold.
    public let enforced: Set<SandboxMeasure>
    /// What was tried and found not to hold, all of it waived; say so to whoever runs this.
    public var notEnforced: Set<SandboxMeasure> { Set(SandboxMeasure.allCases).subtracting(enforced) }
    let server: ForkServer
    private let gate: Gate

    /// Starts the interpreter and tries what it can enforce.
    /// - Throws: ``EnvironmentError``: `sandbox` when this host cannot enforce what is not waived, or the interpreter
    ///   does not start; `noInterpreter`, `badSetting`.
    public init(_ configuration: SandboxConfiguration = SandboxConfiguration()) async throws {
        try configuration.check()
        guard let interpreter = PythonProcess.find(configuration.interpreter) else {
            throw EnvironmentError(
                .noInterpreter,
                "the Python tool needs '\(configuration.interpreter)', which is not in PATH or not executable")
        }
        var process = PythonProcess(interpreter: interpreter, program: SandboxProgram.source)
        process.arguments =
            [configuration.memory, configuration.processorSeconds, configuration.outputBytes, configuration.openFiles]
            .map { String($0) } + [String(configuration.time / .seconds(1))] + configuration.preloaded
        process.environment = ["OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"]
        process.maximumFrame = 8 * configuration.outputBytes + (1 << 16)
        let server = ForkServer(process)
        let hello: TemplateValue
        do { hello = try TemplateValue(json: try await server.start()) } catch {
            await server.shutdown()
            throw EnvironmentError(.sandbox, "the sandbox does not start: \(error)")
        }
        guard case .array(let names)? = hello["enforced"] else {
            await server.shutdown()
            throw EnvironmentError(.sandbox, "the sandbox does not say what it enforces")
        }
        let enforced = Set(names.compactMap { $0.string.flatMap(SandboxMeasure.init(rawValue:)) })
        let lacking = SandboxMeasure.allCases.filter { !enforced.contains($0) && !configuration.waived.contains($0) }
        guard lacking.isEmpty else {
            await server.shutdown()
            let causes = ["no_files", "no_calls"].compactMap { hello[$0]?.string }.filter { !$0.isEmpty }
            throw EnvironmentError(
                .sandbox,
                "this host does not enforce \(lacking.map(\.rawValue).joined(separator: ", "))"
                    + (causes.isEmpty ? "" : " (\(causes.joined(separator: "; ")))")
                    + ": run on Linux 5.13 or later with seccomp and Landlock, or waive it if the code may do that")
        }
        self.configuration = configuration
        self.enforced = enforced
        self.server = server
        gate = Gate(configuration.concurrency)
    }

    /// What became of a piece of code.
    public struct Outcome: Hashable, Sendable {
        public enum Ending: String, Hashable, Sendable {
            case finished
            /// It raised an error, which the output shows, or exited with another code than 0.
            case raised
            case timedOut = "timed_out"
            case processorTime = "processor_time"
            case tooMuchOutput = "too_much_output"
            /// Ended by a signal: a crash, or the system's being out of memory.
            case killed
            /// It was never run.
            case refused
        }

        public var ending: Ending
        /// Standard output and error, in the order in which they were written.
        public var output: String
        public var processorSeconds: Double = 0
        public var peakBytes: Int = 0
        /// More about the ending; empty for the usual ones.
        public var note = ""
    }

    /// Runs a piece of code. A last line that is an expression is shown as a Python prompt does.
    public func run(_ code: String) async -> Outcome {
        guard code.utf8.count <= configuration.codeBytes else {
            return Outcome(
                ending: .refused, output: "", note: "the code is longer than \(configuration.codeBytes) bytes")
        }
        await gate.enter()
        let outcome = await runNow(code)
        await gate.leave()
        return outcome
    }

    private func runNow(_ code: String) async -> Outcome {
        let request = TemplateValue.object(["code": .string(code)]).jsonText
        let child: ForkServer.ChildID
        do { child = try await server.open(Array(request.utf8)) } catch {
            return Outcome(ending: .refused, output: "", note: error.message)
        }
        // The server ends what is late. It is waited for a while longer: it may have much to do.
        let event = await server.next(of: child, within: configuration.time + .seconds(60))
        switch event {
        case .timedOut: return Outcome(ending: .timedOut, output: "", note: late)
        case .lost(let note): return Outcome(ending: .killed, output: "", note: note)
        case .frame:
            // Its channel is closed before code runs: nothing of the program's own sends frames here.
            await server.close(child)
            return Outcome(ending: .killed, output: "", note: "it disturbed the sandbox's replies")
        case .ended(let end): return outcome(end)
        }
    }

    private var late: String { "it ran longer than \(configuration.time)" }

    private func outcome(_ end: ChildEnd) -> Outcome {
        var outcome = Outcome(
            ending: .finished, output: end.output ?? "", processorSeconds: end.processorSeconds ?? 0,
            peakBytes: (end.peakKilobytes ?? 0) << 10)
        if end.over == true {
            outcome.ending = .tooMuchOutput
            outcome.note = "it wrote more than \(configuration.outputBytes) bytes"
        } else if end.late == true {
            (outcome.ending, outcome.note) = (.timedOut, late)
        } else if let failed = end.failed {
            outcome.ending = .refused
            outcome.note = failed
        } else if let exit = end.exit {
            outcome.ending = exit == 0 ? .finished : .raised
        } else if PythonProcess.Ending.signalled(end.signal ?? 0).isProcessorTime || outcome.usedUp(configuration) {
            outcome.ending = .processorTime
            outcome.note = "it used more than \(configuration.processorSeconds) s of processor time"
        } else {
            outcome.ending = .killed
            outcome.note = "it was ended by signal \(end.signal ?? 0)"
        }
        return outcome
    }

    /// Ends all that runs.
    public func shutdown() async { await server.shutdown() }
}

extension PythonSandbox.Outcome {
    /// Code that catches the first signal of the limit gets SIGKILL a second later.
    fileprivate func usedUp(_ configuration: SandboxConfiguration) -> Bool {
        processorSeconds >= Double(configuration.processorSeconds)
    }
}

/// Lets so many in at a time, in the order in which they came.
private actor Gate {
    private var free: Int
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(_ places: Int) { free = places }

    func enter() async {
        if free > 0 {
            free -= 1
        } else {
            await withCheckedContinuation { waiting.append($0) }
        }
    }

    func leave() {
        if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
    }
}
