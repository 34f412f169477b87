/* profile_merge.c: profiles of one model become one. */
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

/* True when the first profile has the statistic and all others have it too; *some: one has it. */
static bool merge_common(const struct mt_profile *const *in, int n, int layer, enum mt_stat s,
                         bool *some)
{
    bool all = true;

    *some = false;
    for (int i = 0; i < n; i++) {
        bool has = profile_shape(in[i], layer, s)->rows > 0;
        all = all && has;
        *some = *some || has;
    }
    return all;
}

static mt_status merge_declare(struct mt_ctx *ctx, const struct mt_profile *const *in, int n,
                               struct mt_profile *out, int layer, enum mt_stat s)
{
    const struct profile_shape *x = profile_shape(in[0], layer, s);
    char label[64];
    bool some;

    if (!merge_common(in, n, layer, s, &some) || mt_stat_row(s)->kind == MT_STAT_GIVEN) {
        if (some)
            mt_log(ctx, MT_LOG_WARN, "%s is left out: %s", profile_label(layer, s, label),
                   mt_stat_row(s)->kind == MT_STAT_GIVEN ? "scores do not add up"
                                                         : "not every profile has it");
        return MT_OK;
    }
    for (int i = 1; i < n; i++) {
        const struct profile_shape *y = profile_shape(in[i], layer, s);
        if (x->rows != y->rows || x->cols != y->cols)
            return mt_fail(ctx, MT_E_FORMAT, "%s: %lld x %lld and %lld x %lld do not merge",
                           profile_label(layer, s, label), (long long)x->rows, (long long)x->cols,
                           (long long)y->rows, (long long)y->cols);
    }
    mt_profile_declare(out, layer, s, x->rows, x->cols);
    return MT_OK;
}

static mt_status merge_create(struct mt_ctx *ctx, const struct mt_profile *const *in, int n,
                              struct mt_profile **out)
{
    struct mt_profile_source *all;
    int n_sources = 0;
    mt_status st;

    for (int i = 0; i < n; i++)
        n_sources += in[i]->n_sources;
    MT_TRY(mt_alloc(ctx, (size_t)n_sources, sizeof *all, "sources", &all));
    n_sources = 0;
    for (int i = 0; i < n; i++) {
        memcpy(all + n_sources, in[i]->sources, (size_t)in[i]->n_sources * sizeof *all);
        n_sources += in[i]->n_sources;
    }
    st = mt_profile_create(ctx, &in[0]->info, all, n_sources, out);
    mt_free(all);
    return st;
}

mt_status mt_profile_merge_plan(struct mt_ctx *ctx, const struct mt_profile *const *in, int n,
                                struct mt_profile **out)
{
    mt_status st;

    *out = NULL;
    mt_assert(n > 0);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            MT_TRY(merge_check(ctx, in[k], in[i]));
    MT_TRY(merge_create(ctx, in, n, out));
    st = MT_OK;
    for (int l = 0; l < in[0]->info.n_layers && st == MT_OK; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL && st == MT_OK; i++)
            st = merge_declare(ctx, in, n, *out, l, (enum mt_stat)i);
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

mt_status mt_profile_merge_part(struct mt_ctx *ctx, const struct mt_profile *const *in, int n,
                                struct mt_profile *out, int layer, enum mt_stat s, int domain)
{
    const struct profile_shape *shape = profile_shape(out, layer, s);
    size_t count = (size_t)(shape->rows * shape->cols);
    enum mt_stat_kind kind = mt_stat_row(s)->kind;
    struct mt_exact *exact = NULL;
    bool fits = true;
    char label[64];
    double *v;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc0(ctx, count, sizeof *v, "merged statistic", &v));
    if (kind == MT_STAT_SUM)
        st = mt_alloc0(ctx, count, sizeof *exact, "merged statistic", &exact);
    for (int i = 0; st == MT_OK && i < n; i++) {
        int d = profile_find_domain(in[i], out->domains[domain]);
        if (d >= 0)
            fits =
                fits && merge_add(kind, &profile_cell(in[i], layer, s, d)->part, count, v, exact);
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
