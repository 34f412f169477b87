#!/usr/bin/env python3
"""Writes tests/golden/<name>/ of encoders: tiny random models and what the reference library makes of them.

usage: make_encoder_goldens.py [OUT=tests/golden] [NAME...]

Needs torch and transformers 5, as make_family_goldens.py beside it. Each directory holds config.json,
model.safetensors (F32) and hidden.json:

  embeddings  [tokens][hidden] fp32 numbers that stand for what the embedding layer gives
  last        [tokens][hidden] last hidden states of them, fp64 throughout
  lengths     BERT: two sequences, padded to one length for the library, with its mask
  ids         BERT: their token ids one after the other, without padding
  last_ids    BERT: their last hidden states
  fp32_err    largest absolute difference of the library's ordinary fp32 run from `last`
"""
import json
import os
import shutil
import sys

import torch
import transformers
from make_family_goldens import REAL_F32, OnlyDoubles, Widened, randomize
from safetensors.torch import load_file, save_file

TOKENS = 14
LENGTHS = [11, 6]
COMMON = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4)
IMAGE = dict(image_size=16, patch_size=8)  # 4 patches and the class token; the states given are more
MODELS = {
    # name: (model class, overrides, norms by their old names)
    "bert": ("BertModel", dict(vocab_size=40, intermediate_size=28, max_position_embeddings=20), False),
    "bert-legacy": (
        "BertForMaskedLM",
        dict(vocab_size=40, intermediate_size=32, max_position_embeddings=20, hidden_act="relu", type_vocab_size=1),
        True,
    ),
    "vit": ("ViTModel", dict(intermediate_size=28, **IMAGE), False),
    "vit-unbiased": ("ViTForImageClassification", dict(intermediate_size=28, qkv_bias=False, **IMAGE), False),
    "dinov2": ("Dinov2Model", dict(mlp_ratio=2, **IMAGE), False),
    "dinov2-swiglu": ("Dinov2ForImageClassification", dict(mlp_ratio=3, use_swiglu_ffn=True, **IMAGE), False),
}


def widen(model, seed):
    """Norms near one, and scales of blocks' outputs that show."""
    gen = torch.Generator().manual_seed(seed + 1)
    for name, p in model.named_parameters():
        with torch.no_grad():
            if "LayerNorm.weight" in name:
                p.copy_(1 + 0.1 * torch.randn(p.shape, generator=gen))
            elif "lambda" in name:
                p.copy_(0.7 + 0.3 * torch.randn(p.shape, generator=gen))


def encoder_of(model):
    return getattr(model, model.base_model_prefix, model) if model.base_model_prefix else model


def run(model, embeddings):
    """Last hidden states of a base model whose embedding layer is made to give `embeddings`."""
    base = encoder_of(model)
    hook = base.embeddings.register_forward_hook(lambda *_: embeddings)
    if isinstance(base, transformers.BertModel):
        last = base(input_ids=torch.zeros(embeddings.shape[:2], dtype=torch.long))[0]
    else:
        last = base(pixel_values=torch.zeros(1, 3, 16, 16, dtype=embeddings.dtype))[0]
    hook.remove()
    return last[0]


def run_ids(model, ids):
    """Two padded sequences with the library's mask; the real tokens of both."""
    padded = torch.zeros(2, max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(padded)
    at = 0
    for i, n in enumerate(LENGTHS):
        padded[i, :n] = ids[at : at + n]
        mask[i, :n] = 1
        at += n
    last = encoder_of(model)(input_ids=padded, attention_mask=mask)[0]
    return torch.cat([last[i, :n] for i, n in enumerate(LENGTHS)])


def rows(t):
    return [[float(f"{v:.15g}") for v in row] for row in t.tolist()]


def write(path, value, indent=None):
    with open(path, "w") as f:
        json.dump(value, f, indent=indent, sort_keys=indent is not None)
        f.write("\n")


def old_names(path):
    file = os.path.join(path, "model.safetensors")
    renamed = {}
    for name, t in load_file(file).items():
        if "LayerNorm" in name:
            name = name.replace("weight", "gamma").replace("bias", "beta")
        renamed[name] = t
    save_file(renamed, file, metadata={"format": "pt"})


def make(out, name, seed):
    cls, overrides, legacy = MODELS[name]
    path = os.path.join(out, name)
    shutil.rmtree(path, ignore_errors=True)
    kind = getattr(transformers, cls)
    model = kind(kind.config_class(**{**COMMON, **overrides})).to(REAL_F32)
    randomize(model, seed)
    widen(model, seed)
    model.save_pretrained(path)
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    config.pop("transformers_version", None)
    write(os.path.join(path, "config.json"), config, indent=1)

    gen = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(1, TOKENS, COMMON["hidden_size"], generator=gen)
    ids = torch.randint(1, 40, (sum(LENGTHS),), generator=gen)
    golden = dict(made_with=f"torch {torch.__version__}, transformers {transformers.__version__}")
    with torch.no_grad():
        single = run(kind.from_pretrained(path, dtype=REAL_F32, attn_implementation="eager").eval(), embeddings)
        wide = kind.from_pretrained(path, dtype=torch.float64, attn_implementation="eager").eval()
        with Widened(), OnlyDoubles():
            last = run(wide, embeddings.double())
            if name.startswith("bert"):
                golden.update(lengths=LENGTHS, ids=ids.tolist(), last_ids=rows(run_ids(wide, ids)))
    assert last.dtype is torch.float64
    err = (single.double() - last).abs().max().item()
    assert err < 1e-4 and last.abs().max().item() > 0.5, (name, err)
    golden.update(fp32_err=float(f"{err:.3g}"), embeddings=embeddings[0].tolist(), last=rows(last))
    if legacy:
        old_names(path)
    write(os.path.join(path, "hidden.json"), golden)
    print(f"{name}: fp32 differs by {err:.2g}, states to {last.abs().max().item():.2f}")


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/golden"
    for i, name in enumerate(MODELS):
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            make(out, name, 2000 + i)


if __name__ == "__main__":
    main()
