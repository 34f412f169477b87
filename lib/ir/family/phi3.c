/* Phi-3 and Phi-4: q, k, v in one tensor, gate and up in another; longrope, partial rotation. */
#include "lib/ir/family.h"

static const struct mt_name_row phi3_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_END,
};

static const struct mt_fused_row phi3_fused[] = {
    {"model.layers.%l.self_attn.qkv_proj.weight",
     0,
     MT_PART_WEIGHT,
     MT_NAME_NO_EXPERT,
     {MT_ROLE_ATTN_Q, MT_ROLE_ATTN_K, MT_ROLE_ATTN_V}},
    {"model.layers.%l.mlp.gate_up_proj.weight",
     0,
     MT_PART_WEIGHT,
     MT_NAME_NO_EXPERT,
     {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP}},
    MT_FUSED_END,
};

static mt_status phi3_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    m->hp.norm_eps = 1e-5;
    MT_TRY(mt_cfg_read_common(ctx, m));
    if (mt_json_kind(mt_json_get(m->config, "sliding_window")) == MT_JSON_NUMBER)
        MT_TRY(
            mt_cfg_int(ctx, m->config, "sliding_window", 0, 1, MT_DIM_MAX, &m->hp.sliding_window));
    return mt_cfg_alloc_ffn(ctx, m);
}

const struct mt_family mt_family_phi3 = {
    .name = "phi3",
    .architecture = "Phi3ForCausalLM",
    .names = phi3_names,
    .fused = phi3_fused,
    .read_config = phi3_read_config,
};
