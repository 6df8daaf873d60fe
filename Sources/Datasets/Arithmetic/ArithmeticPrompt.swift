/// How an arithmetic problem is put to the model.
public struct ArithmeticPrompt: Hashable, Sendable {
    /// A system turn before the rest; nil for none.
    public var system: String?
    /// The user turn; `{problem}` stands for the problem's text.
    public var template: String
    /// How many solved problems come first, each a user turn and the bare number as the assistant's.
    public var examples: Int
    /// The sign of multiplication.
    public var multiplication: String

    public init(
        system: String? = nil, template: String = "What is {problem}? Reply with only the number.", examples: Int = 0,
        multiplication: String = "×"
    ) {
        self.system = system
        self.template = template
        self.examples = examples
        self.multiplication = multiplication
    }

    func messages(for problem: ArithmeticProblem, after solved: [ArithmeticProblem]) -> [PromptMessage] {
        var messages: [PromptMessage] = []
        if let system { messages.append(PromptMessage(role: "system", content: system)) }
        for example in solved {
            messages.append(question(example))
            messages.append(PromptMessage(role: "assistant", content: String(example.answer)))
        }
        messages.append(question(problem))
        return messages
    }

    func question(_ problem: ArithmeticProblem) -> PromptMessage {
        let parts = template.split(separator: "{problem}", omittingEmptySubsequences: false)
        return PromptMessage(
            role: "user", content: parts.joined(separator: problem.text(multiplication: multiplication)))
    }
}
