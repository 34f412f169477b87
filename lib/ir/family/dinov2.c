/* DINOv2: ViT whose blocks' outputs are multiplied feature by feature, with plain FFNs or gated
 * ones that store gate and up in one. Names with or without `dinov2.`. */
#include "lib/ir/family.h"

/* Gate and up exist apart only here. */
#define DINOV2_ROWS(prefix)                                                                        \
    MT_ROWS_LINEAR(prefix "encoder.layer.%l.norm1", ATTN_NORM),                                    \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.attention.query", ATTN_Q),               \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.attention.key", ATTN_K),                 \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.attention.value", ATTN_V),               \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.output.dense", ATTN_O),                  \
        MT_ROW(prefix "encoder.layer.%l.layer_scale1.lambda1", ATTN_SCALE),                        \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.norm2", FFN_NORM),                                 \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.mlp.fc1", FFN_UP),                                 \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.mlp.fc2", FFN_DOWN),                               \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.mlp.weights_gate", FFN_GATE),                      \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.mlp.weights_up", FFN_UP),                          \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.mlp.weights_out", FFN_DOWN),                       \
        MT_ROW(prefix "encoder.layer.%l.layer_scale2.lambda1", FFN_SCALE),                         \
        MT_ROWS_LINEAR(prefix "layernorm", FINAL_NORM)

static const struct mt_name_row dinov2_names[] = {
    DINOV2_ROWS("dinov2."),
    DINOV2_ROWS(""),
    MT_ROWS_END,
};

#define DINOV2_FUSED(name, part)                                                                   \
    {                                                                                              \
        name, 0, part, MT_NAME_NO_EXPERT,                                                          \
        {                                                                                          \
            MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP                                                       \
        }                                                                                          \
    }
static const struct mt_fused_row dinov2_fused[] = {
    DINOV2_FUSED("dinov2.encoder.layer.%l.mlp.weights_in.weight", MT_PART_WEIGHT),
    DINOV2_FUSED("dinov2.encoder.layer.%l.mlp.weights_in.bias", MT_PART_BIAS),
    DINOV2_FUSED("encoder.layer.%l.mlp.weights_in.weight", MT_PART_WEIGHT),
    DINOV2_FUSED("encoder.layer.%l.mlp.weights_in.bias", MT_PART_BIAS),
    MT_FUSED_END,
};

static mt_status dinov2_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    int64_t ratio, width;
    bool gated;

    hp->norm_eps = 1e-6;
    MT_TRY(mt_cfg_read_encoder(ctx, m, NULL));
    MT_TRY(mt_cfg_read_patches(ctx, m));
    hp->layer_scale = true;
    MT_TRY(mt_cfg_int(ctx, cfg, "mlp_ratio", 4, 1, 1024, &ratio));
    MT_TRY(mt_json_get_bool(ctx, cfg, "use_swiglu_ffn", false, &gated));
    width = hp->hidden * ratio;
    if (gated)
        width = (width * 2 / 3 + 7) / 8 * 8;
    for (int l = 0; l < hp->n_layers; l++) {
        m->ffn[l].width = width;
        m->ffn[l].gated = gated;
        if (gated)
            m->ffn[l].act = MT_ACT_SILU;
    }
    return MT_OK;
}

const struct mt_family mt_family_dinov2 = {
    .name = "dinov2",
    .architecture = "Dinov2Model",
    .names = dinov2_names,
    .fused = dinov2_fused,
    .read_config = dinov2_read_config,
};
