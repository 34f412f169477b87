/* Blocks of a model nobody knows (blocks.h): sizes, and no names of its own. The config is one that
 * blocks.c writes; shapes of blocks come from there or, in the native layout, from its layers. */
#include "lib/ir/family.h"

static const struct mt_name_row ffn_only_names[] = {MT_ROWS_END};

static mt_status ffn_only_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    int64_t layers;

    MT_TRY(mt_cfg_int(ctx, cfg, "num_hidden_layers", -1, 1, MT_LAYERS_MAX, &layers));
    MT_TRY(mt_cfg_int(ctx, cfg, "hidden_size", -1, 1, MT_DIM_MAX, &hp->hidden));
    MT_TRY(mt_cfg_plain(ctx, m));
    hp->n_layers = (int)layers;
    hp->rope = (struct mt_rope_params){.theta = 10000, .factor = 1};
    return mt_arena_alloc(ctx, &m->arena, (size_t)layers, sizeof *m->ffn, &m->ffn);
}

const struct mt_family mt_family_ffn_only = {
    .name = "ffn_only",
    .architecture = "blocks alone",
    .names = ffn_only_names,
    .only_blocks = true,
    .read_config = ffn_only_read_config,
};
