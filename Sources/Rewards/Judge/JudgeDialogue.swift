import FoundationEssentials

/// What a judge is asked, and what its answer is worth.
struct JudgeDialogue: Sendable {
    private let configuration: JudgeConfiguration
    private let pattern: Pattern

    /// - Throws: ``RewardError``: `badPattern`; `badSetting` when the pattern has another number of groups than one.
    init(_ configuration: JudgeConfiguration) throws {
        self.configuration = configuration
        pattern = try Pattern(configuration.scorePattern)
        guard pattern.groupCount == 1 else {
            throw RewardError(
                .badSetting,
                "the judge's score pattern needs one group, which is the grade; it has \(pattern.groupCount): '\(pattern)'"
            )
        }
    }

    private struct Message: Codable {
        var role: String
        var content: String
    }

    private struct Request: Encodable {
        var model: String
        var messages: [Message]
        var temperature: Double
        var max_tokens: Int
    }

    private struct Answer: Decodable {
        struct Choice: Decodable {
            struct Said: Decodable { var content: String? }
            var message: Said
        }
        var choices: [Choice]
    }

    /// A request's JSON.
    func body(_ item: RewardRequest) throws -> [UInt8] {
        var messages = [Message(role: "user", content: question(item))]
        if let system = configuration.system { messages.insert(Message(role: "system", content: system), at: 0) }
        return Array(
            try JSONEncoder().encode(
                Request(
                    model: configuration.model, messages: messages, temperature: configuration.temperature,
                    max_tokens: configuration.maxTokens)))
    }

    /// The prompt with the item's parts in it. In one pass: what an answer says is never a place for another part.
    func question(_ item: RewardRequest) -> String {
        let parts = [
            "{prompt}": item.prompt, "{response}": item.response,
            "{ground_truth}": item.groundTruthJSON ?? item.groundTruth,
        ]
        var text = "", rest = configuration.prompt[...]
        while let brace = rest.firstIndex(of: "{") {
            text += rest[..<brace]
            rest = rest[brace...]
            if let part = parts.first(where: { rest.utf8.starts(with: $0.key.utf8) }) {
                text += part.value
                rest.removeFirst(part.key.count)
            } else {
                text.append(rest.removeFirst())
            }
        }
        return text + rest
    }

    /// The score of what a server answered with status 200.
    func outcome(_ bytes: [UInt8]) -> RewardOutcome {
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(bytes)),
            let said = answer.choices.first?.message.content
        else {
            return garbage(
                "the judge's answer is no chat completion", String(decoding: bytes.prefix(200), as: UTF8.self))
        }
        let found: Substring?
        do { found = try lastGrade(in: said) } catch {
            return .failed(RewardFailure(.timedOut, "the judge's answer is too long for the score pattern: \(error)"))
        }
        guard let found else { return garbage("the judge gave no grade", said) }
        guard let grade = Double(String(found.trimmed)), grade.isFinite else {
            return garbage("the judge's grade '\(found)' is no number", said)
        }
        let grades = configuration.grades
        guard grades.contains(grade) else {
            return garbage("the judge's grade \(grade) is not in \(grades.lowerBound) … \(grades.upperBound)", said)
        }
        return .scored((grade - grades.lowerBound) / (grades.upperBound - grades.lowerBound))
    }

    private func garbage(_ problem: String, _ said: String) -> RewardOutcome {
        .failed(RewardFailure(.garbage, "\(problem): …\(said.suffix(200))"))
    }

    private func lastGrade(in text: String) throws(Pattern.TooMuchWork) -> Substring? {
        var rest = text, last: Substring?
        while let match = try pattern.firstMatch(in: rest), let whole = match.groups[0] {
            last = match.groups[1] ?? last
            let end = whole.isEmpty ? rest.index(whole.endIndex, offsetBy: 1, limitedBy: rest.endIndex) : whole.endIndex
            guard let end, end < rest.endIndex else { break }
            rest = String(rest[end...])
        }
        return last
    }
}
