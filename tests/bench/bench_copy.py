#!/usr/bin/env python3
"""bench_copy.py [--gib N] [--dir D] [--rounds R]: what only moves bytes, against cp of the same bytes.

moetool runs under a hard limit (RLIMIT_DATA) of what --memory promises: memory of its own beyond it would fail. Interleaved in one run, outputs flushed to disk on both sides, outputs of the round before removed outside the clock. Prints a
line per run, then medians and the ratio cp / moetool (1 is the speed of cp, above is faster), and the peak of anonymous memory.
"""
import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


def flush(path):
    for root, _, files in os.walk(path) if os.path.isdir(path) else [("", [], [path])]:
        for f in files:
            fd = os.open(os.path.join(root, f), os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def anonymous_kib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def timed(argv, out, limit):
    """Seconds until the bytes are on disk, and the peak of anonymous memory in MiB, sampled every 5 ms."""
    start, peak = time.monotonic(), 0
    p = subprocess.Popen(
        argv,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: limit and resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    while p.poll() is None:
        peak = max(peak, anonymous_kib(p.pid))
        time.sleep(0.005)
    err = p.stderr.read().decode()
    if p.returncode != 0:
        sys.exit(f"{' '.join(argv)}: exit {p.returncode}\n{err}")
    flush(out)
    return time.monotonic() - start, peak / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--gib", type=float, default=2)
    p.add_argument("--dir", default=os.path.join(TOP, "build", "bench"))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--memory", type=int, default=512, help="MiB")
    p.add_argument("--moetool", default=os.path.join(TOP, "build", "current", "moetool"))
    a = p.parse_args()
    model = os.path.join(a.dir, f"random-{a.gib:g}")
    if not os.path.isdir(model):
        subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), model, "--gib", str(a.gib)], check=True)
    common = ["-q", "--memory", f"{a.memory}M"]
    out = os.path.join(a.dir, "out")
    jobs = {
        "cp": (["cp", "-r", "--reflink=never", model, out], out),
        "export": ([a.moetool, "export", model, "-o", out] + common, out),
        "export gguf": ([a.moetool, "export", model, "-o", out + ".gguf"] + common, out + ".gguf"),
        "convert": (
            [a.moetool, "convert", model, "-o", out, "--experts", "8", "--active", "8", "--shared", "0"]
            + ["--partition", "contiguous", "--router", "zero", "--arch", "mixtral"]
            + common,
            out,
        ),
    }
    runs, peaks = {j: [] for j in jobs}, {j: 0 for j in jobs}
    for r in range(a.rounds):
        for name, (argv, path) in jobs.items():
            seconds, peak = timed(argv, path, 0 if name == "cp" else a.memory << 20)
            runs[name].append(seconds)
            peaks[name] = max(peaks[name], peak)
            print(f"round {r + 1}  {name:12} {seconds:7.2f} s", flush=True)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    base = statistics.median(runs["cp"])
    print(f"\n{'job':12} {'median s':>9} {'best s':>7} {'GB/s':>6} {'of cp':>6} {'RssAnon MiB':>12}")
    size = sum(os.path.getsize(os.path.join(model, f)) for f in os.listdir(model)) / 1e9
    for name, s in runs.items():
        m = statistics.median(s)
        print(f"{name:12} {m:9.2f} {min(s):7.2f} {size / m:6.2f} {base / m:6.2f} {peaks[name]:12.1f}")


main()
