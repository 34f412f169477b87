#!/usr/bin/env python3
"""Writes tests/golden/<name>/: tiny random models and what the reference library computes for them.

usage: make_family_goldens.py [OUT=tests/golden] [NAME...]

Needs torch and transformers 5 (python -m venv, then pip install torch transformers). Each directory
holds config.json, model.safetensors (F32) and golden.json:

  ids       token ids of one sequence
  logits    [positions][vocabulary], from a forward pass that is fp64 throughout: the library's own
            casts to fp32 (norms, softmax, rotary angles, router) are widened, and a dispatch hook
            checks that no fp32 arithmetic was left
  fp32_err  largest absolute difference of the library's ordinary fp32 logits from these
  made_with library versions

The weights are random: variance 1/columns for matrices, 1 + 0.1 normal for norms, 0.1 normal for
biases, so that every part of the forward pass shows in the logits.
"""
import json
import os
import shutil
import sys

import torch
import transformers
from family_models import COMMON, FUSED, MODELS, POSITIONS, SEEDS
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode


def randomize(model, seed):
    gen = torch.Generator().manual_seed(seed)
    for name, p in list(model.named_parameters()) + list(model.named_buffers()):
        if "inv_freq" in name:
            continue
        noise = torch.randn(p.shape, generator=gen)
        with torch.no_grad():
            if "norm" in name or (".ln_" in name and name.endswith("weight")):
                p.copy_(1 + 0.1 * noise)
            elif name.endswith("sinks"):
                p.copy_(noise)
            elif "embed_scale" in name:
                pass
            elif p.dim() == 1 or "correction_bias" in name:
                p.copy_(0.1 * noise)
            elif any(w in name for w in ("embed", "wte", "wpe", "mlp.gate.weight", "router")):
                p.copy_(noise)
            else:
                p.copy_(noise / p.shape[-1] ** 0.5)


class OnlyDoubles(TorchDispatchMode):
    """Fails when an operation computes in fp32."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = str(func)
        harmless = ("view", "copy", "empty", "detach", "unsqueeze", "expand", "arange", "slice", "alias", "squeeze")
        if isinstance(out, torch.Tensor) and out.dtype is REAL_F32 and not any(w in name for w in harmless):
            raise AssertionError(f"fp32 arithmetic left: {name}")
        return out


REAL_F32 = torch.float32


class Widened:
    """Makes the library's explicit fp32 casts fp64 while it is entered."""

    def __enter__(self):
        self.kept = torch.float32, torch.float, torch.Tensor.float
        torch.float32 = torch.float = torch.float64
        torch.Tensor.float = torch.Tensor.double
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_):
        torch.float32, torch.float, torch.Tensor.float = self.kept
        torch.set_default_dtype(REAL_F32)


def load(path, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, attn_implementation="eager"
    )
    model.config._experts_implementation = "eager"
    return model.eval()


def old_spelling(config):
    both = config.pop("rope_parameters")
    if "full_attention" in both:
        config["rope_local_base_freq"] = both["sliding_attention"]["rope_theta"]
        both = both["full_attention"]
    config["rope_theta"] = both.pop("rope_theta")
    partial = both.pop("partial_rotary_factor", None)
    if partial is not None and partial != 0.5:
        config["partial_rotary_factor"] = partial  # 0.5 is the default of the one family that has it
    if both["rope_type"] != "default":
        config["rope_scaling"] = both
    config["torch_dtype"] = config.pop("dtype")


def block_fp8(tensors, rows=8, cols=16):
    """Projections as E4M3 with a scale per block; returns them as BF16 numbers too."""
    stored, numbers = {}, {}
    for name, w in tensors.items():
        if "_proj" not in name or not name.endswith("weight"):
            stored[name] = numbers[name] = w
            continue
        n, k = -(-w.shape[0] // rows), -(-w.shape[1] // cols)
        padded = torch.zeros(n * rows, k * cols)
        padded[: w.shape[0], : w.shape[1]] = w
        scale = padded.view(n, rows, k, cols).abs().amax((1, 3)) / 448
        full = scale.repeat_interleave(rows, 0).repeat_interleave(cols, 1)[: w.shape[0], : w.shape[1]]
        q = (w / full).to(torch.float8_e4m3fn)
        stored[name], stored[name + "_scale_inv"] = q, scale
        numbers[name] = (q.float() * full).bfloat16().float()
    return stored, numbers


def block_mxfp4(tensors):
    """Experts as random MXFP4 blocks, and the numbers the library makes of them."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    stored, numbers = {}, {}
    gen = torch.Generator().manual_seed(5)
    for name, w in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = numbers[name] = w
            continue
        shape = (w.shape[0], w.shape[2], w.shape[1] // 32)
        blocks = torch.randint(0, 256, (*shape, 16), generator=gen, dtype=torch.uint8)
        scales = torch.randint(122, 125, shape, generator=gen, dtype=torch.uint8)
        stored[name + "_blocks"], stored[name + "_scales"] = blocks, scales
        numbers[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
    return stored, numbers


# Saved in blocks of small numbers.
BLOCKS = {
    "deepseek_v3-fp8": (
        block_fp8,
        dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[8, 16]),
    ),
    "gpt_oss-mxfp4": (block_mxfp4, dict(quant_method="mxfp4")),
}


def use_blocks(name, path):
    """The file's numbers become those of blocks; returns what is to be stored in the end."""
    file = os.path.join(path, "model.safetensors")
    stored, numbers = BLOCKS[name][0](load_file(file))
    save_file(numbers, file, metadata={"format": "pt"})
    return stored


def store_blocks(name, path, stored):
    save_file(stored, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    config["quantization_config"] = BLOCKS[name][1]
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
        f.write("\n")


def make(out, name, seed):
    cls, overrides, spelling = MODELS[FUSED.get(name, name)]
    path = os.path.join(out, name)
    shutil.rmtree(path, ignore_errors=True)
    common = {} if spelling == "none" else COMMON
    config = getattr(transformers, cls)(**{**common, **overrides})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=REAL_F32)
    randomize(model, seed)
    model.save_pretrained(path, save_original_format=name not in FUSED)
    extra = os.path.join(path, "generation_config.json")
    if os.path.exists(extra):
        os.remove(extra)
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    config.pop("transformers_version", None)
    if spelling == "old":
        old_spelling(config)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
        f.write("\n")

    stored = use_blocks(name, path) if name in BLOCKS else None
    ids = torch.randint(0, COMMON["vocab_size"], (1, POSITIONS), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        single = load(path, REAL_F32)(input_ids=ids, use_cache=False).logits[0]
        wide = load(path, torch.float64)
        with Widened():
            if hasattr(wide, "model"):
                wide.model.rotary_emb = type(wide.model.rotary_emb)(config=wide.config)
            with OnlyDoubles():
                double = wide(input_ids=ids, use_cache=False).logits[0]
    assert double.dtype is torch.float64
    err = (single.double() - double).abs().max().item()
    assert err < 1e-4 and double.abs().max().item() > 0.5, (name, err)
    if stored is not None:
        store_blocks(name, path, stored)
    golden = dict(
        ids=ids[0].tolist(),
        fp32_err=float(f"{err:.3g}"),
        made_with=f"torch {torch.__version__}, transformers {transformers.__version__}",
        logits=[[float(f"{v:.15g}") for v in row] for row in double.tolist()],
    )
    with open(os.path.join(path, "golden.json"), "w") as f:
        json.dump(golden, f)
        f.write("\n")
    print(f"{name}: fp32 differs by {err:.2g}, logits to {double.abs().max().item():.2f}")


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/golden"
    rest = [name for name in MODELS if name not in SEEDS]
    seeds = {**{name: 1000 + i for i, name in enumerate(rest)}, **SEEDS}
    for name in list(MODELS) + list(FUSED):
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            make(out, name, seeds[FUSED.get(name, name)])


if __name__ == "__main__":
    main()
