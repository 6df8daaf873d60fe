"""Settings of the families with experts, and how transformers' tensors of all experts of a layer are called one by one."""

import re

import torch

YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=5000.0)
MIXTRAL = dict(num_local_experts=5, num_experts_per_tok=3, sliding_window=None)
QWEN3 = dict(num_experts=7, num_experts_per_tok=3, moe_intermediate_size=20, head_dim=16)
DEEPSEEK = dict(
    num_key_value_heads=4, n_routed_experts=12, n_shared_experts=1, num_experts_per_tok=4, moe_intermediate_size=20, n_group=3,
    topk_group=2, q_lora_rank=24, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=10, v_head_dim=12,
    first_k_dense_replace=1, num_nextn_predict_layers=0)

# As models.py's: (model_type, settings, keys of config.json to take away). A name that ends with "as_one" is written with all
# experts of a layer in one tensor.
CASES = {
    "mixtral_window": ("mixtral", dict(MIXTRAL, sliding_window=7), set()),
    "mixtral_yarn_tied": ("mixtral", dict(
        MIXTRAL, rope_parameters=dict(YARN), head_dim=16, num_key_value_heads=4, tie_word_embeddings=True), set()),
    "mixtral_gelu": ("mixtral", dict(MIXTRAL, hidden_act="gelu", num_experts_per_tok=1), set()),
    "mixtral_defaults": ("mixtral", dict(
        num_attention_heads=8, num_key_value_heads=8, num_local_experts=8, sliding_window=None),
        {"num_key_value_heads", "num_local_experts", "num_experts_per_tok", "rms_norm_eps", "head_dim"}),
    "mixtral_as_one": ("mixtral", dict(MIXTRAL), set()),
    "qwen3_moe_every_second": ("qwen3_moe", dict(
        QWEN3, decoder_sparse_step=2, attention_bias=True, norm_topk_prob=True), set()),
    "qwen3_moe_window_tied": ("qwen3_moe", dict(
        QWEN3, use_sliding_window=True, sliding_window=6, mlp_only_layers=[1], tie_word_embeddings=True), set()),
    "qwen3_moe_all_experts": ("qwen3_moe", dict(QWEN3, num_experts_per_tok=7), {"norm_topk_prob", "mlp_only_layers"}),
    "qwen3_moe_as_one": ("qwen3_moe", dict(QWEN3, norm_topk_prob=True), set()),
    "deepseek_one_group": ("deepseek_v3", dict(DEEPSEEK, n_group=1, topk_group=1, norm_topk_prob=True), set()),
    "deepseek_halves_bias": ("deepseek_v3", dict(
        DEEPSEEK, rope_interleave=False, attention_bias=True, first_k_dense_replace=0, n_shared_experts=3, rms_norm_eps=1e-3), set()),
    "deepseek_no_query_rank": ("deepseek_v3", dict(
        DEEPSEEK, q_lora_rank=None, attention_bias=True, tie_word_embeddings=True, routed_scaling_factor=0.7), set()),
    "deepseek_dense": ("deepseek_v3", dict(DEEPSEEK, first_k_dense_replace=3), {"routed_scaling_factor"}),
    "deepseek_unscaled": ("deepseek_v3", dict(DEEPSEEK, norm_topk_prob=False, v_head_dim=20), set()),
    "deepseek_yarn": ("deepseek_v3", dict(DEEPSEEK, rope_parameters=dict(YARN)), set()),
    "deepseek_yarn_mscale": ("deepseek_v3", dict(DEEPSEEK, rope_parameters=dict(
        YARN, mscale=0.707, mscale_all_dim=1.2, beta_fast=16, beta_slow=2)), set()),
    "deepseek_as_one": ("deepseek_v3", dict(DEEPSEEK), set()),
}
SCORING = [("mixtral", dict(MIXTRAL), 2), ("qwen3_moe", dict(QWEN3), 1), ("deepseek_v3", dict(DEEPSEEK), 1)]


def draw_buffers(model, generator):
    """The selection bias is zero until someone trains it."""
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))


def one_by_one(model_type, name, tensor):
    """The checkpoint's names of a parameter, and what of it each is."""
    mixtral = model_type == "mixtral"
    found = re.fullmatch(r"(.*)\.mlp\.experts\.(gate_up|down)_proj", name)
    if not found:
        return {name.replace(".mlp.gate.", ".block_sparse_moe.gate.") if mixtral else name: tensor}
    block = f"{found[1]}.{'block_sparse_moe' if mixtral else 'mlp'}.experts"
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    parts = {}
    for expert, own in enumerate(tensor):
        if found[2] == "gate_up":
            halves = own.chunk(2)
            parts[f"{block}.{expert}.{gate}.weight"], parts[f"{block}.{expert}.{up}.weight"] = halves
        else:
            parts[f"{block}.{expert}.{down}.weight"] = own
    return parts
