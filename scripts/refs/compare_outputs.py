#!/usr/bin/env python3
"""Loads model directories with transformers and compares their logits with a golden.json.

usage: compare_outputs.py GOLDEN.json MODEL... [--limit 1e-4]

A model that was converted so that all experts act must give the logits of its source. Missing or
unexpected tensors count as failures: the loader would fill them with noise.
"""
import json
import sys

import torch
import transformers


def main():
    args = sys.argv[1:]
    limit = 1e-4
    if "--limit" in args:
        at = args.index("--limit")
        limit = float(args[at + 1])
        del args[at : at + 2]
    golden = json.load(open(args[0]))
    want = torch.tensor(golden["logits"], dtype=torch.float64)
    bad = 0
    for path in args[1:]:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        model.config._experts_implementation = "eager"  # grouped products want widths of 4
        with torch.no_grad():
            got = model(input_ids=torch.tensor([golden["ids"]]), use_cache=False).logits[0]
        err = (got.double() - want).abs().max().item()
        odd = {k: sorted(v) for k, v in info.items() if v}
        ok = err <= limit and not odd
        bad += not ok
        print(f"{'ok' if ok else 'FAILED':8}{path}: {type(model).__name__}, logits differ by {err:.2g} {odd or ''}")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
