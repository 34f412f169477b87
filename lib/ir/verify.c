/* Checks a model against its hyper-parameters. Every loop ends at the first record that does not
 * fit, so hostile layer or expert counts cost no time. */
#include "lib/ir/family.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mt_status verify_shape(struct mt_ctx *ctx, const struct mt_tensor *t, int rank,
                              const int64_t *want)
{
    char got[192], label[128], expect[64];
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
    if (rank == 1)
        snprintf(expect, sizeof expect, "%" PRId64, want[0]);
    else
        snprintf(expect, sizeof expect, "%" PRId64 ", %" PRId64, want[0], want[1]);
    return mt_fail(ctx, MT_E_FORMAT, "%s%s%s%s has shape [%s], but the config gives [%s]",
                   mt_tensor_label(t, label, sizeof label), t->name != NULL ? " (" : "",
                   t->name != NULL ? t->name : "", t->name != NULL ? ")" : "", got, expect);
}

static mt_status verify_needed(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role,
                               int rank, int64_t rows, int64_t cols)
{
    const int64_t want[2] = {rows, cols};
    struct mt_tensor *t = mt_model_find(m, role);
    char label[128];

    if (t == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "%s is missing", mt_role_print(role, label, sizeof label));
    return verify_shape(ctx, t, rank, want);
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
    if (mt_model_find(m, role) != NULL)
        return mt_fail(ctx, MT_E_FORMAT, "%s is there, but the config declares no such bias",
                       mt_role_print(role, label, sizeof label));
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
        return mt_fail(ctx, MT_E_FORMAT,
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

    MT_TRY(verify_norm(ctx, m, MT_ROLE_ATTN_NORM, l));
    MT_TRY(verify_norm(ctx, m, MT_ROLE_FFN_NORM, l));
    if (hp->post_norms) {
        MT_TRY(verify_norm(ctx, m, MT_ROLE_ATTN_POST_NORM, l));
        MT_TRY(verify_norm(ctx, m, MT_ROLE_FFN_POST_NORM, l));
    }
    if (hp->sinks)
        MT_TRY(verify_vector(ctx, m, MT_ROLE_ATTN_SINKS, l, hp->n_heads));
    return hp->mla.kv_rank > 0 ? verify_latent(ctx, m, l) : verify_qkv(ctx, m, l);
}

static mt_status verify_expert(struct mt_ctx *ctx, const struct mt_model *m, int l, int expert,
                               int64_t width)
{
    const struct mt_ffn *f = &m->ffn[l];
    int64_t d = m->hp.hidden;

    if (f->gated) {
        MT_TRY(verify_matrix(ctx, m, MT_ROLE_FFN_GATE, l, expert, width, d));
        MT_TRY(verify_bias(ctx, m, MT_ROLE_FFN_GATE, l, expert, f->in_bias, width));
    }
    MT_TRY(verify_matrix(ctx, m, MT_ROLE_FFN_UP, l, expert, width, d));
    MT_TRY(verify_matrix(ctx, m, MT_ROLE_FFN_DOWN, l, expert, d, width));
    MT_TRY(verify_bias(ctx, m, MT_ROLE_FFN_UP, l, expert, f->in_bias, width));
    return verify_bias(ctx, m, MT_ROLE_FFN_DOWN, l, expert, f->out_bias, d);
}

/* A vector, or the one row of a matrix (ERNIE). */
static mt_status verify_selection_bias(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_role role = mt_role(MT_ROLE_ROUTER_BIAS, l, MT_EXPERT_NONE);
    const struct mt_tensor *t = mt_model_find(m, role);

    if (t != NULL && t->rank == 2 && t->shape[0] == 1)
        return verify_needed(ctx, m, role, 2, 1, m->ffn[l].n_experts);
    return verify_needed(ctx, m, role, 1, m->ffn[l].n_experts, 0);
}

static mt_status verify_ffn(struct mt_ctx *ctx, const struct mt_model *m, int l)
{
    const struct mt_ffn *f = &m->ffn[l];

    if (!f->moe)
        return verify_expert(ctx, m, l, MT_EXPERT_NONE, f->width);
    if (f->k < 1 || f->k > f->n_experts)
        return mt_fail(ctx, MT_E_FORMAT, "layers.%d: %d of %d experts per token", l, f->k,
                       f->n_experts);
    MT_TRY(verify_matrix(ctx, m, MT_ROLE_ROUTER, l, MT_EXPERT_NONE, f->n_experts, m->hp.hidden));
    MT_TRY(verify_bias(ctx, m, MT_ROLE_ROUTER, l, MT_EXPERT_NONE, f->router_bias, f->n_experts));
    if (f->rule.has_bias)
        MT_TRY(verify_selection_bias(ctx, m, l));
    for (int e = 0; e < f->n_experts; e++)
        MT_TRY(verify_expert(ctx, m, l, e, f->width));
    if (f->shared_width > 0)
        MT_TRY(verify_expert(ctx, m, l, MT_EXPERT_SHARED, f->shared_width));
    if (f->shared_width > 0 && f->shared_gated)
        MT_TRY(verify_matrix(ctx, m, MT_ROLE_SHARED_GATE, l, MT_EXPERT_NONE, 1, m->hp.hidden));
    return MT_OK;
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
    case MT_ROLE_ATTN_POST_NORM:
    case MT_ROLE_FFN_POST_NORM:
        return m->hp.post_norms;
    case MT_ROLE_ATTN_SINKS:
        return m->hp.sinks;
    case MT_ROLE_ROUTER:
        return f->moe;
    case MT_ROLE_ROUTER_BIAS:
        return f->moe && f->rule.has_bias;
    case MT_ROLE_SHARED_GATE:
        return f->moe && f->shared_width > 0 && f->shared_gated;
    case MT_ROLE_FFN_GATE:
    case MT_ROLE_FFN_UP:
    case MT_ROLE_FFN_DOWN:
        if (r.expert == MT_EXPERT_SHARED)
            return f->moe && f->shared_width > 0;
        return r.expert == MT_EXPERT_NONE ? !f->moe : f->moe && r.expert < f->n_experts;
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
        if (!verify_expected(m, t->role))
            return mt_fail(ctx, MT_E_FORMAT,
                           "%s%s%s%s is there, but the config leaves no place for it", label,
                           t->name != NULL ? " (" : "", t->name != NULL ? t->name : "",
                           t->name != NULL ? ")" : "");
        found = mt_model_find(m, t->role);
        if (found != t)
            return mt_fail(ctx, MT_E_FORMAT, "%s is there twice (%s, %s)", label,
                           found != NULL && found->name != NULL ? found->name : "unnamed",
                           t->name != NULL ? t->name : "unnamed");
    }
    return MT_OK;
}

mt_status mt_model_verify(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_hparams *hp = &m->hp;
    const struct mt_role head = mt_role(MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE);

    MT_TRY(verify_names(ctx, m));
    if (m->family == NULL)
        return MT_OK;
    MT_TRY(verify_matrix(ctx, m, MT_ROLE_EMBED, -1, MT_EXPERT_NONE, hp->vocab, hp->hidden));
    if (hp->learned_pos)
        MT_TRY(
            verify_matrix(ctx, m, MT_ROLE_POS_EMBED, -1, MT_EXPERT_NONE, hp->max_pos, hp->hidden));
    MT_TRY(verify_norm(ctx, m, MT_ROLE_FINAL_NORM, -1));
    if (!hp->tied || mt_model_find(m, head) != NULL)
        MT_TRY(verify_needed(ctx, m, head, 2, hp->vocab, hp->hidden));
    for (int l = 0; l < hp->n_layers; l++) {
        MT_TRY(verify_attention(ctx, m, l));
        MT_TRY(verify_ffn(ctx, m, l));
    }
    return verify_records(ctx, m);
}
