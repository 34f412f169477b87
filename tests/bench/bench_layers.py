#!/usr/bin/env python3
"""Makes the tables of docs/methods.md on budgets by layer and layers left dense.

usage: tests/bench/bench_layers.py [--models M,...] [--shares P,...] [--seeds N,...] [--parts PART,...] ...

1. One layer converted, all others dense, a quarter, half and three quarters of its experts active: KL on texts for selection.
2. Budgets: numbers of active experts by layer whose single-layer KLs sum to the least, as many in all as with one number for
   all layers. Between what was measured the root of KL is taken as linear, and 0 where all experts act. Beside the budgets
   stand those half of the way between them and one number.
3. Budgets against one number on test texts, with k experts for every token and with a threshold (--dynamic-k).
4. One layer left dense, the others sharing what remains of the active parameters, routers counted, against one number.

Results go to a file of JSON lines as in bench_methods.py; what stands there is not run again.
"""
import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import time

import bench_methods as bench

POINTS = [0.25, 0.5, 0.75]
LEAST = 1 / 8  # of the experts act in any layer


def layers_of(m):
    return json.loads((m.path / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]


def run(a, m, acting, threshold=False, split="test", seed=0, tokens=None):
    """acting[l]: experts that act in layer l; None: it stays dense. The result of one conversion, from the file if it is there."""
    a.tokens, a.eval_tokens = tokens or a.test_tokens
    key = json.dumps([m.name, a.experts, acting, threshold, split, seed, a.tokens, a.eval_tokens])
    if key in a.done or a.print_only:
        return a.done.get(key)
    text = ",".join("-" if k is None else str(k) for k in acting)
    dense = ",".join(str(l) for l, k in enumerate(acting) if k is None)
    extra = ["--active", text] + (["--dense-layers", dense] if dense else []) + (["--dynamic-k"] if threshold else [])
    a.split, a.seed = split, seed
    r = {"key": key, "date": time.strftime("%Y-%m-%d"), **bench.measure(a, m, ("best", None, None, extra), 50, a.experts, a.tmp)}
    a.done[key] = r
    with open(a.results, "a", encoding="utf-8") as f:
        f.write(json.dumps(r) + "\n")
    print(f"{m.name} {text}{' threshold' if threshold else ''} {split}: {r.get('failed') or r['kl']}", file=sys.stderr, flush=True)
    return r


# ---- budgets ----


def single_layers(a, m):
    """{(layer, experts): KL} with that layer alone converted; None where it is not known."""
    n = layers_of(m)
    kl = {}
    for layer in range(n):
        for p in POINTS:
            k = round(a.experts * p)
            r = run(a, m, [k if l == layer else None for l in range(n)], split="select",
                    tokens=(a.curve_tokens, a.curve_tokens))
            if r is None or "failed" in r:
                return None
            kl[layer, k] = r["kl"]
    return kl


def curve(a, kl, layer):
    """KL of a layer by the number of its experts that act, from 0 to all."""
    known = sorted((k, max(v, 0) ** 0.5) for (l, k), v in kl.items() if l == layer) + [(a.experts, 0.0)]
    out = []
    for k in range(a.experts + 1):
        i = max(1, next(j for j in range(len(known)) if known[j][0] >= k))
        (k0, v0), (k1, v1) = known[i - 1], known[i]
        out.append(max(v0 + (v1 - v0) * (k - k0) / (k1 - k0), 0) ** 2)
    return out


def budgets(a, kl, n, total):
    """k of each layer, `total` in all, whose KLs sum to the least: exact, layer by layer."""
    least = max(1, round(LEAST * a.experts))
    best = {0: (0.0, [])}
    for layer in range(n):
        at = curve(a, kl, layer)
        then = {}
        for used, (cost, ks) in best.items():
            for k in range(least, min(a.experts, total - used) + 1):
                c = cost + at[k]
                if used + k not in then or c < then[used + k][0]:
                    then[used + k] = (c, ks + [k])
        best = then
    return best[total][1]


def half_way(ks, k):
    """Between ks and k in every layer, with the same sum."""
    out = [(x + k) // 2 for x in ks]
    odd = [l for l, x in enumerate(ks) if (x + k) % 2]
    for l in odd[: len(ks) * k - sum(out)]:
        out[l] += 1
    return out


def one_dense(a, m, n, k, layer):
    """What the others may have when one is dense: as many active parameters in all. None: nothing is left."""
    wide, router = m.width / a.experts, a.experts / m.matrices
    left = int((n * (k * wide + router) - m.width - (n - 1) * router) / wide + 1e-9)
    if left < n - 1:
        return None
    others = [left // (n - 1) + (i < left % (n - 1)) for i in range(n - 1)]
    return others[:layer] + [None] + others[layer:]


# ---- tables ----


def by_comma(acting):
    return ",".join("-" if k is None else str(k) for k in acting)


def print_row(m, what, acting, r, base):
    if r is None or base is None or "failed" in r or "failed" in base:
        return
    less = "–" if r is base else f"{100 * (r['kl'] / base['kl'] - 1):+.1f} % | {bench.difference(r, base)}"
    print(f"| {what} | {by_comma(acting)} | {r['kl']:.4f} | {less if r is not base else '– | –'} | {r['active'] / 1e6:.3f} |")


def head(title):
    print(f"\n### {title}\n\n| | experts that act, by layer | KL | against one number | difference, 95 % | active M |\n|---|---|---|---|---|---|")


def compare_budgets(a, m, kl):
    n = layers_of(m)
    for share in a.shares:
        k = round(a.experts * share / 100)
        own = budgets(a, kl, n, n * k)
        for threshold in a.choices:
            head(f"{m.name}, {share} %, {'a threshold' if threshold else 'k for every token'}")
            for seed in a.seeds:
                base = run(a, m, [k] * n, threshold, seed=seed)
                print_row(m, f"one number, seed {seed}", [k] * n, base, base)
                for what, ks in [("budgets", own)] + ([("half of the way", half_way(own, k))] if a.half else []):
                    print_row(m, f"{what}, seed {seed}", ks, run(a, m, ks, threshold, seed=seed), base)


def compare_dense(a, m):
    n = layers_of(m)
    for share in a.shares:
        k = round(a.experts * share / 100)
        for threshold in a.choices:
            head(f"{m.name}, {share} %, one layer dense, {'a threshold' if threshold else 'k for every token'}")
            base = run(a, m, [k] * n, threshold, seed=a.seeds[0])
            print_row(m, "none dense", [k] * n, base, base)
            for layer in range(n):
                acting = one_dense(a, m, n, k, layer)
                if acting is not None:
                    print_row(m, f"layer {layer}", acting, run(a, m, acting, threshold, seed=a.seeds[0]), base)


def print_single(a, m, kl):
    ks = sorted({k for _, k in kl})
    print(f"\n### {m.name}, one layer converted, KL on selection texts\n")
    print("| layer | " + " | ".join(f"{k} of {a.experts}" for k in ks) + " |")
    print("|---" * (len(ks) + 1) + "|")
    for layer in range(layers_of(m)):
        print(f"| {layer} | " + " | ".join(f"{kl[layer, k]:.4f}" for k in ks) + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--moetool", default=bench.ROOT / "build/current/moetool")
    p.add_argument("--shared", type=pathlib.Path, default=bench.ROOT.parent / "shared/data", help="where the models are that do not ship")
    p.add_argument("--work", type=pathlib.Path, default=bench.ROOT / "build/bench/layers")
    p.add_argument("--results", type=pathlib.Path, help="default: results.jsonl in --work")
    p.add_argument("--models", default="zh-poem,stories3M,tinymix-dense")
    p.add_argument("--shares", default="75,50,25", help="percent of the experts that act")
    p.add_argument("--seeds", default="0")
    p.add_argument("--parts", default="budgets,dense", help="budgets, dense, or both")
    p.add_argument("--half", action="store_true", help="budgets half of the way too")
    p.add_argument("--choices", default="fixed,threshold", help="k experts for every token, a threshold, or both")
    p.add_argument("--experts", type=int, default=64)
    p.add_argument("--tokens", type=bench.tokens, default="16k", help="to calibrate on")
    p.add_argument("--eval-tokens", type=bench.tokens, default="16k")
    p.add_argument("--curve-tokens", type=bench.tokens, default="8k", help="of each kind for the curves of single layers")
    p.add_argument("--print-only", action="store_true", help="run nothing, print what is known")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    a.results = a.results or a.work / "results.jsonl"
    a.shares = [int(s) for s in a.shares.split(",")]
    a.choices = [c == "threshold" for c in a.choices.split(",")]
    a.seeds = [int(s) for s in a.seeds.split(",")]
    a.test_tokens = (a.tokens, a.eval_tokens)
    a.done = bench.read_results(a.results)
    a.tmp = tempfile.mkdtemp(dir=a.work)
    try:
        for m in [m for m in bench.known_models(a.shared) if m.name in a.models.split(",")]:
            kl = single_layers(a, m) if "budgets" in a.parts else None
            if kl is not None:
                print_single(a, m, kl)
                compare_budgets(a, m, kl)
            if "dense" in a.parts:
                compare_dense(a, m)
    finally:
        shutil.rmtree(a.tmp)
    return 0


if __name__ == "__main__":
    sys.exit(main())
