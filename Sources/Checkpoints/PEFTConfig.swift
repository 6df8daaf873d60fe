internal import OrderedCollections

/// `adapter_config.json` of a LoRA adapter, as PEFT writes it.
public struct PEFTConfig: Sendable, Hashable {
    public static let fileName = "adapter_config.json"

    public var rank: Int
    public var alpha, dropout: Double
    public var usesRSLoRA: Bool
    /// Names of modules, or ends of them; nil for `all-linear`.
    public var targetModules: [String]?
    public var excludeModules: [String]

    public init(
        rank: Int, alpha: Double, dropout: Double, usesRSLoRA: Bool, targetModules: [String]?, excludeModules: [String]
    ) {
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.usesRSLoRA = usesRSLoRA
        self.targetModules = targetModules
        self.excludeModules = excludeModules
    }

    // MARK: - Reading

    /// Reads the file of an adapter's folder.
    /// - Throws: `CheckpointError`: `notFound`, `malformed`; `configuration` for what is missing or mistyped; `unsupported` for
    ///   a setting that changes the computation and is not done here, with its name.
    public init(folder: String) throws { try self.init(ModelConfig(path: folder + "/" + Self.fileName)) }

    init(_ config: ModelConfig) throws {
        for check in Self.fixed {
            guard let value = config.value(check.key), value != check.value else { continue }
            throw Self.refusal(config, check.key, check.message)
        }
        if let value = config.value("init_lora_weights"), value.boolValue == nil, value.stringValue != "gaussian" {
            throw Self.refusal(config, "init_lora_weights", "such an adapter changes the base model's weights as well")
        }
        for (key, value) in config.object where !Self.known.contains(key) && !value.isUnused {
            throw Self.refusal(config, key, Self.reasons[key] ?? "it is not supported")
        }
        rank = try config.int("r")
        alpha = try config.double("lora_alpha", default: 8)
        dropout = try config.double("lora_dropout", default: 0)
        usesRSLoRA = try config.bool("use_rslora", default: false)
        excludeModules = try Self.names(config, "exclude_modules") ?? []
        if config.value("target_modules")?.stringValue == "all-linear" {
            targetModules = nil
        } else {
            targetModules = try Self.names(config, "target_modules")
            guard targetModules?.isEmpty == false else {
                throw CheckpointError(
                    .configuration, config.path, "'target_modules' is missing; it should be a list of names")
            }
        }
    }

    private static let fixed: [(key: String, value: JSONValue, message: String)] = [
        ("peft_type", .string("LORA"), "only adapters of kind LORA are read"),
        ("task_type", .string("CAUSAL_LM"), "only adapters for CAUSAL_LM are read"),
        ("bias", .string("none"), "biases trained beside the adapter are not supported; only none is"),
    ]

    /// Keys that are read, or that change nothing in the computation.
    private static let known: Set<String> = [
        "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules", "inference_mode",
        "init_lora_weights", "lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version",
        "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
    ]

    private static let reasons = [
        "use_dora": "weight-decomposed adapters (DoRA) are not supported",
        "modules_to_save": "modules trained whole beside the adapter are not supported",
        "layers_pattern": "layers chosen by a pattern are not supported",
        "layers_to_transform": "layers chosen by number are not supported",
        "rank_pattern": "all modules must have one rank", "alpha_pattern": "all modules must have one alpha",
        "fan_in_fan_out": "transposed weights are not supported", "lora_bias": "biases of B are not supported",
        "target_parameters": "adapters on bare parameters, such as those of experts, are not supported",
        "trainable_token_indices": "trained rows of embeddings are not supported",
    ]

    private static func refusal(_ config: ModelConfig, _ key: String, _ message: String) -> CheckpointError {
        let value = config.value(key)?.text(indented: false) ?? "null"
        return CheckpointError(.unsupported, config.path, "'\(key)' is \(value): \(message)")
    }

    private static func names(_ config: ModelConfig, _ key: String) throws -> [String]? {
        guard config.value(key)?.stringValue == nil else {
            throw Self.refusal(
                config, key, "a text is a regular expression to PEFT, which is not supported; list the names")
        }
        return try config.strings(key)
    }

    // MARK: - Writing

    /// The file's text.
    /// - Parameter base: the model that the adapter belongs to; nil for null.
    public func text(base: String?) -> String {
        func names(_ names: [String]) -> JSONValue { .array(names.map(JSONValue.string)) }
        let object: JSONObject = [
            "alpha_pattern": .object([:]), "auto_mapping": .null,
            "base_model_name_or_path": base.map(JSONValue.string) ?? .null, "bias": .string("none"),
            "exclude_modules": excludeModules.isEmpty ? .null : names(excludeModules), "fan_in_fan_out": .bool(false),
            "inference_mode": .bool(true), "init_lora_weights": .bool(true), "layers_pattern": .null,
            "layers_to_transform": .null,
            "lora_alpha": Int(exactly: alpha).map(JSONValue.int) ?? .double(alpha), "lora_dropout": .double(dropout),
            "modules_to_save": .null, "peft_type": .string("LORA"), "r": .int(rank), "rank_pattern": .object([:]),
            "revision": .null, "target_modules": targetModules.map(names) ?? .string("all-linear"),
            "task_type": .string("CAUSAL_LM"), "use_dora": .bool(false), "use_rslora": .bool(usesRSLoRA),
        ]
        return JSONValue.object(object).text() + "\n"
    }
}

extension JSONValue {
    /// null, false, or nothing in it: what PEFT writes for a feature that is not used.
    fileprivate var isUnused: Bool {
        switch self {
        case .null, .bool(false): true
        case .array(let items): items.isEmpty
        case .object(let entries): entries.isEmpty
        default: false
        }
    }
}
