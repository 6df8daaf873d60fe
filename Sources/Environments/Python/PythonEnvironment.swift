import ChatTemplates
public import Conversations
import FoundationEssentials
import OrderedCollections
import PythonProcesses

/// An environment that a Python file defines:
///
///     class Environment:
///         tools = []                      # JSON schemas, as chat templates take them
///         def reset(self, task): ...      # → text or messages
///         def step(self, reply): ...      # → (observation, reward, done) or with an info dict
///         def cut_off(self, ending, reply): ...   # optional → a reward
///         def close(self): ...            # optional
///
/// Each may be `async`. The file is loaded once; each episode is an object in a process of its own, forked from there, so
/// one that hangs or dies is cut off alone. This guards against accidents, not against malice: the file runs with the
/// user's rights.
public final class PythonEnvironment: Environment {
    public let configuration: PythonEnvironmentConfiguration
    public let tools: [ToolDefinition]
    let server: ForkServer

    /// Starts the process that loads the file, and waits until it has.
    /// - Throws: ``EnvironmentError``: `badEnvironmentFile` with Python's own message, `noInterpreter`, `badSetting`;
    ///   `ConversationError` for a tool that is none.
    public init(_ configuration: PythonEnvironmentConfiguration) async throws {
        try configuration.check()
        var configuration = configuration
        configuration.file = URL(filePath: configuration.file).standardizedFileURL.path
        guard FileManager.default.isReadableFile(atPath: configuration.file) else {
            throw EnvironmentError(
                .badEnvironmentFile, "the environment file '\(configuration.file)' is missing or not readable")
        }
        guard let interpreter = PythonProcess.find(configuration.interpreter) else {
            throw EnvironmentError(
                .noInterpreter,
                "Python environments need '\(configuration.interpreter)', which is not in PATH or not executable; "
                    + "install Python 3 or name another interpreter")
        }
        configuration.interpreter = interpreter
        var process = PythonProcess(interpreter: interpreter, program: PythonEnvironmentProgram.source)
        process.arguments = [
            configuration.file, configuration.name, String(configuration.memoryLimit ?? 0),
            String(configuration.cpuSeconds), String(configuration.openFiles), String(configuration.observationBytes),
        ]
        process.environment = configuration.environment
        process.maximumFrame = configuration.observationBytes + (1 << 16)
        let server = ForkServer(
            process, startDeadline: configuration.startDeadline, killGrace: configuration.killGrace)
        let hello: [UInt8]
        do { hello = try await server.start() } catch {
            throw EnvironmentError(
                .badEnvironmentFile, "the environment file '\(configuration.file)' does not load: \(error.message)")
        }
        self.configuration = configuration
        self.server = server
        do {
            guard case .array(let tools)? = try TemplateValue(json: hello)["tools"] else {
                throw EnvironmentError(.badEnvironmentFile, "the class's tools are no list")
            }
            self.tools = try tools.map { try ToolDefinition($0) }
        } catch {
            await server.shutdown()
            throw error
        }
    }

    public func reset(_ task: EpisodeTask) async throws -> EpisodeOpening {
        let child: ForkServer.ChildID
        do { child = try await server.open([]) } catch {
            throw EpisodeFailure(.died, "no process for the episode: \(error.message)")
        }
        let episode = PythonEpisode(server, child, deadline: configuration.deadline)
        do {
            let reply = try await episode.ask(["op": "reset", "task": task.pythonValue], "reset")
            let messages = try Self.messages(reply["observation"], textRole: "user")
            return EpisodeOpening(episode, messages.isEmpty ? task.messages : messages)
        } catch {
            await server.close(child)
            throw error
        }
    }

    public func shutdown() async { await server.shutdown() }

    /// How often the file was loaded: more than once where the process that episodes fork from was lost.
    public var starts: Int {
        get async { await server.starts }
    }

    /// The process that episodes fork from.
    public var serverProcess: Int32? {
        get async { await server.processIdentifier }
    }

    /// Text becomes one message of a role.
    static func messages(_ observation: TemplateValue?, textRole: String) throws -> [ChatMessage] {
        switch observation {
        case .string(let text)?: return [ChatMessage(role: textRole, content: .string(text))]
        case .array(let values)?:
            return try values.map { value in
                guard let message = ChatMessage(value) else {
                    throw EpisodeFailure(.garbage, "a message has no role: \(value.jsonText.prefix(200))")
                }
                return message
            }
        default: throw EpisodeFailure(.garbage, "the observation is no text and no list of messages")
        }
    }
}

/// An episode in its process.
struct PythonEpisode: Episode {
    private let server: ForkServer
    private let child: ForkServer.ChildID
    private let deadline: Duration

    init(_ server: ForkServer, _ child: ForkServer.ChildID, deadline: Duration) {
        self.server = server
        self.child = child
        self.deadline = deadline
    }

    func step(_ reply: EpisodeReply) async throws -> EpisodeStep {
        let answer = try await ask(["op": "step", "reply": reply.pythonValue], "step \(reply.turn)")
        // What answers a call is a tool's result.
        return try Self.step(answer, textRole: reply.parsed.calls.isEmpty ? "user" : "tool")
    }

    func cutOff(_ ending: EpisodeEnding, _ reply: EpisodeReply?) async throws -> EpisodeStep {
        let answer = try await ask(
            ["op": "cut_off", "ending": .string(ending.name), "reply": reply?.pythonValue ?? .null], "cut_off")
        return try Self.step(answer, textRole: "user")
    }

    func close() async {
        // Its last words; whether it has some or not, the process goes.
        _ = try? await ask(["op": "close"], "close")
        await server.close(child)
    }

    /// One request and its reply.
    func ask(_ request: TemplateValue, _ what: String) async throws -> TemplateValue {
        await server.send(child, Array(request.jsonText.utf8))
        switch await server.next(of: child, within: deadline) {
        case .frame(let bytes):
            let reply: TemplateValue
            do { reply = try TemplateValue(json: bytes) } catch {
                throw EpisodeFailure(.garbage, "\(what) gave what is no JSON here: \(error.message)")
            }
            let message = reply["message"]?.string ?? ""
            switch reply["kind"]?.string {
            case "raised"?: throw EpisodeFailure(.raised, "\(what): \(message)")
            case "garbage"?: throw EpisodeFailure(.garbage, "\(what): \(message)")
            default: return reply
            }
        case .ended(let end):
            throw EpisodeFailure(end.garbage == true ? .garbage : .died, "\(what): the process \(end.description)")
        case .timedOut: throw EpisodeFailure(.timedOut, "\(what) took longer than \(deadline)")
        case .lost(let note): throw EpisodeFailure(.died, "\(what): \(note)")
        }
    }

    private static func step(_ answer: TemplateValue, textRole: String) throws -> EpisodeStep {
        guard let reward = answer["reward"]?.double, case .bool(let isDone)? = answer["done"] else {
            throw EpisodeFailure(.garbage, "a step's reply lacks its reward")
        }
        var step = EpisodeStep(reward: reward, isDone: isDone)
        step.messages = try PythonEnvironment.messages(answer["observation"], textRole: textRole)
        if case .array(let details)? = answer["details"] {
            for detail in details {
                if let name = detail["name"]?.string, let value = detail["value"]?.double { step.details[name] = value }
            }
        }
        return step
    }
}

extension TemplateValue {
    fileprivate var double: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }
}

extension EpisodeTask {
    fileprivate var pythonValue: TemplateValue {
        var object: TemplateObject = [
            "id": .int(Int64(id)), "group": .int(Int64(group)), "seed": .int(Int64(bitPattern: seed & (.max >> 1))),
            "messages": .array(messages.map(\.value)), "data_source": .string(dataSource),
            "ground_truth": .string(groundTruth), "extra_info": .null,
        ]
        if let groundTruthJSON { object["ground_truth_json"] = .string(groundTruthJSON) }
        if let extraInfoJSON { object["extra_info_json"] = .string(extraInfoJSON) }
        return .object(object)
    }
}

extension EpisodeReply {
    fileprivate var pythonValue: TemplateValue {
        var calls: [TemplateValue] = [], problems: [TemplateValue] = []
        for result in parsed.calls {
            switch result {
            case .success(let call):
                calls.append(["name": .string(call.name), "arguments": .object(call.arguments)])
            case .failure(let problem): problems.append(.string("\(problem)"))
            }
        }
        return [
            "text": .string(text), "content": .string(parsed.content), "turn": .int(Int64(turn)),
            "tool_calls": .array(calls), "malformed_calls": .array(problems),
        ]
    }
}
