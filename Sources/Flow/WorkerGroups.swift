public import OrderedCollections
public import Telemetry

/// Named numbers of one phase.
public typealias PhaseMetrics = OrderedDictionary<MetricName, Double>

/// How a generation call samples.
public struct RolloutRequestSettings: Sendable, Hashable, Codable {
    public var n: Int
    public var temperature: Double
    public var topK: Int
    public var topP: Double
    public var minP: Double
    /// 1 is off.
    public var repetitionPenalty: Double
    /// 0 is off, as for frequency.
    public var presencePenalty: Double
    public var frequencyPenalty: Double
    public var minTokens: Int
    public var maxTokens: Int
    /// With the prompt's place in the batch it decides every draw.
    public var seed: UInt64
    /// Groups that are wanted; the slowest others are given up. nil: all.
    public var groupsWanted: Int?
    /// When this share of all samples has ended, the others may draw so many tokens more; nil: no bound.
    public var stragglerShare: Double?
    public var stragglerTokens = 0

    public init(
        n: Int, temperature: Double, topK: Int = 0, topP: Double = 1, minP: Double = 0, repetitionPenalty: Double = 1,
        presencePenalty: Double = 0, frequencyPenalty: Double = 0, minTokens: Int = 0, maxTokens: Int, seed: UInt64
    ) {
        self.n = n
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.presencePenalty = presencePenalty
        self.frequencyPenalty = frequencyPenalty
        self.minTokens = minTokens
        self.maxTokens = maxTokens
        self.seed = seed
    }
}

/// Where prompts come from; its place can be saved.
public protocol PromptProvider: Sendable {
    /// The next batch, or nil at the end of the last pass.
    func nextBatch() async throws -> [PromptTask]?
    /// What there is to say of the data at this place.
    func metrics() async -> PhaseMetrics
    /// The place, as JSON text.
    func state() async throws -> String
    func restore(_ state: String) async throws
}

extension PromptProvider {
    public func metrics() async -> PhaseMetrics { [:] }
}

/// Samples answers.
public protocol RolloutGroup: Sendable {
    /// n answers to each prompt, prompt after prompt.
    func generate(
        _ prompts: [PromptTask], _ settings: RolloutRequestSettings
    ) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics)
}

/// Scores answers.
public protocol RewardGroup: Sendable {
    /// The answers with their scores; nil where the reward failed and the sample is to be left out.
    func score(_ trajectories: [Trajectory]) async throws -> (trajectories: [Trajectory], metrics: PhaseMetrics)
}

/// The policy that is trained.
public protocol ActorGroup: Sendable {
    /// log-probabilities of every answer token under the weights as they are.
    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]]
    /// Σπ² of the distribution that each answer token was drawn from, under the weights as they are.
    func sumsPiSquared(_ trajectories: [Trajectory]) async throws -> [[Float]]
    /// What is to be learned of scored answers. `klCoefficient` is that of the KL penalty in the reward, where a step before has
    /// given one.
    func advantages(_ trajectories: [Trajectory], klCoefficient: Double?) async throws -> AdvantageEstimate
    /// Every optimizer step of one batch. `seed` decides the order of shuffled mini-batches.
    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics
    /// Writes a checkpoint of weights, optimizer and `state`, durable when it returns.
    func save(step: Int, state: LoopState) async throws
    /// The newest whole checkpoint, put back into weights and optimizer; nil when there is none.
    func restore() async throws -> LoopState?
}

extension ActorGroup {
    public func sumsPiSquared(_ trajectories: [Trajectory]) async throws -> [[Float]] {
        preconditionFailure("this actor has no distributions to tell of")
    }
}

/// What is to be learned of a batch of scored answers; what is nil stays as it is.
public struct AdvantageEstimate: Sendable {
    /// One value an answer token.
    public var advantages: [[Float]]
    /// What values are to become, where there is a critic.
    public var returns: [[Float]]?
    public var importanceWeights: [[Float]]?
    /// Which tokens are learned.
    public var responseMasks: [[Bool]]?
    /// The next step's coefficient of the KL penalty in the reward.
    public var klCoefficient: Double?
    public var metrics: PhaseMetrics

    public init(
        advantages: [[Float]], returns: [[Float]]? = nil, importanceWeights: [[Float]]? = nil,
        responseMasks: [[Bool]]? = nil, klCoefficient: Double? = nil, metrics: PhaseMetrics = [:]
    ) {
        self.advantages = advantages
        self.returns = returns
        self.importanceWeights = importanceWeights
        self.responseMasks = responseMasks
        self.klCoefficient = klCoefficient
        self.metrics = metrics
    }
}

/// Foresees returns.
public protocol CriticGroup: Sendable {
    /// The value of every answer token's position, before the token is drawn.
    func values(_ trajectories: [Trajectory]) async throws -> [[Float]]
    /// Every optimizer step of one batch, on its values and returns. `seed` decides the order of shuffled mini-batches.
    func update(_ trajectories: [Trajectory], seed: UInt64) async throws -> PhaseMetrics
}

/// The frozen policy that a KL term compares with.
public protocol ReferenceGroup: Sendable {
    func logProbs(_ trajectories: [Trajectory]) async throws -> [[Float]]
}

/// Measures the policy on held-out prompts.
public protocol Evaluator: Sendable {
    func evaluate() async throws -> PhaseMetrics
}

/// What the loop itself needs to go on, beside the workers' own state.
public struct LoopState: Sendable, Hashable, Codable {
    /// Steps that are done.
    public var step: Int
    public var promptState: String
    /// The coefficient of an adaptive KL controller, where there is one.
    public var klCoefficient: Double?
    /// Results of the evaluations that are part of the run's summary.
    public var evaluations: [String: Double]
    /// Of a loop whose sampling runs ahead: groups that wait, and prompts that are being answered, as JSON text.
    public var samples: String?

    public init(
        step: Int, promptState: String, klCoefficient: Double? = nil, evaluations: [String: Double] = [:],
        samples: String? = nil
    ) {
        self.samples = samples
        self.step = step
        self.promptState = promptState
        self.klCoefficient = klCoefficient
        self.evaluations = evaluations
    }

    /// This state as the start of a run of so many steps: measures taken at an earlier end are not those of the new one.
    public func goingOn(to totalSteps: Int) -> LoopState {
        guard step < totalSteps else { return self }
        var state = self
        state.evaluations = evaluations.filter { !$0.key.hasPrefix("after:") }
        return state
    }
}
