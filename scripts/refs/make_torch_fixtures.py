"""Writes tests/data/torch: checkpoints that torch.save made, and what torch reads in them.

usage: python scripts/refs/make_torch_fixtures.py [OUT]     (needs torch 2.3 or later)

Beside NAME.pt lies NAME.safetensors with the same tensors as torch sees them, contiguous, written
by the few lines below so that types which the safetensors package does not write are there too.
"""

import argparse
import collections
import json
import os
import struct
import sys
import warnings

import torch

NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
    torch.bool: "BOOL", torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, x in tensors.items():
        flat = x.detach().clone(memory_format=torch.contiguous_format).flatten()
        raw = bytes(flat.view(torch.uint8).tolist()) if flat.numel() else b""
        header[name] = {"dtype": NAMES[x.dtype], "shape": list(x.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def noise(*shape):
    return torch.randn(*shape, generator=noise.rng)


noise.rng = torch.Generator().manual_seed(7)


def of_types():
    out = collections.OrderedDict()
    for dtype, name in NAMES.items():
        raw = torch.arange(16 * 4, dtype=torch.uint8) * 37 + len(out)
        out[name] = (raw % 2 == 1).reshape(8, 8) if dtype == torch.bool else raw.view(dtype)
    return out


def of_views():
    """Everything that makes offset and strides of a tensor other than plain."""
    base = noise(6, 8)
    long = noise(64)
    return {
        "plain": base,
        "transposed": base.t(),
        "rows": base[2:5],
        "cols": base[:, 3:6],
        "steps": base[1::2, ::3],
        "middle": long[10:34].view(2, 3, 4).permute(2, 0, 1),
        "spread": long[5:8].expand(4, 3),
        "scalar": torch.tensor(2.5),
        "element": base[3, 4],
        "one_row": base[3:4],
        "empty": torch.zeros(0, 3),
        "empty_view": base[6:],
        "half": noise(3, 5).half().t(),
        "parameter": torch.nn.Parameter(noise(2, 2)),
        "buffer": torch.nn.Parameter(noise(3), requires_grad=False),
        "name with spaces \u00e9": noise(2),
    }


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(3, 2)
        self.b = torch.nn.Linear(2, 3, bias=False)
        self.b.weight = torch.nn.Parameter(self.a.weight.detach().t())


class Evil:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def save(out, name, what, **how):
    torch.save(what, os.path.join(out, name), **how)


def nested():
    net = Net()
    state = {"module." + k: v for k, v in net.state_dict().items()}
    return state, {
        "epoch": 3, "lr": 0.1, "best": None, "name": "tiny",
        "args": {"dim": 32, "flags": [1, 2], "ok": True, "size": torch.Size([2, 3]),
                 "dtype": torch.float16, "raw": b"abc", "huge": 2**70},
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": noise(2, 3)}}, "param_groups": [{"lr": 0.1}]},
    }


def llama(out):
    """A tied model as transformers 4 stored it: two shards, the head beside the embedding."""
    hidden, width, vocab = 8, 16, 12
    embed = noise(vocab, hidden)
    t = {"model.embed_tokens.weight": embed}
    for layer in range(2):
        p = f"model.layers.{layer}."
        for name, rows, cols in (("self_attn.q_proj", hidden, hidden),
                                 ("self_attn.k_proj", hidden // 2, hidden),
                                 ("self_attn.v_proj", hidden // 2, hidden),
                                 ("self_attn.o_proj", hidden, hidden),
                                 ("mlp.gate_proj", width, hidden), ("mlp.up_proj", width, hidden),
                                 ("mlp.down_proj", hidden, width)):
            t[p + name + ".weight"] = noise(rows, cols)
        t[p + "input_layernorm.weight"] = noise(hidden)
        t[p + "post_attention_layernorm.weight"] = noise(hidden)
    t["model.norm.weight"] = noise(hidden)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
              "intermediate_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
              "num_key_value_heads": 1, "vocab_size": vocab, "rms_norm_eps": 1e-5,
              "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": True,
              "torch_dtype": "float32"}
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    names = list(t)
    half = names.index("model.layers.1.self_attn.q_proj.weight")
    first = {k: t[k] for k in names[:half]}
    first["lm_head.weight"] = embed
    parts = [first, {k: t[k] for k in names[half:]}]
    where = {}
    for i, part in enumerate(parts):
        file = f"pytorch_model-{i + 1:05d}-of-{len(parts):05d}.bin"
        save(out, file, part)
        where.update({k: file for k in part})
    with open(os.path.join(out, "pytorch_model.bin.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": 1}, "weight_map": where}, f, indent=1)
        f.write("\n")
    write_safetensors(os.path.join(out, "..", "llama.safetensors"), t)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data/torch"
    os.makedirs(out, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.manual_seed(7)
    views = of_views()
    for name, tensors in (("types", of_types()), ("views", views), ("module", Net().state_dict())):
        save(out, name + ".pt", tensors)
        write_safetensors(os.path.join(out, name + ".safetensors"), tensors)
    for protocol in (4, 5):
        save(out, f"views_protocol{protocol}.pt", views, pickle_protocol=protocol)
    state, all_of_it = nested()
    save(out, "nested.pt", all_of_it)
    write_safetensors(os.path.join(out, "nested.safetensors"),
                      {k[len("module."):]: v for k, v in state.items()})
    one = noise(3, 4)
    save(out, "one.pt", one)
    write_safetensors(os.path.join(out, "one.safetensors"), {"tensor": one})
    pair = [noise(2), {"x": noise(3)}]
    save(out, "list.pt", pair)
    write_safetensors(os.path.join(out, "list.safetensors"), {"0": pair[0], "1.x": pair[1]["x"]})
    llama(os.path.join(out, "llama"))
    # Refused, each by its name.
    save(out, "legacy.pt", {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    save(out, "evil.pt", {"a": torch.ones(2), "b": Evil()})
    save(out, "namespace.pt", {"a": torch.ones(2), "args": argparse.Namespace(x=1)})
    save(out, "whole.pt", torch.nn.Linear(2, 2))
    save(out, "sparse.pt", {"a": torch.eye(2).to_sparse()})
    save(out, "negated.pt", {"a": torch.ones(2, dtype=torch.complex64).conj()})
    save(out, "double_complex.pt", {"a": torch.ones(2, dtype=torch.complex128)})
    save(out, "values.pt", {"epoch": 1})
    torch.jit.script(torch.nn.Linear(2, 2)).save(os.path.join(out, "script.pt"))


if __name__ == "__main__":
    main()
