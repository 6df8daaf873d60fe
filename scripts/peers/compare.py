"""Fledge and transformers on one machine, the same weights, torch, types and threads, taking turns.

Every measurement runs in a process of its own, so that peak memory is that of the case alone. Ratios are of the best of the
rounds on each side."""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

FLEDGE = ".build/release/fledge"
MODEL = "models/smollm2-135m-instruct"
GENERATE = dict(prompts=6, samples=8, prompt_tokens=64, new_tokens=64)
TRAIN = dict(sequences=32, length=128)


def peer_generate(folder, dtype, repeats):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    torch.manual_seed(0)
    prompts = torch.randint(0, 49152, (GENERATE["prompts"], GENERATE["prompt_tokens"]))
    options = dict(
        attention_mask=torch.ones_like(prompts), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        num_return_sequences=GENERATE["samples"], max_new_tokens=GENERATE["new_tokens"])
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            out = model.generate(prompts, **options)
            seconds.append(time.perf_counter() - start)
    new = out.shape[0] * (out.shape[1] - prompts.shape[1])
    assert new == GENERATE["prompts"] * GENERATE["samples"] * GENERATE["new_tokens"], out.shape
    return dict(seconds=seconds[1:], tokens_per_second=new / min(seconds[1:]))


def peer_train(folder, dtype, repeats):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).train()
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    torch.manual_seed(0)
    ids = torch.randint(0, 49152, (TRAIN["sequences"], TRAIN["length"]))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        float(loss.detach())
        seconds.append(time.perf_counter() - start)
    return dict(seconds=seconds[1:], tokens_per_second=ids.numel() / min(seconds[1:]))


def peer(case, folder, dtype, repeats, threads):
    command = [sys.executable, __file__, "--peer", case, folder, dtype, str(repeats)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def ours(case, dtype, repeats, threads):
    shape = GENERATE if case == "generate" else TRAIN
    options = [item for key, value in shape.items() for item in (f"--{key.replace('_', '-')}", str(value))]
    command = [FLEDGE, "bench", case, "--model", MODEL, "--device", "cpu", "--dtype", dtype, "--repeats", str(repeats),
               "--threads", str(threads), *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def start_of_training():
    """Seconds from the start of the process to the first sampled token, by the run's own summary."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [FLEDGE, "train", "recipes/quickstart.yaml", f"trainer.default_local_dir={folder}", "trainer.val_before_train=false",
             "trainer.total_training_steps=1", "data.val_files=[]", "trainer.logger=jsonl", "actor.optim.lr_warmup_steps=0"],
            check=True, capture_output=True)
        return json.load(open(folder + "/summary.json"))["time/first_token_s"]


def main():
    if sys.argv[1:2] == ["--peer"]:
        _, _, case, folder, dtype, repeats = sys.argv
        result = dict(generate=peer_generate, train=peer_train)[case](folder, dtype, int(repeats))
        result["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(result))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cases", default="generate,train")
    options = parser.parse_args()
    import torch
    import transformers

    report = dict(torch=torch.__version__, transformers=transformers.__version__, threads=options.threads,
                  generate_shape=GENERATE, train_shape=TRAIN, results={})
    with tempfile.TemporaryDirectory() as scratch:
        folder = scratch + "/model"
        subprocess.run([FLEDGE, "export", "--model", MODEL, "--to", folder], check=True, capture_output=True)
        for dtype in ["float32", "bfloat16"] if options.dtype == "both" else [options.dtype]:
            for case in options.cases.split(","):
                sides = dict(fledge=[], transformers=[])
                for _ in range(options.rounds):
                    sides["fledge"].append(ours(case, dtype, options.repeats, options.threads))
                    sides["transformers"].append(peer(case, folder, dtype, options.repeats, options.threads))
                best = {name: max(run["tokens_per_second"] for run in runs) for name, runs in sides.items()}
                memory = {name: max(run["peak_memory_mib"] for run in runs) for name, runs in sides.items()}
                report["results"][f"{case} {dtype}"] = dict(
                    tokens_per_second={name: round(value, 1) for name, value in best.items()},
                    ratio=round(best["fledge"] / best["transformers"], 2), peak_memory_mib=memory)
                print(f"{case} {dtype}: {report['results'][f'{case} {dtype}']}", file=sys.stderr, flush=True)
    report["start_of_training_to_first_token_s"] = [round(start_of_training(), 2) for _ in range(3)]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
