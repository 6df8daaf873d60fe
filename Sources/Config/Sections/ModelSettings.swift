/// `model`: which weights, and how they are held and computed.
public struct ModelSettings: Hashable, Sendable {
    public enum DType: String, CaseIterable, Hashable, Sendable, SettingWord {
        case float32, bfloat16
    }

    /// There is one choice so far: by device and shape.
    public enum Attention: String, CaseIterable, Hashable, Sendable, SettingWord {
        case auto
    }

    public let path: String
    public let dtype: DType
    public let paramDType: DType
    public let attention: Attention
    public let enableGradientCheckpointing: Bool
    public let chatTemplate: String?

    init(_ section: inout SectionReader) {
        path = section.requiredString(
            "path", example: "models/SmolLM2-135M-Instruct",
            doc: "The model: a Hugging Face folder (config.json, safetensors, tokenizer.json) or a .gguf file.")
        dtype = section.choice(
            "dtype", default: .float32, doc: "The type that forward and backward passes compute in; bfloat16 on GPUs.")
        paramDType = section.choice(
            "param_dtype", default: .float32,
            doc: "The type of the master weights that the optimizer updates; float32 keeps small updates.")
        attention = section.choice(
            "attn_implementation", default: .auto, doc: "The attention kernel; auto picks by device and shape.")
        enableGradientCheckpointing = section.bool(
            "enable_gradient_checkpointing", default: false,
            doc: "Recompute each layer in the backward pass: less memory, about a third more time.")
        chatTemplate = section.optionalString(
            "chat_template", doc: "A file with a Jinja chat template to use in place of the model's own.")
    }
}
