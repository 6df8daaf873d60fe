"""Fledge's generation and transformers' on one machine, taking turns.

Both make the model in memory with random weights; Fledge's report says its configuration. Every measurement runs in a process of
its own, so that peak memory is that of the case alone. Ratios are of the best of the rounds on each side."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

FLEDGE = os.environ.get("FLEDGE", ".build/release/fledge")


def peer(config, case, dtype, device, threads):
    """transformers.generate: the same number of prompts of random tokens, sampled at temperature 1 until the last token."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    prompts, length, new = map(int, case.split("x"))
    settings = AutoConfig.for_model({"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}[config["architectures"][0]], **config)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    ids = torch.randint(0, config["vocab_size"], (prompts, length), device=device)

    def run(count):
        start = time.perf_counter()
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=count, min_new_tokens=count)
        if device != "cpu":
            torch.cuda.synchronize()
        assert out.shape == (prompts, length + count), out.shape
        return time.perf_counter() - start

    with torch.inference_mode():
        run(min(new, 8))
        seconds = run(new)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) if device == "cpu" else torch.cuda.max_memory_allocated()
    return dict(seconds=seconds, tokens_per_second=prompts * new / seconds, peak_memory_bytes=peak)


def peer_process(*arguments):
    command = [sys.executable, __file__, "--peer", json.dumps(arguments)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(arguments[-1]), HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def ours(shape, case, dtype, device, threads):
    command = [FLEDGE, "bench", "rollout", "--shape", shape, "--weights", "random", "--cases", case, "--dtype", dtype,
               "--device", device, "--threads", str(threads), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(peer(*json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="smollm2-135m")
    parser.add_argument("--cases", default="48x48x64")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "both"], default="both")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--target", type=float, default=0)
    options = parser.parse_args()
    import torch
    import transformers

    report = dict(torch=torch.__version__, transformers=transformers.__version__, threads=options.threads,
                  shape=options.shape, device=options.device, results={})
    for dtype in ["float32", "bfloat16"] if options.dtype == "both" else [options.dtype]:
        for case in options.cases.split(","):
            sides = dict(fledge=[], transformers=[])
            for _ in range(options.rounds):
                told = ours(options.shape, case, dtype, options.device, options.threads)
                sides["fledge"].append(told["cases"][0])
                sides["transformers"].append(
                    peer_process(told["config"], case, dtype, options.device, options.threads))
            best = {name: max(run["tokens_per_second"] for run in runs) for name, runs in sides.items()}
            report["results"][f"{case} {dtype}"] = result = dict(
                tokens_per_second={name: round(value, 1) for name, value in best.items()},
                rounds={name: [round(run["tokens_per_second"], 1) for run in runs] for name, runs in sides.items()},
                ratio=round(best["fledge"] / best["transformers"], 2),
                efficiency=max(run["efficiency"] for run in sides["fledge"]),
                peak_memory_mib={name: max(run["peak_memory_bytes"] for run in runs) >> 20 for name, runs in sides.items()})
            print(f"{case} {dtype}: {result}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=2))
    low = {name: result["ratio"] for name, result in report["results"].items() if result["ratio"] < options.target}
    if low:
        sys.exit(f"below {options.target}: {low}")


if __name__ == "__main__":
    main()
