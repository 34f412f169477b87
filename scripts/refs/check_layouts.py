#!/usr/bin/env python3
"""Compares what `moetool export` and `moetool check` say with what transformers does.

usage: check_layouts.py MOETOOL [GOLDEN=tests/golden]

Needs torch and transformers 5 (python -m venv, then pip install torch transformers). First every MoE
family is exported with experts one by one and stacked: logits must be equal to the last bit and
nothing may be missing or left over. Then models are broken, one thing at a time: where `moetool check`
says "refused", from_pretrained must raise; where it says "wrong", it must report keys that are missing
or unexpected; where it says no more than "remark", it must load without a report.
"""
import glob
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import AutoModelForCausalLM

transformers.logging.set_verbosity_error()
MOETOOL = os.path.abspath(sys.argv[1])
GOLDEN = sys.argv[2] if len(sys.argv) > 2 else "tests/golden"
STACKED = "mixtral qwen2_moe qwen3_moe olmoe dots1 glm4_moe deepseek_v2 deepseek_v3 ernie4_5_moe"
IDS = torch.arange(1, 17).reshape(1, 16)


def load(path):
    """The model and what lacked or was left over."""
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, experts_implementation="eager", output_loading_info=True)
    told = {k: sorted(v) for k, v in info.items() if v and k != "error_msgs"}
    return model.eval(), told


def logits(path):
    model, told = load(path)
    with torch.no_grad():
        return model(IDS).logits, told


def export(source, out, *options):
    subprocess.run([MOETOOL, "export", source, "-o", out, "-q", *options], check=True,
                   stdout=subprocess.DEVNULL)


def verdict(path):
    run = subprocess.run([MOETOOL, "check", path, "--for", "transformers", "--json", "-q"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    engine = json.loads(run.stdout)["engines"][0]
    return engine["worst"], [f["rule"] for f in engine["findings"]]


def config(path, change):
    with open(f"{path}/config.json", encoding="utf-8") as f:
        c = json.load(f)
    change(c)
    with open(f"{path}/config.json", "w", encoding="utf-8") as f:
        json.dump(c, f)


def header(path, change):
    """Rewrites the header of the one weight file."""
    with open(f"{path}/model.safetensors", "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        h, data = json.loads(f.read(n)), f.read()
    change(h)
    text = json.dumps(h).encode()
    with open(f"{path}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def rename(old, new):
    def change(h):
        h[new] = h.pop(old)
    return lambda path: header(path, change)


def setting(**kv):
    return lambda path: config(path, lambda c: c.update(kv))


def without(*keys):
    return lambda path: config(path, lambda c: [c.pop(k, None) for k in keys])


def shards(change):
    def run(path):
        export(f"{path}", f"{path}.shards", "--max-shard-size", "20K")
        shutil.rmtree(path)
        os.rename(f"{path}.shards", path)
        index = f"{path}/model.safetensors.index.json"
        with open(index, encoding="utf-8") as f:
            j = json.load(f)
        change(path, j)
        with open(index, "w", encoding="utf-8") as f:
            json.dump(j, f)
    return run


def lose_shard(path, _):
    os.remove(sorted(glob.glob(f"{path}/model-*.safetensors"))[-1])


def rename_file(path):
    os.rename(f"{path}/model.safetensors", f"{path}/weights.safetensors")


BROKEN = {
    "nothing": ("glm4_moe", lambda path: None),
    "in shards": ("glm4_moe", shards(lambda path, j: None)),
    "a layer more in the config": ("qwen3_moe", setting(num_hidden_layers=4)),
    "an expert more in the config": ("glm4_moe", lambda path: config(
        path, lambda c: c.update(n_routed_experts=c["n_routed_experts"] + 1))),
    "a router of an expert more": ("olmoe", lambda path: config(
        path, lambda c: c.update(num_experts=c["num_experts"] + 1))),
    "a width that is not the stored one": ("glm4_moe", lambda path: config(
        path, lambda c: c.update(moe_intermediate_size=c["moe_intermediate_size"] * 2))),
    "biases that the config denies": ("qwen2_moe", setting(qkv_bias=False)),
    "a name that nobody knows": ("llama", rename("model.norm.weight", "model.norm.weigth")),
    "queries under the other name": ("deepseek_v2", rename(
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_b_proj.weight")),
    "padding outside the vocabulary": ("llama", setting(pad_token_id=100000)),
    "no model_type": ("llama", without("model_type")),
    "no architectures": ("llama", without("architectures")),
    "no config": ("llama", lambda path: os.remove(f"{path}/config.json")),
    "weights under another name": ("llama", rename_file),
    "an index without metadata": ("llama", shards(lambda path, j: j.pop("metadata"))),
    "a shard that is gone": ("llama", shards(lose_shard)),
    "no format key": ("llama", lambda path: header(path, lambda h: h.pop("__metadata__", None))),
}


def try_broken(name, family, change, work):
    path = f"{work}/broken"
    shutil.rmtree(path, ignore_errors=True)
    export(f"{GOLDEN}/{family}", path)
    change(path)
    worst, rules = verdict(path)
    try:
        _, told = load(path)
        did = "wrong" if told else "loads"
    except Exception as e:  # whatever it raises, it does not load
        did, told = "refused", f"{type(e).__name__}: {str(e).splitlines()[0][:80]}"
    said = worst if worst in ("wrong", "refused") else "loads"
    print(f"{'ok' if said == did else 'DIFFERS':8}{name}: check says {worst} {rules}; it {did}: {told}")
    return said == did


def main():
    good = True
    with tempfile.TemporaryDirectory() as work:
        for family in STACKED.split():
            export(f"{GOLDEN}/{family}", f"{work}/plain", "--force")
            export(f"{GOLDEN}/{family}", f"{work}/stacked", "--force", "--experts", "stacked")
            a, told_a = logits(f"{work}/plain")
            b, told_b = logits(f"{work}/stacked")
            same = torch.equal(a, b) and not told_a and not told_b
            print(f"{'ok' if same else 'DIFFERS':8}{family}: {(a - b).abs().max().item()} {told_a} {told_b}")
            good = good and same
        for name, (family, change) in BROKEN.items():
            good = try_broken(name, family, change, work) and good
    print("all agree" if good else "some differ")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
