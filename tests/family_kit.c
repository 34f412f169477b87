#include "tests/family_kit.h"

struct mt_model *fk_plain(struct t *t, const char *family)
{
    const struct mt_router_rule softmax = {
        .score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1, .n_group = 1, .topk_group = 1};
    struct mt_model *m;
    bool moe, norms;

    if (mt_model_create(&t->ctx, &m) != MT_OK ||
        mt_arena_alloc(&t->ctx, &m->arena, 4, sizeof *m->ffn, &m->ffn) != MT_OK)
        return NULL;
    m->family = mt_family_find(family);
    moe = m->family->moe;
    norms = strncmp(family, "qwen3", 5) == 0 || strcmp(family, "dots1") == 0;
    m->hp = (struct mt_hparams){.n_layers = 4,
                                .hidden = 64,
                                .vocab = 100,
                                .max_pos = 512,
                                .n_heads = 4,
                                .n_kv_heads = 2,
                                .head_dim = 24,
                                .norm_eps = 1e-5,
                                .embed_scale = 1,
                                .logit_scale = 1,
                                .residual_scale = 1,
                                .bos_id = -1,
                                .eos_id = -1};
    m->hp.rope =
        (struct mt_rope_params){.theta = 1e4, .factor = 1, .partial = 1, .original_max_pos = 512};
    m->hp.qk_norm = norms ? MT_QK_NORM_HEAD : MT_QK_NORM_NONE;
    m->hp.qkv_bias = strcmp(family, "qwen2") == 0;
    for (int l = 0; l < 4; l++) {
        m->ffn[l] = (struct mt_ffn){.moe = moe, .gated = true, .width = 48};
        if (moe) {
            m->ffn[l].n_experts = 8;
            m->ffn[l].k = 2;
            m->ffn[l].rule = softmax;
        }
    }
    if (strcmp(family, "olmoe") == 0)
        m->hp.qk_norm = MT_QK_NORM_FULL;
    if (strcmp(family, "olmoe") == 0 || strcmp(family, "qwen2_moe") == 0)
        m->hp.head_dim = 16; /* their heads are as wide as the hidden state */
    for (int l = 0; strcmp(family, "qwen2_moe") == 0 && l < 4; l++) {
        m->ffn[l].shared_width = 30;
        m->ffn[l].shared_gated = true;
    }
    if (strncmp(family, "granite", 7) == 0) {
        m->hp.attn_scale = 0.125; /* its config always tells one */
        for (int l = 0; moe && l < 4; l++) {
            m->ffn[l].rule.score = MT_SCORE_SOFTMAX_TOPK;
            m->ffn[l].rule.renorm = false;
        }
    }
    if (strcmp(family, "glm4_moe") == 0 || strcmp(family, "dots1") == 0)
        for (int l = 0; l < 4; l++) {
            m->ffn[l].rule.score = MT_SCORE_SIGMOID;
            m->ffn[l].rule.has_bias = true;
            m->ffn[l].rule.renorm_eps = 1e-20;
            m->ffn[l].shared_width = 96;
        }
    return m;
}

mt_status fk_again(struct t *t, const struct mt_model *m, const char *source, struct mt_model **out,
                   char **json)
{
    struct mt_model *r;
    size_t n;

    MT_TRY(mt_model_create(&t->ctx, &r));
    *out = r;
    MT_TRY(mt_json_parse(&t->ctx, source, strlen(source), "config.json", &r->config));
    MT_TRY(m->family->write_config(&t->ctx, m, r->config));
    if (json != NULL)
        MT_TRY(mt_json_print(&t->ctx, r->config, json, &n));
    r->family = mt_family_find(mt_json_text(mt_json_get(r->config, "model_type")));
    return r->family->read_config(&t->ctx, r);
}

bool fk_same(const struct mt_model *a, const struct mt_model *b)
{
    const struct mt_hparams *x = &a->hp, *y = &b->hp;
    const struct mt_rope_params *p = &x->rope, *q = &y->rope;
    bool same =
        x->n_layers == y->n_layers && x->hidden == y->hidden && x->vocab == y->vocab &&
        x->max_pos == y->max_pos && x->n_heads == y->n_heads && x->n_kv_heads == y->n_kv_heads &&
        x->head_dim == y->head_dim && x->norm_eps == y->norm_eps && x->qk_norm == y->qk_norm &&
        x->qkv_bias == y->qkv_bias && x->o_bias == y->o_bias && x->tied == y->tied &&
        x->sliding_window == y->sliding_window && x->window_first_layer == y->window_first_layer &&
        x->bos_id == y->bos_id && x->eos_id == y->eos_id && a->family == b->family;

    same = same && p->type == q->type && p->theta == q->theta && p->factor == q->factor &&
           p->low_freq_factor == q->low_freq_factor && p->high_freq_factor == q->high_freq_factor &&
           p->original_max_pos == q->original_max_pos && p->beta_fast == q->beta_fast &&
           p->beta_slow == q->beta_slow && p->attention_factor == q->attention_factor &&
           p->mscale == q->mscale && p->mscale_all_dim == q->mscale_all_dim &&
           p->partial == q->partial && p->pairs == q->pairs;
    same = same && x->embed_scale == y->embed_scale && x->logit_scale == y->logit_scale &&
           x->residual_scale == y->residual_scale;
    same = same && x->clip_qkv == y->clip_qkv && x->attn_scale == y->attn_scale &&
           x->mla.q_rank == y->mla.q_rank && x->mla.kv_rank == y->mla.kv_rank &&
           x->mla.nope == y->mla.nope && x->mla.rope == y->mla.rope && x->mla.v == y->mla.v;
    for (int l = 0; same && l < x->n_layers; l++) {
        const struct mt_ffn *f = &a->ffn[l], *g = &b->ffn[l];
        same = f->moe == g->moe && f->gated == g->gated && f->act == g->act &&
               f->width == g->width && f->n_experts == g->n_experts && f->k == g->k &&
               f->shared_width == g->shared_width && f->shared_gated == g->shared_gated &&
               f->in_bias == g->in_bias && f->out_bias == g->out_bias &&
               f->rule.score == g->rule.score && f->rule.renorm == g->rule.renorm &&
               f->rule.renorm_eps == g->rule.renorm_eps && f->rule.scale == g->rule.scale &&
               f->rule.has_bias == g->rule.has_bias && f->rule.n_group == g->rule.n_group &&
               f->rule.topk_group == g->rule.topk_group;
    }
    return same;
}
