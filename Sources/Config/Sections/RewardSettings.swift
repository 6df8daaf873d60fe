public import OrderedCollections

/// `reward`: what a response is worth.
public struct RewardSettings: Hashable, Sendable {
    /// What happens with a sample whose reward failed: raised, hung, or printed no number.
    public enum FailurePolicy: String, CaseIterable, Hashable, Sendable, SettingWord {
        case dropSample = "drop_sample"
        case dropGroup = "drop_group"
        case abort
        case score
    }

    /// A Python file's function.
    public struct CustomFunction: Hashable, Sendable {
        public let path: String
        public let name: String
    }

    /// Where scores come from.
    public enum Source: Hashable, Sendable {
        case named(String)
        /// The sum of the rewards, each times its weight.
        case weighted(OrderedDictionary<String, Double>)
        case custom(CustomFunction)
        case model(ScoringModelSettings)
        case judge(JudgeSettings)
        /// The environment's rewards alone count.
        case none
    }

    public let type: String?
    public let weights: OrderedDictionary<String, Double>
    public let customRewardFunction: CustomFunction?
    public let model: ScoringModelSettings?
    public let judge: JudgeSettings?
    public let pattern: String?
    public let timeoutSeconds: Double
    public let numWorkers: Int
    public let memoryLimitMB: Int?
    public let onFailure: FailurePolicy
    public let failureScore: Double?
    public let overlongBuffer: OverlongBufferSettings

    /// That exactly one is set, or none where an environment gives all rewards, was checked.
    public var source: Source {
        if let customRewardFunction { return .custom(customRewardFunction) }
        if let model { return .model(model) }
        if let judge { return .judge(judge) }
        if let type { return .named(type) }
        return weights.isEmpty ? .none : .weighted(weights)
    }

    init(_ section: inout SectionReader) {
        let rewards = section.names.rewards
        type = section.optionalName(
            "type", from: rewards, example: rewards.first,
            doc:
                "A built-in reward. Set exactly one of type, weights, custom_reward_function.path, model.path and judge.url."
        )
        weights = section.weights(
            "weights", from: rewards, doc: "A sum of built-in rewards, each by its weight: shapes a reward.")
        pattern = section.optionalString("pattern", doc: "The pattern of the rewards that match one (regex, format).")
        timeoutSeconds = section.number(
            "timeout_s", default: 30, in: .positive, doc: "Seconds that a custom reward has for one response.")
        numWorkers = section.int("num_workers", default: 2, in: 1...1024, doc: "Worker processes of a custom reward.")
        memoryLimitMB = section.optionalInt(
            "memory_limit_mb", in: 16...1_048_576, doc: "The most memory of a worker, in MiB; null for no limit.")
        onFailure = section.choice(
            "on_failure", default: .dropGroup,
            doc: "When a reward raises, hangs or gives no number (always counted): drop the sample or its group, abort "
                + "the run, or score it failure_score.")
        failureScore = section.optionalNumber("failure_score", in: .any, doc: "The score for on_failure: score.")
        overlongBuffer = section.section(
            "overlong_buffer", doc: "Soft punishment of overlong responses in training (DAPO).",
            OverlongBufferSettings.init)
        customRewardFunction = section.section("custom_reward_function", doc: "A Python file's function.") { section in
            let path = section.optionalString(
                "path",
                doc: "The file; its function is called as compute_score(data_source, solution_str, ground_truth, "
                    + "extra_info), in worker processes.")
            let name = section.string("name", default: "compute_score", doc: "The function.")
            return path.map { CustomFunction(path: $0, name: name) }
        }
        model = section.section("model", doc: "A model that scores answers.") { ScoringModelSettings.read(&$0) }
        judge = section.section("judge", doc: "A language model on a server that grades answers.") {
            JudgeSettings.read(&$0)
        }
    }
}
