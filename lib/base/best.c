#include "lib/base/best.h"

#include "lib/base/ctx.h"

#include <math.h>
#include <string.h>

struct best_entry {
    uint64_t key;
    int64_t at;
};

/* An order of numbers in which unsigned integers compare. */
static uint64_t best_key(double v)
{
    uint64_t bits;

    if (isnan(v))
        return 0;
    v += 0.0;
    memcpy(&bits, &v, sizeof bits);
    return bits >> 63 != 0 ? ~bits : bits | (uint64_t)1 << 63;
}

struct best_work {
    struct best_entry e[MT_BEST_MAX], other[MT_BEST_MAX];
};

static void best_put(struct best_work *w, int i, double v, int64_t at)
{
    const struct best_entry e = {best_key(v), at};

    memcpy(&w->e[i], &e, sizeof e);
}

/* The first of the largest; it is left out from then on. */
static int32_t best_take(struct best_entry *e, int n)
{
    int best = 0;

    for (int i = 1; i < n; i++)
        if (e[i].key > e[best].key)
            best = i;
    int32_t at = (int32_t)e[best].at;
    memmove(e + best, e + best + 1, (size_t)(n - best - 1) * sizeof *e);
    return at;
}

/* Merges runs [0, mid) and [mid, n), each best first; of equals those of the first run lead. */
static void best_merge(const struct best_entry *from, int mid, int n, struct best_entry *to)
{
    int i = 0, j = mid;

    for (int o = 0; o < n; o++) {
        /* Which of two is larger cannot be foretold, so no branch hangs on it. */
        int second = (j < n) & ((i >= mid) | (from[j < n ? j : 0].key > from[i].key));
        memcpy(to + o, from + (second ? j : i), sizeof *to);
        j += second;
        i += !second;
    }
}

/* `to` is room for as many as `from`; both are used up. */
static void best_run(struct best_entry *from, struct best_entry *to, int n, int k, int32_t *out)
{
    int log2n = 0;

    mt_assert(k <= n);
    while (n >> log2n > 1)
        log2n++;
    if (k <= 2 * log2n) {
        for (int s = 0; s < k; s++)
            out[s] = best_take(from, n - s);
        return;
    }
    for (int run = 1; run < n; run *= 2) {
        for (int i = 0; i < n; i += 2 * run) {
            int left = n - i, mid = left < run ? left : run, end = left < 2 * run ? left : 2 * run;
            best_merge(from + i, mid, end, to + i);
        }
        struct best_entry *swap = from;
        from = to;
        to = swap;
    }
    for (int s = 0; s < k; s++) {
        struct best_entry e;
        memcpy(&e, from + s, sizeof e);
        out[s] = (int32_t)e.at;
    }
}

void mt_best_f64(const double *v, const unsigned char *left_out, int n, int k, int32_t *out)
{
    struct best_work w;
    int m = 0;

    mt_assert(n <= MT_BEST_MAX);
    for (int i = 0; i < n; i++)
        if (left_out == NULL || !left_out[i])
            best_put(&w, m++, v[i], i);
    best_run(w.e, w.other, m, k, out);
}

void mt_best_f32(const float *v, int n, int k, int32_t *out)
{
    struct best_work w;

    mt_assert(n <= MT_BEST_MAX);
    for (int i = 0; i < n; i++)
        best_put(&w, i, (double)v[i], i);
    best_run(w.e, w.other, n, k, out);
}
