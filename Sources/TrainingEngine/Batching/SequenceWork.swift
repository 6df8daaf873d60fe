public import Models
import TensorCore

/// What a pass over tokens costs, estimated: matrix products go with the tokens, attention with the pairs of tokens.
public struct SequenceWork: Sendable, Hashable {
    /// Floating-point operations of a forward pass, for a token and for a token that looks at another. Backward takes twice as many
    /// of both, so only their ratio counts.
    public var perToken, perPair: Double

    public init(perToken: Double, perPair: Double) {
        self.perToken = perToken
        self.perPair = perPair
    }

    /// - Parameter multiplied: weights that a token is multiplied with.
    public init(_ shape: ModelShape, multiplied: Double) {
        self.init(
            perToken: 2 * multiplied,
            perPair: 2 * Double(shape.layers * shape.queryHeads * (shape.headDim + shape.valueHeadDim)))
    }

    public init(_ model: any SequenceModel) {
        var multiplied = model.projections.reduce(0.0) { $0 + Double($1.weight.count) }
        if let experts = model.experts {
            // Grouped products, of which a token sees a few.
            let grouped = model.parameters.filter { $0.name.split(separator: ".").contains("experts") }
            multiplied +=
                grouped.reduce(0.0) { $0 + Double($1.tensor.count) } * Double(experts.expertsPerToken)
                / Double(max(1, experts.experts))
        }
        self.init(model.shape, multiplied: multiplied)
    }

    /// The cost of `tokens` tokens that come after `context` others.
    public func callAsFunction(tokens: Int, after context: Int = 0) -> Double {
        let before = Double(context), all = Double(context + tokens)
        return perToken * Double(tokens) + perPair * (all * all - before * before) / 2
    }

    /// The cost of answers to one prompt: the prompt's once, or with each answer.
    func group(prompt: Int, answers: [Int], sharesPrompt: Bool) -> Double {
        let own = answers.reduce(0.0) { $0 + self(tokens: max(0, $1 - 1), after: prompt) }
        return own + Double(sharesPrompt ? min(1, answers.count) : answers.count) * self(tokens: prompt)
    }
}
