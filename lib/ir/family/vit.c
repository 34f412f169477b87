/* ViT: attention both ways over patches, norms before both blocks, biases everywhere. Patches are
 * embedded elsewhere, so it runs from given hidden states. Names with or without `vit.`. */
#include "lib/ir/family.h"

#define VIT_ROWS(prefix)                                                                           \
    MT_ROWS_LINEAR(prefix "encoder.layer.%l.layernorm_before", ATTN_NORM),                         \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.attention.query", ATTN_Q),               \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.attention.key", ATTN_K),                 \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.attention.value", ATTN_V),               \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.output.dense", ATTN_O),                  \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.layernorm_after", FFN_NORM),                       \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.intermediate.dense", FFN_UP),                      \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.output.dense", FFN_DOWN),                          \
        MT_ROWS_LINEAR(prefix "layernorm", FINAL_NORM)

static const struct mt_name_row vit_names[] = {
    VIT_ROWS("vit."),
    VIT_ROWS(""),
    MT_ROWS_END,
};

static mt_status vit_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    MT_TRY(mt_cfg_read_encoder(ctx, m, "intermediate_size"));
    return mt_cfg_read_patches(ctx, m);
}

const struct mt_family mt_family_vit = {
    .name = "vit",
    .architecture = "ViTModel",
    .names = vit_names,
    .read_config = vit_read_config,
};
