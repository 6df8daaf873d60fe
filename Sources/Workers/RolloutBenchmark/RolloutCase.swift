/// One workload of the rollout benchmark: so many prompts of so many tokens, each answered by so many.
public struct RolloutCase: Sendable, Hashable, CustomStringConvertible {
    public var prompts, input, output: Int

    public init(prompts: Int, input: Int, output: Int) {
        self.prompts = prompts
        self.input = input
        self.output = output
    }

    /// `PROMPTSxINxOUT`, such as `256x256x1024`; nil for anything else, and for sizes below 1.
    public init?(_ text: String) {
        let parts = text.split(separator: "x", omittingEmptySubsequences: false)
        let numbers = parts.compactMap { $0.allSatisfy { $0.isASCII && $0.isNumber } ? Int($0) : nil }
        guard parts.count == 3, numbers.count == 3, numbers.allSatisfy({ (1...1 << 30).contains($0) }) else {
            return nil
        }
        self.init(prompts: numbers[0], input: numbers[1], output: numbers[2])
    }

    public var description: String { "\(prompts)x\(input)x\(output)" }
}
