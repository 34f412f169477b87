/* router_tied.c
 * tied: a random row for each copy of the FFN, the same for all slices of the copy (virtual groups,
 * arXiv 2410.07524).
 *
 * Chosen together they stay only while no two copies are as good as equal for a token: then the
 * order of a sum may choose slices of both. Of several draws the first is taken whose copies are
 * far enough apart for every token of the calibration text, or that where they are farthest.
 */
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/convert/method.h"

#include <math.h>
#include <string.h>

#define TIED_STREAM                                                                                \
    ((uint64_t)1 << 41) /* apart from the streams of partitions and other routers                  \
                         */
#define TIED_DRAWS 8
/* Relative to the larger of the two logits; sums of 16,384 products differ by some 2^-17. */
#define TIED_MARGIN_MIN 0x1p-16

struct tied {
    float *rows;                         /* [TIED_DRAWS, copies, hidden] */
    double margin[TIED_DRAWS];           /* smallest of any token */
    int64_t tokens, rounded[TIED_DRAWS]; /* tokens whose two best are one BF16 number */
};

static int tied_copies(const struct mt_convert_at *at)
{
    return at->shape->copies > 0 ? at->shape->copies : at->shape->n_experts;
}

static int tied_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t tied_memory(const struct mt_convert_at *at)
{
    uint64_t n = (uint64_t)tied_copies(at), d = (uint64_t)at->shape->hidden;

    return TIED_DRAWS * n * d * 4 + MT_OBSERVE_TOKENS_MAX * TIED_DRAWS * n * 4;
}

static void tied_draw(struct mt_ctx *ctx, const struct mt_convert_at *at, int draw, float *rows)
{
    struct mt_rng rng;

    mt_rng_seed(&rng, mt_ctx_seed(ctx),
                TIED_STREAM + (uint64_t)at->layer * TIED_DRAWS + (uint64_t)draw);
    for (int64_t i = 0; i < tied_copies(at) * at->shape->hidden; i++)
        rows[i] = (float)(mt_rng_normal(&rng) / sqrt((double)at->shape->hidden));
}

static mt_status tied_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                            void **state)
{
    size_t one = (size_t)tied_copies(at) * (size_t)at->shape->hidden;
    struct tied *s;

    (void)n_tokens;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "router draws", &s));
    *state = s;
    MT_TRY(mt_alloc(ctx, TIED_DRAWS, one * sizeof(*s->rows), "router draws", &s->rows));
    for (int i = 0; i < TIED_DRAWS; i++) {
        s->margin[i] = INFINITY;
        tied_draw(ctx, at, i, s->rows + (size_t)i * one);
    }
    return MT_OK;
}

/* The upper half of the nearest BF16 number. */
static uint32_t tied_bf16(double v)
{
    float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

/* How far the last copy that acts is from the next, for one token. */
static void tied_see(struct tied *s, int draw, const float *logits, int n, int k, double *best)
{
    int top = 0; /* best[0..k] falling: the k that act and the next */

    for (int i = 0; i < n; i++) {
        double v = (double)logits[i];
        int at = top < k + 1 ? top++ : k + 1;
        for (; at > 0 && best[at - 1] < v; at--)
            if (at <= k)
                best[at] = best[at - 1];
        if (at <= k)
            best[at] = v;
    }
    double last = best[k - 1], next = best[k];
    double margin = (last - next) / fmax(fmax(fabs(last), fabs(next)), 1e-30);
    if (!(margin >= s->margin[draw]))
        s->margin[draw] = margin;
    s->rounded[draw] += tied_bf16(last) == tied_bf16(next);
}

static mt_status tied_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                              const struct mt_observation *ob, const float *norms)
{
    int n = tied_copies(at),
        k = at->shape->copies > 0 ? at->shape->k / at->shape->granules : at->shape->k;
    int64_t all = (int64_t)TIED_DRAWS * n, d = at->shape->hidden;
    struct tied *s = state;
    double *best = NULL;
    float *logits;

    (void)norms;
    if (k >= n)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)all * sizeof(*logits), "logits", &logits));
    mt_status st = mt_alloc(ctx, (size_t)k + 2, sizeof(*best), "logits", &best);
    if (st == MT_OK)
        st = mt_gemm_nt(ctx, ob->m, all, d, 1, ob->x, d, s->rows, d, 0, logits, all);
    for (int64_t t = 0; st == MT_OK && t < ob->m; t++)
        for (int i = 0; i < TIED_DRAWS; i++)
            tied_see(s, i, logits + t * all + (int64_t)i * n, n, k, best);
    s->tokens += ob->m;
    mt_free(best);
    mt_free(logits);
    return st;
}

static int tied_choose(const struct tied *s)
{
    int best = 0;

    for (int i = 0; i < TIED_DRAWS; i++) {
        if (s->margin[i] >= TIED_MARGIN_MIN)
            return i;
        best = s->margin[i] > s->margin[best] ? i : best;
    }
    return best;
}

static mt_status tied_tell(struct mt_ctx *ctx, const struct tied *s, int draw,
                           struct mt_convert_routing *out)
{
    if (s == NULL || s->tokens == 0)
        return MT_OK;
    out->facts = mt_json_new_object();
    if (out->facts == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    mt_json_set_int(out->facts, "draw", draw);
    mt_json_set_num(out->facts, "margin_min", s->margin[draw]);
    mt_json_set_num(out->facts, "bf16_ties", (double)s->rounded[draw] / (double)s->tokens);
    return MT_OK;
}

/* --noise parts the slices of a copy from the start. */
static void tied_noise(struct mt_ctx *ctx, const struct mt_convert_at *at, float *w)
{
    struct mt_rng rng;

    if (at->o->noise <= 0)
        return;
    mt_rng_seed(&rng, mt_ctx_seed(ctx), 2 * TIED_STREAM + (uint64_t)at->layer);
    for (int64_t i = 0; i < at->shape->n_experts * at->shape->hidden; i++)
        w[i] += (float)(at->o->noise * mt_rng_normal(&rng) / sqrt((double)at->shape->hidden));
}

static mt_status tied_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                           struct mt_convert_routing *out)
{
    int n = at->shape->n_experts, g = n / tied_copies(at), draw;
    const struct tied *s = state;
    int64_t d = at->shape->hidden;
    float *rows;

    draw = s != NULL ? tied_choose(s) : 0;
    MT_TRY(mt_alloc(ctx, (size_t)tied_copies(at), (size_t)d * sizeof(*rows), "router rows", &rows));
    tied_draw(ctx, at, draw, rows);
    for (int e = 0; e < n; e++)
        for (int64_t i = 0; i < d; i++)
            out->w[e * d + i] = rows[e / g * d + i];
    mt_free(rows);
    tied_noise(ctx, at, out->w);
    return tied_tell(ctx, s, draw, out);
}

static void tied_end(void *state)
{
    struct tied *s = state;

    if (s != NULL)
        mt_free(s->rows);
    mt_free(s);
}

const struct mt_convert_router mt_convert_router_tied = {
    .name = "tied",
    .summary = "random rows, one for all slices of a copy",
    .help =
        "Router tied is that of methods dino and upcycle: a random row for each copy of the FFN. "
        "With --data the rows are drawn again where two copies come too close for a token of "
        "it; the report tells the smallest margin, and for how many tokens an engine that "
        "computes router logits in BF16 would see a tie.",
    .rounds = tied_rounds,
    .memory = tied_memory,
    .begin = tied_begin,
    .observe = tied_observe,
    .make = tied_make,
    .end = tied_end,
};
