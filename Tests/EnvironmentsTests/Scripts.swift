import ChatTemplates
import ChatTestSupport
import Conversations
import Environments
import Foundation
import Synchronization
import Tokenizers

/// A model that says what a script says: the text of its reply, the end-of-turn token included.
final class ScriptedSampler: ContinuationSampler {
    typealias Script = @Sendable (ContinuationRequest) async throws -> String

    private let format: ChatFormat
    private let script: Script
    private let seen = Mutex<[ContinuationRequest]>([])

    init(_ format: ChatFormat, _ script: @escaping Script) {
        self.format = format
        self.script = script
    }

    /// What was asked for, in the order of episodes and turns.
    var requests: [ContinuationRequest] {
        seen.withLock { $0.sorted { ($0.episode, $0.turn) < ($1.episode, $1.turn) } }
    }

    func sample(_ request: ContinuationRequest) async throws -> SampledContinuation {
        seen.withLock { $0.append(request) }
        let ids = try format.encode(try await script(request))
        let kept = Array(ids.prefix(request.maxTokens))
        return SampledContinuation(
            tokens: kept, logProbs: kept.indices.map { -Float($0) - Float(request.turn) / 8 },
            isTruncated: kept.count < ids.count, weightVersions: kept.map { _ in Int32(request.turn + 3) })
    }
}

/// An environment of closures.
struct ScriptedEnvironment: Environment {
    var tools: [ToolDefinition] = []
    var opening: @Sendable (EpisodeTask) async throws -> [ChatMessage] = { $0.messages }
    var step: @Sendable (EpisodeTask, EpisodeReply) async throws -> EpisodeStep
    var end: @Sendable (EpisodeTask, EpisodeEnding, EpisodeReply?) async throws -> EpisodeStep = { _, _, _ in
        EpisodeStep(isDone: true)
    }
    let closed = Closed()

    final class Closed: Sendable {
        private let tasks = Mutex<[Int]>([])
        var ids: [Int] { tasks.withLock { $0.sorted() } }
        func add(_ id: Int) { tasks.withLock { $0.append(id) } }
    }

    func reset(_ task: EpisodeTask) async throws -> EpisodeOpening {
        EpisodeOpening(ScriptedEpisode(environment: self, task: task), try await opening(task))
    }

    private struct ScriptedEpisode: Episode {
        let environment: ScriptedEnvironment
        let task: EpisodeTask

        func step(_ reply: EpisodeReply) async throws -> EpisodeStep { try await environment.step(task, reply) }
        func cutOff(_ ending: EpisodeEnding, _ reply: EpisodeReply?) async throws -> EpisodeStep {
            try await environment.end(task, ending, reply)
        }
        func close() async { environment.closed.add(task.id) }
    }
}

/// Never returns, whatever is cancelled.
func hang() async {
    await withUnsafeContinuation { (_: UnsafeContinuation<Void, Never>) in }
}

extension EpisodeLimits {
    /// With more time than even a machine that is busy with other tests needs.
    static var patient: EpisodeLimits { EpisodeLimits(resetTime: .seconds(600), stepTime: .seconds(600)) }
}

func tasks(_ count: Int, _ text: String = "hello") -> [EpisodeTask] {
    (0..<count).map { EpisodeTask(id: $0, messages: [.user("\(text) \($0)")]) }
}

extension ToolReplyParser {
    static let hermes = ToolReplyParser(HermesToolCalls())
}

/// A file in a folder of its own, which goes with this object.
final class EnvironmentFile: Sendable {
    let folder: URL
    var path: String { folder.appending(path: "world.py").path }

    init(_ source: String) throws {
        folder = FileManager.default.temporaryDirectory.appending(path: "fledge-environment-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try Data(source.utf8).write(to: folder.appending(path: "world.py"))
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    /// Runs a body with the file's environment, and ends its processes.
    func run<Result: Sendable>(
        _ configure: (inout PythonEnvironmentConfiguration) -> Void = { _ in },
        _ body: (PythonEnvironment) async throws -> Result
    ) async throws -> Result {
        var configuration = PythonEnvironmentConfiguration(file: path)
        configuration.deadline = .seconds(600)
        configure(&configuration)
        let environment = try await PythonEnvironment(configuration)
        do {
            let result = try await body(environment)
            await environment.shutdown()
            return result
        } catch {
            await environment.shutdown()
            throw error
        }
    }

    /// Waits until a file is written into the folder (by renaming it there) and returns its text.
    func text(of name: String) async throws -> String {
        let file = folder.appending(path: name)
        while !FileManager.default.fileExists(atPath: file.path) { try await Task.sleep(for: .milliseconds(5)) }
        return try String(contentsOf: file, encoding: .utf8)
    }
}

/// Whether a process runs: it exists and is not a zombie.
func isRunning(_ process: Int) -> Bool {
    guard let status = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8) else { return false }
    let state = status.split(separator: ")").last?.split(separator: " ").first
    return state != "Z" && state != "X"
}
