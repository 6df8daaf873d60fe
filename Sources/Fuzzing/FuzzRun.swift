internal import ChatTemplates
internal import Checkpoints
internal import Models
internal import TensorCore
internal import Tokenizers

/// The inputs of one run, each made from the seed and its number alone.
public struct FuzzRun: Sendable {
    /// How an input ended without a crash.
    public enum Outcome: Sendable, Hashable {
        case accepted
        /// Refused with an error of this type and code, such as "CheckpointError.truncated".
        case refused(String)
        /// What came out cannot be right.
        case broken(String)
    }

    public let target: any FuzzTarget
    public let seed: UInt64
    public let corpus: FuzzCorpus

    public init(target: any FuzzTarget, seed: UInt64, corpus: FuzzCorpus) {
        self.target = target
        self.seed = seed
        self.corpus = corpus
    }

    /// Larger inputs are cut: growth by repeated doubling would leave no time for others.
    static let largestInput = 4 << 20

    /// Input `number`: one of the corpus, changed a few times. The first ones are the corpus as it is.
    public func input(_ number: Int) -> [UInt8] {
        if number < corpus.inputs.count { return corpus.inputs[number] }
        var random = FuzzRandom(seed: seed, input: number)
        var input = corpus.pick(&random)
        // Mostly one: the more is changed, the earlier a reader refuses, and the less of it is reached.
        let changes = random.chance(percent: 65) ? 1 : 1 + random.below(random.chance(percent: 70) ? 3 : 10)
        for _ in 0..<changes {
            target.mutate(&input, splicing: corpus.pick(&random), &random)
            if input.count > Self.largestInput { input.removeLast(input.count - Self.largestInput) }
        }
        return input
    }

    /// Runs one input through the target, in this process.
    public func outcome(of input: [UInt8]) -> Outcome { Self.outcome(of: input, target) }

    public static func outcome(of input: [UInt8], _ target: any FuzzTarget) -> Outcome {
        do {
            try target.run(input)
            return .accepted
        } catch let error as BrokenProperty {
            return .broken(error.description)
        } catch {
            return .refused(code(of: error))
        }
    }

    private static func code(of error: any Error) -> String {
        switch error {
        case let error as CheckpointError: "CheckpointError.\(error.code.name)"
        case let error as TokenizerError: "TokenizerError.\(error.code.name)"
        case let error as TemplateError: "TemplateError.\(error.code)"
        case let error as ModelError: "ModelError.\(error.code.name)"
        case let error as TorchError: "TorchError.\(error.code.name)"
        default: "\(type(of: error))"
        }
    }
}
