/* profile_text.c: which windows of which texts a profile sees. */
#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/flow/profile_run.h"

#include <stdlib.h>
#include <string.h>

/* The windows of one domain of one set. */
struct text_unit {
    const struct mt_dataset *set;
    int domain; /* of the set */
    size_t first, n;
    size_t take;
    int number; /* of the domain among all, ordered by name */
};

struct text_units {
    struct text_unit *v;
    int n;
};

static mt_status text_gather(struct mt_ctx *ctx, const struct mt_dataset *sets, int n_sets,
                             struct text_units *u)
{
    size_t n = 0;

    for (int i = 0; i < n_sets; i++)
        n += (size_t)sets[i].n_domains;
    MT_TRY(mt_alloc0(ctx, n, sizeof *u->v, "domains", &u->v));
    for (int i = 0; i < n_sets; i++) {
        for (int d = 0; d < sets[i].n_domains; d++) {
            struct text_unit *t = &u->v[u->n];
            *t = (struct text_unit){.set = &sets[i], .domain = d};
            for (size_t w = 0; w < sets[i].n_windows; w++) {
                if (sets[i].windows[w].domain != d)
                    continue;
                if (t->n++ == 0)
                    t->first = w;
            }
            u->n += t->n > 0;
        }
    }
    return MT_OK;
}

/* Equal shares; what a small unit leaves over goes to the others, first come first served. */
static void text_share(struct text_units *u, size_t samples)
{
    size_t left = samples, open = 1;

    for (int i = 0; i < u->n; i++)
        u->v[i].take = samples == 0 ? u->v[i].n : 0;
    while (left > 0 && open > 0) {
        size_t each;
        open = 0;
        for (int i = 0; i < u->n; i++)
            open += u->v[i].take < u->v[i].n;
        each = open == 0 || left < open ? 1 : left / open;
        for (int i = 0; i < u->n && left > 0; i++) {
            size_t more = u->v[i].n - u->v[i].take;
            more = more < each ? more : each;
            more = more < left ? more : left;
            u->v[i].take += more;
            left -= more;
        }
    }
}

static int text_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Distinct names in order; units get their numbers. */
static mt_status text_domains(struct mt_ctx *ctx, struct text_units *u, struct mt_dataset *out)
{
    MT_TRY(mt_alloc(ctx, (size_t)u->n, sizeof *out->domains, "domains", &out->domains));
    for (int i = 0; i < u->n; i++)
        if (u->v[i].take > 0)
            out->domains[out->n_domains++] = u->v[i].set->domains[u->v[i].domain];
    qsort(out->domains, (size_t)out->n_domains, sizeof *out->domains, text_compare);
    int kept = 0;
    for (int i = 0; i < out->n_domains; i++)
        if (i == 0 || strcmp(out->domains[kept - 1], out->domains[i]) != 0)
            out->domains[kept++] = out->domains[i];
    out->n_domains = kept;
    for (int i = 0; i < u->n; i++)
        for (int d = 0; d < kept; d++)
            if (strcmp(out->domains[d], u->v[i].set->domains[u->v[i].domain]) == 0)
                u->v[i].number = d;
    return MT_OK;
}

/* Adds a unit's windows, the middles of equal stretches, and says what they are. */
static void text_take(const struct text_unit *t, struct mt_dataset *out,
                      struct mt_profile_source *source)
{
    struct mt_sha256 sha;

    *source = (struct mt_profile_source){.domain = t->set->domains[t->domain]};
    memcpy(source->sha256, t->set->sha256, sizeof source->sha256);
    mt_sha256_begin(&sha);
    for (size_t i = 0; i < t->take; i++) {
        struct mt_window w = t->set->windows[t->first + (2 * i + 1) * t->n / (2 * t->take)];
        mt_sha256_add(&sha, &w.n, sizeof w.n);
        mt_sha256_add(&sha, w.ids, (size_t)w.n * sizeof *w.ids);
        w.domain = t->number;
        out->windows[out->n_windows++] = w;
        out->n_tokens += (size_t)w.n;
        if (w.n > out->window_len_max)
            out->window_len_max = w.n;
        source->windows++;
        source->tokens += w.n;
    }
    mt_sha256_hex(&sha, source->ids_sha256);
}

static mt_status text_make(struct mt_ctx *ctx, struct text_units *u, struct mt_profile_text *out)
{
    size_t windows = 0;

    for (int i = 0; i < u->n; i++)
        windows += u->v[i].take;
    MT_TRY(text_domains(ctx, u, &out->windows));
    MT_TRY(mt_alloc(ctx, windows, sizeof *out->windows.windows, "windows", &out->windows.windows));
    MT_TRY(mt_alloc(ctx, (size_t)u->n, sizeof *out->sources, "sources", &out->sources));
    for (int i = 0; i < u->n; i++)
        if (u->v[i].take > 0)
            text_take(&u->v[i], &out->windows, &out->sources[out->n_sources++]);
    return MT_OK;
}

mt_status mt_profile_text_make(struct mt_ctx *ctx, const struct mt_dataset *sets, int n_sets,
                               int64_t samples, struct mt_profile_text *out)
{
    struct text_units u = {0};
    mt_status st;

    *out = (struct mt_profile_text){0};
    st = text_gather(ctx, sets, n_sets, &u);
    if (st == MT_OK) {
        text_share(&u, (size_t)samples);
        st = text_make(ctx, &u, out);
    }
    mt_free(u.v);
    if (st != MT_OK)
        mt_profile_text_free(out);
    return st;
}

void mt_profile_text_free(struct mt_profile_text *t)
{
    mt_free(t->windows.windows);
    mt_free(t->windows.domains);
    mt_free(t->sources);
    *t = (struct mt_profile_text){0};
}
