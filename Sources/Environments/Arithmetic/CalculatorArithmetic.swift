import ChatTemplates
public import Conversations
public import Datasets
public import Rewards

/// Sums and products of large numbers, which a small model gets right with a calculator and seldom without: an
/// environment with one tool, and its data from a seed.
public struct CalculatorArithmetic: Environment {
    public struct Settings: Hashable, Sendable {
        /// The signs of a question, one list for each form.
        public var forms: [[ArithmeticProblem.Operator]]
        /// Each operand's values.
        public var operands: ClosedRange<Int>
        /// What the model is told before the question; nil for nothing. The tool's schema comes from the template.
        public var system: String?
        public var shaping: ToolEnvironment.Shaping

        public init(
            forms: [[ArithmeticProblem.Operator]] = [
                [.multiply], [.multiply, .add], [.add, .add], [.add, .multiply],
            ],
            operands: ClosedRange<Int> = 100...99_999,
            system: String? = "Use the calculator for every computation, then reply with only the number.",
            shaping: ToolEnvironment.Shaping = ToolEnvironment.Shaping()
        ) {
            self.forms = forms
            self.operands = operands
            self.system = system
            self.shaping = shaping
        }
    }

    public let settings: Settings
    private let environment: ToolEnvironment

    public var tools: [ToolDefinition] { environment.tools }

    /// - Parameter reward: scores the last reply; by default 1 for the bare right number, however it is spelt, else 0.
    /// - Throws: ``EnvironmentError`` when there are no forms, operands are negative, or answers could overflow.
    public init(_ settings: Settings = Settings(), reward: any Reward = NumberMatchReward(.only)) throws {
        let most = settings.forms.map { $0.filter { $0 == .multiply }.count + 1 }.max() ?? 0
        var bound = 1, fits = true
        for _ in 0..<most {
            let (next, overflow) = bound.multipliedReportingOverflow(by: settings.operands.upperBound)
            (bound, fits) = (next, fits && !overflow)
        }
        guard most > 0, settings.forms.allSatisfy({ !$0.isEmpty && $0.count < 32 }), settings.operands.lowerBound >= 0,
            fits, bound < Int.max / 64
        else {
            throw EnvironmentError(
                .badSetting,
                "calculator questions need forms of 1 to 31 signs and operands from 0 up whose products fit 64 bits; "
                    + "they have \(settings.forms.count) forms and operands \(settings.operands)")
        }
        self.settings = settings
        environment = try ToolEnvironment([CalculatorTool()], reward: reward, shaping: settings.shaping)
    }

    public func reset(_ task: EpisodeTask) -> EpisodeOpening { environment.reset(task) }

    public enum Split: UInt64, Hashable, Sendable, CaseIterable {
        case training, heldOut
    }

    /// Questions of a seed, all different; the same arguments give the same ones everywhere, and no question of one split is
    /// ever one of the other's, whatever the seeds.
    /// - Throws: ``EnvironmentError`` when the forms and operands hold too few questions.
    public func tasks(_ count: Int, seed: UInt64, split: Split) throws -> [EpisodeTask] {
        var generator = SplitMix64(seed: seed, part: split.rawValue)
        var seen: Set<ArithmeticProblem> = [], tasks: [EpisodeTask] = []
        var misses = 0
        let width = UInt64(settings.operands.count)
        while tasks.count < count {
            let form = settings.forms[Int(generator.next(below: UInt64(settings.forms.count)))]
            let operands = (0...form.count).map { _ in
                settings.operands.lowerBound + Int(generator.next(below: width))
            }
            let problem = ArithmeticProblem(operands, form)
            guard Self.split(of: problem) == split, seen.insert(problem).inserted else {
                misses += 1
                guard misses < 64 * (count + 64) else {
                    throw EnvironmentError(
                        .badSetting,
                        "\(count) different questions are wanted and \(tasks.count) found; widen the operands or add forms"
                    )
                }
                continue
            }
            tasks.append(task(problem, id: tasks.count, seed: generator.next()))
        }
        return tasks
    }

    /// One question in eight is held out, by its numbers in any order: `3 * 4` and `4 * 3` are on one side.
    static func split(of problem: ArithmeticProblem) -> Split {
        var sum: UInt64 = 0
        for operand in problem.operands {
            var generator = SplitMix64(seed: UInt64(operand))
            sum &+= generator.next()
        }
        var generator = SplitMix64(seed: sum)
        return generator.next() % 8 == 0 ? .heldOut : .training
    }

    private func task(_ problem: ArithmeticProblem, id: Int, seed: UInt64) -> EpisodeTask {
        var messages: [ChatMessage] = settings.system.map { [.system($0)] } ?? []
        messages.append(.user("What is \(problem.text(multiplication: "*"))?"))
        return EpisodeTask(
            id: id, seed: seed, messages: messages, dataSource: "calculator_arithmetic",
            groundTruth: String(problem.answer))
    }
}
