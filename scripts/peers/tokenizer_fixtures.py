"""Makes the fixtures of Tests/TokenizersTests by asking the libraries that the tests must agree with.

    pip install sentencepiece tiktoken tokenizers transformers protobuf
    scripts/peers/tokenizer_fixtures.py Tests/TokenizersTests/Fixtures            # the committed ones
    scripts/peers/tokenizer_fixtures.py FOLDER --full --texts 3000 --seed 7 --bpe tokenizer.model --tiktoken qwen.tiktoken

The second form makes larger ones from real files, for a golden area `spm` (FLEDGE_GOLDEN_DIR). Small models are trained
on text made here, so nothing needs to be fetched for the first."""

import argparse
import base64
import io
import json
import pathlib
import random
import types

WORDS = """the of and to in is that for it as was with be by on not he his but at are this have from or had an they which
one you were all her she there would their we him been has when who will no more if out so up said what its about than into
them can only other time new some could these two may first then do any like my now over such our man me even most made after
also did many off before must well back through years much where your way down should because long each just state people
those too mr how little good world make very year still see own work long men day get here old between both life being under
three never know same last another while us might great go come since against right came take used himself few house use place
during high without again home around small however found part school every return import def class self print""".split()
OTHER = "naïve café Straße Größe señor œuvre Привет мир это текст 你好 世界 中文 文本 日本語 テスト ひらがな 한국어 문장 مرحبا ½ ﬁ ① ２０２６".split()


def corpus(seed, sentences):
    pick = random.Random(seed)
    for _ in range(sentences):
        words = [pick.choice(OTHER) if pick.random() < 0.06 else pick.choice(WORDS) for _ in range(pick.randrange(4, 18))]
        if pick.random() < 0.3:
            words[0] = words[0].capitalize()
        if pick.random() < 0.3:
            words.append(str(pick.randrange(10000)))
        yield " ".join(words) + pick.choice([".", ",", "!", "?", "", " = x[1];", "();"])


def texts(seed, count):
    pick = random.Random(seed)
    rare = "aZé ßſ'sStT  \t\n\r\u00a0\u3000\u2581▁▁0129½٣.,!?-_/你好カ\u0301\u093f😀\u200d\u0000\u00ad\ufeffﬁ①Åª<s></s><unk><0x41>"
    fixed = ["", " ", "   ", "\n", "a", " a", "a ", "  a  b  ", "hello  world\n\n", "▁", "▁▁a", "<s>", "a<s>b</s> c", "<unk>", "<sep>x<sep>",
             "x<sep> y", "tab\there", "Ünïcödé", "e\u0301", "ﬁne ①②③ ２０２６", "\u00a0x\u3000y", "<0x41>", "<pad>", "a\u0000b", "😀😀", "\u200d"]
    yield from fixed[:count]
    for _ in range(count - len(fixed)):
        length = pick.randrange(1, 40)
        kind = pick.random()
        if kind < 0.4:
            yield "".join(pick.choice(rare) for _ in range(length))
        elif kind < 0.75:
            words = [pick.choice(WORDS + OTHER) for _ in range(pick.randrange(1, 12))]
            yield "".join(word + pick.choice([" ", " ", " ", "  ", "", "\n", ", ", "<sep>", "▁"]) for word in words)
        else:
            scalars = (chr(pick.randrange(0x30000)) for _ in range(length))
            yield "".join(c if not 0xD800 <= ord(c) <= 0xDFFF and pick.random() < 0.5 else pick.choice(rare) for c in scalars)


def write(path, rows):
    with open(path, "w", encoding="ascii") as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


# A piece of a charsmap, rules that begin alike and rules that make, keep and drop blanks among them: whole ones take 240 kB.
RULES = [("ﬁ", "fi"), ("½", "1⁄2"), ("①", "1"), ("２", "2"), ("０", "0"), ("６", "6"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "),
         ("\n", " "), ("\r", ""), ("\u00ad", ""), ("\u200d", " "), ("e\u0301", "é"), ("Z", "zz "), ("ß", "ss"), ("你好", "您好"),
         ("S", " s"), ("\ufeff", "")]


def train(folder, is_full):
    """Small models of both kinds, with symbols and normalizers of every sort."""
    import sentencepiece

    if is_full:
        rules = lambda name: dict(normalization_rule_name=name)
    else:
        table = folder / "rules.tsv"
        table.write_text("".join("\t".join(" ".join("%X" % ord(c) for c in part) for part in rule) + "\n" for rule in RULES))
        rules = lambda name: dict(normalization_rule_tsv=str(table))

    lines = list(corpus(1, 3000))
    kinds = {
        "unigram": dict(model_type="unigram", vocab_size=700, **rules("nmt_nfkc"), user_defined_symbols=["<sep>", "▁▁"], control_symbols=["<ctl>"]),
        "unigram_bytes": dict(model_type="unigram", vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
                              remove_extra_whitespaces=False),
        "bpe": dict(model_type="bpe", vocab_size=800, user_defined_symbols=["<sep>", "the"], character_coverage=0.995,
                    **rules("nfkc_cf")),
        "bpe_bytes": dict(model_type="bpe", vocab_size=1000, byte_fallback=True, split_digits=True, add_dummy_prefix=False,
                          **rules("nmt_nfkc"), pad_id=3, allow_whitespace_only_pieces=True),
    }
    models = {}
    for name, options in kinds.items():
        output = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=output, minloglevel=2, num_threads=1, **options)
        data = output.getvalue()
        models[name] = data
        (folder / f"{name}.model").write_bytes(data)
        print(name, len(data))
    if not is_full:
        table.unlink()
    return models


def library_rows(data, samples, seed):
    """What the library itself gives, and what it makes of ids that no text gives."""
    import sentencepiece

    peer = sentencepiece.SentencePieceProcessor(model_proto=data)
    for text in samples:
        ids = peer.encode(text)
        yield dict(text=text, ids=ids, decoded=peer.decode(ids))
    pick = random.Random(seed)
    for _ in range(len(samples) // 4):
        ids = [pick.randrange(min(len(peer), 900)) for _ in range(pick.randrange(1, 9))]
        yield dict(ids=ids, decoded=peer.decode(ids))


def conversions(path):
    """The pipelines that transformers' converters make of a model."""
    from tokenizers import Tokenizer, AddedToken
    from tokenizers.models import BPE, Unigram
    from transformers.convert_slow_tokenizer import GemmaConverter, LlamaConverter, SentencePieceExtractor, SpmConverter, T5Converter, generate_merges

    def assemble(base, byte_fallback, extra_ids=0, **settings):
        # The converters' own `tokenizer()` and `__init__` want a slow tokenizer that this version of transformers lacks.
        converter = base.__new__(base)
        converter.original_tokenizer = types.SimpleNamespace(**settings)
        proto = SentencePieceExtractor(str(path)).proto
        pieces = [(piece.piece, piece.score) for piece in proto.pieces]
        pieces += [(f"<extra_id_{i}>", 0.0) for i in range(extra_ids - 1, -1, -1)]
        if proto.trainer_spec.model_type == 2:
            # By the scores, as SentencePiece merges and as transformers 4 converted: version 5 goes by the ids instead, and gives
            # other ids than the library for models whose pieces are not in the order of their scores (Mistral's).
            vocabulary = {piece: index for index, (piece, _) in enumerate(pieces)}
            model = BPE(vocabulary, generate_merges(vocabulary, pieces), unk_token=proto.trainer_spec.unk_piece, fuse_unk=True,
                        byte_fallback=byte_fallback)
        else:
            model = Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=byte_fallback)
        pipeline = Tokenizer(model)
        types_ = [piece.type for piece in proto.pieces] + [3] * extra_ids
        pipeline.add_tokens([AddedToken(piece, normalized=False, special=kind == 3)
                             for (piece, _), kind in zip(pieces, types_) if kind in (3, 4)])
        normalizer = converter.normalizer(proto)
        if normalizer is not None:
            pipeline.normalizer = normalizer
        prefix = settings.get("add_prefix_space", True)
        splitter = converter.pre_tokenizer("▁", prefix)
        if splitter is not None:
            pipeline.pre_tokenizer = splitter
        pipeline.decoder = converter.decoder("▁", prefix)
        return pipeline

    spm_fallback = SentencePieceExtractor(str(path)).proto.trainer_spec.byte_fallback
    yield "llama_legacy", assemble(LlamaConverter, True, legacy=True)
    yield "llama", assemble(LlamaConverter, True, legacy=False)
    yield "llama_no_prefix", assemble(LlamaConverter, True, legacy=False, add_prefix_space=False)
    yield "gemma", assemble(GemmaConverter, True)
    if not spm_fallback:
        yield "general", assemble(SpmConverter, False)
        yield "t5", assemble(T5Converter, False, extra_ids=100)


def converted_rows(path, samples):
    for name, pipeline in conversions(path):
        for text in samples:
            encoding = pipeline.encode(text, add_special_tokens=False)
            yield dict(convention=name, text=text, ids=encoding.ids, offsets=encoding.offsets, decoded=pipeline.decode(encoding.ids))


def rank_file(lines):
    """Ranks by plain byte-pair training."""
    words = {}
    for line in lines:
        for index, word in enumerate(line.split(" ")):
            word = (" " if index else "") + word
            words[word] = words.get(word, 0) + 1
    pieces = {word: [bytes([b]) for b in word.encode()] for word in words}
    ranks = [bytes([b]) for b in range(256)]
    while len(ranks) < 600:
        pairs = {}
        for word, count in words.items():
            for pair in zip(pieces[word], pieces[word][1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks.append(best[0] + best[1])
        for word, parts in pieces.items():
            index = 0
            while index + 1 < len(parts):
                if (parts[index], parts[index + 1]) == best:
                    parts[index:index + 2] = [best[0] + best[1]]
                index += 1
    return ranks


def tiktoken_rows(ranks, samples):
    import tiktoken
    import tiktoken.load
    import tiktoken_ext.openai_public as public

    # The patterns, without fetching the files that they are for.
    saved, public.load_tiktoken_bpe = public.load_tiktoken_bpe, lambda *_, **__: {}
    patterns = dict(r50k=public.r50k_base()["pat_str"], cl100k=public.cl100k_base()["pat_str"], o200k=public.o200k_base()["pat_str"])
    public.load_tiktoken_bpe = saved
    blanks = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    start = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
    patterns["llama3"] = start + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + blanks
    patterns["qwen"] = start + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + blanks
    for name, pattern in patterns.items():
        peer = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|end|>": max(ranks.values()) + 1})
        for text in samples:
            text += "<|end|>" if len(text) % 7 == 0 else ""
            yield dict(family=name, text=text, ids=peer.encode(text, allowed_special="all"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--texts", type=int, default=70)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="SentencePiece's own charsmaps in the trained models")
    parser.add_argument("--bpe", type=pathlib.Path, help="a real SentencePiece model to add")
    parser.add_argument("--tiktoken", type=pathlib.Path, help="a real rank file to use")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    samples = list(texts(options.seed, options.texts))
    models = train(folder, options.full)
    if options.bpe:
        models["real"] = options.bpe.read_bytes()
        (folder / "real.model").write_bytes(models["real"])
    for name, data in models.items():
        write(folder / f"{name}.library.jsonl", library_rows(data, samples, options.seed))
        write(folder / f"{name}.converted.jsonl", converted_rows(folder / f"{name}.model", samples[::2]))
    if options.tiktoken:
        file = options.tiktoken.read_bytes()
    else:
        file = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(rank_file(list(corpus(1, 800)))))
    (folder / "ranks.tiktoken").write_bytes(file)
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in file.splitlines() if line}
    write(folder / "ranks.jsonl", tiktoken_rows(ranks, samples))


if __name__ == "__main__":
    main()
