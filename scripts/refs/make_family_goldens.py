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
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

COMMON = dict(
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=72,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
POSITIONS = 24

# Saved in the library's own in-memory form: experts in one tensor per layer and projection.
FUSED = {"mixtral-fused": "mixtral"}


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


# The root of the hidden size is exact in every dtype.
GEMMA = dict(hidden_size=16, head_dim=8, tie_word_embeddings=True, rms_norm_eps=1e-6)
MLA = dict(
    hidden_size=32,
    num_key_value_heads=4,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=8,
    moe_intermediate_size=12,
)


# name: (config class, overrides, spelling of RoPE in the written config.json)
MODELS = {
    "llama": (
        "LlamaConfig",
        dict(
            head_dim=12,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters=rope(
                "llama3",
                factor=4.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        "old",
    ),
    "llama-linear": (
        "LlamaConfig",
        dict(head_dim=8, rope_parameters=rope("linear", factor=3.0), tie_word_embeddings=True),
        "old",
    ),
    "llama-dynamic": (
        "LlamaConfig",
        dict(head_dim=8, rope_parameters=rope("dynamic", factor=2.0), max_position_embeddings=16),
        "new",
    ),
    "llama-yarn": (
        "LlamaConfig",
        dict(
            head_dim=16,
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16),
            max_position_embeddings=64,
        ),
        "new",
    ),
    "mistral": (
        "MistralConfig",
        dict(head_dim=10, num_key_value_heads=4, sliding_window=7, rope_parameters=rope(theta=500.0)),
        "old",
    ),
    "qwen2": (
        "Qwen2Config",
        dict(
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=1,
            tie_word_embeddings=True,
            num_key_value_heads=1,
            rope_parameters=rope(theta=1000000.0),
        ),
        "new",
    ),
    "qwen3": (
        "Qwen3Config",
        dict(head_dim=16, rope_parameters=rope(theta=1000000.0), rms_norm_eps=1e-6),
        "new",
    ),
    "mixtral": (
        "MixtralConfig",
        dict(
            num_local_experts=4,
            num_experts_per_tok=2,
            intermediate_size=24,
            rope_parameters=rope(theta=1000000.0),
        ),
        "new",
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        dict(
            num_hidden_layers=3,
            head_dim=8,
            num_experts=8,
            num_experts_per_tok=3,
            moe_intermediate_size=12,
            norm_topk_prob=False,
            mlp_only_layers=[1],
            decoder_sparse_step=1,
            rope_parameters=rope(),
        ),
        "old",
    ),
    "glm4_moe": (
        "Glm4MoeConfig",
        dict(
            head_dim=16,
            attention_bias=True,
            use_qk_norm=True,
            n_routed_experts=8,
            num_experts_per_tok=3,
            moe_intermediate_size=12,
            n_shared_experts=2,
            n_group=2,
            topk_group=1,
            first_k_dense_replace=1,
            norm_topk_prob=True,
            routed_scaling_factor=1.7,
            num_hidden_layers=3,
            num_nextn_predict_layers=0,
            rope_parameters=rope(partial_rotary_factor=0.5),
        ),
        "old",
    ),
    "glm4_moe-plain": (
        "Glm4MoeConfig",
        dict(
            head_dim=8,
            n_routed_experts=6,
            num_experts_per_tok=4,
            moe_intermediate_size=16,
            n_shared_experts=1,
            first_k_dense_replace=0,
            norm_topk_prob=False,
            routed_scaling_factor=2.0,
            num_nextn_predict_layers=0,
            rope_parameters=rope(partial_rotary_factor=1.0),
        ),
        "new",
    ),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        dict(
            num_hidden_layers=3,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=12,
            shared_expert_intermediate_size=20,
            mlp_only_layers=[0],
            use_sliding_window=True,
            sliding_window=6,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            rope_parameters=rope(theta=1000000.0),
        ),
        "new",
    ),
    "olmoe": (
        "OlmoeConfig",
        dict(
            intermediate_size=12,
            num_experts=6,
            num_experts_per_tok=3,
            clip_qkv=1.5,
            rope_parameters=rope(),
        ),
        "old",
    ),
    "dots1": (
        "Dots1Config",
        dict(
            num_hidden_layers=3,
            head_dim=8,
            attention_bias=True,
            n_routed_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=12,
            n_shared_experts=1,
            n_group=3,
            topk_group=2,
            first_k_dense_replace=1,
            norm_topk_prob=True,
            routed_scaling_factor=2.5,
            sliding_window=5,
            max_window_layers=2,
            rope_parameters=rope(),
        ),
        "new",
    ),
    "granite": (
        "GraniteConfig",
        dict(
            embedding_multiplier=3.0,
            logits_scaling=0.7,
            residual_multiplier=0.6,
            attention_multiplier=0.2,
            rope_parameters=rope(),
        ),
        "new",
    ),
    "granitemoe": (
        "GraniteMoeConfig",
        dict(
            intermediate_size=12,
            num_local_experts=5,
            num_experts_per_tok=2,
            embedding_multiplier=3.0,
            logits_scaling=0.25,
            residual_multiplier=0.6,
            attention_multiplier=0.2,
            rope_parameters=rope(),
        ),
        "old",
    ),
    "granitemoeshared": (
        "GraniteMoeSharedConfig",
        dict(
            intermediate_size=12,
            num_local_experts=4,
            num_experts_per_tok=3,
            shared_intermediate_size=20,
            embedding_multiplier=1.5,
            logits_scaling=0.5,
            residual_multiplier=0.8,
            attention_multiplier=0.4,
            tie_word_embeddings=True,
            rope_parameters=rope(),
        ),
        "new",
    ),
    "phi3": (
        "Phi3Config",
        dict(
            head_dim=8,
            max_position_embeddings=64,
            original_max_position_embeddings=16,
            sliding_window=15,
            rope_parameters=rope(
                "longrope",
                short_factor=[1.0, 1.25, 1.5],
                long_factor=[2.0, 3.0, 5.0],
                partial_rotary_factor=0.75,
                original_max_position_embeddings=16,
            ),
        ),
        "old",
    ),
    "phi3-short": (
        "Phi3Config",
        dict(
            hidden_size=32,
            num_hidden_layers=1,
            max_position_embeddings=128,
            original_max_position_embeddings=32,
            rope_parameters=rope(
                "longrope",
                short_factor=[1.0, 1.1, 1.3, 1.5],
                long_factor=[2.0, 3.0, 5.0, 7.0],
                original_max_position_embeddings=32,
            ),
        ),
        "new",
    ),
    "gpt2": (
        "GPT2Config",
        dict(n_embd=32, n_layer=2, n_head=4, n_positions=40, vocab_size=72),
        "none",
    ),
    "gemma2": (
        "Gemma2Config",
        dict(
            GEMMA,
            num_hidden_layers=3,
            query_pre_attn_scalar=24,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=2.0,
            sliding_window=6,
            rope_parameters=rope(),
        ),
        "old",
    ),
    "gemma3_text": (
        "Gemma3TextConfig",
        dict(
            GEMMA,
            num_hidden_layers=7,
            query_pre_attn_scalar=10,
            sliding_window=6,
            rope_parameters=dict(
                full_attention=rope("linear", theta=1000000.0, factor=8.0),
                sliding_attention=rope(theta=10000.0),
            ),
        ),
        "new",
    ),
    "gemma3_text-old": (
        "Gemma3TextConfig",
        dict(
            GEMMA,
            layer_types=["full_attention", "sliding_attention"],
            query_pre_attn_scalar=8,
            sliding_window=9,
            rope_parameters=dict(
                full_attention=rope("linear", theta=500000.0, factor=4.0),
                sliding_attention=rope(theta=300.0),
            ),
        ),
        "old",
    ),
    "deepseek_v2": (
        "DeepseekV2Config",
        dict(
            MLA,
            num_hidden_layers=3,
            q_lora_rank=None,
            n_routed_experts=6,
            num_experts_per_tok=2,
            n_shared_experts=1,
            topk_method="group_limited_greedy",
            n_group=3,
            topk_group=2,
            first_k_dense_replace=1,
            routed_scaling_factor=1.5,
            rope_parameters=rope(
                "yarn",
                factor=4.0,
                original_max_position_embeddings=16,
                mscale=0.7,
                mscale_all_dim=0.5,
            ),
            max_position_embeddings=64,
        ),
        "old",
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        dict(
            MLA,
            q_lora_rank=12,
            attention_bias=True,
            n_routed_experts=8,
            num_experts_per_tok=2,
            n_shared_experts=1,
            n_group=4,
            topk_group=2,
            first_k_dense_replace=1,
            norm_topk_prob=True,
            num_mtp_layers=0,
            rope_parameters=rope(
                "yarn",
                factor=4.0,
                original_max_position_embeddings=16,
                mscale=1.0,
                mscale_all_dim=1.0,
            ),
            max_position_embeddings=64,
        ),
        "new",
    ),
    "gpt_oss": (
        "GptOssConfig",
        dict(
            head_dim=8,
            intermediate_size=12,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=6,
            swiglu_limit=1.0,
            rope_parameters=rope(
                "yarn",
                theta=150000.0,
                factor=4.0,
                original_max_position_embeddings=16,
                beta_fast=32.0,
                beta_slow=1.0,
                truncate=False,
            ),
        ),
        "new",
    ),
    "gpt_oss-mxfp4": (
        "GptOssConfig",
        dict(
            hidden_size=64,
            head_dim=8,
            num_hidden_layers=1,
            intermediate_size=32,
            num_local_experts=4,
            num_experts_per_tok=2,
            rope_parameters=rope(theta=150000.0),
        ),
        "new",
    ),
    "deepseek_v3-fp8": (
        "DeepseekV3Config",
        dict(
            MLA,
            q_lora_rank=None,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_shared_experts=1,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
            num_mtp_layers=0,
            rope_parameters=rope(),
        ),
        "new",
    ),
    "ernie4_5_moe": (
        "Ernie4_5_MoeConfig",
        dict(
            num_hidden_layers=3,
            moe_intermediate_size=12,
            moe_num_experts=6,
            moe_k=2,
            moe_num_shared_experts=1,
            moe_layer_start_index=1,
            moe_layer_end_index=1,
            tie_word_embeddings=True,
            rope_parameters=rope(theta=500000.0),
        ),
        "new",
    ),
}


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
    seeds = {name: 1000 + i for i, name in enumerate(MODELS)}
    for name in list(MODELS) + list(FUSED):
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            make(out, name, seeds[FUSED.get(name, name)])


if __name__ == "__main__":
    main()
