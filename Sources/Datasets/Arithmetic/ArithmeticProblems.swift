/// Arithmetic problems for the quickstart: a held-out set and a training set that share no problem, not even one with
/// its terms or factors in another order. The same arguments give the same problems everywhere.
public struct ArithmeticProblems: Sendable {
    /// Which problems there are.
    public struct Space: Hashable, Sendable {
        /// The signs of a problem, one list for each form: `[.add]` is `a + b`, `[.add, .subtract]` is `a + b - c`.
        public var forms: [[ArithmeticProblem.Operator]]
        /// Each operand's values.
        public var operandRange: ClosedRange<Int>
        /// Problems with another answer are left out; nil for none.
        public var answerRange: ClosedRange<Int>?

        /// The default has 760 distinct problems (1,300 with their reorderings).
        public init(
            forms: [[ArithmeticProblem.Operator]] = [[.add], [.subtract], [.multiply], [.add, .subtract]],
            operandRange: ClosedRange<Int> = 0...9, answerRange: ClosedRange<Int>? = nil
        ) {
            self.forms = forms
            self.operandRange = operandRange
            self.answerRange = answerRange
        }
    }

    /// A space of more problems than this is refused.
    public static let maximumCount = 1 << 20

    /// Problems that training may use, reorderings included, in a random order.
    public let training: [ArithmeticProblem]
    /// Problems to measure by, with all their reorderings of the same form.
    public let heldOut: [ArithmeticProblem]
    /// The solved problems that every prompt begins with; neither trained on nor measured by.
    public let examples: [ArithmeticProblem]
    public let prompt: ArithmeticPrompt

    /// Held-out problems are taken class by class, a class being a problem with its reorderings, and evenly from all forms; so
    /// no problem of a held-out class is ever trained on. Reorderings count as problems of their own.
    ///
    /// - Parameters:
    ///   - heldOutForms: the forms that held-out problems are drawn from; nil for all.
    ///   - shown: user turns that prompts already show with their answers; what they ask is not held out.
    /// - Throws: `DatasetError.badSetting` when the space is empty or too large, or has too few problems for the
    ///   examples, `heldOut` and at least one to train on.
    public init(
        seed: UInt64, space: Space = Space(), heldOut heldOutCount: Int = 200,
        heldOutForms: [[ArithmeticProblem.Operator]]? = nil, prompt: ArithmeticPrompt = ArithmeticPrompt(),
        shown: Set<String> = []
    ) throws {
        let all = try Self.enumerate(space)
        var generator = SplitMix64(seed: seed)
        let shuffled = generator.permutation(count: all.count).map { all[Int($0)] }
        var members: [[ArithmeticProblem.Product]: [ArithmeticProblem]] = [:]
        for problem in shuffled { members[problem.identity, default: []].append(problem) }

        var taken: Set<[ArithmeticProblem.Product]> = []
        var examples: [ArithmeticProblem] = []
        for problem in shuffled where examples.count < prompt.examples {
            if taken.insert(problem.identity).inserted { examples.append(problem) }
        }
        let isShown = Set(shuffled.filter { shown.contains(prompt.question($0).content) }.map(\.identity))
        let forms = heldOutForms ?? space.forms.uniqued
        var heldOut: [ArithmeticProblem] = []
        for (index, form) in forms.enumerated() {
            // What is left, shared evenly among the forms not yet drawn from.
            var quota = (heldOutCount - heldOut.count + forms.count - index - 1) / (forms.count - index)
            for problem in shuffled where quota > 0 && problem.operators == form && !isShown.contains(problem.identity)
            {
                let twins = members[problem.identity, default: []].filter { $0.operators == form }
                guard twins.count <= quota, taken.insert(problem.identity).inserted else { continue }
                heldOut += twins
                quota -= twins.count
            }
        }
        self.examples = examples
        self.heldOut = heldOut
        let reserved = taken
        training = shuffled.filter { !reserved.contains($0.identity) }
        self.prompt = prompt
        guard examples.count == prompt.examples, heldOutCount >= 0, heldOut.count == heldOutCount else {
            throw DatasetError(
                .badSetting,
                "\(prompt.examples) examples and \(heldOutCount) held-out problems are wanted, \(examples.count) and "
                    + "\(heldOut.count) found; widen the operands or add forms")
        }
        guard !training.isEmpty else {
            throw DatasetError(
                .badSetting,
                "\(heldOutCount) held-out problems leave none to train on; hold out fewer, widen the operands or add "
                    + "forms")
        }
    }

    /// The training problems as rows.
    public var trainingRows: PromptList { rows(training, split: "train") }

    /// The held-out problems as rows.
    public var heldOutRows: PromptList { rows(heldOut, split: "heldout") }

    private func rows(_ problems: [ArithmeticProblem], split: String) -> PromptList {
        PromptList(
            problems.enumerated().map { index, problem in
                PromptRow(
                    dataSource: "fledge/arithmetic",
                    prompt: .messages(prompt.messages(for: problem, after: examples)),
                    ability: "math",
                    rewardStyle: "rule",
                    groundTruth: .string(String(problem.answer)),
                    extraInfo: JSONObject([
                        .init(name: "split", value: .string(split)),
                        .init(name: "index", value: .number(String(index))),
                        .init(name: "problem", value: .string(problem.text(multiplication: prompt.multiplication))),
                    ]),
                    origin: RowOrigin(source: "arithmetic/\(split)", line: index + 1))
            })
    }

    private static func enumerate(_ space: Space) throws -> [ArithmeticProblem] {
        var all: [ArithmeticProblem] = []
        let limits = -10_000...10_000
        guard limits.contains(space.operandRange.lowerBound), limits.contains(space.operandRange.upperBound) else {
            throw DatasetError(.badSetting, "operands \(space.operandRange) go beyond \(limits)")
        }
        for (index, form) in space.forms.enumerated() where !space.forms[..<index].contains(form) {
            guard (1...3).contains(form.count) else {
                throw DatasetError(.badSetting, "a form of \(form.count) signs; 1 to 3 are supported")
            }
            let room = maximumCount - all.count
            let combinations = (0...form.count).reduce(1) { product, _ in
                min(product * min(space.operandRange.count, maximumCount), 2 * maximumCount)
            }
            guard combinations <= room else {
                throw DatasetError(.badSetting, "more than \(maximumCount) problems; narrow the operands or drop forms")
            }
            for ordinal in 0..<combinations {
                var rest = ordinal
                let operands = (0...form.count).map { _ in
                    defer { rest /= space.operandRange.count }
                    return space.operandRange.lowerBound + rest % space.operandRange.count
                }
                let problem = ArithmeticProblem(operands, form)
                if space.answerRange?.contains(problem.answer) ?? true { all.append(problem) }
            }
        }
        return all
    }
}

extension Array where Element: Hashable {
    /// The elements without repeats, in order.
    fileprivate var uniqued: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
