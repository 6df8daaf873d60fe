"""Loads what `fledge export` wrote of one LoRA run with transformers and PEFT, and compares.

    fledge export --model MODEL --to base; fledge export --run RUN --to adapter; fledge export --run RUN --merge --to merged
    python3 scripts/peers/adapter_check.py base adapter merged
"""

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def main(base: str, adapter: str, merged: str) -> None:
    ids = (torch.arange(5, 45) * 97 % 1000)[None]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = logits(model, ids)
    beside = logits(PeftModel.from_pretrained(model, adapter), ids)
    folded = logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32), ids)
    moved, off = (beside - plain).abs().max().item(), (beside - folded).abs().max().item()
    print(f"the adapter moves the logits by up to {moved:.3g}; adapter and merged model differ by {off:.3g}")
    if not (moved > 0 and off <= 1e-4 * beside.abs().max().item()):
        sys.exit("they do not agree")


if __name__ == "__main__":
    main(*sys.argv[1:])
