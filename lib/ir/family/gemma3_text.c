/* Gemma 3, text: Gemma 2 with q/k norms instead of soft-caps; five layers with a window, which
 * rotate by a frequency of their own, to each without. */
#include "lib/ir/family.h"

static const struct mt_name_row gemma3_text_names[] = {
    MT_ROWS_GEMMA,   MT_ROWS_QKV_BIAS,  MT_ROWS_O_BIAS,
    MT_ROWS_QK_NORM, MT_ROWS_DENSE_FFN, MT_ROWS_END,
};

static mt_status gemma3_text_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_hparams *hp = &m->hp;
    const struct mt_json *cfg = m->config;
    int64_t every;
    bool both_ways;

    MT_TRY(mt_json_get_bool(ctx, cfg, "use_bidirectional_attention", false, &both_ways));
    if (both_ways)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "attention in both directions is not known here");
    MT_TRY(mt_cfg_int(ctx, cfg, "sliding_window_pattern", 6, 1, MT_LAYERS_MAX, &every));
    hp->rope.theta = 1e6;
    /* Gemma3ForConditionalGeneration leaves out of its text_config what has these values. */
    if (m->family->inside) {
        hp->n_layers = 26;
        hp->hidden = 2304;
        hp->vocab = 262208;
        hp->max_pos = 131072;
        hp->n_heads = 8;
        hp->n_kv_heads = 4;
    }
    MT_TRY(mt_cfg_read_gemma(ctx, m, every, 0, 0));
    hp->qk_norm = MT_QK_NORM_HEAD;
    if (!hp->local_rope) {
        hp->local_rope = true;
        hp->rope_local = (struct mt_rope_params){.factor = 1, .partial = 1};
        MT_TRY(mt_cfg_num(ctx, cfg, "rope_local_base_freq", 10000, 1, 1e15, &hp->rope_local.theta));
    }
    return MT_OK;
}

const struct mt_family mt_family_gemma3_text = {
    .name = "gemma3_text",
    .architecture = "Gemma3ForCausalLM",
    .names = gemma3_text_names,
    .read_config = gemma3_text_read_config,
};
