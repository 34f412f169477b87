#!/usr/bin/env python3
"""Importance matrices as llama.cpp writes them, for the models in tests/golden.

tests/data/stats/qwen3_moe.gguf  made with the gguf package: in_sum2 and counts, stacks of experts,
                                   an expert without tokens, tensors that a profile does not hold
tests/data/stats/llama.dat       the older binary form, by struct

Numbers are formulas, which tests/formats/test_stats_imatrix.c repeats.
usage: make_imatrix_fixture.py (needs gguf, numpy); run from the repository's root
"""
import json
import struct
from pathlib import Path

import gguf
import numpy as np

OUT = Path("tests/data/stats")


def sums(layer, kind, rows, cols):
    r, c = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    return (1 + layer + 10 * kind + 0.25 * r + c / 64).astype(np.float32)


def moe():
    cfg = json.loads(Path("tests/golden/qwen3_moe/config.json").read_text())
    d, experts, width = cfg["hidden_size"], cfg["num_local_experts"], cfg["moe_intermediate_size"]
    q = cfg["num_attention_heads"] * cfg["head_dim"]
    w = gguf.GGUFWriter(OUT / "qwen3_moe.gguf", "")
    w.add_type("imatrix")
    w.add_array("imatrix.datasets", ["calibration.txt"])
    w.add_uint32("imatrix.chunk_count", 3)
    w.add_uint32("imatrix.chunk_size", 512)

    def put(name, layer, kind, rows, cols):
        counts = np.full((rows, 1), 1536, np.float32)
        values = sums(layer, kind, rows, cols)
        if rows > 1:
            counts = (100 + np.arange(rows, dtype=np.float32)).reshape(rows, 1)
            counts[1] = 0
            values[1] = 0
        w.add_tensor(name + ".in_sum2", values)
        w.add_tensor(name + ".counts", counts)

    for layer in range(cfg["num_hidden_layers"]):
        blk = f"blk.{layer}."
        for m in ("attn_q", "attn_k", "attn_v"):
            put(blk + m + ".weight", layer, 0, 1, d)
        put(blk + "attn_output.weight", layer, 1, 1, q)
        if layer in cfg["mlp_only_layers"]:
            put(blk + "ffn_gate.weight", layer, 2, 1, d)
            put(blk + "ffn_up.weight", layer, 2, 1, d)
            put(blk + "ffn_down.weight", layer, 5, 1, cfg["intermediate_size"])
            continue
        put(blk + "ffn_gate_inp.weight", layer, 2, 1, d)
        for m in ("ffn_gate_exps", "ffn_up_exps"):
            put(blk + m + ".weight", layer, 3, experts, d)
        put(blk + "ffn_down_exps.weight", layer, 4, experts, width)
    put("output.weight", 9, 9, 1, d)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def old():
    cfg = json.loads(Path("tests/golden/llama/config.json").read_text())
    d, width = cfg["hidden_size"], cfg["intermediate_size"]
    q = cfg["num_attention_heads"] * cfg["head_dim"]
    entries = []
    for layer in range(cfg["num_hidden_layers"]):
        blk = f"blk.{layer}."
        for m, kind, n in (("attn_q", 0, d), ("attn_k", 0, d), ("attn_v", 0, d),
                           ("attn_output", 1, q), ("ffn_gate", 2, d), ("ffn_up", 2, d),
                           ("ffn_down", 3, width)):
            entries.append((blk + m + ".weight", sums(layer, kind, 1, n)[0]))
    with open(OUT / "llama.dat", "wb") as f:
        f.write(struct.pack("<i", len(entries)))
        for name, values in entries:
            f.write(struct.pack("<i", len(name)) + name.encode())
            f.write(struct.pack("<ii", 7, len(values)) + values.tobytes())
        text = b"calibration.txt"
        f.write(struct.pack("<ii", 7, len(text)) + text)


OUT.mkdir(parents=True, exist_ok=True)
moe()
old()
