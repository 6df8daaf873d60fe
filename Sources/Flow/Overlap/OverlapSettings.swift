/// How sampling and learning overlap, where they have devices of their own.
public struct OverlapSettings: Sendable, Hashable, Codable {
    public enum Mode: String, Sendable, Hashable, Codable, CaseIterable {
        /// A step's answers are all there before it learns.
        case synchronous
        /// A step learns from the first finished groups while its others are still being answered.
        case streaming
        /// The next step's prompts are answered while this one learns: each step learns from the weights of one step before.
        case oneStepOff = "one_step_off"
        /// Samplers never wait for learning, nor learning for the slowest answers, within bounds on staleness.
        case fullyAsync = "fully_async"
    }

    public var mode: Mode
    /// Prompts of a step.
    public var groupsPerStep: Int
    /// Groups with which streaming begins to learn: those of an optimizer step.
    public var groupsPerUpdate: Int
    /// Versions of the weights that an answer may be behind those that learn from it.
    public var maxStaleness: Int
    /// Steps between two hand-overs of the weights.
    public var syncEvery: Int
    /// Whether answers that are under way go on with new weights; else new weights wait for them.
    public var partialRollouts: Bool
    /// Prompts beyond a step's that are begun, so that the slowest can be given up when enough are answered; a share of
    /// ``groupsPerStep``.
    public var overSampling: Double
    public var replay: ReplayBuffer.Settings

    /// - Parameters: as the properties; nil takes what suits the mode.
    public init(
        mode: Mode, groupsPerStep: Int, groupsPerUpdate: Int? = nil, maxStaleness: Int? = nil, syncEvery: Int = 1,
        partialRollouts: Bool? = nil, overSampling: Double = 0, order: ReplayBuffer.Settings.Order = .oldest,
        uses: Int = 1, capacity: Int? = nil
    ) {
        self.mode = mode
        self.groupsPerStep = groupsPerStep
        self.groupsPerUpdate = mode == .streaming ? groupsPerUpdate ?? groupsPerStep : groupsPerStep
        let staleness =
            switch mode {
            case .synchronous, .streaming: 0
            case .oneStepOff: 1
            case .fullyAsync: max(maxStaleness ?? 1, syncEvery)
            }
        self.maxStaleness = staleness
        self.syncEvery = mode == .fullyAsync ? syncEvery : 1
        self.partialRollouts = mode == .fullyAsync && partialRollouts ?? true
        self.overSampling = mode == .fullyAsync ? 0 : overSampling
        replay = ReplayBuffer.Settings(
            capacity: capacity ?? groupsPerStep * (staleness + 2), maxStaleness: staleness, uses: uses, order: order)
    }

    /// Whether a step learns from the very prompts of its turn.
    var keepsTurns: Bool { mode != .fullyAsync }
    /// Prompts that are begun for a step.
    var begunPerStep: Int { groupsPerStep + Int((overSampling * Double(groupsPerStep)).rounded(.up)) }
}
