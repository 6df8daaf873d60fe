import ArgumentParser
import ChatTemplates
import Conversations
import Flow
import Foundation
import RolloutCore
import Synchronization
import Telemetry
import Workers

struct Chat: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Talk with a model in the terminal.",
        discussion: """
            EXAMPLES
              fledge chat models/smollm2-135m-instruct
              fledge chat DIR --system "Answer in one sentence." --temperature 0.7
              printf 'What is 3 + 4?\\nAnd 5 + 6?\\n' | fledge chat DIR --json
            In a terminal /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends, and \\ at a line's end goes on in
            the next. Without a terminal each line of standard input is a message.
            """)

    @Argument(help: "A Hugging Face folder or a .gguf file.", completion: .directory)
    var model: String

    @OptionGroup var compute: ComputeOptions
    @OptionGroup var sampling: SamplingOptions

    @Option(help: "A system turn.")
    var system: String?

    @Flag(help: "Print one JSON object a turn.")
    var json = false

    func run() async throws {
        try await Failures.reported {
            let worker = PolicyWorker(try compute.plan(model: model))
            let settings = try sampling.settings(for: model)
            let format = try await worker.load().chatFormat()
            let isTerminal = isatty(0) == 1 && TerminalTraits.detect(descriptor: 1).isInteractive && !json
            var chat = ChatLoop(
                session: ChatSession(format, system: system), worker: worker, settings: settings,
                contextLength: try await worker.contextLength(), asJSON: json)
            if isTerminal { try await chat.talk(modelName: model) } else { try await chat.pipe() }
        }
    }
}

/// The chat's lines in and out.
struct ChatLoop {
    var session: ChatSession
    let worker: PolicyWorker
    var settings: RolloutRequestSettings
    let contextLength: Int
    let asJSON: Bool

    // MARK: - In a terminal

    mutating func talk(modelName: String) async throws {
        let paint = Paint(descriptor: 1)
        let stop = StopKey(prompt: paint.bold("› "))
        Console.say(paint.faint("\(modelName) · /help lists the commands"))
        while let line = readMessage(paint) {
            if line.allSatisfy(\.isWhitespace) { continue }
            switch ChatCommand(line) {
            case .quit: return
            case .say(let text):
                do { try await answer(text, stop, paint) } catch let error where Self.isPassing(error) {
                    Console.note(paint.faint("\(error)"))
                }
            case let command: obey(command, paint)
            }
        }
        Console.say("")
    }

    /// A line, and those that it goes on in; nil at the end of the input.
    private func readMessage(_ paint: Paint) -> String? {
        Console.stream(paint.bold("› "))
        guard var text = readLine() else { return nil }
        while text.hasSuffix("\\") {
            text.removeLast()
            Console.stream(paint.faint("… "))
            guard let next = readLine() else { break }
            text += "\n" + next
        }
        return text
    }

    private mutating func answer(_ text: String, _ stop: StopKey, _ paint: Paint) async throws {
        stop.begin()
        defer { stop.end() }
        let turn = try await turn(text) { piece in
            Console.stream(Paint.harmless(piece))
            return !stop.isPressed
        }
        Console.say("")
        var note = Generate.counts(turn.answer, seconds: turn.seconds)
        switch turn.answer.finishReason {
        case .stop: break
        case .length: note += " cut at \(turn.answer.tokens.count) tokens; --max-tokens allows more"
        case .abort: note += " stopped"
        }
        Console.note(paint.faint(note))
    }

    private mutating func obey(_ command: ChatCommand, _ paint: Paint) {
        func say(_ text: String) { Console.say(paint.faint(text)) }
        switch command {
        case .help:
            for (name, meaning) in ChatCommand.commands {
                say(name + String(repeating: " ", count: max(1, 16 - name.count)) + meaning)
            }
        case .reset:
            session.reset()
            say("begun anew")
        case .system(nil): say(session.system.map { "system: \($0)" } ?? "there is no system turn")
        case .system(let text?):
            session.setSystem(text)
            say(session.system == nil ? "no system turn; begun anew" : "system turn set; begun anew")
        case .temperature(let value):
            if let value { settings.temperature = value }
            say("temperature \(settings.temperature)")
        case .undo:
            say(session.undo() ? "taken back; questions left: \(session.questions)" : "there is nothing to take back")
        case .tokens: showTokens(paint)
        case .save(let path):
            do {
                try Data((ChatRecord.json(session) + "\n").utf8).write(to: URL(fileURLWithPath: path))
                say("saved to \(path)")
            } catch { say("cannot save: \(error.localizedDescription)") }
        case .mistake(let message): say(message)
        case .say, .quit: break
        }
    }

    private func showTokens(_ paint: Paint) {
        guard let talk = session.conversation else { return Console.say(paint.faint("nothing was said yet")) }
        for turn in talk.turns {
            let text = TokenListing.visible(session.format.spell(talk.tokens[turn.tokens]))
            let shown = turn.origin == .sampled ? paint.green(text) : text
            Console.say(
                paint.faint("\(turn.tokens.lowerBound)–\(turn.tokens.upperBound) \(turn.origin.rawValue) ") + shown)
        }
        let drift = try? talk.drift()
        Console.say(
            paint.faint(drift.map { "a fresh rendering differs at \($0)" } ?? "a fresh rendering gives the same tokens")
        )
    }

    /// Errors after which the talk can go on.
    private static func isPassing(_ error: any Error) -> Bool {
        error is ConversationError || error is TemplateError || error is InputError
    }

    // MARK: - In a pipe

    mutating func pipe() async throws {
        while let line = readLine() {
            if line.allSatisfy(\.isWhitespace) { continue }
            let asJSON = asJSON
            let turn = try await turn(line) { piece in
                if !asJSON { Console.stream(piece) }
                return true
            }
            if asJSON {
                Console.say(ChatRecord.json(turn, drift: try session.conversation?.drift()))
            } else {
                Console.stream("\n")
                Console.note(Generate.counts(turn.answer, seconds: turn.seconds))
            }
        }
    }

    // MARK: - Both

    struct Turn {
        var question, text: String
        var answer: StreamedAnswer
        var seconds: Double
    }

    /// Asks and hears the answer out; the question is taken back if that fails.
    private mutating func turn(_ question: String, onText: @escaping @Sendable (String) -> Bool) async throws -> Turn {
        let prompt = try session.ask(question)
        do {
            var settings = settings
            settings.maxTokens = min(settings.maxTokens, contextLength - prompt.count)
            // Another draw for another turn.
            settings.seed &+= UInt64(session.questions - 1)
            guard settings.maxTokens > 0 else {
                throw InputError(
                    "the conversation has \(prompt.count) tokens and the model takes \(contextLength): begin anew")
            }
            let collected = Collected()
            let clock = ContinuousClock(), start = clock.now
            let answer = try await worker.stream(prompt, settings) { piece in
                collected.append(piece)
                return onText(piece)
            }
            try session.answer(answer.tokens, logProbs: answer.logProbs)
            return Turn(
                question: question, text: collected.text, answer: answer, seconds: (clock.now - start) / .seconds(1))
        } catch {
            _ = session.undo()
            throw error
        }
    }
}

/// Ctrl-C: stops an answer; between answers it only clears the line.
final class StopKey: Sendable {
    private let isAnswering = Atomic(false)
    private let pressed = Atomic(false)
    private let prompt: String
    // Only ever kept alive: set once, in init.
    nonisolated(unsafe) private let source: any DispatchSourceSignal

    init(prompt: String) {
        self.prompt = prompt
        signal(SIGINT, SIG_IGN)
        source = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
        source.setEventHandler { [weak self] in self?.press() }
        source.resume()
    }

    var isPressed: Bool { pressed.load(ordering: .relaxed) }

    func begin() {
        pressed.store(false, ordering: .relaxed)
        isAnswering.store(true, ordering: .relaxed)
    }

    func end() { isAnswering.store(false, ordering: .relaxed) }

    private func press() {
        if isAnswering.load(ordering: .relaxed) {
            pressed.store(true, ordering: .relaxed)
        } else {
            // The terminal has dropped what was typed.
            Console.stream("\n" + prompt)
        }
    }
}

/// Chats as JSON.
enum ChatRecord {
    /// A turn on one line.
    static func json(_ turn: ChatLoop.Turn, drift: Drift?) -> String {
        var writer = JSONWriter()
        writer.object { object in
            object.member("message") { $0.value(turn.question) }
            object.member("answer") { $0.value(turn.text) }
            object.member("finish_reason") { $0.value(turn.answer.finishReason.rawValue) }
            object.member("prompt_tokens") { $0.value(turn.answer.promptTokens) }
            object.member("ids") { $0.values(turn.answer.tokens) }
            object.member("log_probs") { list in
                list.array { list in for value in turn.answer.logProbs { list.value(Double(value)) } }
            }
            object.member("tokens_per_second") { $0.value(Generate.rate(turn.answer, seconds: turn.seconds)) }
            object.member("drift") { $0.value(drift?.description) }
        }
        return writer.text
    }

    static func json(_ session: ChatSession) -> String {
        var writer = JSONWriter()
        let talk = session.conversation
        writer.object { object in
            object.member("messages") { list in
                list.array { list in for message in talk?.messages ?? [] { list.value(message.value) } }
            }
            object.member("tokens") { $0.values(talk?.tokens ?? []) }
            object.member("response_mask") { $0.values(talk?.responseMask ?? []) }
            object.member("log_probs") { list in
                list.array { list in for value in talk?.logProbs ?? [] { list.value(Double(value)) } }
            }
        }
        return writer.text
    }
}
