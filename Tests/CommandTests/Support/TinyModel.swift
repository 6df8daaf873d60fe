import Checkpoints
import Foundation
import OrderedCollections
import TensorCore
import TestSupport

/// A Llama of a few thousand weights with a tokenizer of single bytes, written as a Hugging Face folder.
struct TinyModel {
    var hidden = 32
    var layers = 2
    var architecture = "LlamaForCausalLM"
    /// 0: none.
    var experts = 0

    static var mixture: TinyModel {
        var model = TinyModel()
        model.architecture = "MixtralForCausalLM"
        model.experts = 4
        return model
    }

    var chatTemplate: String? = """
        {% for message in messages %}<|im_start|>{{ message.role }}
        {{ message.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
        {% endif %}
        """

    static let vocabulary = ByteTokenizer.vocabulary

    func write(to folder: URL) throws {
        try HuggingFaceExporter.write(
            tensors: weights(), config: config,
            tokenizerFiles: [
                .init(name: "tokenizer.json", bytes: Array(ByteTokenizer.json.utf8)),
                .init(name: "tokenizer_config.json", bytes: try tokenizerConfig()),
            ], to: folder.path)
    }

    private var config: ModelConfig {
        var settings: JSONObject = [
            "architectures": .array([.string(architecture)]), "model_type": .string("llama"),
            "hidden_size": .int(hidden), "intermediate_size": .int(2 * hidden), "num_hidden_layers": .int(layers),
            "num_attention_heads": .int(4), "num_key_value_heads": .int(2), "vocab_size": .int(Self.vocabulary),
            "max_position_embeddings": .int(512), "rms_norm_eps": .double(1e-5), "tie_word_embeddings": .bool(true),
        ]
        if experts > 0 {
            settings["num_local_experts"] = .int(experts)
            settings["num_experts_per_tok"] = .int(2)
        }
        return ModelConfig(settings)
    }

    private func weights() throws -> [(name: String, tensor: Tensor)] {
        let generator = try RandomGenerator(seed: 11)
        func random(_ name: String, _ rows: Int, _ columns: Int) throws -> (name: String, tensor: Tensor) {
            (name, try Tensor.randomNormal([rows, columns], generator: generator).multiplied(by: 0.1))
        }
        func ones(_ name: String) throws -> (name: String, tensor: Tensor) { (name, try Tensor.ones([hidden])) }
        var all = [try random("model.embed_tokens.weight", Self.vocabulary, hidden)]
        for layer in 0..<layers {
            let prefix = "model.layers.\(layer)."
            all += [
                try ones(prefix + "input_layernorm.weight"),
                try random(prefix + "self_attn.q_proj.weight", hidden, hidden),
                try random(prefix + "self_attn.k_proj.weight", hidden / 2, hidden),
                try random(prefix + "self_attn.v_proj.weight", hidden / 2, hidden),
                try random(prefix + "self_attn.o_proj.weight", hidden, hidden),
                try ones(prefix + "post_attention_layernorm.weight"),
            ]
            if experts > 0 { all.append(try random(prefix + "block_sparse_moe.gate.weight", experts, hidden)) }
            let names = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
            let parts =
                experts == 0
                ? [names] : (0..<experts).map { e in ["w1", "w3", "w2"].map { "block_sparse_moe.experts.\(e).\($0)" } }
            for part in parts {
                all += [
                    try random("\(prefix)\(part[0]).weight", 2 * hidden, hidden),
                    try random("\(prefix)\(part[1]).weight", 2 * hidden, hidden),
                    try random("\(prefix)\(part[2]).weight", hidden, 2 * hidden),
                ]
            }
        }
        return all + [try ones("model.norm.weight")]
    }

    private func tokenizerConfig() throws -> [UInt8] {
        var object = ["bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"]
        object["chat_template"] = chatTemplate
        return Array(try JSONEncoder().encode(object))
    }
}
