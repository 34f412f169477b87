#include "lib/ir/family.h"
#include "lib/run/run_impl.h"

#include <limits.h>
#include <math.h>

static int64_t layer_q_width(const struct mt_hparams *hp)
{
    return (int64_t)hp->n_heads * hp->head_dim;
}

/* What o_proj takes. */
static int64_t layer_out_width(const struct mt_hparams *hp)
{
    return hp->mla.kv_rank > 0 ? (int64_t)hp->n_heads * hp->mla.v : layer_q_width(hp);
}

static int64_t layer_kv_width(const struct mt_hparams *hp)
{
    return (int64_t)hp->n_kv_heads * hp->head_dim;
}

/* A tensor of rows x cols and, where the model has one, its bias of n. */
mt_status mt_run_layer_want(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w,
                            enum mt_role_kind kind, int64_t rows, int64_t cols,
                            struct run_weight *weight, int64_t n, struct run_weight *bias)
{
    struct mt_role role = mt_role(kind, l->layer, MT_EXPERT_NONE);

    MT_TRY(mt_run_want_need(ctx, l->r->m, w, role, rows, cols, weight));
    role.part = MT_PART_BIAS;
    if (bias != NULL)
        mt_run_want_may(l->r->m, w, role, 1, n, bias);
    return MT_OK;
}

static mt_status layer_qkv_wants(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    int64_t h = hp->hidden, q = layer_q_width(hp), kv = layer_kv_width(hp);
    bool by_head = hp->qk_norm == MT_QK_NORM_HEAD;

    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_Q, q, h, &l->q, q, &l->q_bias));
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_K, kv, h, &l->k, kv, &l->k_bias));
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_V, kv, h, &l->v, kv, &l->v_bias));
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_O, h, q, &l->o, h, &l->o_bias));
    if (hp->qk_norm == MT_QK_NORM_NONE)
        return MT_OK;
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_Q_NORM, 1, by_head ? hp->head_dim : q, &l->q_norm,
                             0, NULL));
    return mt_run_layer_want(ctx, l, w, MT_ROLE_K_NORM, 1, by_head ? hp->head_dim : kv, &l->k_norm,
                             0, NULL);
}

/* The norm in front of attention. Where norms act on sums, the one behind the previous layer waits
 * until here, so that a layer is x += attention, x += ffn in every family. */
static mt_status layer_input_norm(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w)
{
    const struct mt_model *m = l->r->m;
    struct mt_role role = mt_role(MT_ROLE_ATTN_NORM, l->layer, MT_EXPERT_NONE);
    int64_t h = m->hp.hidden;

    if (m->hp.norm_sums)
        role = l->layer == 0 ? mt_role(MT_ROLE_EMBED_NORM, -1, MT_EXPERT_NONE)
                             : mt_role(MT_ROLE_FFN_POST_NORM, l->layer - 1, MT_EXPERT_NONE);
    MT_TRY(mt_run_want_need(ctx, m, w, role, 1, h, &l->attn_norm));
    role.part = MT_PART_BIAS;
    mt_run_want_may(m, w, role, 1, h, &l->attn_norm_bias);
    return MT_OK;
}

static mt_status layer_wants(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    int64_t h = hp->hidden;

    if (l->r->blocks_only)
        return mt_run_ffn_wants(ctx, l, w);
    MT_TRY(layer_input_norm(ctx, l, w));
    MT_TRY(
        mt_run_layer_want(ctx, l, w, MT_ROLE_FFN_NORM, 1, h, &l->ffn_norm, h, &l->ffn_norm_bias));
    if (hp->post_norms) {
        MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_POST_NORM, 1, h, &l->attn_post_norm, h,
                                 &l->attn_post_bias));
        MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_FFN_POST_NORM, 1, h, &l->ffn_post_norm, h,
                                 &l->ffn_post_bias));
    }
    if (hp->layer_scale) {
        MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_SCALE, 1, h, &l->attn_scale, 0, NULL));
        MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_FFN_SCALE, 1, h, &l->ffn_scale, 0, NULL));
    }
    MT_TRY(hp->mla.kv_rank > 0 ? mt_run_mla_wants(ctx, l, w) : layer_qkv_wants(ctx, l, w));
    return mt_run_ffn_wants(ctx, l, w);
}

static mt_status layer_open_sinks(struct mt_ctx *ctx, struct mt_run_layer *l)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_tensor *t;
    float *values;
    mt_status st;

    if (!hp->sinks || l->r->blocks_only)
        return MT_OK;
    MT_TRY(mt_model_need(ctx, l->r->m, mt_role(MT_ROLE_ATTN_SINKS, l->layer, MT_EXPERT_NONE), &t));
    if (mt_tensor_count(t) != hp->n_heads)
        return mt_fail(ctx, MT_E_FORMAT, "layers.%d: %lld attention sinks for %d heads", l->layer,
                       (long long)mt_tensor_count(t), hp->n_heads);
    MT_TRY(mt_tensor_load_f32(ctx, t, &values));
    st = mt_alloc(ctx, (size_t)hp->n_heads, sizeof(double), "attention sinks", &l->sinks);
    for (int i = 0; st == MT_OK && i < hp->n_heads; i++)
        l->sinks[i] = (double)values[i];
    mt_free(values);
    return st;
}

mt_status mt_run_layer_open(struct mt_ctx *ctx, struct mt_runner *r, int layer,
                            struct mt_run_layer **out)
{
    struct run_wants wants = {.n = 0};
    struct mt_run_layer *l;
    mt_status st;

    mt_assert(layer >= 0 && layer < r->m->hp.n_layers);
    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *l, "layer", &l));
    l->r = r;
    l->layer = layer;
    l->ffn = &r->m->ffn[layer];
    st = layer_wants(ctx, l, &wants);
    if (st == MT_OK)
        st = mt_run_weights_load(ctx, r, wants.v, wants.n);
    if (st == MT_OK)
        st = layer_open_sinks(ctx, l);
    if (st == MT_OK)
        st = mt_run_ffn_open(ctx, l);
    if (st != MT_OK) {
        mt_run_layer_close(l);
        return st;
    }
    *out = l;
    return MT_OK;
}

void mt_run_layer_close(struct mt_run_layer *l)
{
    struct run_weight *own[] = {&l->attn_norm,
                                &l->attn_norm_bias,
                                &l->q,
                                &l->k,
                                &l->v,
                                &l->o,
                                &l->q_bias,
                                &l->k_bias,
                                &l->v_bias,
                                &l->o_bias,
                                &l->q_norm,
                                &l->k_norm,
                                &l->ffn_norm,
                                &l->ffn_norm_bias,
                                &l->attn_post_norm,
                                &l->attn_post_bias,
                                &l->ffn_post_norm,
                                &l->ffn_post_bias,
                                &l->attn_scale,
                                &l->ffn_scale};

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        mt_run_weight_free(l->r, own[i]);
    mt_run_mla_close(l);
    mt_run_ffn_close(l);
    mt_free(l->sinks);
    for (size_t i = 0; i < l->r->m->n_tensors; i++) {
        if (l->r->m->tensors[i]->role.layer == l->layer)
            mt_tensor_drop(l->r->m->tensors[i]);
    }
    mt_free(l);
}

static mt_status layer_positions(struct mt_ctx *ctx, struct mt_runner *r,
                                 const struct mt_seqs *seqs, int64_t past, int64_t m)
{
    int32_t *p;

    if (r->pos_cap < (size_t)m) {
        mt_free(r->pos);
        r->pos = NULL;
        r->pos_cap = 0;
        MT_TRY(mt_alloc(ctx, (size_t)m, sizeof *r->pos, "positions", &r->pos));
        r->pos_cap = (size_t)m;
    }
    p = r->pos;
    for (int s = 0; s < seqs->n; s++) {
        for (int32_t i = 0; i < seqs->len[s]; i++)
            *p++ = (int32_t)past + i;
    }
    return MT_OK;
}

/* One call for the batch, unless scaling depends on the length of each sequence. */
mt_status mt_run_rotate(struct mt_ctx *ctx, struct mt_run_layer *l, const struct mt_seqs *seqs,
                        int64_t past, int64_t m, mt_buf q, mt_buf k)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_device *dev = l->r->dev;
    size_t qw = (size_t)layer_q_width(hp), kw = (size_t)layer_kv_width(hp), row = 0;
    bool by_seq = mt_run_rope_by_length(hp);
    struct mt_rope rope;

    if (l->r->rope.rot_dim == 0)
        return MT_OK;
    for (int s = 0; s < (by_seq ? seqs->n : 1); s++) {
        int64_t n = by_seq ? seqs->len[s] : m;
        MT_TRY(mt_run_rope_for(ctx, l, past + n, &rope));
        MT_TRY(dev->ops->rope(ctx, dev, mt_dev_at(dev, q, row * qw), n, hp->n_heads, hp->head_dim,
                              l->r->pos + row, &rope));
        MT_TRY(dev->ops->rope(ctx, dev, mt_dev_at(dev, k, row * kw), n, hp->n_kv_heads,
                              hp->head_dim, l->r->pos + row, &rope));
        row += (size_t)n;
    }
    return MT_OK;
}

mt_status mt_run_linear(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf y, mt_buf x, int64_t m,
                        const struct run_weight *w, const struct run_weight *bias)
{
    struct mt_device *dev = l->r->dev;

    MT_TRY(dev->ops->gemm(ctx, dev, y, x, m, w->h, false));
    return bias->h == NULL ? MT_OK : dev->ops->add_bias(ctx, dev, y, m, bias->h);
}

static mt_status layer_qk_norm(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, int64_t m,
                               int n_heads, const struct run_weight *w)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_device *dev = l->r->dev;

    if (hp->qk_norm == MT_QK_NORM_NONE)
        return MT_OK;
    return dev->ops->rmsnorm(ctx, dev, x, x, hp->qk_norm == MT_QK_NORM_HEAD ? m * n_heads : m, w->h,
                             hp->norm_offset, hp->norm_eps);
}

/* Learned positions: x += their vectors, before the first layer, where positions are known. */
static mt_status layer_add_positions(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x,
                                     int64_t m)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    const struct mt_device_ops *ops = l->r->dev->ops;
    size_t n = (size_t)m * (size_t)hp->hidden;
    struct mt_tensor *t;
    float *rows;
    mt_buf added;
    mt_status st = MT_OK;

    MT_TRY(mt_model_need(ctx, l->r->m, mt_role(MT_ROLE_POS_EMBED, -1, MT_EXPERT_NONE), &t));
    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_G, n, &added));
    MT_TRY(mt_alloc(ctx, n, sizeof *rows, "positions of a batch", &rows));
    for (int64_t i = 0; st == MT_OK && i < m; i++) {
        if (l->r->pos[i] >= mt_tensor_rows(t))
            st = mt_fail(ctx, MT_E_LIMIT, "position %d, but the model has learned only %lld",
                         (int)l->r->pos[i], (long long)mt_tensor_rows(t));
        else
            st = mt_tensor_fetch_f32(ctx, t, l->r->pos[i], 1, rows + i * hp->hidden);
    }
    if (st == MT_OK)
        st = ops->upload(ctx, l->r->dev, added, rows, n);
    if (st == MT_OK)
        st = ops->add(ctx, l->r->dev, x, added, n);
    mt_free(rows);
    return st;
}

static mt_status layer_clip(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, size_t n)
{
    double c = l->r->m->hp.clip_qkv;

    return c > 0 ? l->r->dev->ops->clamp(ctx, l->r->dev, x, -c, c, n) : MT_OK;
}

static mt_status layer_qkv(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m,
                           mt_buf q, mt_buf k, mt_buf v)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    size_t qn = (size_t)(m * layer_q_width(hp)), kn = (size_t)(m * layer_kv_width(hp));

    MT_TRY(mt_run_linear(ctx, l, q, n, m, &l->q, &l->q_bias));
    MT_TRY(mt_run_linear(ctx, l, k, n, m, &l->k, &l->k_bias));
    MT_TRY(mt_run_linear(ctx, l, v, n, m, &l->v, &l->v_bias));
    MT_TRY(layer_qk_norm(ctx, l, q, m, hp->n_heads, &l->q_norm));
    MT_TRY(layer_qk_norm(ctx, l, k, m, hp->n_kv_heads, &l->k_norm));
    MT_TRY(layer_clip(ctx, l, q, qn));
    MT_TRY(layer_clip(ctx, l, k, kn));
    return layer_clip(ctx, l, v, kn);
}

/* q, k, v of the batch, normed and rotated. */
static mt_status layer_project(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x,
                               const struct mt_seqs *seqs, int64_t past, int64_t m, mt_buf q,
                               mt_buf k, mt_buf v)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    mt_buf n;

    MT_TRY(layer_positions(ctx, l->r, seqs, past, m));
    if (hp->learned_pos && l->layer == 0 && !l->r->embedded)
        MT_TRY(layer_add_positions(ctx, l, x, m));
    if (hp->norm_sums) {
        n = x;
        if (l->layer > 0 || !l->r->embedded)
            MT_TRY(mt_run_norm(ctx, l->r, x, x, m, &l->attn_norm, &l->attn_norm_bias));
    } else {
        MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_A, (size_t)m * (size_t)hp->hidden, &n));
        MT_TRY(mt_run_norm(ctx, l->r, n, x, m, &l->attn_norm, &l->attn_norm_bias));
    }
    MT_TRY(mt_run_tap(ctx, l, MT_TAP_ATTN_IN, n, m, hp->hidden));
    if (hp->mla.kv_rank > 0)
        MT_TRY(mt_run_mla_project(ctx, l, n, m, q, k, v));
    else
        MT_TRY(layer_qkv(ctx, l, n, m, q, k, v));
    return mt_run_rotate(ctx, l, seqs, past, m, q, k);
}

static int layer_window(const struct mt_run_layer *l)
{
    int64_t window = mt_hp_layer_window(&l->r->m->hp, l->layer);

    return window > INT_MAX ? 0 : (int)window;
}

/* Each sequence attends to itself; with a cache, to what is cached too. k and v are then the
 * whole cache of the layer. */
static mt_status layer_attend(struct mt_ctx *ctx, struct mt_run_layer *l,
                              const struct mt_seqs *seqs, int64_t past, mt_buf out, mt_buf q,
                              mt_buf k, mt_buf v)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_device *dev = l->r->dev;
    size_t qw = (size_t)layer_q_width(hp), kw = (size_t)layer_kv_width(hp), row = 0;
    struct mt_attn a = {
        .n_heads = hp->n_heads,
        .n_kv_heads = hp->n_kv_heads,
        .head_dim = hp->head_dim,
        .scale = hp->attn_scale != 0 ? hp->attn_scale : 1.0 / sqrt((double)hp->head_dim),
        .softcap = hp->attn_softcap,
        .window = layer_window(l),
        .sinks = l->sinks,
        .both_ways = hp->both_ways,
    };

    for (int s = 0; s < seqs->n; s++) {
        a.n_q = seqs->len[s];
        a.n_k = (int)past + seqs->len[s];
        MT_TRY(dev->ops->attention(ctx, dev, mt_dev_at(dev, out, row * qw),
                                   mt_dev_at(dev, q, row * qw), mt_dev_at(dev, k, row * kw),
                                   mt_dev_at(dev, v, row * kw), &a));
        row += (size_t)seqs->len[s];
    }
    return MT_OK;
}

/* x += residual_scale * scale * norm(o(att) + bias), norm and scale only where the family has them
 */
static mt_status layer_add_output(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, mt_buf att,
                                  int64_t m)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_device *dev = l->r->dev;
    size_t n = (size_t)m * (size_t)hp->hidden;
    mt_buf y;

    if (hp->mla.kv_rank > 0)
        MT_TRY(mt_run_mla_values(ctx, l, att, m, &att));
    MT_TRY(mt_run_tap(ctx, l, MT_TAP_ATTN_OUT, att, m, layer_out_width(hp)));
    if (hp->residual_scale == 1 && !hp->post_norms && !hp->layer_scale) {
        MT_TRY(dev->ops->gemm(ctx, dev, x, att, m, l->o.h, true));
        return l->o_bias.h == NULL ? MT_OK : dev->ops->add_bias(ctx, dev, x, m, l->o_bias.h);
    }
    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_A, n, &y));
    MT_TRY(mt_run_linear(ctx, l, y, att, m, &l->o, &l->o_bias));
    if (hp->post_norms)
        MT_TRY(mt_run_norm(ctx, l->r, y, y, m, &l->attn_post_norm, &l->attn_post_bias));
    if (hp->layer_scale)
        MT_TRY(dev->ops->scale_cols(ctx, dev, y, m, l->attn_scale.h));
    if (hp->residual_scale != 1)
        MT_TRY(dev->ops->scale(ctx, dev, y, hp->residual_scale, n));
    return dev->ops->add(ctx, dev, x, y, n);
}

static mt_status layer_output(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, mt_buf att,
                              int64_t m)
{
    MT_TRY(layer_add_output(ctx, l, x, att, m));
    if (!l->r->m->hp.norm_sums)
        return MT_OK;
    return mt_run_norm(ctx, l->r, x, x, m, &l->ffn_norm, &l->ffn_norm_bias);
}

mt_status mt_run_attn(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x,
                      const struct mt_seqs *seqs, struct mt_kv_cache *kv)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_device *dev = l->r->dev;
    size_t qw = (size_t)layer_q_width(hp), kw = (size_t)layer_kv_width(hp);
    int64_t past = 0, m = 0;
    mt_buf q, k, v, out;

    for (int s = 0; s < seqs->n; s++)
        m += seqs->len[s];
    if (kv != NULL) {
        mt_assert(seqs->n == 1);
        past = kv->n_pos[l->layer];
        if (m > kv->max_tokens - past)
            return mt_fail(ctx, MT_E_LIMIT, "%lld tokens do not fit a context of %lld",
                           (long long)past + (long long)m, (long long)kv->max_tokens);
    }
    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_B, (size_t)m * qw, &q));
    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_E, (size_t)m * qw, &out));
    if (kv != NULL) {
        k = mt_dev_at(dev, kv->k[l->layer], (size_t)past * kw);
        v = mt_dev_at(dev, kv->v[l->layer], (size_t)past * kw);
    } else {
        MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_C, (size_t)m * kw, &k));
        MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_D, (size_t)m * kw, &v));
    }
    MT_TRY(layer_project(ctx, l, x, seqs, past, m, q, k, v));
    if (kv != NULL) {
        kv->n_pos[l->layer] = past + m;
        k = kv->k[l->layer];
        v = kv->v[l->layer];
    }
    MT_TRY(layer_attend(ctx, l, seqs, past, out, q, k, v));
    return layer_output(ctx, l, x, out, m);
}

void mt_run_layer_tap(struct mt_run_layer *l, const struct mt_tap *tap)
{
    l->tap = tap;
}

mt_status mt_run_ffn_norm(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, int64_t m, mt_buf n)
{
    struct mt_device *dev = l->r->dev;

    /* Where norms act on sums, attention has left x normed. */
    if (l->r->m->hp.norm_sums)
        return dev->ops->copy(ctx, dev, n, x, (size_t)(m * l->r->m->hp.hidden));
    return mt_run_norm(ctx, l->r, n, x, m, &l->ffn_norm, &l->ffn_norm_bias);
}

mt_status mt_kv_create(struct mt_ctx *ctx, struct mt_runner *r, int64_t max_tokens,
                       struct mt_kv_cache **out)
{
    const struct mt_hparams *hp = &r->m->hp;
    size_t n_layers = (size_t)hp->n_layers;
    struct mt_kv_cache *kv;
    uint64_t elems;
    mt_status st;

    *out = NULL;
    if (max_tokens < 1 || max_tokens > INT_MAX ||
        !mt_size_mul((uint64_t)max_tokens, (uint64_t)layer_kv_width(hp), &elems))
        return mt_fail(ctx, MT_E_LIMIT, "a context of %lld tokens is too long",
                       (long long)max_tokens);
    MT_TRY(mt_alloc0(ctx, 1, sizeof *kv, "key-value cache", &kv));
    kv->r = r;
    kv->max_tokens = max_tokens;
    st = mt_alloc0(ctx, n_layers, sizeof *kv->k, "key-value cache", &kv->k);
    if (st == MT_OK)
        st = mt_alloc0(ctx, n_layers, sizeof *kv->v, "key-value cache", &kv->v);
    if (st == MT_OK)
        st = mt_alloc0(ctx, n_layers, sizeof *kv->n_pos, "key-value cache", &kv->n_pos);
    for (size_t l = 0; st == MT_OK && l < n_layers; l++) {
        kv->n_layers = (int)l + 1;
        st = r->dev->ops->alloc(ctx, r->dev, (size_t)elems, &kv->k[l]);
        if (st == MT_OK)
            st = r->dev->ops->alloc(ctx, r->dev, (size_t)elems, &kv->v[l]);
    }
    if (st != MT_OK) {
        mt_kv_free(kv);
        return mt_wrap(ctx, st, "key-value cache of %lld tokens", (long long)max_tokens);
    }
    *out = kv;
    return MT_OK;
}

void mt_kv_free(struct mt_kv_cache *kv)
{
    if (kv == NULL)
        return;
    for (int l = 0; l < kv->n_layers; l++) {
        kv->r->dev->ops->release(kv->r->dev, kv->k[l]);
        kv->r->dev->ops->release(kv->r->dev, kv->v[l]);
    }
    mt_free(kv->k);
    mt_free(kv->v);
    mt_free(kv->n_pos);
    mt_free(kv);
}
