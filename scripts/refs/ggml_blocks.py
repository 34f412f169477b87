#!/usr/bin/env python3
"""Blocks of every type that moetool reads as numbers, with the values that the `gguf` package gives.

usage: ggml_blocks.py > tests/data/gguf/blocks.json     (needs: pip install gguf)

Bytes are random but for the scales, which are finite. Values are 32-bit floats in hexadecimal,
little-endian.
"""
import json

import numpy as np
from gguf import GGMLQuantizationType, quants

rng = np.random.default_rng(7)
# Places of 16-bit floats in a block.
halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
          "MXFP4": [], "NVFP4": []}
out = {}
for name, places in halves.items():
    t = GGMLQuantizationType[name]
    elements, size = __import__("gguf").GGML_QUANT_SIZES[t]
    blocks = rng.integers(0, 256, (3 if elements < 256 else 2, size), dtype=np.uint8)
    for at in places:
        for b in blocks:
            b[at : at + 2] = np.frombuffer(np.float16(rng.normal() * 0.1).tobytes(), np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = [0, 120, 131]
    if name == "NVFP4":
        blocks[:, :4] = rng.integers(0, 126, (3, 4))
    values = quants.dequantize(blocks, t).astype("<f4")
    out[name] = {"blocks": blocks.tobytes().hex(), "values": values.tobytes().hex()}
print(json.dumps(out, indent=0))
