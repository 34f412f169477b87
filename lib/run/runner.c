#include "lib/run/runner.h"

#include "lib/base/pool.h"
#include "lib/ir/blocks.h"
#include "lib/ir/family.h"
#include "lib/run/rope.h"
#include "lib/run/run_impl.h"

#include <string.h>

#include <math.h>

#define RUNNER_BATCH_BYTES (256u << 20) /* scratch that a batch may take before it gets smaller */
#define RUNNER_BATCH_TOKENS_MIN 256
#define RUNNER_BATCH_TOKENS_MAX 2048
#define RUNNER_HEAD_ELEMS (1 << 22) /* logits on the device at a time */
#define RUNNER_HEAD_ROWS_MIN 64
#define RUNNER_EMBED_ROWS 64 /* rows fetched by one job */

mt_status mt_run_slot(struct mt_ctx *ctx, struct mt_runner *r, enum run_slot slot, size_t n,
                      mt_buf *out)
{
    struct run_scratch *s = r->scratch;

    if (s->n[slot] < n) {
        r->dev->ops->release(r->dev, s->buf[slot]);
        s->buf[slot] = NULL;
        s->n[slot] = 0;
        MT_TRY(r->dev->ops->alloc(ctx, r->dev, n, &s->buf[slot]));
        s->n[slot] = n;
    }
    *out = s->buf[slot];
    return MT_OK;
}

static size_t runner_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Tokens whose logits are computed at a time: few enough for memory, enough for the product to be
 * worth the reading of a large vocabulary's weights. */
static int64_t runner_head_rows(const struct mt_hparams *hp)
{
    if (hp->both_ways || hp->vocab < 1)
        return 0;
    int64_t rows = RUNNER_HEAD_ELEMS / hp->vocab;
    return rows > RUNNER_HEAD_ROWS_MIN ? rows : RUNNER_HEAD_ROWS_MIN;
}

/* Elements that each slot needs for a batch of m tokens, over all layers. */
static void runner_slots(const struct mt_runner *r, int64_t m, size_t need[RUN_SLOTS])
{
    const struct mt_hparams *hp = &r->m->hp;
    size_t q = (size_t)m * (size_t)hp->n_heads * (size_t)hp->head_dim;
    size_t kv = (size_t)m * (size_t)hp->n_kv_heads * (size_t)hp->head_dim;
    int64_t head_rows = runner_head_rows(hp) < m ? runner_head_rows(hp) : m;

    need[RUN_SLOT_A] = (size_t)m * (size_t)hp->hidden;
    need[RUN_SLOT_B] = runner_max(q, (size_t)head_rows * (size_t)hp->vocab);
    need[RUN_SLOT_C] = kv;
    need[RUN_SLOT_D] = kv;
    need[RUN_SLOT_E] = q;
    need[RUN_SLOT_F] = 0;
    need[RUN_SLOT_G] = hp->learned_pos ? need[RUN_SLOT_A] : 0;
    if (hp->mla.kv_rank > 0)
        mt_run_mla_slots(hp, m, need);
    for (int l = 0; l < hp->n_layers; l++) {
        size_t ffn[RUN_SLOTS] = {0};
        mt_run_ffn_slots(hp, &r->m->ffn[l], m, ffn);
        for (int s = 0; s < RUN_SLOTS; s++)
            need[s] = runner_max(need[s], ffn[s]);
    }
}

uint64_t mt_runner_batch_bytes(const struct mt_runner *r, int64_t m)
{
    size_t need[RUN_SLOTS];
    uint64_t sum = 0;

    runner_slots(r, m, need);
    for (int s = 0; s < RUN_SLOTS; s++)
        sum += need[s];
    return sum * r->dev->elem_bytes;
}

uint64_t mt_runner_shared_bytes(const struct mt_runner *const *r, int n, int64_t m)
{
    size_t most[RUN_SLOTS] = {0}, need[RUN_SLOTS];
    uint64_t sum = 0;

    for (int i = 0; i < n; i++) {
        runner_slots(r[i], m, need);
        for (int s = 0; s < RUN_SLOTS; s++)
            most[s] = runner_max(most[s], need[s]);
    }
    for (int s = 0; s < RUN_SLOTS; s++)
        sum += most[s];
    return sum * r[0]->dev->elem_bytes;
}

mt_status mt_runner_reserve(struct mt_ctx *ctx, struct mt_runner *r, int64_t m)
{
    size_t need[RUN_SLOTS];
    mt_buf buf;

    runner_slots(r, m, need);
    for (int s = 0; s < RUN_SLOTS; s++)
        MT_TRY(mt_run_slot(ctx, r, (enum run_slot)s, need[s], &buf));
    return MT_OK;
}

int64_t mt_runner_batch_tokens(const struct mt_runner *r)
{
    int64_t m = RUNNER_BATCH_TOKENS_MAX;

    while (m > RUNNER_BATCH_TOKENS_MIN &&
           mt_runner_batch_bytes(r, m) / r->dev->elem_bytes > RUNNER_BATCH_BYTES / sizeof(float))
        m /= 2;
    return m;
}

uint64_t mt_runner_layer_bytes(const struct mt_runner *r, int layer)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < r->m->n_tensors; i++) {
        const struct mt_tensor *t = r->m->tensors[i];

        if (t->role.layer != layer)
            continue;
        /* What is stored in parts is loaded as their product; one part stands for all. */
        if (t->role.part == MT_PART_LEFT || t->role.part == MT_PART_CODES)
            sum += (uint64_t)(mt_ffn_expert_width(&r->m->ffn[layer], t->role.expert) *
                              r->m->hp.hidden) *
                   r->dev->elem_bytes;
        else if (t->role.part <= MT_PART_BIAS)
            sum += mt_run_weight_bytes(t);
    }
    return sum;
}

static mt_status runner_check_moe(struct mt_ctx *ctx, const struct mt_model *m, int layer)
{
    const struct mt_ffn *f = &m->ffn[layer];

    if (f->moe && !mt_router_fits(&f->rule, mt_ffn_rows(f), f->k))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "layer %d: %d of %d experts in %d of %d groups cannot be routed (at most %d "
                       "experts)",
                       layer, f->k, mt_ffn_rows(f), f->rule.topk_group, f->rule.n_group,
                       MT_ROUTER_EXPERTS_MAX);
    return MT_OK;
}

/* What this forward pass cannot compute is refused before anything is loaded. */
static mt_status runner_check(struct mt_ctx *ctx, const struct mt_model *m, bool blocks)
{
    const struct mt_hparams *hp = &m->hp;

    if (m->family == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: there is no forward pass for model_type \"%s\"; passes and commands "
                       "that need no activations still work",
                       m->path != NULL ? m->path : "model",
                       m->model_type != NULL ? m->model_type : "unknown");
    if (!blocks && mt_model_only_blocks(m))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: only the FFNs of this model are known, so it cannot be run; --hidden "
                       "gives conversions what goes into them",
                       m->path != NULL ? m->path : "model");
    if (!blocks && (hp->n_kv_heads < 1 || hp->n_heads % hp->n_kv_heads != 0))
        return mt_fail(ctx, MT_E_FORMAT, "%d attention heads cannot share %d key-value heads",
                       hp->n_heads, hp->n_kv_heads);
    for (int l = 0; l < hp->n_layers; l++)
        MT_TRY(runner_check_moe(ctx, m, l));
    return MT_OK;
}

/* Layers with a window; their settings may name another share of a head. */
static mt_status runner_open_local_rope(struct mt_ctx *ctx, struct mt_runner *r)
{
    struct mt_hparams hp = r->m->hp;
    int dim;

    hp.rope = hp.rope_local;
    if (mt_run_rope_by_length(&hp))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "layers with a window whose positions scale with the length have no forward "
                       "pass");
    MT_TRY(mt_rope_dim(ctx, &hp, &dim));
    MT_TRY(
        mt_alloc(ctx, (size_t)dim / 2, sizeof(double), "rotary frequencies", &r->inv_freq_local));
    r->rope_local = (struct mt_rope){
        .rot_dim = dim, .half_split = !hp.rope.pairs, .inv_freq = r->inv_freq_local};
    return mt_rope_frequencies(ctx, &hp, 0, dim, r->inv_freq_local, &r->rope_local.amplitude);
}

static mt_status runner_open_rope(struct mt_ctx *ctx, struct mt_runner *r)
{
    const struct mt_hparams *hp = &r->m->hp;
    int dim;

    MT_TRY(mt_rope_dim(ctx, hp, &dim));
    MT_TRY(mt_alloc(ctx, (size_t)dim / 2, sizeof(double), "rotary frequencies", &r->inv_freq));
    MT_TRY(mt_alloc(ctx, (size_t)dim / 2, sizeof(double), "rotary frequencies", &r->inv_freq_long));
    r->rope = (struct mt_rope){
        .rot_dim = dim, .half_split = !hp->rope.pairs, .inv_freq = r->inv_freq, .amplitude = 1};
    if (dim == 0)
        return MT_OK;
    MT_TRY(mt_rope_frequencies(ctx, hp, 0, dim, r->inv_freq, &r->rope.amplitude));
    return hp->local_rope ? runner_open_local_rope(ctx, r) : MT_OK;
}

bool mt_run_rope_by_length(const struct mt_hparams *hp)
{
    return hp->rope.type == MT_ROPE_DYNAMIC || hp->rope.type == MT_ROPE_LONGROPE;
}

mt_status mt_run_rope_for(struct mt_ctx *ctx, struct mt_run_layer *l, int64_t n,
                          struct mt_rope *out)
{
    struct mt_runner *r = l->r;
    const struct mt_hparams *hp = &r->m->hp;
    bool local = hp->local_rope && mt_hp_layer_window(hp, l->layer) > 0;

    *out = local ? r->rope_local : r->rope;
    if (local || !mt_run_rope_by_length(hp) ||
        (hp->rope.type == MT_ROPE_DYNAMIC && n <= hp->max_pos))
        return MT_OK;
    out->inv_freq = r->inv_freq_long;
    return mt_rope_frequencies(ctx, hp, n, r->rope.rot_dim, r->inv_freq_long, &out->amplitude);
}

static mt_status runner_open_embed(struct mt_ctx *ctx, struct mt_runner *r)
{
    const struct mt_model *m = r->m;
    struct mt_tensor *t;

    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE), &t));
    if (mt_tensor_rows(t) < m->hp.vocab || mt_tensor_cols(t) != m->hp.hidden)
        return mt_fail(ctx, MT_E_FORMAT,
                       "embed_tokens is %lld x %lld, but the model's config needs %lld x %lld",
                       (long long)mt_tensor_rows(t), (long long)mt_tensor_cols(t),
                       (long long)m->hp.vocab, (long long)m->hp.hidden);
    r->embed = t;
    return MT_OK;
}

static mt_status runner_open_weights(struct mt_ctx *ctx, struct mt_runner *r)
{
    const struct mt_model *m = r->m;
    struct mt_role role = m->hp.norm_sums
                              ? mt_role(MT_ROLE_FFN_POST_NORM, m->hp.n_layers - 1, MT_EXPERT_NONE)
                              : mt_role(MT_ROLE_FINAL_NORM, -1, MT_EXPERT_NONE);
    struct run_wants w = {.n = 0};

    if (!m->hp.given_input)
        MT_TRY(runner_open_embed(ctx, r));
    r->embedded = m->hp.given_input;
    MT_TRY(mt_run_want_need(ctx, m, &w, role, 1, m->hp.hidden, &r->final_norm));
    role.part = MT_PART_BIAS;
    mt_run_want_may(m, &w, role, 1, m->hp.hidden, &r->final_norm_bias);
    return mt_run_weights_load(ctx, r, w.v, w.n);
}

static mt_status runner_open(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                             struct run_scratch *scratch, bool blocks, struct mt_runner **out)
{
    struct mt_runner *r;
    mt_status st;

    *out = NULL;
    MT_TRY(runner_check(ctx, m, blocks));
    MT_TRY(mt_alloc0(ctx, 1, sizeof *r, "runner", &r));
    r->m = m;
    r->dev = dev;
    r->scratch = scratch;
    r->blocks_only = blocks;
    st = MT_OK;
    if (scratch == NULL) {
        r->owns_scratch = true;
        st = mt_alloc0(ctx, 1, sizeof *r->scratch, "runner", &r->scratch);
    }
    if (st == MT_OK && !blocks)
        st = runner_open_rope(ctx, r);
    if (st == MT_OK && !blocks)
        st = runner_open_weights(ctx, r);
    if (st != MT_OK) {
        mt_runner_close(r);
        return st;
    }
    *out = r;
    return MT_OK;
}

mt_status mt_runner_open(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                         struct mt_runner **out)
{
    return runner_open(ctx, m, dev, NULL, false, out);
}

mt_status mt_runner_open_blocks(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                                struct mt_runner **out)
{
    return runner_open(ctx, m, dev, NULL, true, out);
}

mt_status mt_runner_open_with(struct mt_ctx *ctx, const struct mt_model *m, struct mt_runner *with,
                              struct mt_runner **out)
{
    return runner_open(ctx, m, with->dev, with->scratch, with->blocks_only, out);
}

void mt_runner_close(struct mt_runner *r)
{
    if (r == NULL)
        return;
    mt_run_weight_free(r, &r->final_norm);
    mt_run_weight_free(r, &r->final_norm_bias);
    mt_run_weight_free(r, &r->head);
    if (r->owns_scratch && r->scratch != NULL) {
        for (int s = 0; s < RUN_SLOTS; s++)
            r->dev->ops->release(r->dev, r->scratch->buf[s]);
        mt_free(r->scratch);
    }
    if (r->embed != NULL)
        mt_tensor_drop(r->embed);
    mt_free(r->inv_freq);
    mt_free(r->inv_freq_long);
    mt_free(r->inv_freq_local);
    mt_free(r->pos);
    mt_free(r);
}

const struct mt_model *mt_runner_model(const struct mt_runner *r)
{
    return r->m;
}

struct mt_device *mt_runner_device(const struct mt_runner *r)
{
    return r->dev;
}

struct runner_embed_job {
    const struct mt_tensor *t;
    const int32_t *ids;
    int64_t m, hidden;
    float *x;
};

static mt_status runner_embed_rows(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct runner_embed_job *j = arg;
    int64_t end = (i + 1) * RUNNER_EMBED_ROWS < j->m ? (i + 1) * RUNNER_EMBED_ROWS : j->m;

    for (int64_t t = i * RUNNER_EMBED_ROWS; t < end; t++)
        MT_TRY(mt_tensor_fetch_f32(ctx, j->t, j->ids[t], 1, j->x + t * j->hidden));
    return MT_OK;
}

static double runner_embed_scale(const struct mt_runner *r)
{
    const struct mt_hparams *hp = &r->m->hp;
    const struct mt_kernels *k = mt_kernels_get();
    float f = (float)hp->embed_scale;
    uint16_t half;

    if (!hp->embed_scale_rounded || mt_dtype_bits(r->embed->dtype) != 16)
        return hp->embed_scale_rounded && r->embed->dtype == MT_F32 ? (double)f : hp->embed_scale;
    k->from_f32(r->embed->dtype, &f, &half, 1);
    k->to_f32(r->embed->dtype, &half, &f, 1);
    return (double)f;
}

/* Every token is of type 0. `room` [m, hidden] is overwritten. */
static mt_status runner_add_type(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, float *room,
                                 int64_t m)
{
    const struct mt_device_ops *ops = r->dev->ops;
    size_t hidden = (size_t)r->m->hp.hidden, n = (size_t)m * hidden;
    struct mt_tensor *t;
    mt_buf added;

    MT_TRY(mt_model_need(ctx, r->m, mt_role(MT_ROLE_TYPE_EMBED, -1, MT_EXPERT_NONE), &t));
    MT_TRY(mt_tensor_fetch_f32(ctx, t, 0, 1, room));
    for (int64_t i = 1; i < m; i++)
        memcpy(room + (size_t)i * hidden, room, hidden * sizeof *room);
    MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_A, n, &added));
    MT_TRY(ops->upload(ctx, r->dev, added, room, n));
    return ops->add(ctx, r->dev, x, added, n);
}

mt_status mt_run_embed(struct mt_ctx *ctx, struct mt_runner *r, const int32_t *ids, int64_t m,
                       mt_buf x)
{
    const struct mt_hparams *hp = &r->m->hp;
    const struct mt_device_ops *ops = r->dev->ops;
    struct runner_embed_job job = {r->embed, ids, m, hp->hidden, NULL};
    size_t n = (size_t)m * (size_t)hp->hidden;
    mt_status st;

    if (r->embed == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s models have no token embeddings: give them hidden states",
                       r->m->family->name);
    for (int64_t t = 0; t < m; t++) {
        if (ids[t] < 0 || ids[t] >= hp->vocab)
            return mt_fail(ctx, MT_E_FORMAT,
                           "token id %d (number %lld of the batch) is outside the vocabulary of "
                           "%lld; is this the model's own tokenizer?",
                           (int)ids[t], (long long)t, (long long)hp->vocab);
    }
    MT_TRY(mt_alloc(ctx, n, sizeof(float), "embeddings of a batch", &job.x));
    st = mt_pool_run(ctx, (m + RUNNER_EMBED_ROWS - 1) / RUNNER_EMBED_ROWS, runner_embed_rows, &job);
    if (st == MT_OK)
        st = ops->upload(ctx, r->dev, x, job.x, n);
    if (st == MT_OK && hp->n_types > 0)
        st = runner_add_type(ctx, r, x, job.x, m);
    if (st == MT_OK && hp->embed_scale != 1)
        st = ops->scale(ctx, r->dev, x, runner_embed_scale(r), n);
    mt_free(job.x);
    return st;
}

mt_status mt_run_norm(struct mt_ctx *ctx, struct mt_runner *r, mt_buf y, mt_buf x, int64_t m,
                      const struct run_weight *w, const struct run_weight *bias)
{
    const struct mt_hparams *hp = &r->m->hp;

    if (hp->norm == MT_NORM_LAYER)
        return r->dev->ops->layernorm(ctx, r->dev, y, x, m, w->h, bias->h, hp->norm_eps);
    return r->dev->ops->rmsnorm(ctx, r->dev, y, x, m, w->h, hp->norm_offset, hp->norm_eps);
}

mt_status mt_run_add(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, mt_buf y, int64_t m)
{
    const struct mt_hparams *hp = &r->m->hp;
    const struct mt_device_ops *ops = r->dev->ops;
    size_t n = (size_t)m * (size_t)hp->hidden;
    mt_buf scaled;

    if (hp->residual_scale == 1)
        return ops->add(ctx, r->dev, x, y, n);
    MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_A, n, &scaled));
    MT_TRY(ops->copy(ctx, r->dev, scaled, y, n));
    MT_TRY(ops->scale(ctx, r->dev, scaled, hp->residual_scale, n));
    return ops->add(ctx, r->dev, x, scaled, n);
}

/* Loaded when first used and kept: it is the largest matrix of a small model. */
static mt_status runner_need_head(struct mt_ctx *ctx, struct mt_runner *r)
{
    const struct mt_hparams *hp = &r->m->hp;
    struct run_want w = {r->embed, hp->vocab, hp->hidden, &r->head};
    struct mt_tensor *t;

    if (r->head.h != NULL)
        return MT_OK;
    if (!hp->tied) {
        MT_TRY(mt_model_need(ctx, r->m, mt_role(MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE), &t));
        w.t = t;
    }
    return mt_run_weights_load(ctx, r, &w, 1);
}

/* On the host, where the logits are wanted anyway: c tanh(x / c). */
static void runner_softcap(double c, size_t n, float *f32, double *f64)
{
    for (size_t i = 0; i < n; i++) {
        if (f32 != NULL)
            f32[i] = (float)(c * tanh((double)f32[i] / c));
        else
            f64[i] = c * tanh(f64[i] / c);
    }
}

/* Exactly one of f32 and f64 is given. */
static mt_status runner_head(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m,
                             float *f32, double *f64)
{
    const struct mt_hparams *hp = &r->m->hp;
    const struct mt_device_ops *ops = r->dev->ops;
    size_t vocab = (size_t)hp->vocab, hidden = (size_t)hp->hidden;
    int64_t step = runner_head_rows(hp);
    mt_buf normed, logits;

    if (hp->both_ways)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s models give hidden states, not logits: see moetool encode",
                       r->m->family->name);
    MT_TRY(runner_need_head(ctx, r));
    for (int64_t t = 0; t < m; t += step) {
        int64_t n = m - t < step ? m - t : step;
        size_t elems = (size_t)n * vocab;
        MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_A, (size_t)n * hidden, &normed));
        MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_B, elems, &logits));
        MT_TRY(mt_run_norm(ctx, r, normed, mt_dev_at(r->dev, x, (size_t)t * hidden), n,
                           &r->final_norm, &r->final_norm_bias));
        MT_TRY(ops->gemm(ctx, r->dev, logits, normed, n, r->head.h, false));
        if (hp->logit_scale != 1)
            MT_TRY(ops->scale(ctx, r->dev, logits, hp->logit_scale, elems));
        if (f32 != NULL)
            MT_TRY(ops->download(ctx, r->dev, f32 + (size_t)t * vocab, logits, elems));
        else
            MT_TRY(ops->download_f64(ctx, r->dev, f64 + (size_t)t * vocab, logits, elems));
        if (hp->logit_softcap > 0)
            runner_softcap(hp->logit_softcap, elems, f32 != NULL ? f32 + (size_t)t * vocab : NULL,
                           f32 == NULL ? f64 + (size_t)t * vocab : NULL);
    }
    return MT_OK;
}

void mt_runner_set_embedded(struct mt_runner *r, bool embedded)
{
    r->embedded = embedded || r->embed == NULL;
}

mt_status mt_run_final(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m, mt_buf y)
{
    return mt_run_norm(ctx, r, y, x, m, &r->final_norm, &r->final_norm_bias);
}

mt_status mt_run_head(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m, float *logits)
{
    return runner_head(ctx, r, x, m, logits, NULL);
}

mt_status mt_run_head_f64(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m,
                          double *logits)
{
    return runner_head(ctx, r, x, m, NULL, logits);
}

struct runner_bufs {
    mt_buf x, n, y;
};

static mt_status runner_logits_layers(struct mt_ctx *ctx, struct mt_runner *r,
                                      const struct runner_bufs *b, int32_t n)
{
    struct mt_seqs seqs = {1, &n};

    for (int i = 0; i < r->m->hp.n_layers; i++) {
        struct mt_run_layer *l;
        mt_status st;
        MT_TRY(mt_run_layer_open(ctx, r, i, &l));
        st = mt_run_attn(ctx, l, b->x, &seqs, NULL);
        if (st == MT_OK)
            st = mt_run_ffn_norm(ctx, l, b->x, n, b->n);
        if (st == MT_OK)
            st = mt_run_ffn(ctx, l, b->n, n, b->y, NULL);
        if (st == MT_OK)
            st = mt_run_add(ctx, r, b->x, b->y, n);
        mt_run_layer_close(l);
        MT_TRY(mt_wrap(ctx, st, "layer %d", i));
    }
    return MT_OK;
}

mt_status mt_run_logits(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                        const int32_t *ids, int n, double *logits)
{
    size_t elems = (size_t)n * (size_t)m->hp.hidden;
    struct runner_bufs b = {NULL, NULL, NULL};
    struct mt_runner *r;
    mt_status st;

    MT_TRY(mt_runner_open(ctx, m, dev, &r));
    st = dev->ops->alloc(ctx, dev, elems, &b.x);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, elems, &b.n);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, elems, &b.y);
    if (st == MT_OK)
        st = mt_run_embed(ctx, r, ids, n, b.x);
    if (st == MT_OK)
        st = runner_logits_layers(ctx, r, &b, n);
    if (st == MT_OK)
        st = mt_run_head_f64(ctx, r, b.x, n, logits);
    dev->ops->release(dev, b.x);
    dev->ops->release(dev, b.n);
    dev->ops->release(dev, b.y);
    mt_runner_close(r);
    return st;
}
