"""Tiny random checkpoints of every family, with what transformers computes from them on the CPU in float32.

Writes DIR/models/CASE and DIR/scoring/CASE, which the suites ModelsGoldenTests and ScoringGoldenTests read. Settings vary more
widely than any released checkpoint's: rotary scalings, windows shorter than the sequences, biases, older spellings."""

import json
import os
import sys

import experts
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

SMALL = dict(vocab_size=96, hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LONG = dict(type="longrope", short_factor=[1.0, 1.1, 1.3], long_factor=[2.0, 3.0, 5.0])
WINDOWED = dict(use_sliding_window=True, sliding_window=5)

# name: (model_type, settings, keys of config.json to take away). Each is written in the older spelling too.
CASES = {
    "llama_linear": ("llama", dict(rope_scaling=dict(type="linear", factor=2.5)), set()),
    "llama_dynamic_beyond": ("llama", dict(rope_scaling=dict(type="dynamic", factor=3.0), max_position_embeddings=16), set()),
    "llama_yarn": ("llama", dict(rope_parameters=dict(YARN, rope_theta=50000.0), head_dim=20), set()),
    "llama_yarn_mscale": ("llama", dict(rope_parameters=dict(
        YARN, mscale=1.0, mscale_all_dim=0.5, beta_fast=8.0, beta_slow=2.0, truncate=False, rope_theta=10000.0)), set()),
    "llama_yarn_attention_factor": ("llama", dict(rope_parameters=dict(YARN, attention_factor=0.7, rope_theta=1e4)), set()),
    "llama_longrope": ("llama", dict(rope_parameters=dict(
        rope_type="longrope", short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[2.0, 2.5, 3.0, 4.0, 5.0, 6.0], factor=3.0,
        original_max_position_embeddings=12, rope_theta=1e4)), set()),
    "llama_gelu_one_key_head": ("llama", dict(hidden_act="gelu", num_key_value_heads=1, mlp_bias=True), set()),
    "llama_no_key_heads_named": ("llama", dict(num_key_value_heads=4), {"num_key_value_heads"}),
    "mistral_window": ("mistral", dict(sliding_window=4, head_dim=20), set()),
    "mistral_none": ("mistral", dict(sliding_window=None), set()),
    "mistral_wide": ("mistral", dict(sliding_window=17), {"head_dim"}),
    "qwen2_upper_layers": ("qwen2", dict(WINDOWED, max_window_layers=1), {"layer_types"}),
    "qwen2_layer_types": ("qwen2", dict(WINDOWED, layer_types=["sliding_attention", "full_attention", "sliding_attention"]), set()),
    "qwen2_yarn": ("qwen2", dict(rope_scaling=dict(YARN), tie_word_embeddings=True), set()),
    "qwen3_bias_window": ("qwen3", dict(WINDOWED, max_window_layers=2, attention_bias=True, head_dim=24), set()),
    "qwen3_yarn": ("qwen3", dict(rope_scaling=dict(YARN), head_dim=16), set()),
    "gemma2_default_layers": ("gemma2", dict(sliding_window=6, head_dim=16, query_pre_attn_scalar=11), {"layer_types"}),
    "gemma2_no_caps": ("gemma2", dict(
        sliding_window=5, head_dim=24, attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True), set()),
    "gemma2_caps_full": ("gemma2", dict(
        layer_types=["full_attention"] * 3, head_dim=16, attn_logit_softcapping=2.0, final_logit_softcapping=5.0,
        hidden_activation="gelu"), set()),
    "gemma3_text_pattern": ("gemma3_text", dict(sliding_window=5, head_dim=16, sliding_window_pattern=3), {"layer_types"}),
    "gemma3_text_linear": ("gemma3_text", dict(
        sliding_window=4, head_dim=24, final_logit_softcapping=4.0, attn_logit_softcapping=3.0,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=1e5),
                             sliding_attention=dict(rope_type="default", rope_theta=2e3))), set()),
    "phi3_longrope": ("phi3", dict(
        rope_scaling=dict(LONG), partial_rotary_factor=0.5, original_max_position_embeddings=14, num_key_value_heads=4), set()),
    "phi3_longrope_window": ("phi3", dict(
        rope_scaling=dict(LONG), partial_rotary_factor=0.5, original_max_position_embeddings=30, sliding_window=6), set()),
    "olmo2_bias": ("olmo2", dict(attention_bias=True, num_key_value_heads=4, tie_word_embeddings=True), set()),
    "olmo2_llama3": ("olmo2", dict(rope_parameters=dict(
        rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16,
        rope_theta=1e4)), set()),
    "smollm3_window": ("smollm3", dict(
        WINDOWED, no_rope_layer_interval=2, attention_bias=True, mlp_bias=True), {"layer_types", "no_rope_layers"}),
    "smollm3_untied": ("smollm3", dict(tie_word_embeddings=False, no_rope_layers=[0, 1, 1]), set()),
    "granite_bias": ("granite", dict(
        attention_bias=True, mlp_bias=True, attention_multiplier=0.2, residual_multiplier=0.5, embedding_multiplier=3.0,
        logits_scaling=0.5), set()),
    **experts.CASES,
}
SCORING = [
    ("llama", dict(), 1), ("mistral", dict(sliding_window=5), 1), ("qwen2", dict(WINDOWED), 3), ("qwen3", dict(head_dim=16), 1),
    ("gemma2", dict(head_dim=16, sliding_window=6), 1), ("gemma3_text", dict(head_dim=16, sliding_window=6), 1),
    ("phi3", dict(), 1), ("olmo2", dict(), 2), ("smollm3", dict(), 1),
    *experts.SCORING,
]


def draw(model, generator):
    """Weights large enough, and norms and biases far enough from their defaults, that every part shows."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = 0.25 * noise if weight.dim() > 1 else weight.data + 0.3 * noise
    experts.draw_buffers(model, generator)


def older_spelling(config):
    """As transformers 4 wrote it, and most of the Hub still has it."""
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if config["rope_scaling"] and config["model_type"] == "phi3":
        rope["type"] = rope.pop("rope_type")
    config["torch_dtype"] = config.pop("dtype")


def save(model, folder, respelled, older=False, as_one=False):
    model.save_pretrained(folder, save_original_format=not as_one)
    path = folder + "/config.json"
    config = json.load(open(path))
    for key in respelled:
        config.pop(key, None)
    if older:
        older_spelling(config)
    json.dump(config, open(path, "w"), indent=2)


def sequences(vocabulary, generator):
    return [torch.randint(3, vocabulary, (length,), generator=generator) for length in (5, 13, 27)]


def language(name, model_type, settings, respelled, root, older):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(model_type, **{**SMALL, **settings}), attn_implementation="eager").float().eval()
    draw(model, generator)
    folder = f"{root}/models/{name}" + "_older_spelling" * older
    save(model, folder, respelled, older, as_one=name.endswith("as_one"))
    # What a reader of the file gets, not what was in memory.
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tensors, losses, count = {}, 0, 0
    for index, ids in enumerate(sequences(SMALL["vocab_size"], generator)):
        out = model(ids[None], output_hidden_states=True, use_cache=False)
        picked = out.logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        losses, count = losses - picked.sum(), count + len(picked)
        tensors[f"input_ids.{index}"] = ids
        tensors[f"logits.{index}"] = out.logits[0].detach().contiguous()
        for layer, state in enumerate(out.hidden_states):
            tensors[f"hidden_states.{index}.{layer}"] = state[0].detach().contiguous()
    loss = losses / count
    loss.backward()
    norms = {}
    for parameter, weight in model.named_parameters():
        for part, grad in experts.one_by_one(model_type, parameter, weight.grad).items():
            norms[part] = grad.norm().item()
            tensors["grad." + part] = grad.clone()
    best = (0, None, None)
    for _ in range(20):
        prompt = torch.randint(3, SMALL["vocab_size"], (6,), generator=generator)
        tokens, gap = prompt.tolist(), float("inf")
        with torch.no_grad():
            for _ in range(5):
                top = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].topk(2)
                gap = min(gap, (top.values[0] - top.values[1]).item())
                tokens.append(top.indices[0].item())
        best = max(best, (gap, prompt.tolist(), tokens[6:]), key=lambda item: item[0])
    close = dict(rtol=1e-4, atol=1e-4)
    expected = dict(
        name=name, architecture=model.config.architectures[0], loss=loss.item(), grad_norms=norms,
        generate=dict(prompt=best[1], tokens=best[2], min_top2_logit_gap=best[0]),
        made_with=dict(transformers=transformers.__version__, torch=torch.__version__),
        tolerance=dict(logits=close, hidden_states=close, loss=dict(rtol=1e-5, atol=1e-5), grad=dict(rtol=1e-3, atol=1e-5),
                       grad_norms=dict(rtol=1e-4, atol=1e-6)))
    json.dump(expected, open(folder + "/expected.json", "w"), indent=1)
    save_file(tensors, folder + "/expected.safetensors")


def scoring(model_type, settings, labels, root):
    for kind, maker in dict(sequence=AutoModelForSequenceClassification, token=AutoModelForTokenClassification).items():
        config = AutoConfig.for_model(model_type, **{**SMALL, **settings}, num_labels=labels)
        try:
            model = maker.from_config(config, attn_implementation="eager").float().eval()
        except ValueError:
            print(f"{model_type}: transformers has no {kind} classification", file=sys.stderr)
            continue
        generator = torch.Generator().manual_seed(labels)
        draw(model, generator)
        folder = f"{root}/scoring/{model_type}_{kind}"
        save(model, folder, set())
        tensors = {}
        for index, ids in enumerate(sequences(SMALL["vocab_size"], generator)):
            tensors[f"input_ids.{index}"] = ids
            with torch.no_grad():
                tensors[f"scores.{index}"] = model(ids[None], use_cache=False).logits[0].contiguous()
        save_file(tensors, folder + "/expected.safetensors")


def main():
    root = sys.argv[1]
    os.makedirs(root, exist_ok=True)
    torch.set_num_threads(1)  # threads cost these sizes more than they give
    for name, (model_type, settings, respelled) in CASES.items():
        for older in (False, True):
            language(name, model_type, settings, respelled, root, older)
    for model_type, settings, labels in SCORING:
        scoring(model_type, settings, labels, root)
    print(f"{2 * len(CASES)} language models and {len(SCORING)} kinds of scoring models are in {root}")


if __name__ == "__main__":
    main()
