#!/usr/bin/env python3
"""Compare moetool's token ids and decoded text with those of the `tokenizers` library.

usage: compare_tokenizers.py [--tool build/release/tests/interop/tokenize] [--data ../shared/data]
                             [--seed N] [--quick]

Needs the `tokenizers` wheel (a virtual environment outside of the repository will do) and
`make build/release/tests/interop/tokenize`. Every tokenizer.json below DATA and a set of variants
made from one of them (regexes of Llama-3 and Qwen2, Digits, all Split behaviors, Metaspace, added
tokens with every flag, byte fallback with gaps) run over every text below DATA/text and over random
strings. Exit status 1 when anything differs.
"""
import argparse
import copy
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unicodedata

import tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])


def documents(path):
    if path.suffix == ".jsonl":
        out = []
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            out.append(row["text"] if "text" in row else "\n".join(map(str, row.values())))
        return out
    if path.suffix == ".json":
        return [str(row["content"]) for row in json.loads(path.read_text(encoding="utf-8"))]
    text = path.read_text(encoding="utf-8", errors="replace")
    size = 1 << 16
    return [text[i:i + size] for i in range(0, len(text), size)] + [text]


def random_texts(rng, specials, n):
    pools = [
        "abcdefgh ABC  ", " \t\n\r\u00a0\u2003\u3000\u180e\u0085", "0123456789٣४Ⅷ½²", "!?.,;:'\"-_()/\\<>|[]",
        "éüßñçÅŁ", "e\u0301a\u030aA\u0327\u0301", "日本語中文한국어ㄱ", "、。ー々ひらカタ〆！～‘", "😀🦙👨‍👩‍👧\ufe0f", "नमस्तेไทย", "\u200b\u200c\u200d\ufeff",
        "▁▁ ", "ſK", "\u0345\u1e9b\u0323", "\U0001d400\U0001f130Ⓐ", "'s 't 'RE 'Ll ",
    ]
    out = ["", " ", "  ", "a", "▁", "\n", "\n\n", " a", "a ", "▁a", "a▁"]
    for _ in range(n):
        parts = []
        for _ in range(rng.randrange(1, 30)):
            if specials and rng.random() < 0.1:
                parts.append(rng.choice(specials))
            elif rng.random() < 0.03:
                c = rng.choice([rng.randrange(1, 0x800), rng.randrange(0xA0, 0xD800), rng.randrange(0x10000, 0x20000)])
                # PCRE2 10.42 knows Unicode 14; characters added since are split differently.
                parts.append(chr(c) if unicodedata.ucd_3_2_0.category(chr(c)) != "Cn" else "?")
            else:
                pool = rng.choice(pools)
                parts.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 6))))
        out.append("".join(parts))
    return out


def added(i, content, **flags):
    token = dict(id=i, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    token.update(flags)
    return token


def variants(base, llama):
    """(name, tokenizer.json as a dict): what real files ask for, over a small vocabulary."""
    def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
        return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}

    def bytelevel(prefix=False, regex=False):
        return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}

    def sequence(*stages):
        return {"type": "Sequence", "pretokenizers": list(stages)}

    pre = {
        "llama3": sequence(split(LLAMA3), bytelevel()),
        "o200k": sequence(split(O200K), bytelevel()),
        "prefix": bytelevel(True, True),
        "prefix-each": sequence(split(LLAMA3), bytelevel(True)),
        "digits": sequence({"type": "Digits", "individual_digits": True}, bytelevel(False, True)),
        "digits-runs": sequence({"type": "Digits", "individual_digits": False}, bytelevel(False, True)),
        "after-bytes": sequence(bytelevel(False, True), {"type": "Digits", "individual_digits": False},
                                split("[0-9][0-9][0-9]")),
        "deepseek": sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
                             split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                                   r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), bytelevel()),
        "words": sequence(split(r"\w+|[^\w\s]+"), bytelevel()),
        "lines": sequence(split(r"^.*$"), bytelevel()),
        "scripts": sequence(split(r"\p{Han}+|\p{Hiragana}+|[\p{Katakana}\p{Latin}]+|[^\p{Cyrillic}\p{Devanagari}]"),
                            bytelevel()),
        "tiktoken": sequence(split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
                                   r"|\s*[\r\n]|\s+(?!\S)|\s+"), bytelevel()),
        "deepseek-v2": sequence(split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                                split(r"\s+$"), split("[一-龥ࠀ-一가-퟿]+"),
                                {"type": "Digits", "individual_digits": True}, bytelevel()),
        "empty": sequence(split(r"\d*"), bytelevel()),
        "whole": bytelevel(),
    }
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            pre[f"{behavior}-{invert}"] = sequence(split(r"\s|\d", behavior, invert), bytelevel())
            pre[f"{behavior}-{invert}-literal"] = sequence(split("e.", behavior, invert, "String"), bytelevel())
    for name, stage in pre.items():
        t = copy.deepcopy(base)
        t["pre_tokenizer"] = stage
        yield name, t
    t = copy.deepcopy(base)
    t["normalizer"] = {"type": "NFC"}
    t["pre_tokenizer"] = sequence(split(QWEN2), bytelevel())
    t["added_tokens"] += [added(4096, "<|im_start|>", special=True), added(4097, "<|im_end|>", special=True)]
    yield "qwen2", t
    n = len(base["model"]["vocab"])
    for normalizer in (None, {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"String": "a"}, "content": "é"}]}):
        t = copy.deepcopy(base)
        t["normalizer"] = normalizer
        t["added_tokens"] += [
            added(n, "<s>", lstrip=True, special=True), added(n + 1, "<r>", rstrip=True),
            added(n + 2, "<both>", lstrip=True, rstrip=True, normalized=True), added(n + 3, "word", single_word=True),
            added(n + 4, "Word", single_word=True, normalized=True), added(n + 5, "<s><r>"), added(n + 6, " x"),
            added(n + 7, "<s>>", normalized=True), added(n + 8, "été", single_word=True)]
        yield "added" + ("-normalized" if normalizer else ""), t
    t = copy.deepcopy(base)
    t["model"]["ignore_merges"] = True
    t["pre_tokenizer"] = pre["llama3"]
    yield "ignore-merges", t
    meta = {"type": "Metaspace", "replacement": "▁"}
    for scheme in ("first", "always", "never"):
        for cut in (False, True):
            t = copy.deepcopy(llama)
            t["normalizer"] = None
            t["added_tokens"] += [added(len(llama["model"]["vocab"]), "<x>")]
            t["pre_tokenizer"] = dict(meta, prepend_scheme=scheme, split=cut)
            t["decoder"] = dict(meta, prepend_scheme=scheme, split=cut)
            yield f"metaspace-{scheme}-{cut}", t
    for fuse in (False, True):
        for fallback in (False, True):
            t = copy.deepcopy(llama)
            vocab = t["model"]["vocab"]
            gone = {vocab.pop(f"<0x{b:02X}>") for b in (0xE6, 0xF0)}
            t["model"]["vocab"] = {k: v for k, v in vocab.items() if v not in gone}
            t["model"].update(fuse_unk=fuse, byte_fallback=fallback)
            yield f"unknown-fuse={fuse}-fallback={fallback}", t
    t = copy.deepcopy(llama)
    t["model"].update(unk_token=None, byte_fallback=False)
    yield "no-unk", t


def bert_variants(vocab):
    """(name, tokenizer.json): WordPiece, BERT's stages, and other word-level stages around it."""
    ids = {token: i for i, token in enumerate(vocab.read_text(encoding="utf-8").splitlines())}

    def bert(normalizer, pre="BertPreTokenizer", **model):
        return {"version": "1.0", "added_tokens": [added(ids[s], s, special=True) for s in
                                                   ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")],
                "normalizer": normalizer, "pre_tokenizer": {"type": pre} if isinstance(pre, str) else pre,
                "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]]},
                "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
                "model": dict({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                               "max_input_chars_per_word": 100, "vocab": ids}, **model)}

    def normalizer(**flags):
        return dict({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                     "lowercase": True}, **flags)

    yield "bert-uncased", bert(normalizer())
    yield "bert-cased", bert(normalizer(lowercase=False))
    yield "bert-accents", bert(normalizer(strip_accents=False))
    yield "bert-strip-cased", bert(normalizer(lowercase=False, strip_accents=True))
    yield "bert-dirty", bert(normalizer(clean_text=False, handle_chinese_chars=False))
    yield "bert-short-words", bert(normalizer(), max_input_chars_per_word=4)
    yield "bert-prefix", bert(normalizer(), continuing_subword_prefix="")
    t = bert(normalizer())
    t["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "RobertaProcessing", "sep": ["[MASK]", 103], "cls": ["[UNK]", 100], "trim_offsets": True,
         "add_prefix_space": False},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                                                  {"Sequence": {"id": "A", "type_id": 0}},
                                                  {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {s: {"id": s, "ids": [ids[s]], "tokens": [s]} for s in ("[CLS]", "[SEP]")}}]}
    t["decoder"]["cleanup"] = False
    yield "bert-processors", t
    for pre in ("Whitespace", "WhitespaceSplit", {"type": "CharDelimiterSplit", "delimiter": "é"}):
        yield f"words-{pre}", bert(None, pre)
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield f"punctuation-{behavior}", bert(None, {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": behavior}]})
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"):
        yield f"normalizer-{form}", bert({"type": form})
        yield f"normalizer-NFD-{form}-lower", bert({"type": "Sequence", "normalizers": [
            {"type": "NFD"}, {"type": form}, {"type": "Lowercase"}]})
    for left in (False, True):
        for right in (False, True):
            yield f"strip-{left}-{right}", bert({"type": "Strip", "strip_left": left, "strip_right": right},
                                                {"type": "Split", "pattern": {"Regex": r"\S+|\s+"}, "behavior": "Isolated",
                                                 "invert": False})
    for pattern in (r"\s+", r"[aeiou]", r"(?i:the )", r"\p{P}{2,}"):
        yield f"replace-{pattern}", bert({"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": pattern}, "content": " e "}, {"type": "Lowercase"}]})


def affix_variants(texts):
    """BPE with affixes, trained here: CLIP's end of a word, and a prefix of what continues one."""
    for name, options in (("suffix", {"end_of_word_suffix": "</w>"}), ("prefix", {"continuing_subword_prefix": "##"}),
                          ("both", {"end_of_word_suffix": "</w>", "continuing_subword_prefix": "@@"})):
        for byte_level in (False, True):
            t = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
            t.pre_tokenizer = (tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level
                               else tokenizers.pre_tokenizers.Whitespace())
            t.decoder = tokenizers.decoders.BPEDecoder()
            t.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
                vocab_size=3000, special_tokens=["<unk>"], show_progress=False, **options))
            yield f"affix-{name}-{'bytes' if byte_level else 'words'}", json.loads(t.to_str())


def escape(data):
    return "".join(f"\\x{c:02x}" if c < 32 or c > 126 or c in b'"\\' else chr(c) for c in data)


def compare(tool, name, path, texts, lines):
    """Number of texts whose ids or whose decoded text differ."""
    ref = tokenizers.Tokenizer.from_file(str(path))
    ref.no_truncation()
    ref.no_padding()
    ids = [ref.encode(t).ids for t in texts]
    run = subprocess.run([tool, "--special", str(path), str(lines)], capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return 1
    mine = [[int(x) for x in line.split()] for line in run.stdout.split("\n")[:-1]]
    bad = [i for i in range(len(texts)) if i >= len(mine) or mine[i] != ids[i]]
    run = subprocess.run([tool, "--special", "--decode", str(path), str(lines)], capture_output=True, text=True)
    back = run.stdout.split("\n")[:-1]
    worse = []
    for i, row in enumerate(ids):
        want = ref.decode(row, skip_special_tokens=False)
        if "\ufffd" not in want and back[i] != escape(want.encode()):
            worse.append(i)
    for kind, which in (("ids", bad), ("text", worse)):
        for i in which[:2]:
            print(f"{name}: {kind} differ for {texts[i][:200]!r}")
            if kind == "ids":
                at = next((k for k, (a, b) in enumerate(zip(mine[i], ids[i])) if a != b), min(len(mine[i]), len(ids[i])))
                show = slice(max(0, at - 3), at + 8)
                print(f"  at {at}: {mine[i][show]} wanted {ids[i][show]} {[ref.id_to_token(x) for x in ids[i][show]]}")
            else:
                print(f"  {back[i][:300]}\n  wanted {escape(ref.decode(ids[i], skip_special_tokens=False).encode())[:300]}")
    return len(bad) + len(worse)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tool", default="build/release/tests/interop/tokenize")
    p.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--quick", action="store_true", help="random strings only")
    p.add_argument("--only", default="", help="jobs with this in their name")
    o = p.parse_args()
    rng = random.Random(o.seed)
    files = sorted(o.data.glob("**/tokenizer.json"))
    texts = []
    if not o.quick:
        for path in sorted(f for f in (o.data / "text").glob("**/*") if f.is_file()):
            texts += documents(path)
    specials = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<r>", "<both>", "word", "Word", " x", "<s>>", "<s><r>", "été",
                "<x>", "<|im_start|>", "<|im_end|>", "<0x41>", "[MASK]", "[UNK]"]
    texts += random_texts(rng, specials, 3000)
    wrong = n = 0
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        lines = d / "lines"
        lines.write_text("".join(json.dumps(t) + "\n" for t in texts), encoding="utf-8")
        jobs = [(str(f.relative_to(o.data)), f, texts, lines) for f in files]
        few = random_texts(rng, specials, 2000) + texts[::50]
        few_lines = d / "few"
        few_lines.write_text("".join(json.dumps(t) + "\n" for t in few), encoding="utf-8")
        base = json.loads((o.data / "models/tinymix-dense/tokenizer.json").read_text())
        llama = json.loads((o.data / "models/stories260K/tokenizer.json").read_text())
        for name, t in variants(base, llama):
            path = d / f"{name}.json"
            path.write_text(json.dumps(t), encoding="utf-8")
            jobs.append((name, path, few, few_lines))
        vocab = o.data / "tokenizers/bert/vocab.txt"
        for name, t in list(bert_variants(vocab)) + list(affix_variants(texts[:300])):
            path = d / f"{re.sub('[^A-Za-z-]', '_', name)}-{len(jobs)}.json"
            path.write_text(json.dumps(t), encoding="utf-8")
            jobs.append((name, path, texts, lines) if name in ("bert-uncased", "bert-cased") else (name, path, few, few_lines))
        jobs = [job for job in jobs if o.only in job[0]]
        for job in jobs:
            bad = compare(o.tool, *job)
            wrong += bad
            n += len(job[2])
            print(f"{job[0]}: {len(job[2])} texts, {bad} differ")
    print(f"{n} comparisons with tokenizers {tokenizers.__version__}: {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
