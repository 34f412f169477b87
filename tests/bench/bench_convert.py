#!/usr/bin/env python3
"""Makes the conversion table of docs/benchmarks.md.

usage: tests/bench/bench_convert.py [--moetool PATH] [--model DIR] [--quick]

Every row is one `moetool convert`: calibrated on tests/data/text/*.calib.jsonl, compared on the held-out *.eval.jsonl with the
dense model and with static pruning to the same active parameters. Seconds are processor seconds of the whole command, three
prunings and the validation of all five models included; the peak is of anonymous memory, sampled every 20 ms.
"""
import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOMAINS = ["stories", "wiki", "math", "bio", "web", "play"]


def anonymous_peak(proc, out):
    while proc.poll() is None:
        try:
            for line in open(f"/proc/{proc.pid}/status", encoding="ascii"):
                if line.startswith("RssAnon"):
                    out[0] = max(out[0], int(line.split()[1]))
        except OSError:
            return
        time.sleep(0.02)


def convert(moetool, model, out, options):
    command = [moetool, "convert", model, "-o", out, "--force", "--json", "--quiet"] + options
    for d in DOMAINS:
        command += ["--data", f"{d}={ROOT}/tests/data/text/{d}.calib.jsonl"]
        command += ["--eval-data", f"{d}={ROOT}/tests/data/text/{d}.eval.jsonl"]
    peak, before = [0], resource.getrusage(resource.RUSAGE_CHILDREN)
    proc = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    watch = threading.Thread(target=anonymous_peak, args=(proc, peak))
    watch.start()
    text = proc.communicate()[0]
    watch.join()
    if proc.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(text), seconds, peak[0] / 1024


def row(name, c, seconds=None, peak=None):
    tail = f"{seconds:.0f} | {peak:.0f}" if seconds is not None else "– | –"
    print(f"| {name} | {c['kl_mean']:.4f} ± {c['kl_stderr']:.4f} | {c['perplexity_ratio']:.3f} "
          f"| {100 * c['top1']:.1f} | {c['parameters_active'] / 1e6:.2f} | {tail} |", flush=True)


def rows(share, quick):
    """(name, options) of a share's rows."""
    out = [(f"best, {n} experts", ["--experts", n]) for n in (("64",) if quick else ("16", "32", "64"))]
    if quick:
        return out
    out += [(f"cluster + ridge, {n} experts", ["--experts", n, "--partition", "cluster"]) for n in ("8", "64")]
    if share == "50%":
        out += [(f"{p} + {r}, 64 experts", ["--experts", "64", "--partition", p, "--router", r])
                for p in ("cluster", "random", "contiguous") for r in ("centroid", "ridge") if (p, r) != ("cluster", "ridge")]
        out += [("best without refit, 64 experts", ["--experts", "64", "--refit", "none"]),
                ("best without moves, 64 experts", ["--experts", "64", "--moves", "0"])]
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--moetool", default=str(ROOT / "build/current/moetool"))
    ap.add_argument("--model", default=str(ROOT / "tests/data/tinymix-dense"))
    ap.add_argument("--quick", action="store_true", help="best with 64 experts only")
    a = ap.parse_args()
    tmp = tempfile.mkdtemp()
    try:
        for share in ("75%", "50%", "25%"):
            print(f"\n### {share} of the FFN active\n")
            print("| method | KL | perplexity × | same top-1 % | active M | CPU s | peak MiB |")
            print("|---|---|---|---|---|---|---|")
            seen = set()
            for name, options in rows(share, a.quick):
                j, seconds, peak = convert(a.moetool, a.model, f"{tmp}/out", ["--active", share, "--shared", "0"] + options)
                cands = j["validation"]["candidates"]
                row(name, cands[0], seconds, peak)
                for c in cands[1:]:
                    if "64" in options and c["name"] not in seen:
                        seen.add(c["name"])
                        row(f"{c['name']} (as 64 experts)", c)
    finally:
        shutil.rmtree(tmp)


main()
