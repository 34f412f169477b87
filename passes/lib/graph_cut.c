#include "passes/lib/graph_cut.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/lib/kmeans.h"

#include <math.h>
#include <string.h>

#define CUT_DIMS_MAX 64 /* leading vectors */
#define CUT_POWERS 24   /* subspace iterations */
#define CUT_ROUNDS 32   /* of exchanges; few are needed */
#define CUT_KICKS 24    /* fresh starts of exchanges from a disturbed answer, in small graphs */
#define CUT_KICK_WORK (INT64_C(1) << 26) /* pairs of vertices that this may look at, about */
#define CUT_LEAST 1e-12 /* of all weight: an exchange that gains less is rounding */

/* ---- graphs ---- */

uint64_t mt_graph_bytes(uint64_t n, uint64_t degree)
{
    /* Where rows begin and how long they are, lists of the strongest, edges by both ends. */
    return (2 * n + 1) * 8 + n * degree * (4 + 2 * 12);
}

void mt_graph_free(struct mt_graph *g)
{
    mt_free(g->first);
    mt_free(g->to);
    mt_free(g->w);
    *g = (struct mt_graph){0};
}

/* The strongest partners of vertex i, strongest first; -1 behind the last one. */
static mt_status cut_strongest(struct mt_ctx *ctx, const double *row, int64_t n, int64_t i,
                               int degree, int32_t *top)
{
    int have = 0;

    for (int64_t j = 0; j < n; j++) {
        if (!isfinite(row[j]))
            return mt_fail(ctx, MT_E_NUMERIC, "activations are NaN or infinite");
        if (j == i || !(row[j] > 0))
            continue;
        int at = have < degree ? have++ : degree;
        for (; at > 0 && row[j] > row[top[at - 1]]; at--)
            if (at < degree)
                top[at] = top[at - 1];
        if (at < degree)
            top[at] = (int32_t)j;
    }
    for (; have < degree; have++)
        top[have] = -1;
    return MT_OK;
}

static bool cut_has(const int32_t *top, int degree, int64_t j)
{
    for (int i = 0; i < degree; i++)
        if (top[i] == j)
            return true;
    return false;
}

/* Adds to size[i] how many edges row i has; with `g`, whose rows begin at size[i], the edges. */
static void cut_link(int64_t n, const double *matrix, int degree, const int32_t *top, int64_t *size,
                     struct mt_graph *g)
{
    for (int64_t i = 0; i < n; i++) {
        for (int d = 0; d < degree && top[i * degree + d] >= 0; d++) {
            int32_t j = top[i * degree + d];
            int64_t ends[2] = {i, j};
            /* Of two that are in each other's list the lower one brings the edge. */
            if (j < i && cut_has(top + (int64_t)j * degree, degree, i))
                continue;
            for (int e = 0; e < 2; e++) {
                int64_t at = size[ends[e]]++;
                if (g == NULL)
                    continue;
                g->to[at] = (int32_t)ends[1 - e];
                g->w[at] = matrix[i * n + j];
            }
        }
    }
}

static mt_status cut_build(struct mt_ctx *ctx, int64_t n, const double *matrix, int degree,
                           int32_t *top, int64_t *size, struct mt_graph *g)
{
    for (int64_t i = 0; i < n; i++)
        MT_TRY(cut_strongest(ctx, matrix + i * n, n, i, degree, top + i * degree));
    cut_link(n, matrix, degree, top, size, NULL);
    for (int64_t i = 0; i < n; i++) {
        g->first[i + 1] = g->first[i] + size[i];
        size[i] = g->first[i];
    }
    size_t edges = (size_t)g->first[n];
    MT_TRY(mt_alloc(ctx, edges, sizeof(*g->to), "graph", &g->to));
    MT_TRY(mt_alloc(ctx, edges, sizeof(*g->w), "graph", &g->w));
    cut_link(n, matrix, degree, top, size, g);
    return MT_OK;
}

mt_status mt_graph_strongest(struct mt_ctx *ctx, int64_t n, const double *matrix, int degree,
                             struct mt_graph *out)
{
    int64_t *size = NULL;
    int32_t *top = NULL;

    *out = (struct mt_graph){.n = n};
    mt_assert(n >= 1 && degree >= 1);
    MT_TRY(mt_alloc0(ctx, (size_t)n + 1, sizeof(*out->first), "graph", &out->first));
    mt_status st = mt_alloc0(ctx, (size_t)n, sizeof(*size), "graph", &size);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)n, (size_t)degree * sizeof(*top), "graph", &top);
    if (st == MT_OK)
        st = cut_build(ctx, n, matrix, degree, top, size, out);
    mt_free(size);
    mt_free(top);
    return st;
}

double mt_graph_inside(const struct mt_graph *g, const int32_t *to)
{
    double in = 0, all = 0;

    for (int64_t i = 0; i < g->n; i++)
        for (int64_t e = g->first[i]; e < g->first[i + 1]; e++) {
            all += g->w[e];
            in += to[i] == to[g->to[e]] ? g->w[e] : 0;
        }
    return all > 0 ? in / all : 1;
}

/* ---- the start: rows of leading vectors ---- */

struct cut {
    const struct mt_graph *g;
    int64_t n;
    int k, dims;
    double *scale;   /* [n] 1 / sqrt of a vertex's weight; 0 without edges */
    double *x, *y;   /* [dims, n] */
    float *points;   /* [n, dims] */
    double *tie;     /* [k, n] weight between a part and a vertex */
    double *own;     /* [n] to the vertex's own part */
    double *link;    /* [n] of one vertex's edges, else 0 */
    double *to_part; /* [k] of one vertex */
    int32_t *to;
    double total; /* weight of all edges, both ways */
};

/* Half of x and half of its normalised neighbours', so that no eigenvalue is negative. */
static void cut_step(const struct cut *c, const double *x, double *y)
{
    const struct mt_graph *g = c->g;

    for (int64_t i = 0; i < c->n; i++) {
        double sum = 0;
        for (int64_t e = g->first[i]; e < g->first[i + 1]; e++)
            sum += g->w[e] * c->scale[g->to[e]] * x[g->to[e]];
        y[i] = 0.5 * (x[i] + c->scale[i] * sum);
    }
}

static double cut_dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Gram-Schmidt; a vector that others span becomes zero. */
static void cut_orthogonal(const struct cut *c, double *x)
{
    for (int v = 0; v < c->dims; v++) {
        double *a = x + v * c->n, before = cut_dot(a, a, c->n);
        for (int o = 0; o < v; o++) {
            const double *b = x + o * c->n;
            double by = cut_dot(a, b, c->n);
            for (int64_t i = 0; i < c->n; i++)
                a[i] -= by * b[i];
        }
        double left = cut_dot(a, a, c->n), by = left > 1e-20 * before ? 1 / sqrt(left) : 0;
        for (int64_t i = 0; i < c->n; i++)
            a[i] *= by;
    }
}

static mt_status cut_embed(struct mt_ctx *ctx, struct cut *c, struct mt_rng *r)
{
    for (int64_t i = 0; i < c->dims * c->n; i++)
        c->x[i] = mt_rng_normal(r);
    for (int p = 0; p < CUT_POWERS; p++) {
        for (int v = 0; v < c->dims; v++)
            cut_step(c, c->x + v * c->n, c->y + v * c->n);
        cut_orthogonal(c, c->y);
        memcpy(c->x, c->y, (size_t)(c->dims * c->n) * sizeof(*c->x));
        MT_TRY(mt_check_cancel(ctx));
    }
    for (int64_t i = 0; i < c->n; i++) {
        double square = 0;
        for (int v = 0; v < c->dims; v++)
            square += c->x[v * c->n + i] * c->x[v * c->n + i];
        double by = square > 0 ? 1 / sqrt(square) : 0;
        for (int v = 0; v < c->dims; v++)
            c->points[i * c->dims + v] = (float)(c->x[v * c->n + i] * by);
    }
    return MT_OK;
}

/* ---- exchanges ---- */

static void cut_count_ties(struct cut *c)
{
    const struct mt_graph *g = c->g;

    memset(c->tie, 0, (size_t)c->k * (size_t)c->n * sizeof(*c->tie));
    for (int64_t i = 0; i < c->n; i++)
        for (int64_t e = g->first[i]; e < g->first[i + 1]; e++)
            c->tie[c->to[g->to[e]] * c->n + i] += g->w[e];
    for (int64_t i = 0; i < c->n; i++)
        c->own[i] = c->tie[c->to[i] * c->n + i];
}

static void cut_move(struct cut *c, int64_t i, int32_t part)
{
    const struct mt_graph *g = c->g;
    int32_t from = c->to[i];

    for (int64_t e = g->first[i]; e < g->first[i + 1]; e++) {
        int32_t j = g->to[e];
        c->tie[from * c->n + j] -= g->w[e];
        c->tie[part * c->n + j] += g->w[e];
        c->own[j] = c->tie[c->to[j] * c->n + j];
    }
    c->to[i] = part;
    c->own[i] = c->tie[part * c->n + i];
}

/* What is gained when a and b change places: each leaves its part for the other's, and the edge
 * between them stays cut. */
static int64_t cut_partner(struct cut *c, int64_t a, double *gain)
{
    const struct mt_graph *g = c->g;
    const double *tie = c->tie + c->to[a] * c->n;
    int64_t best = -1;

    *gain = CUT_LEAST * c->total;
    for (int p = 0; p < c->k; p++)
        c->to_part[p] = c->tie[p * c->n + a] - c->own[a];
    for (int64_t e = g->first[a]; e < g->first[a + 1]; e++)
        c->link[g->to[e]] = g->w[e];
    for (int64_t b = 0; b < c->n; b++) {
        double v = c->to_part[c->to[b]] + tie[b] - c->own[b] - 2 * c->link[b];
        if (v > *gain && c->to[b] != c->to[a]) {
            *gain = v;
            best = b;
        }
    }
    for (int64_t e = g->first[a]; e < g->first[a + 1]; e++)
        c->link[g->to[e]] = 0;
    return best;
}

static mt_status cut_exchange(struct mt_ctx *ctx, struct cut *c)
{
    int64_t changed = 1;

    cut_count_ties(c);
    for (int round = 0; round < CUT_ROUNDS && changed > 0; round++) {
        changed = 0;
        for (int64_t a = 0; a < c->n; a++) {
            double gain;
            int64_t b = cut_partner(c, a, &gain);
            if (b < 0)
                continue;
            int32_t there = c->to[b];
            cut_move(c, b, c->to[a]);
            cut_move(c, a, there);
            changed++;
        }
        MT_TRY(mt_check_cancel(ctx));
    }
    return MT_OK;
}

/* Exchanges end where no single one helps. From a few random ones they may end in something better,
 * which is kept. */
static mt_status cut_kick(struct mt_ctx *ctx, struct cut *c, struct mt_rng *r)
{
    int64_t kicks = CUT_KICK_WORK / (c->n * c->n), size = 2 + c->n / 32;
    double best = mt_graph_inside(c->g, c->to);
    int32_t *kept;

    kicks = c->k == 1 ? 0 : kicks < CUT_KICKS ? kicks : CUT_KICKS;
    MT_TRY(mt_alloc(ctx, (size_t)c->n, sizeof(*kept), "graph", &kept));
    memcpy(kept, c->to, (size_t)c->n * sizeof(*kept));
    mt_status st = MT_OK;
    for (int64_t i = 0; i < kicks && st == MT_OK; i++) {
        for (int64_t s = 0; s < size; s++) {
            int64_t a = (int64_t)mt_rng_below(r, (uint64_t)c->n);
            int64_t b = (int64_t)mt_rng_below(r, (uint64_t)c->n);
            int32_t there = c->to[b];
            c->to[b] = c->to[a];
            c->to[a] = there;
        }
        st = cut_exchange(ctx, c);
        double now = mt_graph_inside(c->g, c->to);
        bool better = st == MT_OK && now > best + CUT_LEAST;
        best = better ? now : best;
        memcpy(better ? kept : c->to, better ? c->to : kept, (size_t)c->n * sizeof(*kept));
    }
    mt_free(kept);
    return st;
}

/* ---- all ---- */

uint64_t mt_graph_cut_bytes(uint64_t n, uint64_t k)
{
    uint64_t dims = k < CUT_DIMS_MAX ? k : CUT_DIMS_MAX;

    return n * dims * (2 * 8 + 4) + n * k * 36 + n * 28 + k * dims * 4;
}

static mt_status cut_room(struct mt_ctx *ctx, struct cut *c)
{
    size_t n = (size_t)c->n, k = (size_t)c->k, dims = (size_t)c->dims;

    MT_TRY(mt_alloc0(ctx, n, sizeof(*c->scale), "graph", &c->scale));
    MT_TRY(mt_alloc(ctx, n, dims * sizeof(*c->x), "graph", &c->x));
    MT_TRY(mt_alloc(ctx, n, dims * sizeof(*c->y), "graph", &c->y));
    MT_TRY(mt_alloc(ctx, n, dims * sizeof(*c->points), "graph", &c->points));
    MT_TRY(mt_alloc(ctx, k, n * sizeof(*c->tie), "graph", &c->tie));
    MT_TRY(mt_alloc(ctx, n, sizeof(*c->own), "graph", &c->own));
    MT_TRY(mt_alloc0(ctx, n, sizeof(*c->link), "graph", &c->link));
    return mt_alloc(ctx, k, sizeof(*c->to_part), "graph", &c->to_part);
}

static mt_status cut_run(struct mt_ctx *ctx, struct cut *c, const int64_t *cap, uint64_t seed,
                         uint64_t stream)
{
    const struct mt_graph *g = c->g;
    struct mt_rng r;

    MT_TRY(cut_room(ctx, c));
    for (int64_t i = 0; i < c->n; i++) {
        double sum = 0;
        for (int64_t e = g->first[i]; e < g->first[i + 1]; e++)
            sum += g->w[e];
        c->total += sum;
        c->scale[i] = sum > 0 ? 1 / sqrt(sum) : 0;
    }
    mt_rng_seed(&r, seed, stream);
    MT_TRY(cut_embed(ctx, c, &r));
    MT_TRY(mt_kmeans_balanced(ctx, c->n, c->dims, c->points, c->k, cap, seed, stream, c->to));
    MT_TRY(cut_exchange(ctx, c));
    return cut_kick(ctx, c, &r);
}

mt_status mt_graph_cut(struct mt_ctx *ctx, const struct mt_graph *g, int k, const int64_t *cap,
                       uint64_t seed, uint64_t stream, int32_t *to)
{
    struct cut c = {.g = g, .n = g->n, .k = k, .to = to};

    mt_assert(k >= 1 && k <= g->n);
    c.dims = k < CUT_DIMS_MAX ? k : CUT_DIMS_MAX;
    mt_status st = cut_run(ctx, &c, cap, seed, stream);
    mt_free(c.scale);
    mt_free(c.x);
    mt_free(c.y);
    mt_free(c.points);
    mt_free(c.tie);
    mt_free(c.own);
    mt_free(c.link);
    mt_free(c.to_part);
    return st;
}
