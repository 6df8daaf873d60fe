public import OrderedCollections

/// What the terminal shows of one finished step.
public struct StepView: Hashable, Sendable {
    /// Counted from 1: the number of steps that are done.
    public var step: Int
    public var totalSteps: Int
    /// The mean reward of the step's answers, or what `headline` names.
    public var reward: Double
    /// What the step is judged by at a glance.
    public var headline = "reward"
    public var kl: Double?
    /// In nats a token.
    public var entropy: Double?
    /// The mean, in tokens.
    public var responseLength: Double?
    public var tokensPerSecond: Double?
    public var stepSeconds: Double
    /// Parts of the step's time, from 0 to 1.
    public var phaseShares: OrderedDictionary<Phase, Double>

    public init(
        step: Int, totalSteps: Int, reward: Double, kl: Double? = nil, entropy: Double? = nil,
        responseLength: Double? = nil, tokensPerSecond: Double? = nil, stepSeconds: Double,
        phaseShares: OrderedDictionary<Phase, Double> = [:]
    ) {
        self.step = step
        self.totalSteps = totalSteps
        self.reward = reward
        self.kl = kl
        self.entropy = entropy
        self.responseLength = responseLength
        self.tokensPerSecond = tokensPerSecond
        self.stepSeconds = stepSeconds
        self.phaseShares = phaseShares
    }

    /// The values that the step recorded under their usual names; a reward or a time that is missing shows as NaN.
    public init(_ metrics: StepMetrics, totalSteps: Int) {
        var shares: OrderedDictionary<Phase, Double> = [:]
        for (name, value) in metrics.values { if let phase = name.phaseOfShare { shares[phase] = value } }
        self.init(
            step: metrics.step, totalSteps: totalSteps, reward: metrics[.score] ?? metrics[.reward] ?? .nan,
            kl: metrics[.kl], entropy: metrics[.entropy], responseLength: metrics[.responseLength],
            tokensPerSecond: metrics[.tokensPerSecond], stepSeconds: metrics[.stepSeconds] ?? .nan,
            phaseShares: shares)
        if metrics[.score] == nil, metrics[.reward] == nil, let loss = metrics[.loss] {
            (headline, reward) = ("loss", loss)
        }
    }

    /// The values besides the reward that this step has, with short names.
    var figures: [(name: String, text: String)] {
        var figures: [(String, String)] = []
        if let kl { figures.append(("kl", NumberText.short(kl))) }
        if let entropy { figures.append(("entropy", NumberText.short(entropy))) }
        if let responseLength { figures.append(("length", NumberText.short(responseLength))) }
        if let tokensPerSecond { figures.append(("tok/s", NumberText.short(tokensPerSecond))) }
        return figures
    }

    /// The shares of half a percent and more, in their order, each with its place among all: its colour stays its own.
    var visibleShares: [(place: Int, phase: Phase, share: Double)] {
        phaseShares.enumerated().filter { $0.element.value >= 0.005 }
            .map { (place: $0.offset, phase: $0.element.key, share: $0.element.value) }
    }
}
