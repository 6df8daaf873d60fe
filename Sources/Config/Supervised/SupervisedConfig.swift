public import Foundation
import OrderedCollections

/// What a run of supervised training teaches; each is a command.
public enum SupervisedKind: String, CaseIterable, Hashable, Sendable {
    case sft, dpo
    case rewardModel = "reward_model"

    /// `fledge sft`, `fledge dpo`, `fledge reward-model`.
    public var command: String {
        switch self {
        case .sft: "fledge sft"
        case .dpo: "fledge dpo"
        case .rewardModel: "fledge reward-model"
        }
    }

    /// The settings' file with all defaults.
    public var exampleFile: String {
        switch self {
        case .sft: "recipes/example-sft.yaml"
        case .dpo: "recipes/example-dpo.yaml"
        case .rewardModel: "recipes/example-reward-model.yaml"
        }
    }
}

/// All settings of a supervised run: read once, checked whole, and never changed. Which sections there are goes by its kind.
public struct SupervisedConfig: Sendable {
    /// The settings of the loss.
    public enum Objective: Hashable, Sendable {
        case sft(SFTSettings)
        case dpo(DPOSettings)
        case rewardModel(RewardModelSettings)
    }

    public let kind: SupervisedKind
    public let seed: Int
    public let device: RunConfig.Device
    public let projectName: String
    public let experimentName: String
    public let model: ModelSettings
    public let data: SupervisedDataSettings
    public let objective: Objective
    public let train: SupervisedTrainSettings
    /// nil for reward models, which answer nothing.
    public let eval: SupervisedEvalSettings?
    public let trainer: TrainerSettings
    public let cluster: ClusterSettings

    /// What is allowed and likely not meant.
    public private(set) var warnings: [Diagnostic] = []
    private(set) var declarations: [Declaration] = []

    /// Where a setting was written, as `my.yaml:12` or `command line`; nil where it is the default.
    public func place(of keyPath: String) -> String? {
        declarations.first { $0.keyPath == keyPath }?.place?.brief
    }

    /// The run's folder: `trainer.default_local_dir`, else `runs/` and the experiment's name.
    public var runFolder: String { trainer.defaultLocalDir ?? "runs/\(experimentName)" }

    private init(_ section: inout SectionReader, kind: SupervisedKind) {
        self.kind = kind
        section.objective(kind)
        seed = section.int(
            "seed", default: 0, in: 0...Int.max, doc: "The seed of all that is random: same seed, same metrics.")
        device = section.word(
            "device", default: .auto, accepts: "auto, cpu, cuda or cuda:N",
            doc: "Where to compute: auto is the first CUDA device, else the CPU.")
        projectName = section.fileName("project_name", default: "fledge", doc: "What the experiment belongs to.")
        experimentName = section.fileName(
            "experiment_name", default: kind.rawValue, doc: "Names the run and its folder.")
        model = section.section("model", doc: "The model.", ModelSettings.init)
        data = section.section("data", doc: "What is learnt from.") { SupervisedDataSettings(&$0, kind) }
        switch kind {
        case .sft: objective = .sft(section.section("sft", doc: "The loss.", SFTSettings.init))
        case .dpo: objective = .dpo(section.section("dpo", doc: "The loss.", DPOSettings.init))
        case .rewardModel:
            objective = .rewardModel(section.section("reward_model", doc: "The loss.", RewardModelSettings.init))
        }
        train = section.section("train", doc: "The optimizer's steps.", SupervisedTrainSettings.init)
        eval =
            kind == .rewardModel
            ? nil
            : section.section("eval", doc: "Measuring on held-out rows.", SupervisedEvalSettings.init)
        trainer = section.section("trainer", doc: "The run: its length, folder and reports.") {
            TrainerSettings(&$0, isSupervised: true)
        }
        cluster = section.section("cluster", doc: "Where the ranks run, and who starts them.", ClusterSettings.init)
    }

    /// Reads a configuration from YAML text; parameters and errors are as `RunConfig`'s.
    public init(
        _ kind: SupervisedKind, yaml: String, file: String, overrides: [String] = []
    ) throws(ConfigError) {
        let reading = try ConfigReading.read(
            yaml: yaml, file: file, overrides: overrides, names: KnownNames(), peers: SupervisedPeerNames.table,
            { SupervisedConfig(&$0, kind: kind) }
        ) { SupervisedChecks(config: $0, ledger: $1).run() }
        self = reading.value
        warnings = reading.ledger.warnings
        declarations = reading.ledger.declarations
    }

    /// Reads a configuration from a file.
    public init(_ kind: SupervisedKind, contentsOf file: URL, overrides: [String] = []) throws(ConfigError) {
        let (yaml, name) = try ConfigReading.text(of: file)
        try self.init(kind, yaml: yaml, file: name, overrides: overrides)
    }

    /// Which command a run's resolved configuration belongs to; nil for `fledge train`'s.
    /// - Throws: `ConfigError` when the file cannot be read.
    public static func kind(ofResolved file: URL) throws(ConfigError) -> SupervisedKind? {
        let (yaml, name) = try ConfigReading.text(of: file)
        guard case .mapping(let entries)? = YAMLReader.read(file: yaml, named: name).0?.content,
            case .scalar(let scalar)? = entries["objective"]?.node.content
        else { return nil }
        return SupervisedKind(rawValue: scalar.text)
    }

    /// Every setting with its value, as YAML that reads back as an equal configuration.
    public func resolvedYAML() -> String { DeclarationText.resolved(declarations) }

    /// A recipe with every setting, its documentation, what it accepts and its default.
    public static func exampleYAML(_ kind: SupervisedKind) -> String {
        DeclarationText.example(
            described(kind),
            introduction:
                "Every setting of \(kind.command), each at its default, or at an example where it must be set. Written by "
                + "the program from its own declarations: do not edit. A recipe of yours needs only the lines that differ; "
                + "on the command line the same names, joined by dots, override it: \(kind.command) my.yaml "
                + "train.optim.lr=2e-6")
    }

    static func described(_ kind: SupervisedKind) -> [Declaration] {
        ConfigReading.described(by: KnownNames(), peers: SupervisedPeerNames.table) {
            SupervisedConfig(&$0, kind: kind)
        }
    }
}

extension SupervisedConfig: Equatable {
    /// Whether all settings are the same, wherever they were written.
    public static func == (left: SupervisedConfig, right: SupervisedConfig) -> Bool {
        left.kind == right.kind && left.seed == right.seed && left.device == right.device
            && left.projectName == right.projectName && left.experimentName == right.experimentName
            && left.model == right.model && left.data == right.data && left.objective == right.objective
            && left.train == right.train && left.eval == right.eval && left.trainer == right.trainer
            && left.cluster == right.cluster
    }
}

extension SectionReader {
    /// Names the command that the recipe is for: a resolved configuration says so.
    fileprivate mutating func objective(_ kind: SupervisedKind) {
        _ = setting(
            "objective", .value(kind), accepts: kind.rawValue,
            doc: "What is taught: the recipe is for \(kind.command).",
            text: \.rawValue
        ) { node throws(Misfit) in
            let text = try node.string()
            guard text != kind.rawValue else { return kind }
            let other = SupervisedKind(rawValue: text)
            throw Misfit(
                code: .outOfRange, message: "\(node.summary) is not this command's",
                remedy: (other.map { "run \($0.command) with this recipe, or " } ?? "") + "write \(kind.rawValue)",
                place: node.place)
        }
    }
}
