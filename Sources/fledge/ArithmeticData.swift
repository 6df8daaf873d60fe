import ArgumentParser
import Datasets

extension DataCommand {
    struct Arithmetic: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Make arithmetic problems with answers, as files that every training command reads.",
            discussion: """
                Writes train and heldout into FOLDER, which share no problem, not even one with its terms in another order. A
                row has a prompt with its completion (the bare number), a chosen answer (the same) and a rejected one (wordy in
                one half, wrong in the other), and verl's columns.

                EXAMPLES
                  fledge data arithmetic data/arithmetic
                  fledge data arithmetic data/big --forms + - --max-operand 99 --heldout 500 --format parquet
                """)

        @Argument(help: "The folder to write into; it is made when absent.", completion: .directory)
        var folder: String

        @Option(help: "How many problems are held out to measure by.")
        var heldout = 100

        @Option(parsing: .unconditional, help: "The signs of the problems, with commas between them: +,-,*,+-.")
        var forms = "+,-,*"

        @Option(help: "The least operand.")
        var minOperand = 0

        @Option(help: "The greatest operand.")
        var maxOperand = 9

        @Option(help: "The user's turn; {problem} stands for the problem.")
        var template = "What is {problem}?"

        @Option(help: "How multiplication is written.")
        var multiplicationSign = "*"

        @Option(help: "The seed of order, held-out problems and rejected answers.")
        var seed: UInt64 = 0

        @Option(help: "jsonl, json or parquet.")
        var format = "jsonl"

        @Flag(help: "Replace files that exist.")
        var force = false

        func validate() throws {
            if !["jsonl", "json", "parquet"].contains(format) {
                throw ValidationError("--format '\(format)' is not jsonl, json or parquet")
            }
            if minOperand > maxOperand { throw ValidationError("--min-operand is more than --max-operand") }
            if !template.contains("{problem}") { throw ValidationError("--template must hold {problem}") }
            if try Self.operators(forms).isEmpty { throw ValidationError("--forms names no form") }
        }

        private static func operators(_ forms: String) throws -> [[ArithmeticProblem.Operator]] {
            let signs: [Character: ArithmeticProblem.Operator] = ["+": .add, "-": .subtract, "*": .multiply]
            return try forms.split(separator: ",").map { form in
                let found = form.compactMap { signs[$0] }
                guard found.count == form.count, (1...3).contains(found.count) else {
                    throw ValidationError("--forms '\(form)' is not one to three of the signs + - *")
                }
                return found
            }
        }

        func run() async throws {
            try Failures.reported {
                let problems = try ArithmeticProblems(
                    seed: seed,
                    space: .init(forms: Self.operators(forms), operandRange: minOperand...maxOperand),
                    heldOut: heldout,
                    prompt: ArithmeticPrompt(template: template, multiplication: multiplicationSign))
                let written = try ArithmeticFiles(problems).write(
                    to: folder, suffix: format, seed: seed, replaces: force)
                for (path, rows) in written { Console.say("wrote \(rows) rows to \(path)") }
            }
        }
    }
}
