"""Round trips through `fledge export`, checked by transformers.

A family that Fledge does not know is listed as skipped, and fails the run under --require-all. Every other difference fails."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()

SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=24)

# model_type: settings beside SMALL. Every family of docs/models.md, with what sets it apart turned on.
FAMILIES = {
    "llama": dict(attention_bias=True, mlp_bias=True),
    "llama tied": dict(tie_word_embeddings=True, head_dim=16),
    "qwen2": dict(),
    "qwen3": dict(head_dim=16),
    "mistral": dict(sliding_window=8),
    "mixtral": dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "qwen3_moe": dict(num_experts=4, head_dim=8, decoder_sparse_step=1, mlp_only_layers=[], **EXPERTS),
    "gemma2": dict(head_dim=8, query_pre_attn_scalar=8, sliding_window=8),
    "gemma3_text": dict(head_dim=8, query_pre_attn_scalar=8, sliding_window=8),
    "phi3": dict(),
    "olmo2": dict(),
    "smollm3": dict(),
    "granite": dict(logits_scaling=2.0, residual_multiplier=0.5),
    "deepseek_v3": dict(
        n_routed_experts=4, n_shared_experts=1, n_group=2, topk_group=1, first_k_dense_replace=1, kv_lora_rank=16,
        q_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, num_key_value_heads=4, **EXPERTS),
}

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{% generation %}{{ m.content }}{% endgeneration %}</s>{% endfor %}"


def tokenizer_files(folder):
    """A tiny byte-level tokenizer with a template and what else lies beside one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:80]
    vocabulary = {token: index for index, token in enumerate(tokens + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(tokens)
    tokenizer.save(folder + "/tokenizer.json")
    config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    json.dump(config, open(folder + "/tokenizer_config.json", "w"))
    open(folder + "/chat_template.jinja", "w").write(TEMPLATE)
    json.dump(dict(eos_token_id=[2, 4], pad_token_id=0, temperature=0.7, do_sample=True),
              open(folder + "/generation_config.json", "w"))
    os.makedirs(folder + "/additional_chat_templates")
    open(folder + "/additional_chat_templates/tool_use.jinja", "w").write("tools: " + TEMPLATE)


def make(name, dtype, folder):
    torch.manual_seed(sum(name.encode()))
    kind = name.split()[0]
    known = dict(SMALL, **FAMILIES[name])
    config = AutoConfig.for_model(kind, **known)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.dim() > 1 else 0.5))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer_files(folder)


def stored(folder):
    """Every tensor as the files have it, and the file that it is in."""
    from safetensors.torch import load_file

    tensors, places = {}, {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            for key, tensor in load_file(f"{folder}/{name}").items():
                assert key not in tensors, f"{key} is in two files"
                tensors[key], places[key] = tensor, name
    return tensors, places


def logits(folder, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    ids = (torch.arange(40).reshape(2, 20) * 7) % model.config.vocab_size
    with torch.inference_mode():
        return model(ids).logits


def run(fledge, *arguments):
    return subprocess.run([fledge, *arguments], capture_output=True, text=True)


def settings(folder):
    """config.json as transformers understands it, without what says where and by whom it was written."""
    config = AutoConfig.from_pretrained(folder).to_dict()
    return {key: value for key, value in config.items()
            if key not in ("_name_or_path", "transformers_version", "dtype", "torch_dtype")}


def check(fledge, source, scratch, has_tokenizer):
    """The differences that a round trip made; None when Fledge does not know the family."""
    faults = []

    def expect(condition, text):
        if not condition:
            faults.append(text)

    whole, sharded = scratch + "/whole", scratch + "/sharded"
    result = run(fledge, "export", "--model", source, "--to", whole)
    if result.returncode == 2 and "is not known" in result.stderr:
        return None
    if result.returncode != 0:
        return [f"export failed: {result.stderr.strip()}"]
    before, _ = stored(source)
    after, _ = stored(whole)
    # A tied head may be stored beside the embedding; transformers leaves it out, and so does the export.
    spare = {"lm_head.weight"} if settings(source).get("tie_word_embeddings") else set()
    expect(before.keys() - spare == after.keys() - spare, f"names differ: {sorted(before.keys() ^ after.keys())[:4]}")
    for name in before.keys() & after.keys():
        # What is never trained keeps its value in float32, as DeepSeek's own checkpoints have it.
        buffer = name.endswith("e_score_correction_bias")
        old = before[name].float() if buffer else before[name]
        same = old.dtype == after[name].dtype and torch.equal(old, after[name])
        expect(same, f"{name} changed: {before[name].dtype} to {after[name].dtype}")
    expect(settings(source) == settings(whole), "config.json means something else")
    expect(torch.equal(logits(source), logits(whole)), "logits differ")

    size = max(tensor.numel() * tensor.element_size() for tensor in after.values()) * 2
    result = run(fledge, "export", "--model", source, "--to", sharded, "--max-shard-size", str(size))
    expect(result.returncode == 0, f"export in shards failed: {result.stderr.strip()}")
    pieces, places = stored(sharded)
    expect(pieces.keys() == after.keys() and all(torch.equal(pieces[k], after[k]) for k in after), "shards differ")
    index = json.load(open(sharded + "/model.safetensors.index.json"))
    expect(index["weight_map"] == places, "the index names other shards")
    expect(index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in pieces.values()), "total_size")
    for name in set(places.values()):
        held = sum(pieces[key].numel() * pieces[key].element_size() for key, place in places.items() if place == name)
        expect(held <= size, f"{name} holds {held} bytes, more than {size}")
    expect(torch.equal(logits(whole), logits(sharded)), "logits of the shards differ")

    if has_tokenizer:
        old, new = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(whole)
        messages = [dict(role="user", content="!\"#"), dict(role="assistant", content="$%&")]
        expect(old.get_vocab() == new.get_vocab(), "the vocabulary differs")
        expect(old.apply_chat_template(messages, tokenize=False) == new.apply_chat_template(messages, tokenize=False),
               "the chat template differs")
        expect(old.chat_template == new.chat_template, "named templates differ")
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"):
        if os.path.exists(f"{source}/{name}"):
            same = os.path.exists(f"{whole}/{name}") and open(f"{source}/{name}").read() == open(f"{whole}/{name}").read()
            expect(same, f"{name} was not copied as it is")

    result = run(fledge, "export", "--model", source, "--to", whole)
    expect(result.returncode == 2 and "exists" in result.stderr, "an existing folder was not refused")
    expect(not [name for name in os.listdir(scratch) if name.startswith(".")], "something was left behind")

    result = run(fledge, "inspect", whole, "--json")
    report = json.loads(result.stdout)
    count = sum(tensor.numel() for name, tensor in after.items())
    expect(report["weights"]["parameters"] == count, f"inspect counts {report['weights']['parameters']} of {count}")
    if has_tokenizer:
        expect(report["usable"], f"inspect finds {[f for f in report['findings'] if f['severity'] == 'error']}")
    return faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fledge", default=".build/release/fledge")
    parser.add_argument("--golden", help="a folder of model folders")
    parser.add_argument("--only", help="families, by model_type, with commas")
    parser.add_argument("--require-all", action="store_true", help="fail when a family is not known to Fledge")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else None
    report = {}
    for name in FAMILIES:
        if only and name.split()[0] not in only:
            continue
        for dtype in ("float32", "bfloat16"):
            with tempfile.TemporaryDirectory() as scratch:
                make(name, dtype, scratch + "/source")
                report[f"{name} {dtype}"] = check(options.fledge, scratch + "/source", scratch, True)
    for name in sorted(os.listdir(options.golden)) if options.golden else []:
        source = f"{options.golden}/{name}"
        if not os.path.exists(source + "/config.json") or (only and json.load(open(source + "/config.json"))["model_type"] not in only):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            # The golden folders hold expected.safetensors beside the model, and no tokenizer.
            shutil.copytree(source, scratch + "/source", ignore=shutil.ignore_patterns("expected.*"))
            has_tokenizer = os.path.exists(source + "/tokenizer.json")
            if not has_tokenizer:
                tokenizer_files(scratch + "/source")
            report[f"golden {name}"] = check(options.fledge, scratch + "/source", scratch, has_tokenizer)
    skipped = [name for name, faults in report.items() if faults is None]
    failed = {name: faults for name, faults in report.items() if faults}
    passed = [name for name, faults in report.items() if faults == []]
    print(json.dumps(dict(passed=passed, skipped=skipped, failed=failed), indent=2))
    sys.exit(1 if failed or not passed or (options.require_all and skipped) else 0)


if __name__ == "__main__":
    main()
