#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Arithmetic problems as files that every training command reads: a `prompt` with a `completion` for supervised fine-tuning,
/// a `chosen` and a `rejected` answer for preferences and rewards, and verl's columns for reinforcement learning.
public struct ArithmeticFiles: Sendable {
    public let problems: ArithmeticProblems

    public init(_ problems: ArithmeticProblems) { self.problems = problems }

    /// The rows of one of the problems' lists.
    public func rows(_ problems: [ArithmeticProblem], split: String, seed: UInt64) -> [JSONObject] {
        var generator = SplitMix64(seed: seed, part: UInt64(problems.count))
        return problems.enumerated().map { index, problem in
            let answer = String(problem.answer)
            let text = problem.text(multiplication: self.problems.prompt.multiplication)
            // One half of the rejected answers is right and not bare, the other bare and wrong.
            let rejected: String
            if index.isMultiple(of: 2) {
                rejected = Self.wordings[Int(generator.next(below: UInt64(Self.wordings.count)))](text, answer)
            } else {
                let distance = 1 + Int(generator.next(below: 5))
                rejected = String(problem.answer + (generator.next(below: 2) == 0 ? distance : -distance))
            }
            let prompt = self.problems.prompt.messages(for: problem, after: self.problems.examples)
            func turns(_ answer: String) -> JSONValue { .messages([PromptMessage(role: "assistant", content: answer)]) }
            return JSONObject([
                .init(name: "data_source", value: .string("fledge/arithmetic")),
                .init(name: "prompt", value: .messages(prompt)), .init(name: "completion", value: turns(answer)),
                .init(name: "chosen", value: turns(answer)), .init(name: "rejected", value: turns(rejected)),
                .init(name: "ability", value: .string("math")),
                .init(
                    name: "reward_model",
                    value: .object(
                        JSONObject([
                            .init(name: "style", value: .string("rule")),
                            .init(name: "ground_truth", value: .string(answer)),
                        ]))),
                .init(
                    name: "extra_info",
                    value: .object(
                        JSONObject([
                            .init(name: "split", value: .string(split)),
                            .init(name: "index", value: .number(String(index))),
                        ]))),
            ])
        }
    }

    private static let wordings: [@Sendable (_ problem: String, _ answer: String) -> String] = [
        { "The answer is \($1)." }, { "\($0) = \($1)" }, { "The result of \($0) is \($1)." },
        { "To solve \($0), we compute it step by step and get \($1)." },
    ]

    /// Writes `train` and `heldout` into a folder, each whole or not at all.
    /// - Parameter suffix: `jsonl`, `json` or `parquet`.
    /// - Returns: the two files and how many rows each has.
    /// - Throws: `DatasetError`: `.badSetting` where a file exists and is not to be replaced; `.diskFull`, `.unreadable`,
    ///   `.arrowMissing`.
    @discardableResult
    public func write(
        to folder: String, suffix: String, seed: UInt64, replaces: Bool = false
    ) throws -> [(path: String, rows: Int)] {
        let parts = [("train", problems.training), ("heldout", problems.heldOut)]
        let files = parts.map { "\(folder)/\($0.0).\(suffix)" }
        if !replaces, let present = files.first(where: RecordConverter.fileExists) {
            throw DatasetError(.badSetting, "'\(present)' exists already; give another folder, or --force")
        }
        try Self.makeFolder(folder)
        var written: [(path: String, rows: Int)] = []
        for ((name, problems), file) in zip(parts, files) {
            let rows = rows(problems, split: name, seed: seed)
            if rows.isEmpty { continue }
            try RecordConverter.write(rows, to: file)
            written.append((file, rows.count))
        }
        return written
    }
}

extension ArithmeticFiles {
    /// Makes a folder and those above it, where they are absent.
    fileprivate static func makeFolder(_ path: String) throws {
        var end = path.startIndex
        while end < path.endIndex {
            end = path[end...].dropFirst().firstIndex(of: "/") ?? path.endIndex
            if mkdir(String(path[..<end]), 0o777) != 0, errno != EEXIST {
                throw DatasetError(.unreadable, "cannot make the folder '\(path)': \(OpenFile.systemMessage())")
            }
        }
    }
}

extension JSONValue {
    fileprivate static func messages(_ messages: [PromptMessage]) -> JSONValue {
        .array(
            messages.map {
                .object(
                    JSONObject([
                        .init(name: "role", value: .string($0.role)),
                        .init(name: "content", value: .string($0.content)),
                    ]))
            })
    }
}
