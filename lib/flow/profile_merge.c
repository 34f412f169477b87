/* profile_merge.c: two profiles of one model become one. */
#include "lib/flow/profile_impl.h"

#include "lib/base/mem.h"

#include <string.h>

static mt_status merge_check(struct mt_ctx *ctx, const struct mt_profile *a,
                             const struct mt_profile *b)
{
    const struct mt_profile_info *x = &a->info, *y = &b->info;

    if (strcmp(x->model, y->model) != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "profiles of different models: %.12s and %.12s; only profiles of one model "
                       "merge",
                       x->model[0] != '\0' ? x->model : "imported",
                       y->model[0] != '\0' ? y->model : "imported");
    if (x->n_layers != y->n_layers || x->hidden != y->hidden)
        return mt_fail(ctx, MT_E_OPTION,
                       "profiles of different models: %d layers of %lld features and %d of %lld",
                       x->n_layers, (long long)x->hidden, y->n_layers, (long long)y->hidden);
    if (strcmp(x->tokenizer, y->tokenizer) != 0)
        return mt_fail(ctx, MT_E_OPTION, "profiles made with different tokenizers: %.12s and %.12s",
                       x->tokenizer, y->tokenizer);
    if (x->seq_len != y->seq_len)
        return mt_fail(ctx, MT_E_OPTION,
                       "profiles of windows of %lld and of %lld tokens; make both with one "
                       "--seq-len",
                       (long long)x->seq_len, (long long)y->seq_len);
    for (int i = 0; i < a->n_sources; i++) {
        for (int k = 0; k < b->n_sources; k++) {
            const struct mt_profile_source *s = &a->sources[i], *t = &b->sources[k];
            if (strcmp(s->domain, t->domain) == 0 && s->ids_sha256[0] != '\0' &&
                strcmp(s->ids_sha256, t->ids_sha256) == 0)
                return mt_fail(ctx, MT_E_OPTION,
                               "both profiles saw the same text of domain %s; it would count "
                               "twice",
                               s->domain);
        }
    }
    return MT_OK;
}

/* Declares what both have. */
static mt_status merge_declare(struct mt_ctx *ctx, const struct mt_profile *a,
                               const struct mt_profile *b, struct mt_profile *out)
{
    char label[64];

    for (int l = 0; l < a->info.n_layers; l++) {
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat s = (enum mt_stat)i;
            const struct profile_shape *x = profile_shape(a, l, s), *y = profile_shape(b, l, s);
            if (x->rows == 0 && y->rows == 0)
                continue;
            if (x->rows == 0 || y->rows == 0 || mt_stat_row(s)->kind == MT_STAT_GIVEN) {
                mt_log(ctx, MT_LOG_WARN, "%s is left out: %s", profile_label(l, s, label),
                       x->rows == 0 || y->rows == 0 ? "only one of the profiles has it"
                                                    : "scores do not add up");
                continue;
            }
            if (x->rows != y->rows || x->cols != y->cols)
                return mt_fail(ctx, MT_E_FORMAT, "%s: %lld x %lld and %lld x %lld do not merge",
                               profile_label(l, s, label), (long long)x->rows, (long long)x->cols,
                               (long long)y->rows, (long long)y->cols);
            mt_profile_declare(out, l, s, x->rows, x->cols);
        }
    }
    return MT_OK;
}

mt_status mt_profile_merge_plan(struct mt_ctx *ctx, const struct mt_profile *a,
                                const struct mt_profile *b, struct mt_profile **out)
{
    struct mt_profile_source *both;
    int n = a->n_sources + b->n_sources;
    mt_status st;

    *out = NULL;
    MT_TRY(merge_check(ctx, a, b));
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof *both, "sources", &both));
    memcpy(both, a->sources, (size_t)a->n_sources * sizeof *both);
    memcpy(both + a->n_sources, b->sources, (size_t)b->n_sources * sizeof *both);
    st = mt_profile_create(ctx, &a->info, both, n, out);
    mt_free(both);
    if (st == MT_OK)
        st = merge_declare(ctx, a, b, *out);
    if (st != MT_OK) {
        mt_profile_free(*out);
        *out = NULL;
    }
    return st;
}

/* Adds a part to the sums in v and exact, which start at zero. */
static bool merge_add(enum mt_stat_kind kind, const struct mt_profile_part *part, size_t n,
                      double *v, struct mt_exact *exact)
{
    for (size_t i = 0; i < n; i++) {
        if (kind == MT_STAT_MAX)
            v[i] = part->v[i] > v[i] ? part->v[i] : v[i];
        else if (kind != MT_STAT_SUM)
            v[i] += part->v[i];
        else if (!(part->exact != NULL ? mt_exact_merge(&exact[i], &part->exact[i])
                                       : mt_exact_add(&exact[i], part->v[i])))
            return false;
        else
            v[i] = mt_exact_value(&exact[i]);
    }
    return true;
}

mt_status mt_profile_merge_part(struct mt_ctx *ctx, const struct mt_profile *a,
                                const struct mt_profile *b, struct mt_profile *out, int layer,
                                enum mt_stat s, int domain)
{
    const struct mt_profile *from[2] = {a, b};
    const struct profile_shape *shape = profile_shape(out, layer, s);
    size_t n = (size_t)(shape->rows * shape->cols);
    enum mt_stat_kind kind = mt_stat_row(s)->kind;
    struct mt_exact *exact = NULL;
    bool fits = true;
    char label[64];
    double *v;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc0(ctx, n, sizeof *v, "merged statistic", &v));
    if (kind == MT_STAT_SUM)
        st = mt_alloc0(ctx, n, sizeof *exact, "merged statistic", &exact);
    for (int i = 0; st == MT_OK && i < 2; i++) {
        int d = profile_find_domain(from[i], out->domains[domain]);
        if (d >= 0)
            fits = fits && merge_add(kind, &profile_cell(from[i], layer, s, d)->part, n, v, exact);
    }
    if (st == MT_OK && !fits)
        st = mt_fail(ctx, MT_E_NUMERIC, "%s: a sum passes 9.2e18", profile_label(layer, s, label));
    if (st != MT_OK) {
        mt_free(v);
        mt_free(exact);
        return st;
    }
    mt_profile_set(out, layer, s, domain, v, exact, true);
    return MT_OK;
}
