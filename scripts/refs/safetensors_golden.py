"""Writes tests/data/safetensors: what the reference library makes of small tensors.

usage: python scripts/refs/safetensors_golden.py [OUT]     (needs numpy and safetensors 0.8 from PyPI)

The writer must give the same bytes, whatever order it is given the tensors in.
"""

import os
import sys

import numpy as np
from safetensors import TensorSpec, serialize_file
from safetensors.numpy import save_file

META = {"format": "pt"}


def raw(seed, n):
    return bytes((i * 37 + seed * 11 + 5) & 255 for i in range(n))


ALIVE = []  # the library keeps addresses only


def of_dtype(name, bits, shape, seed):
    data = np.frombuffer(raw(seed, int(np.prod(shape)) * bits // 8), np.uint8)
    ALIVE.append(data)
    return TensorSpec(dtype=name, shape=list(shape), data_ptr=data.ctypes.data, data_len=data.nbytes)


# Spelt as the library's own dtype names; every type that its Python side can serialize.
TYPES = [
    ("bool", 8), ("uint8", 8), ("int8", 8), ("float8_e5m2", 8), ("float8_e4m3fn", 8),
    ("float8_e8m0fnu", 8), ("float8_e4m3fnuz", 8), ("float8_e5m2fnuz", 8), ("int16", 16),
    ("uint16", 16), ("float16", 16), ("bfloat16", 16), ("int32", 32), ("uint32", 32),
    ("float32", 32), ("complex64", 64), ("float64", 64), ("int64", 64), ("uint64", 64),
]


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data/safetensors"
    os.makedirs(out, exist_ok=True)
    tensors = {f"t.{i % 4}.{name}": of_dtype(name, bits, (2, 3), i)
               for i, (name, bits) in enumerate(TYPES)}
    tensors["fp4"] = of_dtype("float4_e2m1fn_x2", 8, (3,), 77)
    serialize_file(tensors, f"{out}/dtypes.safetensors", META)

    f32 = np.arange(6, dtype=np.float32)
    save_file({"layers.10.w": f32.reshape(2, 3), "layers.2.w": f32.reshape(3, 2), "z": f32[:1],
               "b": f32.astype(np.float16), "a": f32.astype(np.int8), "scalar": np.array(2.5),
               "empty": np.zeros((0, 4), np.float32), "hollow": np.zeros((3, 0, 2), np.int64)},
              f"{out}/shapes.safetensors", META)
    save_file({'quo"te\\back/slash': f32, "tab\tnew\nline\rbell\x07\b\f\x1f\x7f": f32,
               "gr\u00fc\u00df dich \u4f60\u597d \U0001f9ea": f32, "": f32[:2]},
              f"{out}/names.safetensors", META)
    save_file({}, f"{out}/none.safetensors", META)
    # The header's padding takes every length from 0 to 7.
    for n in range(8):
        save_file({"n" * (n + 1): f32[:3]}, f"{out}/pad{n}.safetensors", META)


main()
