"""Reads 200,000 rows as verl has them, from Parquet and from JSONL, with Fledge and with pyarrow, pandas and datasets: each in
a process of its own, one after the other, every row made into an object. Prints wall and processor seconds, rows and MB a
second (of the file), and the most memory.

    pip install pyarrow pandas datasets
    python scripts/peers/data_speed.py .build/release/fledge [FOLDER]
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time

ROWS = 200_000

READERS = {
    "pyarrow": ("parquet", """
import pyarrow.parquet as pq
rows = sum(len(batch.to_pylist()) for batch in pq.ParquetFile(path).iter_batches(batch_size=8192))"""),
    "pandas": ("parquet", """
import pandas
rows = len(pandas.read_parquet(path).to_dict("records"))"""),
    "datasets": ("parquet", """
import datasets, tempfile
with tempfile.TemporaryDirectory() as cache:
    rows = sum(1 for row in datasets.load_dataset("parquet", data_files=path, cache_dir=cache, split="train"))"""),
    "python json": ("jsonl", """
import json
with open(path, "rb") as file:
    rows = sum(1 for line in file if json.loads(line))"""),
    "pandas jsonl": ("jsonl", """
import pandas
rows = len(pandas.read_json(path, lines=True))"""),
    "datasets jsonl": ("jsonl", """
import datasets, tempfile
with tempfile.TemporaryDirectory() as cache:
    rows = sum(1 for row in datasets.load_dataset("json", data_files=path, cache_dir=cache, split="train"))"""),
}


def make(folder):
    """The two files, whose prompts are words drawn by a seed."""
    import pyarrow
    import pyarrow.parquet

    paths = {kind: os.path.join(folder, f"speed.{kind}") for kind in ["parquet", "jsonl"]}
    if all(map(os.path.exists, paths.values())):
        return
    draw = random.Random(0)
    words = "the of and to in is you that was for on are with his they be at one have this from had by word but".split()

    def text(least, most):
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    rows = []
    for index in range(ROWS):
        question = text(30, 120)
        rows.append({
            "data_source": draw.choice(["openai/gsm8k", "math_dapo"]),
            "prompt": [{"role": "user", "content": question + " Let's think step by step."}],
            "ability": "math", "reward_model": {"ground_truth": str(index), "style": "rule"},
            "extra_info": {"answer": text(40, 100), "index": index, "question": question, "split": "train"},
        })
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths["parquet"])
    with open(paths["jsonl"], "w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def measure(name, path, command):
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"{name} failed")
    processor = usage.ru_utime + usage.ru_stime
    size = os.path.getsize(path) / 1e6
    print(f"{name:24} {wall:7.2f} s wall {processor:7.2f} s processor {ROWS / processor:9.0f} rows/s "
          f"{size / processor:7.1f} MB/s (processor) {usage.ru_maxrss / 1024:7.0f} MiB", flush=True)


def main(fledge, folder=None):
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder or scratch
        # A child's most memory counts its parent's before it: the rows are made elsewhere.
        subprocess.run([sys.executable, __file__, "--make", folder], check=True)
        paths = {kind: os.path.join(folder, f"speed.{kind}") for kind in ["parquet", "jsonl"]}
        for kind, path in paths.items():
            print(f"{kind}: {ROWS} rows, {os.path.getsize(path) / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f}")
            measure("fledge data stats", path, [fledge, "data", "stats", path])
            for name, (its, code) in READERS.items():
                if its == kind:
                    measure(name, path, [sys.executable, "-c", f"path = {path!r}" + code])


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(sys.argv[2])
    else:
        main(*sys.argv[1:])
