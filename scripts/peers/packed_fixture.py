#!/usr/bin/env python3
"""Writes tiny checkpoints packed as AutoGPTQ, GPTQModel and AutoAWQ pack them, with the numbers that they stand for.

Usage: packed_fixture.py FOLDER        (needs numpy alone)

Each folder holds config.json and model.safetensors; in the latter stand, for the module `layer`, the packed tensors, and as
`expected` the weight [outputs, inputs] in float32. The packing follows the libraries' published formulas:
  GPTQ   qweight[i // p] |= code[i] << bits * (i % p) down the inputs, p = 32 / bits; zeros packed the same way along the outputs,
         in the first format less one; w = scale[g_idx[i]] * (code - zero).
  AWQ    qweight[:, c] |= code[:, 8 c + order[s]] << 4 s along the outputs, order = 0 2 4 6 1 3 5 7; zeros the same; scales as is.
"""
import json
import os
import struct
import sys

import numpy as np

OUTPUTS, INPUTS = 16, 64


def write_safetensors(path, tensors):
    names = {np.dtype("int32"): "I32", np.dtype("float16"): "F16", np.dtype("float32"): "F32"}
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def pack_rows(values, bits):
    """Down the first axis."""
    per_word = 32 // bits
    packed = np.zeros((values.shape[0] // per_word, values.shape[1]), np.uint32)
    for i in range(values.shape[0]):
        packed[i // per_word] |= values[i].astype(np.uint32) << np.uint32(bits * (i % per_word))
    return packed.view(np.int32)


def pack_awq(values):
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    packed = np.zeros((values.shape[0], values.shape[1] // 8), np.uint32)
    for column in range(values.shape[1] // 8):
        for slot in range(8):
            packed[:, column] |= values[:, 8 * column + order[slot]].astype(np.uint32) << np.uint32(4 * slot)
    return packed.view(np.int32)


def make(folder, name, settings, seed):
    random = np.random.default_rng(seed)
    bits, group = settings["bits"], settings["group_size"]
    size = INPUTS if group == -1 else group
    groups = (INPUTS + size - 1) // size
    codes = random.integers(0, 1 << bits, (INPUTS, OUTPUTS))
    # From 1: the first format cannot say 0 without a borrow.
    zeros = random.integers(1, 1 << bits, (groups, OUTPUTS))
    scales = (random.random((groups, OUTPUTS)) * 0.02 + 0.001).astype(np.float16)
    g_idx = np.arange(INPUTS) // size
    if settings.get("desc_act"):
        g_idx = random.permutation(g_idx)
    tensors = {}
    if settings["quant_method"] == "gptq":
        less = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
        tensors["layer.qweight"] = pack_rows(codes, bits)
        tensors["layer.qzeros"] = np.ascontiguousarray(pack_rows((zeros - less).T, bits).T)
        tensors["layer.scales"] = scales
        tensors["layer.g_idx"] = g_idx.astype(np.int32)
    else:
        tensors["layer.qweight"] = pack_awq(codes)
        tensors["layer.qzeros"] = pack_awq(zeros)
        tensors["layer.scales"] = scales
    tensors["expected"] = np.ascontiguousarray(
        ((codes - zeros[g_idx]).astype(np.float32) * scales.astype(np.float32)[g_idx]).T)
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    write_safetensors(os.path.join(folder, name, "model.safetensors"), tensors)
    with open(os.path.join(folder, name, "config.json"), "w") as file:
        json.dump(
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "quantization_config": settings}, file, indent=2)
        file.write("\n")


def main():
    folder = sys.argv[1]
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False}
    make(folder, "gptq", gptq, 1)
    make(folder, "gptq-v2", {**gptq, "checkpoint_format": "gptq_v2"}, 2)
    make(folder, "gptq-act-order", {**gptq, "desc_act": True}, 3)
    make(folder, "gptq-8-bits", {**gptq, "bits": 8}, 4)
    make(folder, "gptq-one-group", {**gptq, "group_size": -1, "checkpoint_format": "gptq"}, 5)
    # The last group is shorter.
    make(folder, "gptq-short-group", {**gptq, "group_size": 48}, 6)
    make(folder, "awq", {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}, 7)


main()
