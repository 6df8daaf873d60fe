import ChatTemplates
import Conversations
import Datasets
import Environments
import OrderedCollections
import Rewards
import Testing

/// Gives every answer the same score, or fails.
struct FixedReward: ItemReward {
    let outcome: RewardOutcome
    init(_ score: Double) { outcome = .scored(score) }
    init(_ failure: RewardFailure) { outcome = .failed(failure) }
    func score(_ item: RewardRequest) -> RewardOutcome { outcome }
}

/// A tool of a closure.
struct ScriptedTool: Tool {
    let definition: ToolDefinition
    var timeLimit: Duration
    let body: @Sendable (TemplateObject) async -> ToolResult

    init(
        _ name: String, timeLimit: Duration = .seconds(600),
        _ body: @escaping @Sendable (TemplateObject) async -> ToolResult
    )
        throws
    {
        definition = try ToolDefinition(
            name: name, description: "", parameters: ["type": "object", "properties": ["n": ["type": "integer"]]])
        self.timeLimit = timeLimit
        self.body = body
    }

    func call(_ arguments: TemplateObject) async -> ToolResult { await body(arguments) }
}

@Suite struct ToolEnvironmentTests {
    static func reply(_ calls: [ToolCall] = [], content: String = "", problem: String? = nil, turn: Int = 0)
        -> EpisodeReply
    {
        var results: [ToolReply.Result] = calls.map { .success($0) }
        if let problem { results.append(.failure(MalformedToolCall(problem, in: "x"))) }
        return EpisodeReply(
            text: content, parsed: ToolReply(message: .assistant(content), content: content, calls: results), turn: turn
        )
    }

    @Test func answersEachCallInItsOrder() async throws {
        let environment = try ToolEnvironment(
            [
                ScriptedTool("slow") { _ in
                    for _ in 0..<20 { await Task.yield() }
                    return ToolResult("slow")
                },
                ScriptedTool("fast") { ToolResult("fast \($0["n"].map(\.jsonText) ?? "")") },
                ScriptedTool("stuck", timeLimit: .milliseconds(50)) { _ in
                    await hang()
                    return ToolResult("")
                },
                ScriptedTool("long") { _ in ToolResult(String(repeating: "é", count: 1000)) },
            ], reward: FixedReward(1), resultBytes: 101)
        let episode = environment.reset(tasks(1)[0]).episode
        let step = try await episode.step(
            Self.reply([
                ToolCall(name: "slow"), ToolCall(name: "fast", arguments: ["n": 2]), ToolCall(name: "none"),
                ToolCall(name: "fast", arguments: ["n": "2"]), ToolCall(name: "stuck"), ToolCall(name: "long"),
            ]))
        #expect(!step.isDone && step.messages.allSatisfy { $0.role == "tool" })
        let texts = step.messages.compactMap(\.content.string)
        #expect(texts[0] == "slow" && texts[1] == "fast 2")
        #expect(texts[2] == "Error: there is no tool 'none'. The tools are: slow, fast, stuck, long.")
        #expect(texts[3] == "Error: \"n\" must be of type integer, not string.")
        #expect(texts[4].contains("took longer than"))
        #expect(texts[5] == String(repeating: "é", count: 50) + "\n[cut: 1899 more bytes]")
        #expect(step.messages.map { $0.extra["tool_call_id"]?.string } == (0..<6).map { "call0000\($0)" })
        #expect(
            step.details == [
                "tool_calls": 6, "tool_failed_unknown_tool": 1, "tool_failed_bad_arguments": 1,
                "tool_failed_timed_out": 1,
            ])
    }

    @Test func scoresTheReplyWithoutCalls() async throws {
        let environment = try ToolEnvironment([CalculatorTool()], reward: NumberMatchReward(.only))
        let task = EpisodeTask(id: 0, messages: [.user("6*7")], groundTruth: "42")
        let right = try await environment.reset(task).episode.step(Self.reply(content: "It is 42."))
        #expect(right.isDone && right.reward == 1)
        let wrong = try await environment.reset(task).episode.step(Self.reply(content: "41"))
        #expect(wrong.isDone && wrong.reward == 0)
        let cut = try await environment.reset(task).episode.cutOff(.truncatedReply, Self.reply(content: "42"))
        #expect(cut.reward == 1)
        #expect(try await environment.reset(task).episode.cutOff(.turnLimit, nil).reward == 0)
        let failing = try ToolEnvironment([], reward: FixedReward(RewardFailure(.raised, "boom")))
        do {
            _ = try await failing.reset(task).episode.step(Self.reply(content: "x"))
            Issue.record("a failed reward gave a score")
        } catch let failure as EpisodeFailure {
            #expect(failure.kind == .unscored && failure.message.contains("boom"))
        }
    }

    @Test func shapingIsPaidOnce() async throws {
        let shaping = ToolEnvironment.Shaping(firstSuccess: 0.1, malformedReply: -0.05, answerWithoutTool: -0.5)
        let environment = try ToolEnvironment([CalculatorTool()], reward: FixedReward(1), shaping: shaping)
        let good = Self.reply([ToolCall(name: "calculator", arguments: ["expression": "1"])])
        let bad = Self.reply([ToolCall(name: "calculator", arguments: ["expression": "("])])
        let episode = environment.reset(tasks(1)[0]).episode
        var rewards: [Double] = []
        for reply in [bad, Self.reply(problem: "wrong"), good, good, Self.reply(content: "1")] {
            rewards.append(try await episode.step(reply).reward)
        }
        #expect(rewards == [0, -0.05, 0.1, 0, 1])
        #expect(try await environment.reset(tasks(1)[0]).episode.step(Self.reply(content: "1")).reward == 0.5)
    }

    @Test func oneMalformedCallRunsNone() async throws {
        let environment = try ToolEnvironment(
            [ScriptedTool("f") { _ in ToolResult("ran") }], reward: FixedReward(1))
        let step = try await environment.reset(tasks(1)[0]).episode.step(
            Self.reply([ToolCall(name: "f")], problem: "the call is not closed"))
        #expect(
            step.messages.map(\.content) == ["Error: the call is not closed. No call was run; write the call again."])
        #expect(!step.isDone)
    }

    @Test func toolsNeedNamesOfTheirOwn() throws {
        #expect(throws: EnvironmentError.self) {
            try ToolEnvironment([CalculatorTool(), CalculatorTool()], reward: FixedReward(1))
        }
    }
}

@Suite struct CalculatorTests {
    @Test(arguments: [
        ("1 + 2 * 3", "7"), ("(1 + 2) * 3", "9"), ("-2 ** 2", "-4"), ("2 ** 3 ** 2", "512"), ("2 ** -2", "0.25"),
        ("2^10", "1024"),
        ("48271 * 99043 + 77120", "4780981773"), ("7 // 2", "3"), ("-7 // 2", "-4"), ("-7 % 3", "2"), ("7 % -3", "-2"),
        ("0.1 + 0.2", "0.3"), ("1/8", "0.125"), ("1/3", "0.333333333333333"), ("1/3*3", "1"),
        ("1,234,567 + 1", "1234568"),
        ("1_000 * 2", "2000"), ("12 × 3 ÷ 4 − 1", "8"), ("max(1, 2,3)", "3"), ("max(1,234)", "234"),
        ("min(0.5, 1/3)*3", "1"),
        ("round(2.5)", "2"), ("round(3.5)", "4"), ("round(-2.5)", "-2"), ("round(2.675, 2)", "2.68"),
        ("round(1234, -2)", "1200"),
        ("sqrt(16)", "4"), ("sqrt(9/4)", "1.5"), ("sqrt(2)", "1.4142135623731"), ("abs(-3)", "3"),
        ("floor(-1.5)", "-2"),
        ("ceil(-1.5)", "-1"), ("ceil(1.2)", "2"), ("ln(e)", "1"), ("log(1000)", "3"), ("2e3", "2000"),
        ("1.5e-3", "0.0015"),
        ("exp(0)", "1"), ("9223372036854775807", "9223372036854775807"), ("--3", "3"), ("  2\n", "2"),
        ("pi", "3.14159265358979"),
        ("1e300*1e5", "1e+305"), (".5", "0.5"), ("4 - -4", "8"), ("0 ** 0", "1"), ("1 ** 99999999", "1"),
        ("sin(0)", "0"),
    ]) func computes(_ expression: String, _ value: String) throws {
        let result = try CalculatorTool().evaluate(expression)
        #expect(result == ToolResult(value), "\(expression)")
    }

    @Test(arguments: [
        ("", "ends where a number"), ("1 +", "ends where a number"), ("(1", "')'"), ("1 2", "an operator"),
        ("1/0", "division by zero"),
        ("0 ** -1", "division by zero"), ("5 % 0", "division by zero"), ("x", "'x' is no number"),
        ("foo(1)", "no function 'foo'"),
        ("9223372036854775807 + 1", "does not fit 64 bits"), ("99999999999 * 99999999999", "does not fit 64 bits"),
        ("9 ** 9 ** 9", "does not fit 64 bits"), ("(-8) ** 0.5", "negative number"), ("sqrt(-1)", "negative number"),
        ("ln(0)", "not above 0"),
        ("1e999", "too large"), ("exp(1000)", "too large"), ("round(1, 2, 3)", "takes 2"), ("sqrt()", "a number"),
        ("1..2", "an operator"),
        ("import os", "'import' is no"), ("2 ** 3 **", "ends where a number"), ("9 ** 64 ** 64", "does not fit"),
        ("1 @ 2", "'@ 2'"),
        ("round(1.5, 40)", "from -18 to 18"),
    ]) func refuses(_ expression: String, _ words: String) throws {
        let result = try CalculatorTool().evaluate(expression)
        #expect(result.failure == "bad_expression" && result.text.contains(words), "\(expression): \(result.text)")
    }

    /// Nothing that a model writes takes the process down.
    @Test func isDeepEnoughAndNoDeeper() throws {
        let tool = try CalculatorTool()
        for text in [
            String(repeating: "(", count: 500), String(repeating: "-", count: 1000) + "1",
            String(repeating: "2**", count: 300) + "2",
            String(repeating: "abs(", count: 200), String(repeating: "9", count: 1000),
            String(repeating: "1", count: 2000),
            "9223372036854775807 // (1/9223372036854775807)", "-9223372036854775808", "-9223372036854775808 // -1",
            "abs(-9223372036854775807-1)", "0.000000000000000001 ** 2", "1/3 + 1/9223372036854775807", "(1/3)**60",
        ] {
            #expect(!tool.evaluate(text).text.isEmpty, "\(text.prefix(40))")
        }
        #expect(tool.evaluate(String(repeating: "(", count: 30) + "7" + String(repeating: ")", count: 30)).text == "7")
    }

    /// Random sums and products of integers are those of the machine's own arithmetic.
    @Test func agreesWithIntegers() throws {
        let tool = try CalculatorTool()
        var generator = SplitMix64(seed: 5)
        for _ in 0..<300 {
            let numbers = (0..<4).map { _ in Int(generator.next(below: 20_000)) - 10_000 }
            let (a, b, c, d) = (numbers[0], numbers[1], numbers[2], max(1, abs(numbers[3])))
            #expect(tool.evaluate("\(a) * (\(b)) + \(c) - \(d)").text == "\(a * b + c - d)")
            let floor = Int((Double(a) / Double(d)).rounded(.down))
            #expect(tool.evaluate("(\(a)) // \(d)").text == "\(floor)")
            #expect(tool.evaluate("(\(a)) % \(d)").text == "\(a - floor * d)")
        }
    }
}

@Suite struct CalculatorArithmeticTests {
    @Test func dataComeFromTheSeed() throws {
        let world = try CalculatorArithmetic()
        let tasks = try world.tasks(200, seed: 3, split: .training)
        #expect(try world.tasks(200, seed: 3, split: .training) == tasks)
        #expect(try world.tasks(200, seed: 4, split: .training) != tasks)
        #expect(try world.tasks(50, seed: 3, split: .training) == Array(tasks.prefix(50)))
        #expect(Set(tasks.map { $0.messages.last?.content }).count == 200)
        let calculator = try CalculatorTool()
        for task in tasks {
            let question = task.messages.last?.content.string ?? ""
            let expression = question.dropFirst("What is ".count).dropLast()
            #expect(calculator.evaluate(String(expression)).text == task.groundTruth, "\(question)")
        }
    }

    /// No question is on both sides, whatever the seeds, nor one with its numbers in another order.
    @Test func splitsShareNothing() throws {
        let world = try CalculatorArithmetic(.init(forms: [[.multiply], [.add]], operands: 0...30))
        func questions(_ split: CalculatorArithmetic.Split, _ seed: UInt64) throws -> Set<[String]> {
            Set(
                try world.tasks(60, seed: seed, split: split).map { task in
                    (task.messages.last?.content.string ?? "").split(separator: " ").map(String.init).sorted()
                })
        }
        let training = try questions(.training, 1).union(questions(.training, 2))
        #expect(training.isDisjoint(with: try questions(.heldOut, 1).union(questions(.heldOut, 3))))
    }

    @Test func refusesWhatCannotBe() throws {
        for settings in [
            CalculatorArithmetic.Settings(forms: []), .init(forms: [[]]), .init(operands: -1...5),
            .init(operands: 1...Int.max),
            .init(forms: [[.multiply, .multiply, .multiply, .multiply]], operands: 1...100_000),
        ] {
            #expect(throws: EnvironmentError.self) { try CalculatorArithmetic(settings) }
        }
        let small = try CalculatorArithmetic(.init(forms: [[.add]], operands: 0...3))
        #expect(throws: EnvironmentError.self) { try small.tasks(100, seed: 1, split: .training) }
    }

    /// A model that calculates is right, one that guesses is not.
    @Test func theToolPays() async throws {
        let world = try CalculatorArithmetic(.init(shaping: .init(firstSuccess: 0.1)))
        let all = try world.tasks(8, seed: 1, split: .heldOut)
        let (rollout, _) = try MultiTurnRolloutTests.rollout(world) { request in
            let task = all[request.episode]
            if request.episode % 2 == 1 { return "7<|im_end|>" }
            guard request.turn == 0 else { return "\(task.groundTruth)<|im_end|>" }
            let expression = (task.messages.last?.content.string ?? "").dropFirst("What is ".count).dropLast()
            return
                "<tool_call>{\"name\": \"calculator\", \"arguments\": {\"expression\": \"\(expression)\"}}</tool_call><|im_end|>"
        }
        let results = try await rollout.run(all, seed: 1)
        #expect(results.map(\.score) == [1.1, 0, 1.1, 0, 1.1, 0, 1.1, 0])
        for (task, result) in zip(all, results) where result.turns == 2 {
            #expect(result.text.contains("<|im_start|>tool\n\(task.groundTruth)<|im_end|>"))
        }
    }
}
