#!/usr/bin/env python3
"""Compares a GGUF file that moetool wrote with the checkpoint it came from, read by the `gguf` package.

usage: gguf_compare.py MODEL_DIR FILE.gguf     (needs: pip install gguf)

Says every difference in tensors (exact, after undoing llama's order of rows), hyper-parameters and
vocabulary; exit code 1 when there is one.
"""
import json
import pathlib
import re
import struct
import sys

import numpy as np
from gguf import GGUFReader

model, path = pathlib.Path(sys.argv[1]), sys.argv[2]
config = json.loads((model / "config.json").read_text())
bad = []


def safetensors(directory):
    out = {}
    for file in sorted(directory.glob("*.safetensors")):
        raw = file.read_bytes()
        (n,) = struct.unpack("<Q", raw[:8])
        for name, e in json.loads(raw[8 : 8 + n]).items():
            if name == "__metadata__":
                continue
            b, e_ = e["data_offsets"]
            data = raw[8 + n + b : 8 + n + e_]
            kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[e["dtype"]]
            v = np.frombuffer(data, kind)
            if e["dtype"] == "BF16":
                v = (v.astype(np.uint32) << 16).view(np.float32)
            out[name] = v.astype(np.float32).reshape(e["shape"])
    return out


def numbers(t):
    name = t.tensor_type.name
    shape = tuple(int(x) for x in reversed(t.shape))
    if name == "BF16":
        v = (np.frombuffer(t.data.tobytes(), "<u2").astype(np.uint32) << 16).view(np.float32)
        return v.reshape(shape)
    return np.asarray(t.data).astype(np.float32).reshape(shape)


reader = GGUFReader(path)
keys = {k: f.contents() for k, f in reader.fields.items()}
arch = keys["general.architecture"]
want = safetensors(model)
per_expert = ("gate_proj", "up_proj", "down_proj", "w1", "w3", "w2")


def source(name):
    """The values that belong under a GGUF name."""
    simple = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
              "output.weight": "lm_head.weight"}
    if name in simple:
        return want.pop(simple[name])
    layer, rest = re.fullmatch(r"blk\.(\d+)\.(.*)", name).groups()
    p = f"model.layers.{layer}."
    attn = re.fullmatch(r"attn_(q|k|v)\.(weight|bias)", rest)
    if attn:
        v = want.pop(f"{p}self_attn.{attn[1]}_proj.{attn[2]}")
        if arch == "llama" and attn[1] != "v":
            heads = config["num_attention_heads" if attn[1] == "q" else "num_key_value_heads"]
            tail = v.shape[1:]
            v = v.reshape(heads, 2, v.shape[0] // heads // 2, *tail).swapaxes(1, 2).reshape(-1, *tail)
        return v
    table = {"attn_norm.weight": ["input_layernorm.weight"], "attn_output.weight": ["self_attn.o_proj.weight"],
             "attn_output.bias": ["self_attn.o_proj.bias"],
             "attn_q_norm.weight": ["self_attn.q_norm.weight"], "attn_k_norm.weight": ["self_attn.k_norm.weight"],
             "ffn_norm.weight": ["post_attention_layernorm.weight"],
             "post_attention_norm.weight": ["post_attention_layernorm.weight"],
             "ffn_gate_inp.weight": ["mlp.gate.weight", "block_sparse_moe.gate.weight"],
             "exp_probs_b.bias": ["mlp.gate.e_score_correction_bias"]}
    for kind in ("gate", "up", "down"):
        for part in ("weight", "bias"):
            table[f"ffn_{kind}.{part}"] = [f"mlp.{kind}_proj.{part}"]
        table[f"ffn_{kind}_shexp.weight"] = [f"mlp.shared_experts.{kind}_proj.weight"]
    if rest in table:
        return next(want.pop(p + n) for n in table[rest] if p + n in want)
    kind = re.fullmatch(r"ffn_(gate|up|down)_exps\.weight", rest)[1]
    mixtral = {"gate": "w1", "up": "w3", "down": "w2"}[kind]
    stack = []
    while True:
        e = len(stack)
        for n in (f"{p}mlp.experts.{e}.{kind}_proj.weight", f"{p}block_sparse_moe.experts.{e}.{mixtral}.weight"):
            if n in want:
                stack.append(want.pop(n))
                break
        else:
            return np.stack(stack)


def llama3_factors():
    s = config.get("rope_scaling") or config.get("rope_parameters")
    dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    theta = config.get("rope_theta") or s.get("rope_theta")
    wave = 2 * np.pi * theta ** (np.arange(0, dim, 2) / dim)
    ratio = s["original_max_position_embeddings"] / wave
    smooth = (ratio - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    blend = 1 / ((1 - smooth) / s["factor"] + smooth)
    return np.where(ratio > s["high_freq_factor"], 1, np.where(ratio < s["low_freq_factor"], s["factor"], blend))


for t in reader.tensors:
    if t.name == "rope_freqs.weight":
        if not np.allclose(numbers(t), llama3_factors(), rtol=1e-6):
            bad.append("rope_freqs.weight")
        continue
    v = source(t.name)
    if v.shape != numbers(t).shape or not np.array_equal(v, numbers(t)):
        bad.append(f"tensor {t.name}: {v.shape} {numbers(t).shape}")
    if t.tensor_type.name != "F32" and (v.ndim == 1 or "ffn_gate_inp" in t.name):
        bad.append(f"tensor {t.name} is {t.tensor_type.name}")
bad += [f"not in the file: {n}" for n in want]

same = {"embedding_length": "hidden_size", "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads", "context_length": "max_position_embeddings",
        "block_count": "num_hidden_layers", "vocab_size": "vocab_size"}
if "expert_count" in "".join(keys):
    same["expert_used_count"] = "num_experts_per_tok"
for key, name in same.items():
    if keys.get(f"{arch}.{key}") != config[name]:
        bad.append(f"{key}: {keys.get(f'{arch}.{key}')} {config[name]}")
if np.float32(keys[f"{arch}.attention.layer_norm_rms_epsilon"]) != np.float32(config["rms_norm_eps"]):
    bad.append("layer_norm_rms_epsilon")

if (model / "tokenizer.json").exists():
    tok = json.loads((model / "tokenizer.json").read_text())
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    for text, i in tok["model"]["vocab"].items():
        if tokens[i] != text:
            bad.append(f"token {i}: {tokens[i]!r} {text!r}")
    for a in tok["added_tokens"]:
        if tokens[a["id"]] != a["content"] or types[a["id"]] not in (2, 3, 4):
            bad.append(f"added token {a['content']}")
    merges = [m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]]
    if keys["tokenizer.ggml.model"] == "gpt2":
        if keys["tokenizer.ggml.merges"] != merges:
            bad.append("merges")
    else:
        scores = keys["tokenizer.ggml.scores"]
        ranks = [scores[tokens.index(m.replace(" ", "", 1))] for m in merges]
        if sorted(ranks, reverse=True) != ranks:
            bad.append("scores do not fall with the rank of merges")
    if not len(tokens) == len(types) == config["vocab_size"]:
        bad.append("number of tokens")
    for key in ("bos_token_id", "eos_token_id"):
        if config.get(key) is not None and keys[f"tokenizer.ggml.{key}"] != config[key]:
            bad.append(key)

print("\n".join(bad) if bad else f"{path}: {len(reader.tensors)} tensors, {len(keys)} keys, all as in {model}")
sys.exit(1 if bad else 0)
