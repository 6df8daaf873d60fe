/// `async_training`: how sampling and learning overlap.
public struct AsyncSettings: Hashable, Sendable {
    public enum Mode: String, CaseIterable, Hashable, Sendable, SettingWord {
        case synchronous, streaming
        case oneStepOff = "one_step_off"
        case fullyAsync = "fully_async"
    }

    /// Which of the waiting groups are learned from first.
    public enum Order: String, CaseIterable, Hashable, Sendable, SettingWord {
        case oldest, newest, priority
    }

    public let mode: Mode
    public let stalenessThreshold: Int?
    public let triggerParameterSyncStep: Int
    public let partialRollout: Bool
    public let corrects: Bool
    public let replayOrder: Order
    public let replayUses: Int
    public let replayCapacity: Int?

    init(_ section: inout SectionReader) {
        mode = section.choice(
            "mode", default: .synchronous,
            doc:
                "With rollout.n_gpus_per_node or a pool of roles.rollout: streaming learns from the first finished groups of a step; one_step_off answers the "
                + "next step's prompts meanwhile; fully_async waits for nothing but too great staleness.")
        stalenessThreshold = section.optionalInt(
            "staleness_threshold", in: 1...1024,
            doc: "fully_async: steps that the weights of a sample may be behind those that learn from it; null for 1.")
        triggerParameterSyncStep = section.int(
            "trigger_parameter_sync_step", default: 1, in: 1...1024,
            doc: "fully_async: steps between two hand-overs of the weights to the samplers.")
        partialRollout = section.bool(
            "partial_rollout", default: true,
            doc: "fully_async: answers under way go on with new weights; false lets these wait for them.")
        corrects = section.bool(
            "off_policy_correction", default: true,
            doc:
                "Weigh tokens for the weights that drew them (algorithm.rollout_correction.rollout_is: token) in every mode but "
                + "synchronous, where algorithm.rollout_correction asks for nothing else.")
        replayOrder = section.choice(
            "replay_order", default: .oldest,
            doc: "fully_async: which waiting groups are learned from first; priority: those whose scores differ most.")
        replayUses = section.int(
            "replay_uses", default: 1, in: 1...64, doc: "fully_async: how many steps may learn from one group.")
        replayCapacity = section.optionalInt(
            "replay_capacity", in: 1...1_048_576,
            doc: "Groups that may wait; null for train_batch_size times the staleness and 2.")
    }
}

extension RunConfig {
    /// Whether samplers on devices of their own answer prompt by prompt.
    public var samplesBeside: Bool { rollout.gpusPerNode != nil || async.mode != .synchronous }
}
