/// `model`: which weights, and how they are held and computed.
public struct ModelSettings: Hashable, Sendable {
    public enum DType: String, CaseIterable, Hashable, Sendable, SettingWord {
        case float32, bfloat16
    }

    /// There is one choice so far: by device and shape.
    public enum Attention: String, CaseIterable, Hashable, Sendable, SettingWord {
        case auto
    }

    /// What layers keep between forward and backward.
    public enum Checkpointing: String, CaseIterable, Hashable, Sendable, SettingWord {
        case none, selective, full
    }

    /// What a layer may keep besides its input under `selective`.
    public enum KeptActivation: String, CaseIterable, Hashable, Sendable, SettingWord {
        case attention
        case queryKeyValue = "query_key_value"
        case gateUp = "gate_up"
    }

    public let path: String
    public let dtype: DType
    public let paramDType: DType
    public let attention: Attention
    public let enableGradientCheckpointing: Bool
    public let activationCheckpointing: Checkpointing
    /// nil: all layers.
    public let activationCheckpointingLayers: Int?
    public let activationCheckpointingKeeps: [KeptActivation]
    public let activationOffload: Bool
    public let chatTemplate: String?
    public let loraRank: Int
    public let loraAlpha: Double
    public let loraDropout: Double
    public let loraUseRSLoRA: Bool
    /// nil for `all-linear`.
    public let targetModules: [String]?
    public let excludeModules: [String]
    public let loraAdapterPath: String?
    public let loraMerge: Bool

    /// `activation_checkpointing`, or `full` where verl's switch alone is on.
    public var checkpointing: Checkpointing {
        activationCheckpointing == .none && enableGradientCheckpointing ? .full : activationCheckpointing
    }

    /// Whether an adapter is trained in place of the weights.
    public var usesLoRA: Bool { loraRank > 0 || loraAdapterPath != nil }

    init(_ section: inout SectionReader) {
        path = section.requiredString(
            "path", example: "models/SmolLM2-135M-Instruct",
            doc: "The model: a Hugging Face folder (config.json, safetensors, tokenizer.json) or a .gguf file.")
        dtype = section.choice(
            "dtype", default: .float32, doc: "The type that forward and backward passes compute in; bfloat16 on GPUs.")
        paramDType = section.choice(
            "param_dtype", default: .float32,
            doc:
                "The type of the weights that the optimizer updates: float32 keeps masters of bfloat16 weights, bfloat16 trains "
                + "those themselves.")
        attention = section.choice(
            "attn_implementation", default: .auto, doc: "The attention kernel; auto picks by device and shape.")
        enableGradientCheckpointing = section.bool(
            "enable_gradient_checkpointing", default: false,
            doc: "verl's switch: as activation_checkpointing: full, where that says none.")
        activationCheckpointing = section.choice(
            "activation_checkpointing", default: .none,
            doc:
                "What layers keep for the backward pass: all that it needs (none); their input and a few results that are "
                + "dear to compute (selective); their input (full: least memory, about a quarter more time).")
        activationCheckpointingLayers = section.optionalInt(
            "activation_checkpointing_layers", in: 1...65_536,
            doc: "Only the first so many layers do so, the others keep all; null for every layer.")
        activationCheckpointingKeeps = section.choices(
            "activation_checkpointing_keeps", default: [.attention, .queryKeyValue],
            doc: "What selective keeps besides a layer's input.")
        activationOffload = section.bool(
            "activation_offload", default: false,
            doc: "Let what checkpointed layers keep wait in pinned host memory; no effect on the CPU.")
        chatTemplate = section.optionalString(
            "chat_template", doc: "A file with a Jinja chat template to use in place of the model's own.")
        loraRank = section.int(
            "lora_rank", default: 0, in: 0...65_536,
            doc: "Train a low-rank adapter of this rank (LoRA) and leave the weights as they are; 0 trains the weights."
        )
        loraAlpha = section.number(
            "lora_alpha", default: 16, in: .positive, doc: "The adapter's product is scaled by lora_alpha / lora_rank.")
        loraDropout = section.number(
            "lora_dropout", default: 0, in: NumberRange(lower: 0, upper: 1, isUpperOpen: true),
            doc: "The share of its inputs that the adapter does not see in training.")
        loraUseRSLoRA = section.bool(
            "lora_use_rslora", default: false, doc: "Scale by lora_alpha / √lora_rank instead (rsLoRA).")
        targetModules = section.targetModules(
            "target_modules",
            doc:
                "The linear layers that get an adapter, by name or by the end of it, as [q_proj, v_proj]; all-linear is "
                + "every one but the output head.")
        excludeModules = section.moduleNames("exclude_modules", doc: "Layers among those that get none.")
        loraAdapterPath = section.optionalString(
            "lora_adapter_path",
            doc:
                "A folder in PEFT's format with an adapter to go on training; its adapter_config.json says all of the above."
        )
        loraMerge = section.bool(
            "lora_merge", default: false,
            doc:
                "Sample from weights with the adapter folded in: faster, but in bfloat16 rounded otherwise than in training."
        )
    }
}
