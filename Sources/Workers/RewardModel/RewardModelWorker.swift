import ChatTemplates
import Checkpoints
import Conversations
import Models
import TensorCore
import TrainingEngine

/// A reward model: a score for a conversation that an answer ends. It stays on its device beside the policy.
actor RewardModelWorker {
    struct Plan: Sendable {
        var modelPath: String
        var templatePath: String?
        var dtype: DType
        var device: Device
        /// The most tokens of one pass; a longer conversation goes alone.
        var tokensPerPass: Int
    }

    private struct Parts {
        let model: ScoringModel
        let format: ChatFormat
        /// What a score is never read at, as in `transformers`.
        let padID: Int32?
    }

    private let executor: TensorExecutor
    private let plan: Plan
    private var parts: Parts?

    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ plan: Plan, executor: TensorExecutor = TensorExecutor()) {
        self.plan = plan
        self.executor = executor
    }

    /// Reads the model; until then it scores nothing.
    /// - Throws: ``WorkerError`` with code `noTemplate`, `ModelError` for what is no reward model, `CheckpointError`.
    func load() throws {
        try plan.device.makeCurrent()
        let source = try ModelSource.open(plan.modelPath)
        let model = try ModelRegistry.loadScoring(source, dtype: plan.dtype, device: plan.device)
        guard model.labels == 1, model.reading == .lastToken else {
            throw ModelError(
                .unsupported,
                "\(source.path): a reward model gives one number for a sequence; this \(model.architecture) gives "
                    + "\(model.labels) for \(model.reading == .lastToken ? "a sequence" : "every token")")
        }
        let text = try TextProcessor(source, templatePath: plan.templatePath)
        parts = Parts(
            model: model, format: try text.chatFormat(), padID: try SupervisedWorker.padID(source, text))
    }

    /// A score for each conversation, or why it has none.
    /// - Throws: what ends the whole run: a device that is out of memory, say.
    func scores(_ conversations: [[ChatMessage]]) throws -> [Result<Double, Unscorable>] {
        guard let parts else { throw WorkerError(.badSetting, "the reward model was used before load()") }
        let encoded = conversations.map { sequence($0, parts) }
        var results: [Result<Double, Unscorable>] = encoded.map { $0.map { _ in .nan } }
        let forward = ScoringForward(model: parts.model)
        for pass in Self.passes(encoded.map { (try? $0.get())?.count }, limit: plan.tokensPerPass) {
            let sequences = try pass.map { try encoded[$0].get() }
            let values = try withNoGrad { try forward(sequences).scores.values(Float.self) }
            for (index, value) in zip(pass, values) { results[index] = .success(Double(value)) }
        }
        return results
    }

    /// Why a conversation has no score.
    struct Unscorable: Error, Hashable {
        var message: String
    }

    private func sequence(_ messages: [ChatMessage], _ parts: Parts) -> Result<TrainingSequence, Unscorable> {
        do {
            var ids = try parts.format.encode(
                parts.format.render(messages, addGenerationPrompt: false).text)
            while ids.count > 1, ids.last == parts.padID { ids.removeLast() }
            guard let first = ids.first else { return .failure(Unscorable(message: "the conversation has no token")) }
            guard ids.count <= parts.model.shape.maxPositions else {
                return .failure(
                    Unscorable(
                        message: "the conversation has \(ids.count) tokens; the reward model takes "
                            + "\(parts.model.shape.maxPositions)"))
            }
            // Answers to one prompt share what comes before them.
            let before = try parts.format.encode(
                parts.format.render(messages.dropLast(), addGenerationPrompt: true).text)
            let split = before.count < ids.count && ids.starts(with: before) ? before.count : 1
            return .success(
                split < ids.count
                    ? TrainingSequence(prompt: Array(ids[..<split]), response: Array(ids[split...]))
                    : TrainingSequence(prompt: [first], response: []))
        } catch {
            return .failure(Unscorable(message: "the conversation cannot be written for the reward model: \(error)"))
        }
    }

    /// Runs of indices whose tokens fit one pass, in order; those without a count are left out.
    static func passes(_ counts: [Int?], limit: Int) -> [[Int]] {
        var passes: [[Int]] = [], tokens = 0
        for (index, count) in counts.enumerated() {
            guard let count else { continue }
            if passes.isEmpty || tokens + count > limit {
                passes.append([])
                tokens = 0
            }
            passes[passes.count - 1].append(index)
            tokens += count
        }
        return passes
    }
}

extension TrainingSequence {
    fileprivate var count: Int { prompt.count + response.count }
}
