public import Foundation
public import OrderedCollections

/// All settings of a training run: read once, checked whole, and never changed.
///
/// `recipes/example.yaml` shows every setting; `resolvedYAML()` writes this one's.
public struct RunConfig: Sendable {
    /// Where the run computes.
    public enum Device: Hashable, Sendable {
        case auto, cpu
        /// nil for the first.
        case cuda(Int?)
    }

    public let seed: Int
    public let device: Device
    public let projectName: String
    public let experimentName: String
    /// Devices by the name of their pool, in the order of their ranks; empty: all do everything.
    public let resourcePools: OrderedDictionary<String, Int>
    public let model: ModelSettings
    public let data: DataSettings
    public let actor: ActorSettings
    public let rollout: RolloutSettings
    public let algorithm: AlgorithmSettings
    public let critic: CriticSettings
    public let reference: ReferenceSettings
    public let reward: RewardSettings
    public let environment: EnvironmentSettings
    public let trainer: TrainerSettings
    public let async: AsyncSettings
    public let cluster: ClusterSettings
    public let roles: RoleSettings

    /// What is allowed and likely not meant.
    public private(set) var warnings: [Diagnostic] = []
    private(set) var declarations: [Declaration] = []

    /// Where a setting was written, as `my.yaml:12` or `command line`; nil where it is the default.
    public func place(of keyPath: String) -> String? {
        declarations.first { $0.keyPath == keyPath }?.place?.brief
    }

    /// The run's folder: `trainer.default_local_dir`, else `runs/` and the experiment's name.
    public var runFolder: String { trainer.defaultLocalDir ?? "runs/\(experimentName)" }

    /// Prompts that are begun for a step, of which ``DataSettings/trainBatchSize`` groups are learned from.
    public var promptsBegun: Int {
        data.trainBatchSize + Int((rollout.overSampleRate * Double(data.trainBatchSize)).rounded(.up))
    }

    /// Whether the initial model is needed beside the trained one.
    public var needsReferenceModel: Bool { actor.useKLLoss || algorithm.useKLInReward }

    /// Whether a critic is trained.
    public var hasCritic: Bool { critic.enable ?? (algorithm.advantageEstimator == "gae") }

    /// The loss by its registry's name: in bypass mode, where nothing else was asked for, the one that corrects by itself.
    public var policyLoss: String {
        let bypasses = algorithm.rolloutCorrection.bypasses
        return bypasses && actor.policyLoss == "vanilla" ? "bypass_mode" : actor.policyLoss
    }

    /// Whether the sampler's log-probabilities stand for the old policy's.
    public var bypassesOldLogProbs: Bool { algorithm.rolloutCorrection.bypasses || actor.policyLoss == "bypass_mode" }

    /// A new section is a property above and a line here.
    private init(_ section: inout SectionReader) {
        seed = section.int(
            "seed", default: 0, in: 0...Int.max, doc: "The seed of all that is random: same seed, same metrics.")
        device = section.word(
            "device", default: .auto, accepts: "auto, cpu, cuda or cuda:N",
            doc: "Where to compute: auto is the first CUDA device, else the CPU.")
        projectName = section.fileName("project_name", default: "fledge", doc: "What the experiment belongs to.")
        experimentName = section.fileName("experiment_name", default: "run", doc: "Names the run and its folder.")
        resourcePools = section.sizes(
            "resource_pools", in: 1...1024,
            doc:
                "Devices by pool, as {train: 4, sample: 4}: one process each, ranks in this order. Without pools every rank plays all "
                + "roles.")
        model = section.section("model", doc: "The model.", ModelSettings.init)
        data = section.section("data", doc: "Prompts.", DataSettings.init)
        actor = section.section("actor", doc: "The policy's update.", ActorSettings.init)
        rollout = section.section("rollout", doc: "Sampling.", RolloutSettings.init)
        algorithm = section.section("algorithm", doc: "From scores to advantages.", AlgorithmSettings.init)
        critic = section.section(
            "critic", doc: "The model that foresees returns, where advantages are made with one (gae).",
            CriticSettings.init)
        reference = section.section(
            "reference", doc: "The model as it was before training, where a loss or the reward compares with it.",
            ReferenceSettings.init)
        reward = section.section("reward", doc: "From responses to scores.", RewardSettings.init)
        environment = section.section(
            "environment", doc: "The world of rollout.multi_turn.", EnvironmentSettings.init)
        trainer = section.section(
            "trainer", doc: "The run: its length, folder and reports.", TrainerSettings.init)
        async = section.section(
            "async_training", doc: "How sampling and learning overlap.", AsyncSettings.init)
        cluster = section.section("cluster", doc: "Where the ranks run, and who starts them.", ClusterSettings.init)
        roles = section.section("roles", doc: "Which of resource_pools each role is on.", RoleSettings.init)
    }

    /// Reads a configuration from YAML text.
    ///
    /// - Parameters:
    ///   - yaml: the recipe.
    ///   - file: its name, for messages.
    ///   - overrides: `key=value` arguments, each value a YAML scalar or flow collection. They are laid over the recipe in
    ///     their order: a later one wins, a mapping is merged into a section, and `key=null` gives the default back.
    ///   - names: what the registries of algorithms and rewards know.
    /// - Throws: `ConfigError` with every problem found, of all sections and overrides.
    public init(
        yaml: String, file: String, overrides: [String] = [], names: KnownNames = KnownNames()
    ) throws(ConfigError) {
        let reading = try ConfigReading.read(
            yaml: yaml, file: file, overrides: overrides, names: names, peers: PeerNames.table, RunConfig.init
        ) { CrossChecks($0, $1).run() }
        self = reading.value
        warnings = reading.ledger.warnings
        declarations = reading.ledger.declarations
    }

    /// Reads a configuration from a file.
    ///
    /// - Throws: `ConfigError`, also when the file cannot be read or is not UTF-8.
    public init(
        contentsOf file: URL, overrides: [String] = [], names: KnownNames = KnownNames()
    ) throws(ConfigError) {
        let (yaml, name) = try ConfigReading.text(of: file)
        try self.init(yaml: yaml, file: name, overrides: overrides, names: names)
    }

    /// Every setting at its default, and the required ones at their examples: for `exampleYAML`, unchecked.
    static func described(by names: KnownNames) -> [Declaration] {
        ConfigReading.described(by: names, peers: PeerNames.table, RunConfig.init)
    }
}

extension RunConfig: Equatable {
    /// Whether all settings are the same, wherever they were written.
    public static func == (left: RunConfig, right: RunConfig) -> Bool {
        left.seed == right.seed && left.device == right.device && left.projectName == right.projectName
            && left.experimentName == right.experimentName && left.model == right.model && left.data == right.data
            && left.actor == right.actor && left.rollout == right.rollout && left.algorithm == right.algorithm
            && left.critic == right.critic && left.reference == right.reference && left.reward == right.reward
            && left.environment == right.environment
            && left.trainer == right.trainer
            && left.async == right.async && left.cluster == right.cluster && left.roles == right.roles
            && left.resourcePools == right.resourcePools
    }
}

extension RunConfig.Device: SettingWord {
    init?(word: String) {
        switch word {
        case "auto": self = .auto
        case "cpu": self = .cpu
        case "cuda": self = .cuda(nil)
        default:
            let index = word.dropFirst("cuda:".count)
            guard word.utf8.starts(with: "cuda:".utf8), !index.isEmpty, index.utf8.allSatisfy(\.isDigit),
                let number = Int(index), number < 1024, String(number) == index
            else { return nil }
            self = .cuda(number)
        }
    }

    /// As torch writes it, and `auto`.
    public var word: String {
        switch self {
        case .auto: "auto"
        case .cpu: "cpu"
        case .cuda(nil): "cuda"
        case .cuda(let index?): "cuda:\(index)"
        }
    }
}
