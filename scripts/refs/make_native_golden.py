#!/usr/bin/env python3
"""A small random model in the native layout and its logits, computed in fp64 from docs/formats.md
alone: every kind of router, unequal widths, factors, planes of bits, tables, thresholds, biases.

    python3 scripts/refs/make_native_golden.py tests/golden/moetool

Needs numpy. Attention is GPT-2's, so that one page says all of it.
"""
import json
import math
import os
import struct
import sys

import numpy as np

H, HEADS, LAYERS, VOCAB, POS, TOKENS = 16, 2, 6, 72, 40, 24
rng = np.random.default_rng(20261122)
tensors = {}


def put(name, array):
    tensors[name] = array
    return array.astype(np.float64)


def matrix(name, rows, cols, spread=None):
    spread = 1 / math.sqrt(cols) if spread is None else spread
    return put(name, (spread * rng.standard_normal((rows, cols))).astype(np.float32))


def vector(name, n, mean=0.0, spread=0.3):
    return put(name, (mean + spread * rng.standard_normal(n)).astype(np.float32))


# ---- functions ----


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def silu(x):
    return x / (1 + np.exp(-x))


FN = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "cos": np.cos,
    "silu": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
}


def norm(x, w, b):
    c = x - x.mean(-1, keepdims=True)
    return c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) * w + b


# ---- matrices of experts, whole or in parts ----


def expert_matrix(layer, l, e, which, rows, cols, base):
    name = f"ffn.{l}.experts.{e}.{which}"
    how = layer.get("factors", {}).get(which)
    planes = layer.get("planes")
    if how is not None:
        rank = 2 + e % 2
        w = matrix(name + ".left", rows, rank, 0.5) @ matrix(name + ".right", rank, cols, 0.5)
        if how.get("base"):
            w = w + base[which]
        if how.get("sparse"):
            at = np.sort(rng.choice(rows, 3, replace=False)).astype(np.int32)
            tensors[name + ".sparse_rows"] = at
            w[at] += matrix(name + ".sparse", 3, cols, 0.5)
        return w
    if planes is not None:
        return planes_matrix(name, planes, rows, cols)
    return matrix(name + ".weight", rows, cols)


def pack(bits):
    """Rows of 0 and 1, lowest bit first, each row padded to whole bytes."""
    n = -bits.shape[-1] % 8
    bits = np.concatenate([bits, np.zeros(bits.shape[:-1] + (n,), bits.dtype)], -1)
    bits = bits.reshape(bits.shape[:-1] + (-1, 8))
    return (bits << np.arange(8)).sum(-1).astype(np.uint8)


def planes_matrix(name, p, rows, cols):
    b, n, g = p["bits"], p.get("planes", 0), p["group"]
    groups = -(-cols // g)
    column = np.arange(cols) // g
    codes = rng.integers(0, 2**b, (rows, cols))
    tensors[name + ".codes"] = pack(
        (codes[:, :, None] >> np.arange(b) & 1).reshape(rows, cols * b)
    )
    scale = put(name + ".scale", (0.1 + 0.1 * rng.random((rows, groups))).astype(np.float16))
    zero = put(name + ".zero", (2 ** (b - 1) * rng.random((rows, groups))).astype(np.float32))
    w = scale[:, column] * (codes - zero[:, column])
    if n > 0:
        signs = rng.integers(0, 2, (n, rows, cols))
        tensors[name + ".planes"] = pack(signs)
        s = put(
            name + ".plane_scale", (0.05 * rng.random((n, rows, groups))).astype(np.float32)
        )
        w = w + (s[:, :, column] * (2 * signs - 1)).sum(0)
    return w


# ---- blocks ----


def make_block(layer, l, prefix, width, e=None, base=None, bias=True):
    b = {"width": width}
    for which, rows, cols in (("gate", width, H), ("up", width, H), ("down", H, width)):
        if which == "gate" and not layer["gated"]:
            continue
        if width > 0:
            if e is None:
                b[which] = matrix(f"{prefix}.{which}.weight", rows, cols)
            else:
                b[which] = expert_matrix(layer, l, e, which, rows, cols, base)
        key = "out_bias" if which == "down" else "in_bias"
        if layer.get(key) and (width > 0 or which == "down"):
            b[which + "_bias"] = vector(f"{prefix}.{which}.bias", rows)
    return b


def block(layer, b, x):
    if b["width"] == 0:
        return b.get("down_bias", np.zeros(H))
    act = FN[layer["activation"]]
    u = b["up"] @ x + b.get("up_bias", 0)
    h = act(b["gate"] @ x + b.get("gate_bias", 0)) * u if layer["gated"] else act(u)
    return b["down"] @ h + b.get("down_bias", 0)


def make_router(l, r, rows):
    name, w = f"ffn.{l}.router", {}
    cols, n = H, rows
    if r["kind"] == "mlp":
        w["hidden"] = matrix(name + ".hidden.weight", r["width"], H)
        if r.get("hidden_bias"):
            w["hidden_bias"] = vector(name + ".hidden.bias", r["width"])
        if r.get("skip"):
            w["skip"] = matrix(name + ".skip.weight", rows, H)
        cols = r["width"]
    if r["kind"] == "spectral":
        n = rows * r["width"]
    if r.get("gated"):
        w["gate"] = matrix(name + ".gate.weight", n, H)
        if r.get("hidden_bias"):
            w["gate_bias"] = vector(name + ".gate.bias", n)
    w["w"] = matrix(name + ".weight", n, cols, 1.0)
    if r.get("bias"):
        w["bias"] = vector(name + ".bias", n)
    if r.get("selection_bias"):
        w["selection"] = vector(name + ".selection_bias", rows, 0, 0.1)
    return w


def logits(r, w, x, rows):
    if r.get("unit_input"):
        x = x / np.linalg.norm(x)
    fn = FN[r.get("function", "identity")]
    if r["kind"] == "linear":
        return w["w"] @ x + w.get("bias", 0)
    if r["kind"] == "mlp":
        h = fn(w["hidden"] @ x + w.get("hidden_bias", 0))
        return w["w"] @ h + w.get("bias", 0) + (w["skip"] @ x if "skip" in w else 0)
    if r["kind"] == "representative":
        u = w["w"] @ x + w.get("bias", 0)
        return np.abs(fn(w["gate"] @ x + w.get("gate_bias", 0)) * u if "gate" in w else fn(u))
    z = np.linalg.norm((w["w"] @ x).reshape(rows, -1), axis=1)
    if "gate" in w:
        z = z * np.linalg.norm((w["gate"] @ x).reshape(rows, -1), axis=1)
    return z


def choose(r, w, z, k):
    """[(row, weight)], best first."""
    p = np.exp(z - z.max())
    score = {
        "softmax": p / p.sum(),
        "sigmoid": 1 / (1 + np.exp(-z)),
        "softmax_topk": z,
        "logit": z,
    }[r["score"]]
    pick = score + w.get("selection", 0)
    free = np.ones(len(z), bool)
    groups, best = r.get("groups", 1), r.get("groups_active", 1)
    if groups > best:
        per = pick.reshape(groups, -1)
        worth = np.sort(per, 1)
        one = r["score"] == "softmax" and "selection" not in w
        worth = worth[:, -1] if one or per.shape[1] == 1 else worth[:, -2:].sum(1)
        kept = np.argsort(-worth, kind="stable")[:best]
        free = np.isin(np.arange(len(z)) // per.shape[1], kept)
    order = [i for i in np.argsort(-pick, kind="stable") if free[i]][:k]
    t = r.get("threshold")
    if t is not None:
        top = pick[order[0]]
        at = {"above": t["at"], "ratio": t["at"] * top, "margin": top - t["at"]}[t["kind"]]
        order = [i for n, i in enumerate(order) if pick[i] >= at or n < t["min"]]
    v = score[order]
    if r.get("weight") == "unit":
        v = np.ones(len(order))
    elif r["score"] == "softmax_topk":
        v = np.exp(v - v.max())
        v = v / v.sum()
    elif r.get("renormalize"):
        v = v / max(v.sum() + r.get("renorm_eps", 0), r.get("renorm_min", 0))
    return [(int(i), float(s) * r.get("scale", 1)) for i, s in zip(order, v)]


def make_layer(l, layer):
    d = f"ffn.{l}"
    if layer["ffn"] == "dense":
        return {"dense": make_block(layer, l, d, layer["width"])}
    widths = layer["width"]
    widths = widths if isinstance(widths, list) else [widths] * layer["experts"]
    base = {}
    for which, how in layer.get("factors", {}).items():
        if how.get("base"):
            shape = (H, widths[0]) if which == "down" else (widths[0], H)
            base[which] = matrix(f"{d}.{which}.weight", *shape)
    r = layer["router"]
    out = {"router": make_router(l, r, len(r.get("map", widths)))}
    out["experts"] = [
        make_block(layer, l, f"{d}.experts.{e}", w, e, base) for e, w in enumerate(widths)
    ]
    if layer.get("shared_width"):
        out["shared"] = make_block(layer, l, f"{d}.shared", layer["shared_width"])
        if layer.get("shared_gated"):
            out["shared_gate"] = matrix(f"{d}.shared_gate.weight", 1, H)
    if layer.get("layer_bias"):
        out["bias"] = vector(f"{d}.down.bias", H)
    return out


def ffn(layer, w, x):
    if layer["ffn"] == "dense":
        return block(layer, w["dense"], x)
    r = layer["router"]
    rows = len(r.get("map", w["experts"]))
    y = np.zeros(H)
    for row, weight in choose(r, w["router"], logits(r, w["router"], x, rows), layer["active"]):
        e = r["map"][row] if "map" in r else row
        y = y + weight * block(layer, w["experts"][e], x)
    if "shared" in w:
        s = block(layer, w["shared"], x)
        if "shared_gate" in w:
            s = s / (1 + np.exp(-(w["shared_gate"] @ x)))
        y = y + s
    return y + w.get("bias", 0)


def attention(w, x):
    n, d = x.shape[0], H // HEADS
    q, k, v = (x @ w[p].T + w[p + "_b"] for p in "qkv")
    out = np.zeros_like(x)
    for h in range(HEADS):
        s = slice(h * d, (h + 1) * d)
        a = q[:, s] @ k[:, s].T / math.sqrt(d)
        a = np.where(np.tril(np.ones((n, n), bool)), a, -np.inf)
        a = np.exp(a - a.max(-1, keepdims=True))
        out[:, s] = a / a.sum(-1, keepdims=True) @ v[:, s]
    return out @ w["o"].T + w["o_b"]


LAYER_LIST = [
    {
        "ffn": "moe", "experts": 4, "active": 2, "width": [10, 3, 0, 7], "gated": False,
        "activation": "gelu_pytorch_tanh", "in_bias": True, "out_bias": True, "layer_bias": True,
        "router": {"kind": "linear", "bias": True, "score": "softmax", "renormalize": True,
                   "scale": 1.5},
    },
    {
        "ffn": "moe", "experts": 3, "active": 4, "width": 9, "gated": True, "activation": "silu",
        "router": {"kind": "mlp", "function": "tanh", "width": 7, "hidden_bias": True,
                   "bias": True, "skip": True, "unit_input": True, "score": "sigmoid",
                   "selection_bias": True, "renormalize": True, "renorm_eps": 1e-20,
                   "map": [0, 1, 2, 1, 0, 2],
                   "threshold": {"kind": "ratio", "at": 0.8, "min": 1}},
    },
    {
        "ffn": "moe", "experts": 5, "active": 3, "width": 6, "gated": True,
        "activation": "gelu", "shared_width": 8, "shared_gated": True,
        "router": {"kind": "representative", "function": "silu", "gated": True,
                   "hidden_bias": True, "score": "logit", "weight": "unit",
                   "threshold": {"kind": "margin", "at": 0.6, "min": 1}},
        "factors": {"gate": {}, "up": {"base": True},
                    "down": {"base": True, "sparse": True}},
    },
    {
        "ffn": "moe", "experts": 4, "active": 2, "width": 12, "gated": True,
        "activation": "relu2", "shared_width": 5,
        "router": {"kind": "spectral", "width": 3, "gated": True, "score": "softmax_topk"},
        "planes": {"bits": 3, "planes": 2, "group": 8},
    },
    {"ffn": "dense", "width": 20, "gated": True, "activation": "relu", "in_bias": True,
     "out_bias": True},
    {
        "ffn": "moe", "experts": 8, "active": 3, "width": 5, "gated": False,
        "activation": "quick_gelu",
        "router": {"kind": "mlp", "function": "cos", "width": 11, "hidden_bias": True,
                   "score": "softmax", "groups": 4, "groups_active": 2, "scale": 2.0,
                   "threshold": {"kind": "above", "at": 0.12, "min": 0}},
    },
]


def write_safetensors(path):
    kinds = {"float32": "F32", "float16": "F16", "uint8": "U8", "int32": "I32"}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, a in tensors.items():
        header[name] = {"dtype": kinds[str(a.dtype)], "shape": list(a.shape),
                        "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in tensors.values():
            f.write(a.tobytes())


def main(out):
    os.makedirs(out, exist_ok=True)
    base = {"model_type": "gpt2", "n_embd": H, "n_head": HEADS, "n_layer": LAYERS,
            "n_positions": POS, "vocab_size": VOCAB, "layer_norm_epsilon": 1e-5,
            "activation_function": "gelu_new", "tie_word_embeddings": True}
    wte = matrix("transformer.wte.weight", VOCAB, H, 0.4)
    wpe = matrix("transformer.wpe.weight", POS, H, 0.5)
    layers = []
    for l in range(LAYERS):
        p, w = f"transformer.h.{l}", {}
        for n in ("ln_1", "ln_2"):
            w[n] = vector(f"{p}.{n}.weight", H, 1, 0.2)
            w[n + "_b"] = vector(f"{p}.{n}.bias", H)
        for n in "qkvo":
            w[n] = matrix(f"{p}.attn.{n}_proj.weight", H, H)
            w[n + "_b"] = vector(f"{p}.attn.{n}_proj.bias", H)
        layers.append((w, make_layer(l, LAYER_LIST[l])))
    last, last_b = vector("transformer.ln_f.weight", H, 1, 0.2), vector("transformer.ln_f.bias", H)
    ids = rng.integers(0, VOCAB, TOKENS)
    x = wte[ids] + wpe[:TOKENS]
    for layer, (w, f) in zip(LAYER_LIST, layers):
        x = x + attention(w, norm(x, w["ln_1"], w["ln_1_b"]))
        n = norm(x, w["ln_2"], w["ln_2_b"])
        x = x + np.stack([ffn(layer, f, row) for row in n])
    result = norm(x, last, last_b) @ wte.T
    write_safetensors(os.path.join(out, "model.safetensors"))
    config = {"architectures": ["MoetoolForCausalLM"], "model_type": "moetool",
              "moetool": {"version": 1, "base": base, "layers": LAYER_LIST}}
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    golden = {"made_with": "numpy, from docs/formats.md", "ids": [int(i) for i in ids],
              "fp32_err": 0.0, "logits": [[float(v) for v in row] for row in result]}
    with open(os.path.join(out, "golden.json"), "w") as f:
        json.dump(golden, f)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
