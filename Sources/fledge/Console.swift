import PolicyAlgorithms
import ArgumentParser
import ChatTemplates
import Checkpoints
import Cluster
import Config
import Conversations
import Datasets
import Dispatch
import Environments
import Flow
import Foundation
import Logging
import Models
import Rewards
import RolloutEngine
import Synchronization
import TensorCore
import Tokenizers
import Workers

/// What is said to people: results on standard output, everything else on standard error.
enum Console {
    static func say(_ text: String) { write(text + "\n", to: .standardOutput) }
    static func note(_ text: String) { write(text + "\n", to: .standardError) }
    /// Part of a line, at once.
    static func stream(_ text: String) { write(text, to: .standardOutput) }

    private static func write(_ text: String, to file: FileHandle) { file.write(Data(text.utf8)) }

    static var logger: Logger {
        Logger(label: "fledge") { _ in NoteHandler() }
    }

    /// Log lines as plain notes: `warning: …`.
    private struct NoteHandler: LogHandler {
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            let prefix = event.level >= .warning ? "\(event.level): " : ""
            Console.note("\(prefix)\(event.message)")
        }
    }
}

/// Turns errors into exit codes: 2 for what the user can mend in the configuration or the input, 1 for the rest.
enum Failures {
    static func reported<Result>(_ body: () throws -> Result) throws -> Result {
        do { return try body() } catch { throw code(error) }
    }
    static func reported<Result>(_ body: () async throws -> Result) async throws -> Result {
        do { return try await body() } catch { throw code(error) }
    }

    static func code(_ error: any Error) -> any Error {
        if error is ExitCode || error is ValidationError || error is CleanExit { return error }
        Console.note("error: \(error)")
        return ExitCode(exitCode(error))
    }

    /// With which a process ends that failed so.
    static func exitCode(_ error: any Error) -> Int32 {
        switch error {
        case let error as ExitCode: return error.rawValue
        case is AlgorithmError, is ConfigError, is EnvironmentError, is RewardError, is WorkerError, is ModelError,
            is TokenizerError,
            is TemplateError, is ConversationError, is RolloutError, is InputError:
            return 2
        case let error as ClusterError: return error.code == .badEnvironment ? 2 : 1
        case let error as BatchError: return error.code == .writing ? 1 : 2
        case let error as DatasetError: return error.code == .diskFull ? 1 : 2
        // A device that is not there was asked for by name.
        case let error as TorchError:
            return error.code == .rank ? RankExit.lostOther : error.code == .device ? 2 : 1
        case let error as CheckpointError: return error.code == .diskFull ? 1 : 2
        case let error as WorkerCallError:
            let isLoss = error.isConsequence || [.lost, .connection].contains(error.code)
            return error.exitCode ?? (isLoss ? RankExit.lostOther : 1)
        default: return 1
        }
    }
}

/// Ctrl-C: the first asks politely, the second ends the process.
final class InterruptHandler: Sendable {
    private struct State {
        var count = 0
        var first: (@Sendable () -> Void)?
    }
    private let state = Mutex(State())
    // Only ever kept alive: set once, in init.
    nonisolated(unsafe) private let sources: [any DispatchSourceSignal]

    init() {
        sources = [SIGINT, SIGTERM].map { number in
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number, queue: .global())
        }
        for source in sources {
            source.setEventHandler { [weak self] in self?.interrupted() }
            source.resume()
        }
    }

    var wasInterrupted: Bool { state.withLock { $0.count > 0 } }

    func onFirst(_ body: @escaping @Sendable () -> Void) {
        let isLate = state.withLock { state in
            state.first = body
            return state.count > 0
        }
        if isLate { body() }
    }

    private func interrupted() {
        let (count, first) = state.withLock { state in
            state.count += 1
            return (state.count, state.first)
        }
        if count == 1, let first { return first() }
        // Nothing to save yet, or asked twice. Not `exit`: it tears libtorch down under the thread that computes.
        _exit(130)
    }
}
