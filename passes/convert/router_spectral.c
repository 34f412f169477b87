/* router_spectral.c
 * spectral: an expert's score is sqrt(x^T A_e x * x^T B_e x), a mean-field estimate of how large
 * its hidden vector is (from a replication of CMoE; spec dense_to_moe 4.7).
 *
 * A_e = G^T G of the expert's gate rows, each times the root mean square of act(z)/z over the text,
 * which is how open that gate is; B_e = U^T U of its up rows. Both are cut to `rank` rows that lose
 * least in the mean over the text: with C = E[x x^T], the left singular vectors of G C^(1/2) are
 * the eigenvectors of G C G^T, and the best R rows are the largest ones' times G. With as many rows
 * as the expert is wide nothing is lost. A plain FFN has the second factor alone, its rows times
 * how open they are.
 */
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/lib/neuron_acts.h"

#include <math.h>
#include <string.h>

struct spectral {
    int64_t d, width, tokens;
    double *gram;  /* [d, d] sum of x x^T */
    double *open;  /* [width] sum of (act(z) / z)^2 */
    float *slopes; /* [MT_OBSERVE_TOKENS_MAX, width] */
};

static void spectral_form(const struct mt_convert_at *at, struct mt_router *is)
{
    int64_t rank = at->o->router_rank;

    is->kind = MT_ROUTER_SPECTRAL;
    is->width = rank < at->shape->expert_width ? rank : at->shape->expert_width;
    is->gated = at->src->ffn[0].gated;
}

static int spectral_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t spectral_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width,
             i = (uint64_t)at->shape->expert_width;

    return d * d * 12 + w * 8 + MT_OBSERVE_TOKENS_MAX * w * 4 + i * d * 8 + i * i * 28 +
           mt_neuron_acts_bytes(at->shape->hidden, MT_OBSERVE_TOKENS_MAX);
}

static mt_status spectral_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                int64_t n_tokens, void **state)
{
    struct spectral *s;

    (void)n_tokens;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "router fit", &s));
    *state = s;
    s->d = at->shape->hidden;
    s->width = at->shape->width;
    MT_TRY(mt_alloc0(ctx, (size_t)s->d, (size_t)s->d * sizeof(*s->gram), "router fit", &s->gram));
    MT_TRY(mt_alloc0(ctx, (size_t)s->width, sizeof(*s->open), "router fit", &s->open));
    return mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, (size_t)s->width * sizeof(*s->slopes), "router fit",
                    &s->slopes);
}

static mt_status spectral_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  const struct mt_observation *ob, const float *norms)
{
    struct spectral *s = state;

    (void)norms;
    MT_TRY(mt_gram_add(ctx, ob->m, s->d, ob->x, s->d, s->gram));
    MT_TRY(mt_neuron_acts(ctx, at->dense, at->src->ffn[at->layer].act, MT_NEURON_SLOPE, false,
                          ob->m, ob->x, s->slopes));
    for (int64_t t = 0; t < ob->m; t++)
        for (int64_t j = 0; j < s->width; j++)
            s->open[j] += (double)s->slopes[t * s->width + j] * (double)s->slopes[t * s->width + j];
    s->tokens += ob->m;
    return MT_OK;
}

/* ---- make ---- */

struct spectral_side {
    const struct mt_tensor *rows;
    bool open;  /* rows times how open they are */
    float *out; /* [E * rank, d] */
};

struct spectral_room {
    float *c;      /* [d, d] mean of x x^T */
    float *g, *gc; /* [I, d] an expert's rows, and those times C */
    float *k;      /* [I, I] */
    double *eigen, *value;
};

/* The rows of one expert; *n of them are not padding. */
static mt_status spectral_rows(struct mt_ctx *ctx, const struct spectral *s,
                               const struct spectral_side *side, const int32_t *list, int64_t width,
                               float *g, int64_t *n)
{
    for (*n = 0; *n < width && list[*n] >= 0; (*n)++) {
        float *row = g + *n * s->d;
        double by = side->open ? sqrt(s->open[list[*n]] / (double)s->tokens) : 1;
        MT_TRY(mt_tensor_fetch_f32(ctx, side->rows, list[*n], 1, row));
        for (int64_t i = 0; i < s->d; i++)
            row[i] = (float)((double)row[i] * by);
    }
    return MT_OK;
}

/* out[rank, d] = the rank first eigenvectors of g C g^T times g. */
static mt_status spectral_cut(struct mt_ctx *ctx, const struct spectral *s, struct spectral_room *r,
                              int64_t n, int64_t rank, float *out)
{
    int64_t d = s->d;

    MT_TRY(mt_gemm_nn(ctx, n, d, d, 1, r->g, d, r->c, d, 0, r->gc, d));
    MT_TRY(mt_gemm_nt(ctx, n, n, d, 1, r->gc, d, r->g, d, 0, r->k, n));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            r->eigen[i * n + j] = ((double)r->k[i * n + j] + (double)r->k[j * n + i]) / 2;
    MT_TRY(mt_symmetric_eigen(ctx, n, r->eigen, r->value));
    for (int64_t i = 0; i < rank * n; i++)
        r->k[i] = (float)r->eigen[i];
    return mt_gemm_nn(ctx, rank, d, n, 1, r->k, n, r->g, d, 0, out, d);
}

static mt_status spectral_side(struct mt_ctx *ctx, const struct mt_convert_at *at,
                               const struct spectral *s, struct spectral_room *r,
                               const struct spectral_side *side, int64_t rank)
{
    for (int e = 0; e < at->shape->n_experts; e++) {
        float *out = side->out + e * rank * s->d;
        int64_t n;
        MT_TRY(spectral_rows(ctx, s, side, mt_split_expert(at->split, e), at->split->expert_width,
                             r->g, &n));
        if (n <= rank)
            memcpy(out, r->g, (size_t)(n * s->d) * sizeof(*out));
        else
            MT_TRY(spectral_cut(ctx, s, r, n, rank, out));
        MT_TRY(mt_check_cancel(ctx));
    }
    return MT_OK;
}

static mt_status spectral_room(struct mt_ctx *ctx, const struct spectral *s, int64_t width,
                               struct spectral_room *r)
{
    size_t d = (size_t)s->d, w = (size_t)width;

    MT_TRY(mt_alloc(ctx, d, d * sizeof(*r->c), "router fit", &r->c));
    MT_TRY(mt_alloc(ctx, w, 2 * d * sizeof(*r->g), "router fit", &r->g));
    r->gc = r->g + w * d;
    MT_TRY(mt_alloc(ctx, w, w * sizeof(*r->k), "router fit", &r->k));
    MT_TRY(mt_alloc(ctx, w, (w + 1) * sizeof(*r->eigen), "router fit", &r->eigen));
    r->value = r->eigen + w * w;
    for (size_t i = 0; i < d * d; i++)
        r->c[i] = (float)(s->gram[i] / (double)s->tokens);
    return MT_OK;
}

static mt_status spectral_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               struct mt_convert_routing *out)
{
    struct mt_router_form *f = &out->form;
    const struct spectral *s = state;
    struct spectral_room r = {0};
    bool gated = at->dense->gate != NULL;
    struct spectral_side up = {at->dense->up, !gated, f->w},
                         gate = {at->dense->gate, true, f->inner};

    mt_status st = spectral_room(ctx, s, at->split->expert_width, &r);
    if (st == MT_OK)
        st = spectral_side(ctx, at, s, &r, &up, f->is.width);
    if (st == MT_OK && gated)
        st = spectral_side(ctx, at, s, &r, &gate, f->is.width);
    mt_free(r.c);
    mt_free(r.g);
    mt_free(r.k);
    mt_free(r.eigen);
    return st;
}

static void spectral_end(void *state)
{
    struct spectral *s = state;

    if (s != NULL) {
        mt_free(s->gram);
        mt_free(s->open);
        mt_free(s->slopes);
    }
    mt_free(s);
}

const struct mt_convert_router mt_convert_router_spectral = {
    .name = "spectral",
    .summary = "low-rank estimate of how large an expert's hidden vector is",
    .help = "Router spectral (from a replication of CMoE) scores an expert by the lengths of two "
            "low-rank projections, of its gate rows and of its up rows, cut to --router-rank rows "
            "that lose least on the text; only the native layout holds it.",
    .data = true,
    .form = spectral_form,
    .rounds = spectral_rounds,
    .memory = spectral_memory,
    .begin = spectral_begin,
    .observe = spectral_observe,
    .make = spectral_make,
    .end = spectral_end,
};
