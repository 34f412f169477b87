#!/usr/bin/env python3
"""Converts dense models to every target architecture and compares transformers with moetool.

usage: convert_targets.py [--moetool build/release/moetool] [--logits build/release/tests/interop/logits]
                          [--limit 1e-4] [--keep DIR] [TARGET...]

Needs torch and transformers 5, and `make all build/release/tests/interop/logits`. Sources:
tests/data/tinymix-dense (Llama), tests/golden/qwen3 and granite and, for OLMoE, a random model of the
interop program, because no dense family has its norms. Every target is written
twice: with all experts active and a zero router, where the logits must also be those of the source,
and with half of them active behind a learned router. Last comes a glm4_moe with different numbers of
experts by layer, padded, against its logits without padding. transformers loads each in fp32 with its own
code; missing or unexpected tensors count as failures.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers

LLAMA, QWEN3, GRANITE = "tests/data/tinymix-dense", "tests/golden/qwen3", "tests/golden/granite"
# target: sources and shapes; shared experts where it has them
TARGETS = {
    "glm4_moe": [(LLAMA, "experts=7 shared=1"), (QWEN3, "experts=4 shared=1")],
    "dots1": [(QWEN3, "experts=4 shared=1")],
    "granitemoeshared": [(LLAMA, "experts=8 shared=1"), (LLAMA, "experts=8 shared=0"),
                         (GRANITE, "experts=4 shared=1")],
    "granitemoe": [(LLAMA, "experts=8 shared=0")],
    "mixtral": [(LLAMA, "experts=16 shared=0")],
    "qwen3_moe": [(QWEN3, "experts=4 shared=0")],
    "qwen2_moe": [(LLAMA, "experts=8 shared=2"), (LLAMA, "experts=8 shared=0")],
    "olmoe": [(None, "experts=8 shared=0")],
}


def theirs(path, ids):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    model.config._experts_implementation = "eager"  # grouped products want widths of 4
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    return type(model).__name__, logits, {k: sorted(v) for k, v in info.items() if v}


def compare(label, out, want, limit):
    """want: logits that moetool gives. Prints a line; True when transformers agrees."""
    name, got, odd = theirs(out, want["ids"])
    err = (got - torch.tensor(want["logits"], dtype=torch.float64)).abs().max().item()
    ok = err <= limit and not odd
    print(f"{'ok' if ok else 'FAILED':7}{label}: {name}, transformers {err:.1e} {odd or ''}", flush=True)
    return ok


def run(words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--moetool", default="build/release/moetool")
    p.add_argument("--logits", default="build/release/tests/interop/logits")
    p.add_argument("--limit", type=float, default=1e-4)
    p.add_argument("--keep")
    p.add_argument("targets", nargs="*")
    a = p.parse_args()
    work = pathlib.Path(a.keep or tempfile.mkdtemp())
    bad = 0
    for target in a.targets or TARGETS:
        for number, (source, shape) in enumerate(TARGETS[target]):
            n = int(shape.split()[0].split("=")[1])
            for k, router in ((n, "zero"), (n // 2, "centroid")):
                out = work / f"{target}-{number}-{k}of{n}"
                words = f"arch={target} {shape} active={k} router={router}"
                if source is None:
                    dense = json.loads(run([a.logits, "--full-norm", out, words]))
                else:
                    dense = json.loads(run([a.logits, source]))
                    run([a.moetool, "convert", source, "-o", out, "--force", "--quiet"]
                        + [f"--{w}" for w in words.split()])
                ours = json.loads(run([a.logits, out]))
                apart = (torch.tensor(ours["logits"], dtype=torch.float64) - torch.tensor(dense["logits"], dtype=torch.float64)).abs().max().item()
                label = f"{target:17}{pathlib.Path(source or 'full-norm').name:15}{shape:21}active {k:2}"
                bad += not compare(f"{label}, from the source {apart:.1e}", out, ours, a.limit)
                if k == n and apart > 1e-10:
                    bad += 1
                    print("FAILED not the source's logits")
    if not a.targets:
        want = json.loads(run([a.logits, "--uneven", work / "uneven"]))
        bad += not compare("glm4_moe with 6, 3 and 2 experts, padded", work / "uneven", want, a.limit)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
