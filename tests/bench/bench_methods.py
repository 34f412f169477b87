#!/usr/bin/env python3
"""Makes the table of methods of docs/benchmarks.md.

usage: tests/bench/bench_methods.py [--models M,...] [--shares P,...] [--methods NAME,...] [--tokens N] ...
       tests/bench/bench_methods.py --speed

Every row is one conversion, calibrated on one text and compared with the dense model on another. Results go to a file of JSON
lines (--results); what stands there is not run again, so that an interrupted run goes on where it was. Then the tables are printed.

Static pruning keeps as many neurons as act in the experts, and as many more as the multiply-adds of a linear router are worth;
"active" counts everything, routers too.
Intervals are those of a paired bootstrap over windows of text: 95 % of the draws. Seconds are processor seconds of the conversion
alone; the peak is of anonymous memory, sampled every 20 ms. Nothing in the tables but seconds depends on the clock.

A text is split once: `test` makes the tables, `select` is for choosing settings by (--split select).
"""
import argparse
import json
import math
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOMAINS = ["stories", "wiki", "math", "bio", "web", "play"]
DRAWS = 2000

# method, router, refit, what else; None: what the method itself takes.
ROWS = [
    ("best", None, None, []),
    ("prune-baseline", None, "none", ["--select", "magnitude"]),
    ("prune-baseline", None, "none", ["--select", "wanda"]),
    ("prune-baseline", None, "none", ["--select", "flap"]),
    ("prune-baseline", None, "all", ["--select", "wanda"]),
    ("prune-baseline", None, "all", ["--select", "obs"]),
    ("prune-baseline", None, "down", ["--select", "obs"]),
    ("best", None, None, ["--shared", "quarter"]),  # of what acts
    ("best", "features", None, []),
    ("best", None, None, ["--dynamic-k"]),
    ("best", "features", None, ["--dynamic-k"]),
    ("best", None, "down", []),
    ("best", None, "none", []),
    ("partition", None, None, []),
    ("partition", None, "down", []),
    ("partition", None, "all", []),
    ("partition", "centroid", None, []),
    ("partition", "spectral", None, []),
    ("partition", None, None, ["--partition", "contiguous"]),
    ("partition", None, None, ["--partition", "coactivation"]),
    ("partition", None, "all", ["--partition", "coactivation"]),
    ("partition", None, None, ["--partition", "importance"]),
    ("factorllm", None, None, []),
    ("factorllm", "contribution", None, []),
    ("factorllm", "ridge", None, []),
    ("factorllm", "ridge", "all", []),
    ("llama-moe", None, None, []),
    ("llama-moe", "ridge", None, []),
    ("llama-moe", "ridge", "all", []),
    ("moefication", None, None, []),
    ("moefication", "ridge", None, []),
    ("moefication", "ridge", "all", []),
    ("cmoe", None, None, []),
    ("cmoe", "ridge", None, []),
    ("cmoe", "ridge", "all", []),
    ("expertweaver", None, None, []),
    ("expertweaver", "ridge", None, []),
    ("expertweaver", "ridge", "all", []),
    ("uoe", None, None, []),
    ("uoe", None, "all", []),
    ("readme", None, None, []),
    ("readme", "overlap", None, []),
    ("readme", None, "all", []),
]
OWN_ROUTER = {"best": "ridge", "partition": "ridge", "factorllm": "pa", "llama-moe": "random", "moefication": "mlp",
              "cmoe": "representative", "expertweaver": "centroid", "uoe": "ridge", "readme": "ridge"}


# ---- texts ----


def write_documents(path, documents):
    with open(path, "w", encoding="utf-8") as f:
        for d in documents:
            f.write(json.dumps({"text": d}, ensure_ascii=False) + "\n")


def documents_of(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f if line.strip()]


def every_tenth(documents, out, name):
    """Eight parts calibrate, one selects, one tests."""
    parts = {"calib": [], "select": [], "test": []}
    for i, d in enumerate(documents):
        parts["select" if i % 10 == 8 else "test" if i % 10 == 9 else "calib"].append(d)
    for part, v in parts.items():
        write_documents(out / f"{name}.{part}.jsonl", v)


def stretches(text, n=2000):
    """A text without marks between its documents, cut at line ends into pieces of about n characters."""
    pieces, at = [], 0
    while at < len(text):
        end = text.find("\n", at + n)
        end = len(text) if end < 0 else end
        pieces.append(text[at:end].strip())
        at = end + 1
    return [p for p in pieces if p]


def mix_texts(shared, out):
    for d in DOMAINS:
        held = documents_of(ROOT / f"tests/data/text/{d}.eval.jsonl")
        # A few long documents would not halve: pieces do.
        pieces = [p for x in held for p in stretches(x)]
        half = len(pieces) // 2
        write_documents(out / f"{d}.select.jsonl", pieces[:half])
        write_documents(out / f"{d}.test.jsonl", pieces[half:])
        shutil.copy(ROOT / f"tests/data/text/{d}.calib.jsonl", out / f"{d}.calib.jsonl")


def story_texts(shared, out):
    text = (shared / "text/tinystories_2M.txt").read_text(encoding="utf-8", errors="ignore")
    mark = "<|endoftext|>"
    every_tenth([s.strip() for s in text.split(mark) if s.strip()] if mark in text else stretches(text), out, "stories")


def poem_texts(shared, out):
    poems = json.loads((shared / "text/poetry_corpus.json").read_text(encoding="utf-8"))
    every_tenth([p["content"] for p in poems], out, "poems")


class Model:
    def __init__(self, name, path, width, hidden, window=256, texts=None, domains=(), matrices=3, options=()):
        self.name, self.path, self.width, self.hidden, self.window = name, path, width, hidden, window
        self.texts, self.domains, self.matrices, self.options = texts, list(domains), matrices, list(options)


def known_models(shared):
    ffn = shared / "ffn"
    return [
        Model("tinymix-dense", ROOT / "tests/data/tinymix-dense", 1024, 256, texts=mix_texts, domains=DOMAINS),
        Model("stories3M", shared / "models/stories3M", 512, 192, texts=story_texts, domains=["stories"]),
        Model("zh-poem", shared / "models/zh-poem", 256, 96, window=128, texts=poem_texts, domains=["poems"]),
        Model("minigpt-relu-char", ffn / "minigpt-relu-char", 512, 128, matrices=2,
              options=["--ffn", "blocks.*.ffwd.net.{0,2}", "--hidden", str(ffn / "minigpt-relu-char.hidden.safetensors")]),
    ]


def texts_of(m, shared, work, part):
    out = work / "text" / m.name
    if m.texts is not None and not (out / "whole").exists():
        out.mkdir(parents=True, exist_ok=True)
        m.texts(shared, out)
        (out / "whole").touch()
    return [a for d in m.domains for a in ("--data", f"{d}={out}/{d}.{part}.jsonl")]


# ---- one row ----


def watch_memory(proc, peak):
    while proc.poll() is None:
        try:
            for line in open(f"/proc/{proc.pid}/status", encoding="ascii"):
                if line.startswith("RssAnon"):
                    peak[0] = max(peak[0], int(line.split()[1]))
        except OSError:
            return
        time.sleep(0.02)


def run(command):
    """What it printed as JSON, processor seconds and peak MiB; None when it failed, with the reason."""
    peak, before = [0], resource.getrusage(resource.RUSAGE_CHILDREN)
    proc = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = threading.Thread(target=watch_memory, args=(proc, peak))
    watch.start()
    out, err = proc.communicate()
    watch.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if proc.returncode != 0:
        return None, err.strip().splitlines()[-1] if err.strip() else f"exit code {proc.returncode}", 0
    return json.loads(out), seconds, peak[0] / 1024


def window_sums(path):
    """[tokens, sum of KL] of each window."""
    sums = {}
    with open(path, encoding="utf-8") as f:
        next(f)
        for line in f:
            field = line.rstrip("\n").split("\t")
            s = sums.setdefault(int(field[0]), [0, 0.0])
            s[0] += 1
            s[1] += float(field[3])
    return [sums[w] for w in sorted(sums)]


def convert_options(m, row, share, experts):
    method, router, refit, extra = row
    if method == "prune-baseline":
        # A linear router's multiply-adds per layer are experts * hidden, a neuron's matrices * hidden.
        active = round(m.width * share / 100) + round(experts / m.matrices)
        options = ["--active", str(active)]
    elif method == "readme":
        options = ["--keep", str(share / 100), "--arch", "native"]
    else:
        shared = round(experts * share / 400) if "quarter" in extra else 0
        options = ["--experts", str(experts - shared), "--active", f"{share}%", "--shared", str(shared), "--arch", "native"]
        extra = [] if "quarter" in extra else extra
    options += ["--method", method] if "--partition" not in extra else []
    options += ["--router", router] if router else []
    options += ["--refit", refit] if refit else []
    # The native layout would let best take a threshold; its rows are of what every format holds.
    options += ["--no-dynamic-k"] if method == "best" and "--dynamic-k" not in extra else []
    return options + extra


def measure(a, m, row, share, experts, tmp):
    out, per_token = f"{tmp}/out", f"{tmp}/tokens.tsv"
    window = ["--seq-len", m.window]
    command = [a.moetool, "convert", m.path, "-o", out, "--force", "--json", "--quiet", "--seed", a.seed]
    command += convert_options(m, row, share, experts) + m.options
    if m.domains:
        command += texts_of(m, a.shared, a.work, "calib") + window + ["--samples", a.tokens // m.window, "--no-validate"]
    result, seconds, peak = run(command)
    if result is None:
        return {"failed": seconds}
    r = {"cpu_seconds": seconds, "peak_mib": peak}
    if not m.domains:
        r["ffn_error"] = result["validation"]["ffn_error"]
        r["pruned"] = {x["name"]: x["ffn_error"] for x in result["validation"]["pruned"]}
        return r
    result, reason, _ = run([a.moetool, "validate", m.path, out, "--json", "--quiet", "--per-token", per_token, "--force"]
                            + texts_of(m, a.shared, a.work, a.split) + window + ["--samples", a.eval_tokens // m.window])
    if result is None:
        return {"failed": reason}
    c = result["candidates"][0]
    r.update(kl=c["kl_mean"], ppl=c["perplexity_ratio"], top1=c["top1"], active=c["parameters_active"],
             windows=window_sums(per_token))
    return r


def key_of(a, m, row, share, experts):
    method, router, refit, extra = row
    tokens = [a.tokens, a.eval_tokens, a.split] if m.domains else []
    return json.dumps([m.name, share, experts, method, router, refit, extra, a.seed] + tokens)


def applies(m, row):
    if row[0] == "readme":  # an expert for each domain
        return len(m.domains) > 1
    return m.domains or row[0] != "prune-baseline"  # convert measures it beside each result there


def asked(a, row, m):
    return (a.methods is None or row[0] in a.methods) and re.search(a.only, row_name(row, m)) is not None


# ---- tables ----


def paired(a, b):
    """95 % interval of the difference of mean KL, windows drawn with replacement."""
    v = [(x[0], x[1] - y[1]) for x, y in zip(a, b)]
    rng, draws = random.Random(0), []
    for _ in range(DRAWS):
        n = total = 0
        for _ in v:
            w = v[rng.randrange(len(v))]
            n += w[0]
            total += w[1]
        draws.append(total / n)
    draws.sort()
    return draws[int(0.025 * DRAWS)], draws[int(0.975 * DRAWS) - 1]


def row_name(row, m):
    method, router, refit, extra = row
    name = method if "--partition" not in extra else "partition, " + extra[-1]
    if "quarter" in extra:
        name += ", a quarter of what acts shared"
    if "--dynamic-k" in extra:
        name += ", as many as each token needs"
    if method == "prune-baseline":
        name = "pruned: " + extra[-1]
        router = None
    else:
        router = router or OWN_ROUTER[method] + " (own)"
    return f"{name} | {router or '–'} | {refit or ('all' if method == 'best' else '–')}".replace("| none", "| –")


def difference(r, other):
    if other is None or r is other or "windows" not in r:
        return "–"
    low, high = paired(r["windows"], other["windows"])
    return f"{low:+.4f} to {high:+.4f}"


def print_table(m, share, experts, rows):
    rows = [(row, r) for row, r in rows if "failed" not in r]
    if not rows:
        return
    measure_of = "kl" if m.domains else "ffn_error"
    rows.sort(key=lambda x: x[1][measure_of])
    statics = [r for row, r in rows if row[0] == "prune-baseline"]
    best = next((r for row, r in rows if row == ROWS[0]), None)
    print(f"\n### {m.name}, {share} % of the FFN active, {experts} experts\n")
    if not m.domains:
        print("| method | router | refit | layer error | CPU s | peak MiB |\n|---|---|---|---|---|---|")
        for name, error in (best or {}).get("pruned", {}).items():
            print(f"| pruned: {name.removeprefix('pruned: ')} | – | {'all' if name.endswith('obs') else '–'} | {error:.4f} | – | – |")
        for row, r in rows:
            print(f"| {row_name(row, m)} | {r['ffn_error']:.4f} | {r['cpu_seconds']:.1f} | {r['peak_mib']:.0f} |")
        return
    print("| method | router | refit | KL | KL less `best` | KL less best pruning | perplexity × | same top-1 % | active M "
          "| CPU s | peak MiB |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for row, r in rows:
        print(f"| {row_name(row, m)} | {r['kl']:.4f} | {difference(r, best)} | {difference(r, statics[0] if statics else None)} "
              f"| {r['ppl']:.3f} | {100 * r['top1']:.1f} | {r['active'] / 1e6:.2f} | {r['cpu_seconds']:.0f} | {r['peak_mib']:.0f} |")


def error_of(r):
    return None if r is None or "failed" in r else r.get("kl", r.get("ffn_error"))


def print_overview(a, done):
    """KL, or layer error, of every row on every model and share; ordered by their mean ratio to best."""
    columns = [(m, share) for m in a.models for share in a.shares]
    if len(columns) < 2:
        return
    lines = []
    base = [error_of(done.get(key_of(a, m, ROWS[0], share, a.experts))) for m, share in columns]
    for row in ROWS:
        v = [error_of(done.get(key_of(a, m, row, share, a.experts))) for m, share in columns]
        if row[0] == "prune-baseline":  # without a text its errors stand beside those of best
            best = [done.get(key_of(a, m, ROWS[0], share, a.experts), {}) for m, share in columns]
            name, kept = row[3][-1], row[2] == ("all" if row[3][-1] == "obs" else "none")
            v = [x if x is not None or not kept else r.get("pruned", {}).get(name) for x, r in zip(v, best)]
        ratios = [math.log(x / y) for x, y in zip(v, base) if x is not None and y is not None]
        if ratios:
            m = next((m for m in a.models if m.domains), a.models[0])
            lines.append((sum(ratios) / len(ratios), row_name(row, m), ["" if x is None else f"{x:#.3g}" for x in v]))
    print("\n### Overview\n")
    print("| method | router | refit | " + " | ".join(f"{m.name} {s} %" for m, s in columns) + " |")
    print("|---|---|---|" + "---|" * len(columns))
    for _, name, cells in sorted(lines, key=lambda x: x[0]):
        print(f"| {name} | " + " | ".join(cells) + " |")


def read_results(path):
    done = {}
    if path.exists():
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.endswith("\n"):  # a cut line is run again
                    r = json.loads(line)
                    done[r["key"]] = r
    return done


def make_tables(a):
    done = read_results(a.results)
    tmp = tempfile.mkdtemp(dir=a.work)
    try:
        for m in a.models:
            for share in a.shares:
                for row in [r for r in ROWS if asked(a, r, m)]:
                    key = key_of(a, m, row, share, a.experts)
                    if not applies(m, row) or key in done or a.print_only:
                        continue
                    r = {"key": key, "date": time.strftime("%Y-%m-%d"), **measure(a, m, row, share, a.experts, tmp)}
                    done[key] = r
                    with open(a.results, "a", encoding="utf-8") as f:
                        f.write(json.dumps(r) + "\n")
                    print(f"{m.name} {share} % {row_name(row, m)}: {r.get('failed') or r.get('kl') or r.get('ffn_error')}",
                          file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(tmp)
    print_overview(a, done)
    for m in a.models:
        for share in a.shares:
            rows = [(row, done.get(key_of(a, m, row, share, a.experts))) for row in ROWS]
            print_table(m, share, a.experts, [x for x in rows if x[1] is not None])


# ---- speed ----


def speed(a):
    """Tokens per second of the runner, dense and converted by turns."""
    bench = ROOT / "build/release/tests/bench/bench_speed"
    subprocess.run(["make", "-s", "-C", str(ROOT), str(bench.relative_to(ROOT))], check=True)
    model, converted = a.work / "speed-dense", a.work / "speed-moe"
    if not model.exists():
        subprocess.run([sys.executable, ROOT / "tests/bench/make_model.py", model, "--gib", "0.3", "--hidden", "1024", "--width", "4096"], check=True)
    names = [model]
    for share in a.shares:
        out = f"{converted}-{share}"
        if not os.path.exists(out):
            subprocess.run([a.moetool, "convert", model, "-o", out, "--experts", str(a.experts), "--active", f"{share}%", "--shared", "0",
                            "--arch", "native", "--partition", "contiguous", "--router", "random", "--quiet"],
                           check=True, stdout=subprocess.DEVNULL)
        names.append(out)
    subprocess.run([bench] + names, check=True)


def tokens(text):
    return int(text[:-1]) * 1024 if text.endswith("k") else int(text)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--moetool", default=ROOT / "build/current/moetool")
    p.add_argument("--shared", type=pathlib.Path, default=ROOT.parent / "shared/data", help="where the models are that do not ship")
    p.add_argument("--work", type=pathlib.Path, default=ROOT / "build/bench/methods")
    p.add_argument("--results", type=pathlib.Path, help="default: results.jsonl in --work")
    p.add_argument("--models", help="default: all")
    p.add_argument("--shares", default="75,50,25", help="percent of the FFN's width that may act")
    p.add_argument("--methods", help="default: all")
    p.add_argument("--only", default="", metavar="REGEX", help="rows whose `method | router | refit` it is found in")
    p.add_argument("--experts", type=int, default=64)
    p.add_argument("--tokens", type=tokens, default="256k", help="to calibrate on")
    p.add_argument("--eval-tokens", type=tokens, default="64k")
    p.add_argument("--split", default="test", choices=["test", "select"])
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--print-only", action="store_true", help="run nothing, print what is known")
    p.add_argument("--speed", action="store_true", help="tokens per second instead")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    a.results = a.results or a.work / "results.jsonl"
    a.shares = [int(s) for s in a.shares.split(",")]
    if a.speed:
        return speed(a)
    known = known_models(a.shared)
    wanted = a.models.split(",") if a.models else [m.name for m in known if m.path.exists()]
    a.models = [m for m in known if m.name in wanted]
    a.methods = a.methods.split(",") if a.methods else None
    make_tables(a)
    return 0


if __name__ == "__main__":
    sys.exit(main())
