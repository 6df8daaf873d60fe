"""Makes Tests/Fixtures/lora: a tiny Llama, adapters that PEFT wrote, and what PEFT computes with them.

    pip install torch==2.11.0 transformers peft && python3 scripts/peers/lora_fixture.py Tests/Fixtures/lora
"""

import copy
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

CASES = {
    "all_linear": dict(r=4, lora_alpha=8, target_modules="all-linear"),
    "attention_rslora": dict(
        r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        exclude_modules=["layers.0.self_attn.q_proj"]),
}


def main(out: pathlib.Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.3,
            tie_word_embeddings=False))
    base.save_pretrained(out / "base")
    ids = torch.randint(0, 32, (1, 17))
    for name, settings in CASES.items():
        model = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings))
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.2)
        folder = out / name
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        logits = model(ids).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
        loss.backward()
        expected = {"input_ids": ids[0], "logits": logits.detach(), "loss": loss.detach().reshape(1)}
        with model.disable_adapter():
            expected["base_logits"] = model(ids).logits[0].detach()
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                expected["grad." + key.replace(".default", "")] = parameter.grad
        merged = copy.deepcopy(model).merge_and_unload().state_dict()
        for key in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"):
            key = f"model.layers.1.{key}.weight"
            expected["merged." + key] = merged[key]
        save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
