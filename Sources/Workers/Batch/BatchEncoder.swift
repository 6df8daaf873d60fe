import ChatTemplates
import Models
import RolloutCore
import Tokenizers

/// Makes requests of lines, and holds them against what the model can take.
struct BatchEncoder: Sendable {
    let text: TextProcessor
    let shape: ModelShape
    let input: BatchInput

    /// - Throws: ``BatchError`` `badInput` with the line's place; ``WorkerError`` `noTemplate`.
    func request(_ line: BatchLine, at index: Int) throws -> RolloutRequest {
        let sampling = line.sampling
        let prompt = try tokens(line.prompt, at: index)
        try input.located(index) { () throws(BatchProblem) in try check(prompt, sampling) }
        return RolloutRequest(
            prompt: prompt, sampling: sampling.parameters(endingAt: endIDs(sampling)))
    }

    /// Those of the checkpoint's end tokens that the model can draw.
    private func endIDs(_ sampling: BatchSampling) -> Set<Int32> {
        sampling.ignoresEndOfTurn ? [] : text.endOfTurnIDs.filter { $0 < shape.vocabulary }
    }

    private func tokens(_ prompt: BatchLine.Prompt, at index: Int) throws -> [Int32] {
        do {
            switch prompt {
            case .tokens(let ids): return ids
            case .text(let plain): return try text.encode(plain)
            case .messages(let messages, let tools, let variables):
                return try text.encode(messages, tools: tools, variables: variables)
            }
        } catch  where error is TemplateError || error is TokenizerError {
            return try input.located(index) { () throws(BatchProblem) in
                throw BatchProblem(nil, "the prompt cannot be made into tokens: \(error)", "mend the line")
            }
        }
    }

    private func check(_ prompt: [Int32], _ sampling: BatchSampling) throws(BatchProblem) {
        if prompt.isEmpty { throw BatchProblem(nil, "the prompt has no tokens", "give some text") }
        if let bad = prompt.first(where: { $0 >= shape.vocabulary }) {
            throw BatchProblem(
                "prompt_token_ids", "holds \(bad)", "give ids below \(shape.vocabulary), the model's vocabulary")
        }
        if let problem = sampling.parameters(endingAt: []).problem(vocabulary: shape.vocabulary) {
            throw BatchProblem(problem)
        }
        let longest = prompt.count + sampling.maxTokens
        if longest > shape.maxPositions {
            throw BatchProblem(
                nil,
                "\(prompt.count) prompt + \(sampling.maxTokens) new tokens exceed the model's \(shape.maxPositions)",
                "shorten the prompt or lower max_tokens")
        }
        if let limit = shape.rotarySwitch, prompt.count <= limit, longest > limit {
            throw BatchProblem(
                nil,
                "\(prompt.count) prompt + \(sampling.maxTokens) new tokens cross \(limit), where the model's rotary "
                    + "frequencies change", "lower max_tokens to \(limit - prompt.count)")
        }
    }

    /// What the sample says: without the token that ended it, and without a stop text and what follows it.
    func text(of tokens: [Int32], _ reason: FinishReason, _ sampling: BatchSampling) -> String {
        var tokens = tokens[...]
        if reason == .stop, let last = tokens.last,
            sampling.parameters(endingAt: endIDs(sampling)).stopTokenIDs.contains(last)
        {
            tokens.removeLast()
        }
        let said = text.decode(Array(tokens))
        guard reason == .stop, let cut = sampling.stop.compactMap({ said.utf8Offset(of: $0) }).min() else {
            return said
        }
        return String(decoding: said.utf8.prefix(cut), as: UTF8.self)
    }
}

extension String {
    /// Where the bytes of `other` first occur; String's own search compares by canonical equivalence.
    fileprivate func utf8Offset(of other: String) -> Int? {
        let needle = Array(other.utf8), hay = Array(utf8)
        guard !needle.isEmpty, hay.count >= needle.count else { return nil }
        return (0...hay.count - needle.count).first { start in
            hay[start] == needle[0] && hay[start..<start + needle.count].elementsEqual(needle)
        }
    }
}
