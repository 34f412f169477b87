#include "tests/toy.h"

#include "lib/base/rng.h"

#include <math.h>

struct toy_maker {
    struct mt_ctx *ctx;
    struct mt_model *m;
    enum mt_dtype dtype;
    uint64_t seed, stream;
    mt_status st; /* the first failure; later calls do nothing */
};

/* A record of normal numbers: mean + spread * N(0, 1). rows 0: a vector. */
static void toy_add(struct toy_maker *k, struct mt_role role, int64_t rows, int64_t cols,
                    double mean, double spread)
{
    int64_t shape[2] = {rows > 0 ? rows : cols, cols};
    size_t n = (size_t)(rows > 0 ? rows : 1) * (size_t)cols;
    struct mt_tensor *t;
    struct mt_rng rng;
    float *v;

    if (k->st != MT_OK)
        return;
    k->st = mt_model_add(k->ctx, k->m, role, k->dtype, rows > 0 ? 2 : 1, shape, &t);
    if (k->st == MT_OK)
        k->st = mt_alloc(k->ctx, n, sizeof *v, "toy weights", &v);
    if (k->st != MT_OK)
        return;
    mt_rng_seed(&rng, k->seed, k->stream++);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(mean + spread * mt_rng_normal(&rng));
    k->st = mt_source_floats(k->ctx, k->m, t, v);
    mt_free(v);
}

static void toy_matrix(struct toy_maker *k, enum mt_role_kind kind, int layer, int expert,
                       int64_t out, int64_t in, bool bias)
{
    struct mt_role role = mt_role(kind, layer, expert);

    toy_add(k, role, out, in, 0, 1 / sqrt((double)in));
    role.part = MT_PART_BIAS;
    if (bias)
        toy_add(k, role, 0, out, 0, 0.3);
}

static void toy_norm(struct toy_maker *k, enum mt_role_kind kind, int layer, int64_t n)
{
    toy_add(k, mt_role(kind, layer, MT_EXPERT_NONE), 0, n, 1, 0.2);
}

static void toy_attention(struct toy_maker *k, int l)
{
    const struct mt_hparams *hp = &k->m->hp;
    int64_t h = hp->hidden, q = (int64_t)hp->n_heads * hp->head_dim;
    int64_t kv = (int64_t)hp->n_kv_heads * hp->head_dim;
    bool by_head = hp->qk_norm == MT_QK_NORM_HEAD;

    toy_norm(k, MT_ROLE_ATTN_NORM, l, h);
    toy_matrix(k, MT_ROLE_ATTN_Q, l, MT_EXPERT_NONE, q, h, hp->qkv_bias);
    toy_matrix(k, MT_ROLE_ATTN_K, l, MT_EXPERT_NONE, kv, h, hp->qkv_bias);
    toy_matrix(k, MT_ROLE_ATTN_V, l, MT_EXPERT_NONE, kv, h, hp->qkv_bias);
    toy_matrix(k, MT_ROLE_ATTN_O, l, MT_EXPERT_NONE, h, q, hp->o_bias);
    if (hp->qk_norm != MT_QK_NORM_NONE) {
        toy_norm(k, MT_ROLE_Q_NORM, l, by_head ? hp->head_dim : q);
        toy_norm(k, MT_ROLE_K_NORM, l, by_head ? hp->head_dim : kv);
    }
    toy_norm(k, MT_ROLE_FFN_NORM, l, h);
}

static void toy_block(struct toy_maker *k, int l, int expert, int64_t width)
{
    const struct mt_ffn *f = &k->m->ffn[l];
    int64_t h = k->m->hp.hidden;

    if (f->gated)
        toy_matrix(k, MT_ROLE_FFN_GATE, l, expert, width, h, f->in_bias);
    toy_matrix(k, MT_ROLE_FFN_UP, l, expert, width, h, f->in_bias);
    toy_matrix(k, MT_ROLE_FFN_DOWN, l, expert, h, width, f->out_bias);
}

static void toy_ffn(struct toy_maker *k, int l)
{
    const struct mt_ffn *f = &k->m->ffn[l];
    int64_t h = k->m->hp.hidden;

    if (!f->moe) {
        toy_block(k, l, MT_EXPERT_NONE, f->width);
        return;
    }
    toy_add(k, mt_role(MT_ROLE_ROUTER, l, MT_EXPERT_NONE), f->n_experts, h, 0, 1);
    if (f->rule.has_bias)
        toy_add(k, mt_role(MT_ROLE_ROUTER_BIAS, l, MT_EXPERT_NONE), 0, f->n_experts, 0, 0.1);
    for (int e = 0; e < f->n_experts; e++)
        toy_block(k, l, e, f->width);
    if (f->shared_width > 0)
        toy_block(k, l, MT_EXPERT_SHARED, f->shared_width);
    if (f->shared_gated)
        toy_matrix(k, MT_ROLE_SHARED_GATE, l, MT_EXPERT_NONE, 1, h, false);
}

static void toy_shape(struct mt_model *m, const struct toy *s)
{
    struct mt_hparams *hp = &m->hp;

    *hp = (struct mt_hparams){
        .n_layers = s->layers ? s->layers : 2,
        .hidden = s->hidden ? s->hidden : 32,
        .vocab = s->vocab ? s->vocab : 61,
        .max_pos = 512,
        .n_heads = s->heads ? s->heads : 4,
        .n_kv_heads = s->kv_heads ? s->kv_heads : 2,
        .head_dim = s->head_dim ? s->head_dim : 8,
        .norm_eps = 1e-5,
        .qk_norm = s->qk_norm,
        .qkv_bias = s->qkv_bias,
        .o_bias = s->o_bias,
        .tied = s->tied,
        .embed_scale = 1,
        .logit_scale = 1,
        .residual_scale = 1,
        .rope = {.type = MT_ROPE_DEFAULT, .theta = 10000, .partial = 1},
        .bos_id = -1,
        .eos_id = -1,
    };
}

static void toy_shape_ffn(struct mt_model *m, const struct toy *s)
{
    for (int l = 0; l < m->hp.n_layers; l++) {
        bool moe = s->experts > 0 && l >= s->first_dense;
        m->ffn[l] = (struct mt_ffn){.moe = moe,
                                    .gated = !s->ungated,
                                    .act = MT_ACT_SILU,
                                    .width = s->width ? s->width : 48,
                                    .in_bias = s->in_bias,
                                    .out_bias = s->out_bias};
        if (!moe)
            continue;
        m->ffn[l].n_experts = s->experts;
        m->ffn[l].k = s->k;
        m->ffn[l].shared_width = s->shared_width;
        m->ffn[l].shared_gated = s->shared_gated;
        m->ffn[l].rule = s->rule;
        if (m->ffn[l].rule.scale == 0)
            m->ffn[l].rule.scale = 1;
    }
}

mt_status toy_model(struct mt_ctx *ctx, const struct toy *s, struct mt_model **out)
{
    const char *family = s->family ? s->family : s->experts > 0 ? "glm4_moe" : "llama";
    struct toy_maker k = {.ctx = ctx, .dtype = s->dtype ? s->dtype : MT_F32, .seed = s->seed};

    MT_TRY(mt_model_create(ctx, out));
    k.m = *out;
    k.m->family = mt_family_find(family);
    k.m->model_type = family;
    k.m->path = "toy";
    toy_shape(k.m, s);
    k.st = mt_arena_alloc(ctx, &k.m->arena, (size_t)k.m->hp.n_layers, sizeof *k.m->ffn, &k.m->ffn);
    if (k.st == MT_OK)
        toy_shape_ffn(k.m, s);
    toy_add(&k, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE), k.m->hp.vocab, k.m->hp.hidden, 0, 1);
    for (int l = 0; k.st == MT_OK && l < k.m->hp.n_layers; l++) {
        toy_attention(&k, l);
        toy_ffn(&k, l);
    }
    toy_norm(&k, MT_ROLE_FINAL_NORM, -1, k.m->hp.hidden);
    if (!s->tied)
        toy_matrix(&k, MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE, k.m->hp.vocab, k.m->hp.hidden, false);
    if (k.st != MT_OK) {
        mt_model_free(*out);
        *out = NULL;
    }
    return k.st;
}

void toy_ids(uint64_t seed, int64_t vocab, int32_t *ids, int n)
{
    struct mt_rng rng;

    mt_rng_seed(&rng, seed, 99);
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)mt_rng_below(&rng, (uint64_t)vocab);
}
