import Models
import RolloutCore

/// A request that cannot be run.
public struct RolloutError: Error, Sendable, CustomStringConvertible {
    public struct Code: Hashable, Sendable {
        public let name: String
        public init(_ name: String) { self.name = name }
        public static let emptyPrompt = Code("emptyPrompt")
        public static let badRequest = Code("badRequest")
        public static let tooLong = Code("tooLong")
        public static let outOfSlots = Code("outOfSlots")
        public static let notFinite = Code("notFinite")
        /// Weights that are not the model's.
        public static let badUpdate = Code("badUpdate")
        /// An update broke off: the model holds weights of two versions.
        public static let mixedWeights = Code("mixedWeights")
    }
    public let code: Code
    public let message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { "generation: \(message)" }
}

extension RolloutEngine {
    /// - Parameter name: what to call the request in an error.
    func check(_ request: RolloutRequest, _ name: String) throws(RolloutError) {
        let sampling = request.sampling
        if request.prompt.isEmpty {
            throw RolloutError(.emptyPrompt, "\(name) has no prompt tokens; give it at least one")
        }
        if let problem = sampling.problem(vocabulary: model.shape.vocabulary) {
            throw RolloutError(.badRequest, "\(name): \(problem)")
        }
        if !options.cutsPrompts, request.prompt.count > stepTokens {
            throw RolloutError(
                .tooLong,
                "\(name): its prompt of \(request.prompt.count) tokens fits no step of \(stepTokens), and prompts are not cut; "
                    + "raise rollout.max_num_batched_tokens, or allow rollout.enable_chunked_prefill")
        }
        let longest = request.prompt.count + sampling.maxTokens
        if longest > model.shape.maxPositions {
            throw RolloutError(
                .tooLong,
                "\(name): \(request.prompt.count) prompt + \(sampling.maxTokens) new tokens exceed the model's "
                    + "\(model.shape.maxPositions) positions; shorten the prompt or lower maxTokens")
        }
        if let limit = model.shape.rotarySwitch, request.prompt.count <= limit, longest > limit {
            throw RolloutError(
                .tooLong,
                "\(name): \(request.prompt.count) prompt + \(sampling.maxTokens) new tokens cross \(limit), "
                    + "where the model's rotary frequencies change for the whole sequence, its cached keys included; "
                    + "lower maxTokens to \(limit - request.prompt.count)")
        }
        if let bad = request.prompt.first(where: { $0 < 0 || $0 >= model.shape.vocabulary }) {
            throw RolloutError(
                .badRequest, "\(name): token id \(bad) is outside the vocabulary of \(model.shape.vocabulary)")
        }
        if !sampling.stop.isEmpty, makeDetokenizer == nil {
            throw RolloutError(.badRequest, "\(name) has stop texts, but the engine was given no tokenizer")
        }
    }
}
