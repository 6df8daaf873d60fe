import Foundation
import Subprocess
import SystemPackage
import TestSupport

#if canImport(Glibc)
    import Glibc
#endif

/// The built `fledge`, run as a user runs it.
enum FledgeProcess {
    struct Outcome: CustomStringConvertible {
        var status: TerminationStatus
        var output: String
        var errors: String

        /// nil when a signal ended it.
        var exitCode: Int? {
            if case .exited(let code) = status { return Int(code) }
            return nil
        }
        var wasKilled: Bool { status == .signaled(SIGKILL) }
        var description: String { "\(status)\n--- output\n\(output)\n--- errors\n\(errors)" }
    }

    /// Beside the test bundle, which is the running executable.
    static let executable: String = {
        let bundle = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let beside = bundle.deletingLastPathComponent().appending(path: "fledge").path
        if FileManager.default.isExecutableFile(atPath: beside) { return beside }
        return Golden.packageRoot.appending(path: ".build/debug/fledge").path
    }()

    /// Runs a command to its end.
    /// - Parameters:
    ///   - input: what the process reads; nothing by default.
    ///   - watch: runs beside the process, with its id; the process may end before it does.
    static func run(
        _ arguments: [String], in folder: URL, environment: [Environment.Key: String?] = [:], input: String = "",
        watch: @Sendable (pid_t) async throws -> Void = { _ in }
    ) async throws -> Outcome {
        let result = try await Subprocess.run(
            .path(FilePath(executable)), arguments: Arguments(arguments),
            // Two threads that wait for each other by spinning crawl where others want the cores too.
            environment: .inherit.updating(["OMP_NUM_THREADS": "1"]).updating(environment),
            workingDirectory: FilePath(folder.path),
            input: .string(input), output: .string(limit: 1 << 22), error: .string(limit: 1 << 22)
        ) { try await watch($0.processIdentifier.value) }
        return Outcome(
            status: result.terminationStatus, output: result.standardOutput, errors: result.standardError)
    }

    /// Waits until the condition holds; false when the process ended, or a minute went by, without it.
    static func wait(_ process: pid_t, until condition: () -> Bool) async throws -> Bool {
        _ = try await holds(within: .seconds(60), every: .microseconds(300)) {
            try Task.checkCancellation()
            return condition() || !isRunning(process)
        }
        return condition()
    }

    /// Whether a process runs: it exists and is not a zombie.
    static func isRunning(_ process: pid_t) -> Bool {
        guard let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8) else { return false }
        let state = status.split(separator: ")").last?.split(separator: " ").first
        return state != "Z" && state != "X"
    }
}
