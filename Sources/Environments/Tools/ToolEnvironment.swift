import ChatTemplates
public import Conversations
import OrderedCollections
public import Rewards

/// Questions that a model answers with the help of tools: calls are run and their results shown until a reply has none;
/// that one is the answer, and a reward scores it.
public struct ToolEnvironment: Environment {
    /// Small rewards on the way; 0 is off.
    public struct Shaping: Hashable, Sendable {
        /// For the first call that succeeds, once an episode: more calls are worth no more.
        public var firstSuccess = 0.0
        /// For each reply with a malformed call; negative to discourage it.
        public var malformedReply = 0.0
        /// For an answer without any successful call before it.
        public var answerWithoutTool = 0.0

        public init(firstSuccess: Double = 0, malformedReply: Double = 0, answerWithoutTool: Double = 0) {
            self.firstSuccess = firstSuccess
            self.malformedReply = malformedReply
            self.answerWithoutTool = answerWithoutTool
        }
    }

    public let tools: [ToolDefinition]
    public let reward: any Reward
    public let shaping: Shaping
    /// The most bytes of a result that the model is shown.
    public let resultBytes: Int
    private let callable: [String: any Tool]

    /// - Throws: ``EnvironmentError`` when two tools have one name.
    public init(
        _ tools: [any Tool], reward: any Reward, shaping: Shaping = Shaping(), resultBytes: Int = 16 << 10
    ) throws {
        self.tools = tools.map(\.definition)
        self.reward = reward
        self.shaping = shaping
        self.resultBytes = resultBytes
        callable = Dictionary(tools.map { ($0.definition.name, $0) }) { first, _ in first }
        guard callable.count == tools.count else {
            throw EnvironmentError(
                .badSetting, "two tools have one name: \(tools.map(\.definition.name).joined(separator: ", "))")
        }
    }

    public func reset(_ task: EpisodeTask) -> EpisodeOpening {
        EpisodeOpening(ToolEpisode(self, task), task.messages)
    }

    public func shutdown() async {
        for tool in callable.values { await tool.shutdown() }
    }

    /// Runs one call; whatever goes wrong is told to the model.
    func run(_ call: ToolCall) async throws -> ToolResult {
        guard let tool = callable[call.name] else {
            let known = tools.map(\.name).joined(separator: ", ")
            return ToolResult(
                "Error: there is no tool '\(call.name)'. The tools are: \(known).", failure: "unknown_tool")
        }
        if let problem = tool.definition.parameters.problem(with: call.arguments) {
            return ToolResult("Error: \(problem).", failure: "bad_arguments")
        }
        do {
            return try await TimeLimit.run(tool.timeLimit, "tool '\(call.name)'") {
                cut(await tool.call(call.arguments))
            }
        } catch let failure as EpisodeFailure {
            return ToolResult("Error: \(failure.message).", failure: failure.kind.rawValue)
        }
    }

    private func cut(_ result: ToolResult) -> ToolResult {
        guard result.text.utf8.count > resultBytes else { return result }
        var end = result.text.utf8.index(result.text.startIndex, offsetBy: resultBytes)
        // Not in the midst of a character.
        while end.samePosition(in: result.text.unicodeScalars) == nil { result.text.utf8.formIndex(before: &end) }
        return ToolResult(
            "\(result.text[..<end])\n[cut: \(result.text.utf8.count - resultBytes) more bytes]",
            failure: result.failure)
    }
}

private actor ToolEpisode: Episode {
    private let environment: ToolEnvironment
    private let task: EpisodeTask
    private var hasSucceeded = false

    init(_ environment: ToolEnvironment, _ task: EpisodeTask) {
        self.environment = environment
        self.task = task
    }

    func step(_ reply: EpisodeReply) async throws -> EpisodeStep {
        let results = reply.parsed.calls
        if results.isEmpty { return try await answer(reply) }
        let problems = results.compactMap { result in
            if case .failure(let problem) = result { problem } else { nil }
        }
        if !problems.isEmpty { return complain(problems) }
        let calls = results.compactMap { try? $0.get() }
        let answers = try await run(calls)
        var step = EpisodeStep(details: ["tool_calls": Double(calls.count)])
        for (index, (call, result)) in zip(calls, answers).enumerated() {
            step.messages.append(
                ChatMessage(
                    role: "tool", content: .string(result.text),
                    extra: ["name": .string(call.name), "tool_call_id": .string(ToolReplyParser.id(index))]))
            if let failure = result.failure { step.details["tool_failed_\(failure)", default: 0] += 1 }
        }
        if !hasSucceeded, answers.contains(where: { $0.failure == nil }) {
            hasSucceeded = true
            step.reward = environment.shaping.firstSuccess
        }
        return step
    }

    /// All calls of one reply at once, results in their order.
    private func run(_ calls: [ToolCall]) async throws -> [ToolResult] {
        try await withThrowingTaskGroup(of: (Int, ToolResult).self) { [environment] group in
            for (index, call) in calls.enumerated() {
                group.addTask { (index, try await environment.run(call)) }
            }
            var results = [ToolResult?](repeating: nil, count: calls.count)
            for try await (index, result) in group { results[index] = result }
            return results.compactMap(\.self)
        }
    }

    /// None of a reply's calls is run when one of them is malformed.
    private func complain(_ problems: [MalformedToolCall]) -> EpisodeStep {
        let text = problems.map { "Error: \($0.problem)." }.joined(separator: "\n")
        return EpisodeStep(
            messages: [
                ChatMessage(role: "tool", content: .string(text + " No call was run; write the call again."))
            ],
            reward: environment.shaping.malformedReply, details: ["malformed_calls": Double(problems.count)])
    }

    private func answer(_ reply: EpisodeReply) async throws -> EpisodeStep {
        var step = try await score(reply)
        if !hasSucceeded { step.reward += environment.shaping.answerWithoutTool }
        return step
    }

    private func score(_ reply: EpisodeReply?) async throws -> EpisodeStep {
        let outcomes = await environment.reward.score([
            RewardRequest(
                id: task.id, dataSource: task.dataSource, prompt: task.messages.last?.content.string ?? "",
                response: reply?.parsed.content ?? "", groundTruth: task.groundTruth,
                groundTruthJSON: task.groundTruthJSON, extraInfoJSON: task.extraInfoJSON,
                responseTokens: reply?.tokens ?? 0)
        ])
        switch outcomes.first {
        case .scored(let score, let details)?: return EpisodeStep(reward: score, isDone: true, details: details)
        case .failed(let failure)?:
            if failure.kind == .cancelled { throw CancellationError() }
            throw EpisodeFailure(.unscored, "\(failure)")
        case nil: throw EpisodeFailure(.unscored, "the reward gave no outcome")
        }
    }

    /// The answer is what the last reply says, if it says anything.
    func cutOff(_ ending: EpisodeEnding, _ reply: EpisodeReply?) async throws -> EpisodeStep { try await score(reply) }
}
