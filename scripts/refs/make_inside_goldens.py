#!/usr/bin/env python3
"""Writes tests/golden/<name>/ of text models inside others: vision tower, projector and text model.

usage: make_inside_goldens.py [OUT=tests/golden] [NAME...]

Needs torch and transformers 5, as make_family_goldens.py beside it, whose golden.json this has too:
logits of a text without images, fp64 throughout.
"""
import json
import os
import shutil
import sys

import torch
import transformers
from make_family_goldens import REAL_F32, OnlyDoubles, Widened, randomize
from safetensors.torch import load_file, save_file

TEXT = dict(
    vocab_size=72,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=24,
    head_dim=8,
    max_position_embeddings=128,
)
VISION = dict(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
)
POSITIONS = 20
# name: (model class, config class, text model, vision model, more, prefix of the text model's names)
MODELS = {
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        dict(query_pre_attn_scalar=8, sliding_window=6, sliding_window_pattern=2),
        dict(vision_use_head=False),
        dict(mm_tokens_per_image=4),
        "language_model.model.",
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        dict(model_type="llama"),
        dict(model_type="clip_vision_model"),
        dict(image_token_index=71),
        "model.language_model.",
    ),
}


def rename(path, prefix):
    """The spelling of transformers 4.52 and later: model.language_model, and lm_head outside."""
    file = os.path.join(path, "model.safetensors")
    renamed = {}
    for name, t in load_file(file).items():
        if name.startswith("language_model.model."):
            name = prefix + name[len("language_model.model.") :]
        elif name.startswith("language_model.lm_head."):
            name = name[len("language_model.") :]
        elif not name.startswith("model."):
            name = "model." + name
        renamed[name] = t
    save_file(renamed, file, metadata={"format": "pt"})


def make(out, name, seed):
    cls, config, text, vision, more, prefix = MODELS[name]
    path = os.path.join(out, name)
    shutil.rmtree(path, ignore_errors=True)
    kind = getattr(transformers, cls)
    model = kind(
        getattr(transformers, config)(
            text_config={**TEXT, **text}, vision_config={**VISION, **vision}, **more
        )
    ).to(REAL_F32)
    randomize(model, seed)
    model.save_pretrained(path)
    if prefix != "language_model.model.":
        rename(path, prefix)
    for file in os.listdir(path):
        if file == "generation_config.json":
            os.remove(os.path.join(path, file))
    with open(os.path.join(path, "config.json")) as f:
        written = json.load(f)
    written.pop("transformers_version", None)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(written, f, indent=1, sort_keys=True)
        f.write("\n")

    ids = torch.randint(0, 70, (1, POSITIONS), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        load = dict(attn_implementation="eager")
        single = kind.from_pretrained(path, dtype=REAL_F32, **load).eval()(input_ids=ids, use_cache=False).logits[0]
        wide = kind.from_pretrained(path, dtype=torch.float64, **load).eval()
        with Widened():
            inner = wide.model.language_model
            inner.rotary_emb = type(inner.rotary_emb)(config=wide.config.text_config)
            with OnlyDoubles():
                double = wide(input_ids=ids, use_cache=False).logits[0]
    assert double.dtype is torch.float64
    err = (single.double() - double).abs().max().item()
    assert err < 1e-4 and double.abs().max().item() > 0.5, (name, err, double.abs().max())
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
    for i, name in enumerate(MODELS):
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            make(out, name, 3000 + i)


if __name__ == "__main__":
    main()
