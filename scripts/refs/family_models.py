"""The tiny models that make_family_goldens.py writes: configs by name."""

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

# The others have theirs by their place among each other: a model that comes into the middle gets one
# here, so that the rest keep their weights.
SEEDS = {"granite": 1014, "phi3-short": 1017, "ernie4_5_moe": 1024}


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


def yarn(**more):
    return rope("yarn", factor=4.0, original_max_position_embeddings=16, **more)


def gemma3_rope(theta, factor, window_theta):
    full = rope("linear", theta=theta, factor=factor)
    return dict(full_attention=full, sliding_attention=rope(theta=window_theta))


def experts(n, k, shared=1, dense=1, groups=()):
    """As GLM-4, dots and DeepSeek name them; groups: how many there are, how many are chosen."""
    return dict(
        n_routed_experts=n,
        num_experts_per_tok=k,
        n_shared_experts=shared,
        first_k_dense_replace=dense,
        **dict(zip(("n_group", "topk_group"), groups)),
    )


def granite(embedding, logits, residual, attention):
    return dict(
        embedding_multiplier=embedding,
        logits_scaling=logits,
        residual_multiplier=residual,
        attention_multiplier=attention,
        rope_parameters=rope(),
    )


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
            rope_parameters=yarn(),
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
            **experts(8, 3, shared=2, groups=(2, 1)),
            moe_intermediate_size=12,
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
            **experts(6, 4, dense=0),
            moe_intermediate_size=16,
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
            **experts(6, 2, groups=(3, 2)),
            moe_intermediate_size=12,
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
        granite(3.0, 0.7, 0.6, 0.2),
        "new",
    ),
    "granitemoe": (
        "GraniteMoeConfig",
        dict(
            **granite(3.0, 0.25, 0.6, 0.2),
            intermediate_size=12,
            num_local_experts=5,
            num_experts_per_tok=2,
        ),
        "old",
    ),
    "granitemoeshared": (
        "GraniteMoeSharedConfig",
        dict(
            **granite(1.5, 0.5, 0.8, 0.4),
            intermediate_size=12,
            num_local_experts=4,
            num_experts_per_tok=3,
            shared_intermediate_size=20,
            tie_word_embeddings=True,
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
            rope_parameters=gemma3_rope(1000000.0, 8.0, 10000.0),
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
            rope_parameters=gemma3_rope(500000.0, 4.0, 300.0),
        ),
        "old",
    ),
    "deepseek_v2": (
        "DeepseekV2Config",
        dict(
            MLA,
            num_hidden_layers=3,
            q_lora_rank=None,
            **experts(6, 2, groups=(3, 2)),
            topk_method="group_limited_greedy",
            routed_scaling_factor=1.5,
            rope_parameters=yarn(mscale=0.7, mscale_all_dim=0.5),
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
            **experts(8, 2, groups=(4, 2)),
            norm_topk_prob=True,
            num_mtp_layers=0,
            rope_parameters=yarn(mscale=1.0, mscale_all_dim=1.0),
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
            rope_parameters=yarn(theta=150000.0, beta_fast=32.0, beta_slow=1.0, truncate=False),
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
            **experts(4, 2, groups=(1, 1)),
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
