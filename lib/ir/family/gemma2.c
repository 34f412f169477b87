/* Gemma 2: (1 + w) norms before and behind both blocks, soft-capped attention and logits, scaled
 * embeddings, every second layer with a window. */
#include "lib/ir/family.h"

static const struct mt_name_row gemma2_names[] = {
    MT_ROWS_GEMMA, MT_ROWS_QKV_BIAS, MT_ROWS_O_BIAS, MT_ROWS_DENSE_FFN, MT_ROWS_END,
};

static mt_status gemma2_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    return mt_cfg_read_gemma(ctx, m, 2, 50, 30);
}

const struct mt_family mt_family_gemma2 = {
    .name = "gemma2",
    .architecture = "Gemma2ForCausalLM",
    .names = gemma2_names,
    .read_config = gemma2_read_config,
};
