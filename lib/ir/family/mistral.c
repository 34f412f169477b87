/* Mistral 7B and Nemo: Llama's tensors, a sliding window, no biases. */
#include "lib/ir/family.h"

static const struct mt_name_row mistral_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_END,
};

static mt_status mistral_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    MT_TRY(mt_cfg_read_common(ctx, m));
    /* null switches it off; an absent key means the default of 4096. */
    if (mt_json_kind(mt_json_get(m->config, "sliding_window")) != MT_JSON_NULL)
        MT_TRY(mt_cfg_int(ctx, m->config, "sliding_window", 4096, 1, MT_DIM_MAX,
                          &m->hp.sliding_window));
    return mt_cfg_alloc_ffn(ctx, m);
}

static mt_status mistral_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.window = true};
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, &mt_family_mistral, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, &mt_family_mistral, &moe));
    if (m->ffn[0].in_bias || m->ffn[0].out_bias)
        return mt_cfg_cannot(ctx, &mt_family_mistral, "biases in FFNs", "llama");
    return MT_OK;
}

static mt_status mistral_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                      struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_mistral, config);
    if (mt_hp_has_window(&m->hp))
        mt_json_set_int(config, "sliding_window", m->hp.sliding_window);
    else
        mt_json_set_null(config, "sliding_window");
    return MT_OK;
}

const struct mt_family mt_family_mistral = {
    .name = "mistral",
    .architecture = "MistralForCausalLM",
    .names = mistral_names,
    .read_config = mistral_read_config,
    .can_hold = mistral_can_hold,
    .write_config = mistral_write_config,
};
