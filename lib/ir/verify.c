/* Checks a model against its hyper-parameters. Every loop ends at the first record that does not
 * fit, so hostile layer or expert counts cost no time. */
#include "lib/ir/blocks.h"
#include "lib/ir/family.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fails with the sentence, or lists it and goes on where the model keeps a list. */
static mt_status verify_flaw(struct mt_ctx *ctx, const struct mt_model *m, enum mt_flaw_kind kind,
                             const char *subject, const char *fmt, ...) MT_PRINTF(5, 6);
static mt_status verify_flaw(struct mt_ctx *ctx, const struct mt_model *m, enum mt_flaw_kind kind,
                             const char *subject, const char *fmt, ...)
{
    struct mt_flaws *all = m->flaws;
    struct mt_flaw flaw = {.kind = kind};
    char text[MT_ERROR_TEXT_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (all == NULL || all->n == MT_FLAWS_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "%s", text);
    MT_TRY(mt_arena_strndup(ctx, all->arena, text, strlen(text), &flaw.what));
    MT_TRY(mt_arena_strndup(ctx, all->arena, subject, strlen(subject), &flaw.subject));
    all->v[all->n++] = flaw;
    return MT_OK;
}

static mt_status verify_shape(struct mt_ctx *ctx, const struct mt_model *m,
                              const struct mt_tensor *t, int rank, const int64_t *want)
{
    char got[192], label[128], expect[96];
    size_t n = 0;
    bool same = t->rank == rank;

    for (int i = 0; i < rank && same; i++)
        same = t->shape[i] == want[i];
    if (same)
        return MT_OK;
    got[0] = 0;
    for (int i = 0; i < t->rank && n < sizeof got; i++)
        n +=
            (size_t)snprintf(got + n, sizeof got - n, "%s%" PRId64, i > 0 ? ", " : "", t->shape[i]);
    n = 0;
    for (int i = 0; i < rank; i++)
        n += (size_t)snprintf(expect + n, sizeof expect - n, "%s%" PRId64, i > 0 ? ", " : "",
                              want[i]);
    mt_tensor_label(t, label, sizeof label);
    return verify_flaw(ctx, m, MT_FLAW_SHAPE, t->name != NULL ? t->name : label,
                       "%s%s%s%s has shape [%s], but the config gives [%s]", label,
                       t->name != NULL ? " (" : "", t->name != NULL ? t->name : "",
                       t->name != NULL ? ")" : "", got, expect);
}

static mt_status verify_needed(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role,
                               int rank, int64_t rows, int64_t cols)
{
    const int64_t want[2] = {rows, cols};
    struct mt_tensor *t = mt_model_find(m, role);
    char label[128];

    if (t == NULL) {
        mt_role_print(role, label, sizeof label);
        return verify_flaw(ctx, m, MT_FLAW_MISSING, label, "%s is missing", label);
    }
    return verify_shape(ctx, m, t, rank, want);
}

static mt_status verify_matrix(struct mt_ctx *ctx, const struct mt_model *m, enum mt_role_kind kind,
                               int layer, int expert, int64_t rows, int64_t cols)
{
    return verify_needed(ctx, m, mt_role(kind, layer, expert), 2, rows, cols);
}

static mt_status verify_vector(struct mt_ctx *ctx, const struct mt_model *m, enum mt_role_kind kind,
                               int layer, int64_t n)
{
    return verify_needed(ctx, m, mt_role(kind, layer, MT_EXPERT_NONE), 1, n, 0);
}

/* A bias is there exactly when it is declared: one that is ignored changes the model silently. */
static mt_status verify_bias(struct mt_ctx *ctx, const struct mt_model *m, enum mt_role_kind kind,
                             int layer, int expert, bool declared, int64_t n)
{
    struct mt_role role = mt_role(kind, layer, expert);
    char label[128];

    role.part = MT_PART_BIAS;
    if (declared)
        return verify_needed(ctx, m, role, 1, n, 0);
    if (mt_model_find(m, role) != NULL) {
        mt_role_print(role, label, sizeof label);
        return verify_flaw(ctx, m, MT_FLAW_SURPLUS, label,
                           "%s is there, but the config declares no such bias", label);
    }
    return MT_OK;
}

/* A norm of n, with a bias where norms have them. */
static mt_status verify_norm(struct mt_ctx *ctx, const struct mt_model *m, enum mt_role_kind kind,
                             int layer)
{
    MT_TRY(verify_vector(ctx, m, kind, layer, m->hp.hidden));
    return verify_bias(ctx, m, kind, layer, MT_EXPERT_NONE, m->hp.norm_bias, m->hp.hidden);
}

/* Weight and bias of a projection of attention. */
static mt_status verify_linear(struct mt_ctx *ctx, const struct mt_model *m, enum mt_role_kind kind,
                               int l, int64_t rows, int64_t cols, bool bias)
{
    MT_TRY(verify_matrix(ctx, m, kind, l, MT_EXPERT_NONE, rows, cols));
    return verify_bias(ctx, m, kind, l, MT_EXPERT_NONE, bias, rows);
}

static mt_status verify_qkv(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_hparams *hp = &m->hp;
    int64_t q = (int64_t)hp->n_heads * hp->head_dim, kv = (int64_t)hp->n_kv_heads * hp->head_dim;
    bool norms = hp->qk_norm != MT_QK_NORM_NONE, full = hp->qk_norm == MT_QK_NORM_FULL;

    MT_TRY(verify_linear(ctx, m, MT_ROLE_ATTN_Q, l, q, hp->hidden, hp->qkv_bias));
    MT_TRY(verify_linear(ctx, m, MT_ROLE_ATTN_K, l, kv, hp->hidden, hp->qkv_bias));
    MT_TRY(verify_linear(ctx, m, MT_ROLE_ATTN_V, l, kv, hp->hidden, hp->qkv_bias));
    if (!norms && (mt_model_find(m, mt_role(MT_ROLE_Q_NORM, l, MT_EXPERT_NONE)) != NULL ||
                   mt_model_find(m, mt_role(MT_ROLE_K_NORM, l, MT_EXPERT_NONE)) != NULL))
        return verify_flaw(ctx, m, MT_FLAW_SURPLUS, "q_norm",
                           "layers.%d has q_norm or k_norm, but the config declares none", l);
    if (norms) {
        MT_TRY(verify_vector(ctx, m, MT_ROLE_Q_NORM, l, full ? q : hp->head_dim));
        MT_TRY(verify_vector(ctx, m, MT_ROLE_K_NORM, l, full ? kv : hp->head_dim));
    }
    return verify_linear(ctx, m, MT_ROLE_ATTN_O, l, hp->hidden, q, hp->o_bias);
}

static mt_status verify_latent(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_hparams *hp = &m->hp;
    const struct mt_mla *a = &hp->mla;
    int64_t n = hp->n_heads, q = n * (a->nope + a->rope);

    if (a->q_rank > 0) {
        MT_TRY(verify_linear(ctx, m, MT_ROLE_ATTN_Q_A, l, a->q_rank, hp->hidden, hp->qkv_bias));
        MT_TRY(verify_vector(ctx, m, MT_ROLE_Q_A_NORM, l, a->q_rank));
    }
    MT_TRY(
        verify_linear(ctx, m, MT_ROLE_ATTN_Q, l, q, a->q_rank > 0 ? a->q_rank : hp->hidden, false));
    MT_TRY(verify_linear(ctx, m, MT_ROLE_ATTN_KV_A, l, a->kv_rank + a->rope, hp->hidden,
                         hp->qkv_bias));
    MT_TRY(verify_vector(ctx, m, MT_ROLE_KV_A_NORM, l, a->kv_rank));
    MT_TRY(verify_linear(ctx, m, MT_ROLE_ATTN_KV_B, l, n * (a->nope + a->v), a->kv_rank, false));
    return verify_linear(ctx, m, MT_ROLE_ATTN_O, l, hp->hidden, n * a->v, hp->o_bias);
}

static mt_status verify_attention(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_hparams *hp = &m->hp;

    if (mt_model_only_blocks(m))
        return MT_OK;

    if (!hp->norm_sums)
        MT_TRY(verify_norm(ctx, m, MT_ROLE_ATTN_NORM, l));
    MT_TRY(verify_norm(ctx, m, MT_ROLE_FFN_NORM, l));
    if (hp->post_norms)
        MT_TRY(verify_norm(ctx, m, MT_ROLE_ATTN_POST_NORM, l));
    if (hp->post_norms || hp->norm_sums)
        MT_TRY(verify_norm(ctx, m, MT_ROLE_FFN_POST_NORM, l));
    if (hp->layer_scale) {
        MT_TRY(verify_vector(ctx, m, MT_ROLE_ATTN_SCALE, l, hp->hidden));
        MT_TRY(verify_vector(ctx, m, MT_ROLE_FFN_SCALE, l, hp->hidden));
    }
    if (hp->sinks)
        MT_TRY(verify_vector(ctx, m, MT_ROLE_ATTN_SINKS, l, hp->n_heads));
    return hp->mla.kv_rank > 0 ? verify_latent(ctx, m, l) : verify_qkv(ctx, m, l);
}

static const enum mt_role_kind verify_ffn_kinds[MT_FFN_MATRICES] = {
    MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};

/* Factors of one matrix; the rank is what the tensors say, which must agree. */
static mt_status verify_factors(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role,
                                const struct mt_factors *how, int64_t rows, int64_t cols)
{
    const struct mt_tensor *t = mt_model_find(m, mt_role_part(role, MT_PART_LEFT));
    int64_t rank = t != NULL && t->rank == 2 ? t->shape[1] : 1, n;
    char label[128];

    MT_TRY(verify_needed(ctx, m, mt_role_part(role, MT_PART_LEFT), 2, rows, rank));
    MT_TRY(verify_needed(ctx, m, mt_role_part(role, MT_PART_RIGHT), 2, rank, cols));
    if (!how->sparse)
        return MT_OK;
    t = mt_model_find(m, mt_role_part(role, MT_PART_SPARSE_ROWS));
    n = t != NULL && t->rank == 1 ? t->shape[0] : 1;
    MT_TRY(verify_needed(ctx, m, mt_role_part(role, MT_PART_SPARSE_ROWS), 1, n, 0));
    if (t != NULL && t->dtype != MT_I32)
        return mt_fail(ctx, MT_E_FORMAT, "%s is stored as %s, expected I32",
                       mt_tensor_label(t, label, sizeof label), mt_dtype_name(t->dtype));
    return verify_needed(ctx, m, mt_role_part(role, MT_PART_SPARSE), 2, n, cols);
}

static mt_status verify_rank3(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role,
                              int64_t a, int64_t b, int64_t c)
{
    const int64_t want[3] = {a, b, c};
    struct mt_tensor *t = mt_model_find(m, role);
    char label[128];

    if (t == NULL) {
        mt_role_print(role, label, sizeof label);
        return verify_flaw(ctx, m, MT_FLAW_MISSING, label, "%s is missing", label);
    }
    return verify_shape(ctx, m, t, 3, want);
}

static mt_status verify_bytes(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role)
{
    const struct mt_tensor *t = mt_model_find(m, role);
    char label[128];

    if (t == NULL || t->dtype == MT_U8)
        return MT_OK;
    return mt_fail(ctx, MT_E_FORMAT, "%s is stored as %s, expected U8",
                   mt_role_print(role, label, sizeof label), mt_dtype_name(t->dtype));
}

/* Codes and planes of one matrix; rows begin on whole bytes. */
static mt_status verify_planes(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role,
                               const struct mt_planes *p, int64_t rows, int64_t cols)
{
    int64_t groups = (cols + p->group - 1) / p->group;

    MT_TRY(verify_needed(ctx, m, mt_role_part(role, MT_PART_CODES), 2, rows,
                         (cols * p->bits + 7) / 8));
    MT_TRY(verify_bytes(ctx, m, mt_role_part(role, MT_PART_CODES)));
    MT_TRY(verify_needed(ctx, m, mt_role_part(role, MT_PART_SCALE), 2, rows, groups));
    MT_TRY(verify_needed(ctx, m, mt_role_part(role, MT_PART_ZERO), 2, rows, groups));
    if (p->n == 0)
        return MT_OK;
    MT_TRY(verify_rank3(ctx, m, mt_role_part(role, MT_PART_PLANES), p->n, rows, (cols + 7) / 8));
    MT_TRY(verify_bytes(ctx, m, mt_role_part(role, MT_PART_PLANES)));
    return verify_rank3(ctx, m, mt_role_part(role, MT_PART_PLANE_SCALE), p->n, rows, groups);
}

/* A matrix of a block, whole or in the parts that the layer declares for routed experts. */
static mt_status verify_stored(struct mt_ctx *ctx, const struct mt_model *m, int l, int expert,
                               enum mt_ffn_matrix which, int64_t rows, int64_t cols)
{
    const struct mt_ffn *f = &m->ffn[l];
    struct mt_role role = mt_role(verify_ffn_kinds[which], l, expert);

    if (expert >= 0 && f->factors[which].on)
        return verify_factors(ctx, m, role, &f->factors[which], rows, cols);
    if (expert >= 0 && f->planes.bits > 0)
        return verify_planes(ctx, m, role, &f->planes, rows, cols);
    return verify_needed(ctx, m, role, 2, rows, cols);
}

static mt_status verify_expert(struct mt_ctx *ctx, const struct mt_model *m, int l, int expert,
                               int64_t width)
{
    const struct mt_ffn *f = &m->ffn[l];
    int64_t d = m->hp.hidden;

    if (width > 0) {
        if (f->gated) {
            MT_TRY(verify_stored(ctx, m, l, expert, MT_FFN_GATE, width, d));
            MT_TRY(verify_bias(ctx, m, MT_ROLE_FFN_GATE, l, expert, f->in_bias, width));
        }
        MT_TRY(verify_stored(ctx, m, l, expert, MT_FFN_UP, width, d));
        MT_TRY(verify_stored(ctx, m, l, expert, MT_FFN_DOWN, d, width));
        MT_TRY(verify_bias(ctx, m, MT_ROLE_FFN_UP, l, expert, f->in_bias, width));
    }
    return verify_bias(ctx, m, MT_ROLE_FFN_DOWN, l, expert, f->out_bias, d);
}

/* A vector, or the one row of a matrix (ERNIE). */
static mt_status verify_selection_bias(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_role role = mt_role(MT_ROLE_ROUTER_BIAS, l, MT_EXPERT_NONE);
    const struct mt_tensor *t = mt_model_find(m, role);

    if (t != NULL && t->rank == 2 && t->shape[0] == 1)
        return verify_needed(ctx, m, role, 2, 1, mt_ffn_rows(&m->ffn[l]));
    return verify_needed(ctx, m, role, 1, mt_ffn_rows(&m->ffn[l]), 0);
}

/* A matrix of a router and its bias. */
static mt_status verify_router_part(struct mt_ctx *ctx, const struct mt_model *m,
                                    enum mt_role_kind kind, int l, int64_t rows, int64_t cols,
                                    bool bias)
{
    MT_TRY(verify_matrix(ctx, m, kind, l, MT_EXPERT_NONE, rows, cols));
    return verify_bias(ctx, m, kind, l, MT_EXPERT_NONE, bias, rows);
}

static mt_status verify_router(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_ffn *f = &m->ffn[l];
    const struct mt_router *r = &f->router;
    int64_t rows = mt_ffn_rows(f), d = m->hp.hidden;

    if (r->kind == MT_ROUTER_MLP) {
        MT_TRY(verify_router_part(ctx, m, MT_ROLE_ROUTER_HIDDEN, l, r->width, d, r->hidden_bias));
        if (r->skip)
            MT_TRY(verify_router_part(ctx, m, MT_ROLE_ROUTER_SKIP, l, rows, d, false));
        return verify_router_part(ctx, m, MT_ROLE_ROUTER, l, rows, r->width, f->router_bias);
    }
    if (r->kind == MT_ROUTER_SPECTRAL)
        rows *= r->width;
    if (r->kind != MT_ROUTER_LINEAR && r->gated)
        MT_TRY(verify_router_part(ctx, m, MT_ROLE_ROUTER_GATE, l, rows, d, r->hidden_bias));
    return verify_router_part(ctx, m, MT_ROLE_ROUTER, l, rows, d, f->router_bias);
}

/* What routed experts of a layer have in common: the shared factor, the layer's output bias. */
static mt_status verify_common(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_ffn *f = &m->ffn[l];
    int64_t d = m->hp.hidden;

    for (int i = 0; i < MT_FFN_MATRICES; i++)
        if (f->factors[i].on && f->factors[i].base)
            MT_TRY(verify_matrix(ctx, m, verify_ffn_kinds[i], l, MT_EXPERT_NONE,
                                 i == MT_FFN_DOWN ? d : f->width, i == MT_FFN_DOWN ? f->width : d));
    return verify_bias(ctx, m, MT_ROLE_FFN_DOWN, l, MT_EXPERT_NONE, f->layer_bias, d);
}

static mt_status verify_ffn(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_ffn *f = &m->ffn[l];

    if (!f->moe)
        return verify_expert(ctx, m, l, MT_EXPERT_NONE, f->width);
    if (f->k < 1 || f->k > mt_ffn_rows(f))
        return mt_fail(ctx, MT_E_FORMAT, "layers.%d: %d of %d experts per token", l, f->k,
                       mt_ffn_rows(f));
    MT_TRY(verify_router(ctx, m, l));
    if (f->rule.has_bias)
        MT_TRY(verify_selection_bias(ctx, m, l));
    MT_TRY(verify_common(ctx, m, l));
    for (int e = 0; e < f->n_experts; e++)
        MT_TRY(verify_expert(ctx, m, l, e, mt_ffn_expert_width(f, e)));
    if (f->shared_width > 0)
        MT_TRY(verify_expert(ctx, m, l, MT_EXPERT_SHARED, f->shared_width));
    if (f->shared_width > 0 && f->shared_gated)
        MT_TRY(verify_matrix(ctx, m, MT_ROLE_SHARED_GATE, l, MT_EXPERT_NONE, 1, m->hp.hidden));
    return MT_OK;
}

/* Whether a layer's block has a place for a matrix or vector of FFN_GATE, _UP or _DOWN. */
static bool verify_expected_ffn(const struct mt_ffn *f, struct mt_role r)
{
    enum mt_ffn_matrix which = r.kind == MT_ROLE_FFN_GATE ? MT_FFN_GATE
                               : r.kind == MT_ROLE_FFN_UP ? MT_FFN_UP
                                                          : MT_FFN_DOWN;
    const struct mt_factors *how = &f->factors[which];

    if (r.kind == MT_ROLE_FFN_GATE && !f->gated)
        return false;
    if (r.part > MT_PART_BIAS) {
        if (r.expert < 0 || r.expert >= f->n_experts)
            return false;
        if (r.part <= MT_PART_SPARSE_ROWS)
            return how->on && (r.part <= MT_PART_RIGHT || how->sparse);
        return f->planes.bits > 0 && !how->on && (r.part <= MT_PART_ZERO || f->planes.n > 0);
    }
    if (r.expert == MT_EXPERT_SHARED)
        return f->moe && f->shared_width > 0;
    if (r.expert >= 0)
        return f->moe && r.expert < f->n_experts &&
               (r.part == MT_PART_BIAS || (!how->on && f->planes.bits == 0));
    return !f->moe || (r.part == MT_PART_WEIGHT ? how->on && how->base
                                                : r.kind == MT_ROLE_FFN_DOWN && f->layer_bias);
}

/* Whether the hyper-parameters leave room for a record of this role. */
static bool verify_expected(const struct mt_model *m, struct mt_role r)
{
    const struct mt_ffn *f;

    if (r.layer < 0)
        return r.expert == MT_EXPERT_NONE;
    if (r.layer >= m->hp.n_layers)
        return false;
    f = &m->ffn[r.layer];
    switch (r.kind) {
    case MT_ROLE_ATTN_Q_A:
    case MT_ROLE_Q_A_NORM:
        return m->hp.mla.kv_rank > 0 && m->hp.mla.q_rank > 0;
    case MT_ROLE_ATTN_KV_A:
    case MT_ROLE_ATTN_KV_B:
    case MT_ROLE_KV_A_NORM:
        return m->hp.mla.kv_rank > 0;
    case MT_ROLE_ATTN_K:
    case MT_ROLE_ATTN_V:
        return m->hp.mla.kv_rank == 0;
    case MT_ROLE_ATTN_NORM:
        return !m->hp.norm_sums;
    case MT_ROLE_ATTN_POST_NORM:
        return m->hp.post_norms;
    case MT_ROLE_FFN_POST_NORM:
        return m->hp.post_norms || m->hp.norm_sums;
    case MT_ROLE_ATTN_SCALE:
    case MT_ROLE_FFN_SCALE:
        return m->hp.layer_scale;
    case MT_ROLE_ATTN_SINKS:
        return m->hp.sinks;
    case MT_ROLE_ROUTER:
        return f->moe;
    case MT_ROLE_ROUTER_HIDDEN:
        return f->moe && f->router.kind == MT_ROUTER_MLP;
    case MT_ROLE_ROUTER_SKIP:
        return f->moe && f->router.kind == MT_ROUTER_MLP && f->router.skip;
    case MT_ROLE_ROUTER_GATE:
        return f->moe && f->router.kind >= MT_ROUTER_REPRESENTATIVE && f->router.gated;
    case MT_ROLE_ROUTER_BIAS:
        return f->moe && f->rule.has_bias;
    case MT_ROLE_SHARED_GATE:
        return f->moe && f->shared_width > 0 && f->shared_gated;
    case MT_ROLE_FFN_GATE:
    case MT_ROLE_FFN_UP:
    case MT_ROLE_FFN_DOWN:
        return verify_expected_ffn(f, r);
    default:
        return r.expert == MT_EXPERT_NONE;
    }
}

static int verify_by_name(const void *a, const void *b)
{
    const struct mt_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static mt_status verify_names(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_tensor **sorted;
    mt_status st = MT_OK;
    size_t n = 0;

    MT_TRY(mt_alloc(ctx, m->n_tensors, sizeof(struct mt_tensor *), "list of names", &sorted));
    for (size_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i]->name != NULL)
            sorted[n++] = m->tensors[i];
    qsort(sorted, n, sizeof(struct mt_tensor *), verify_by_name);
    for (size_t i = 1; i < n && st == MT_OK; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            st = mt_fail(ctx, MT_E_FORMAT, "two tensors are named %s", sorted[i]->name);
    mt_free(sorted);
    return st;
}

static mt_status verify_records(struct mt_ctx *ctx, const struct mt_model *m)
{
    char label[128];

    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i], *found;

        if (t->role.kind == MT_ROLE_OTHER)
            continue;
        mt_tensor_label(t, label, sizeof label);
        if (!verify_expected(m, t->role)) {
            MT_TRY(verify_flaw(ctx, m, MT_FLAW_SURPLUS, t->name != NULL ? t->name : label,
                               "%s%s%s%s is there, but the config leaves no place for it", label,
                               t->name != NULL ? " (" : "", t->name != NULL ? t->name : "",
                               t->name != NULL ? ")" : ""));
            continue;
        }
        found = mt_model_find(m, t->role);
        if (found != t)
            return mt_fail(ctx, MT_E_FORMAT, "%s is there twice (%s, %s)", label,
                           found != NULL && found->name != NULL ? found->name : "unnamed",
                           t->name != NULL ? t->name : "unnamed");
    }
    return MT_OK;
}

/* What stands before and behind the layers. */
static mt_status verify_frame(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_role head = mt_role(MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE);
    const struct mt_hparams *hp = &m->hp;

    if (mt_model_only_blocks(m))
        return MT_OK;
    if (!hp->given_input)
        MT_TRY(verify_matrix(ctx, m, MT_ROLE_EMBED, -1, MT_EXPERT_NONE, hp->vocab, hp->hidden));
    if (hp->learned_pos)
        MT_TRY(
            verify_matrix(ctx, m, MT_ROLE_POS_EMBED, -1, MT_EXPERT_NONE, hp->max_pos, hp->hidden));
    if (hp->n_types > 0)
        MT_TRY(
            verify_matrix(ctx, m, MT_ROLE_TYPE_EMBED, -1, MT_EXPERT_NONE, hp->n_types, hp->hidden));
    MT_TRY(verify_norm(ctx, m, hp->norm_sums ? MT_ROLE_EMBED_NORM : MT_ROLE_FINAL_NORM, -1));
    if (hp->both_ways || (hp->tied && mt_model_find(m, head) == NULL))
        return MT_OK;
    return verify_needed(ctx, m, head, 2, hp->vocab, hp->hidden);
}

mt_status mt_model_verify(struct mt_ctx *ctx, const struct mt_model *m)
{
    MT_TRY(verify_names(ctx, m));
    if (m->family == NULL)
        return MT_OK;
    MT_TRY(verify_frame(ctx, m));
    for (int l = 0; l < m->hp.n_layers; l++) {
        MT_TRY(verify_attention(ctx, m, l));
        MT_TRY(verify_ffn(ctx, m, l));
    }
    return verify_records(ctx, m);
}
