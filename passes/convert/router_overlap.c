/* router_overlap.c
 * overlap: regression on which expert holds most of the neurons that a token makes most active.
 *
 * Read-ME's label (arXiv 2410.19123): |M_token and M_e|, where M_token is the share --keep of the
 * neurons with the largest |h_j|. The paper trains a network of its own towards the softmax of
 * these counts; here they take the place of contribution norms in the ridge regression. What all
 * experts share adds the same to each and is not counted.
 */
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/convert/method.h"
#include "passes/lib/domain_masks.h"

#include <math.h>

#define OVERLAP_TOKENS 32   /* per job */
#define OVERLAP_WORKERS 256 /* counted on at most */

struct overlap {
    struct mt_router_fit *fit;
    const struct mt_split *split;
    int64_t width, keep;

    /* The block at hand. */
    int64_t m;
    const float *h; /* [m, width] */
    float *count;   /* [m, E] */
};

static int overlap_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t overlap_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, n = (uint64_t)at->shape->n_experts;

    return mt_router_fit_bytes(d, n) + MT_OBSERVE_TOKENS_MAX * n * 4 +
           OVERLAP_WORKERS * 5 * (uint64_t)at->shape->width;
}

static mt_status overlap_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                               void **state)
{
    struct overlap *s;

    (void)n_tokens;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "router overlap", &s));
    *state = s;
    s->split = at->split;
    s->width = at->shape->width;
    s->keep = mt_domain_keep(at->o->keep, s->width);
    return mt_router_fit_create(ctx, at->shape->hidden, at->shape->n_experts, at->shape->k,
                                at->labels, &s->fit);
}

/* The n-th largest of v[count], which is put into another order. */
static float overlap_nth(float *v, int64_t count, int64_t n)
{
    int64_t low = 0, high = count - 1, want = n - 1;

    while (low < high) {
        float pivot = v[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (v[i] > pivot)
                i++;
            while (v[j] < pivot)
                j--;
            if (i <= j) {
                float swap = v[i];
                v[i++] = v[j];
                v[j--] = swap;
            }
        }
        if (want <= j)
            high = j;
        else if (want >= i)
            low = i;
        else
            break;
    }
    return v[want];
}

/* on[width]: 1 for the `keep` largest |h|, ties by rising index. NaN counts as 0. */
static void overlap_mark(const struct overlap *s, const float *h, float *scratch, unsigned char *on)
{
    int64_t above = 0, left;

    for (int64_t j = 0; j < s->width; j++)
        scratch[j] = fabsf(h[j]) >= 0 ? fabsf(h[j]) : 0;
    float last = overlap_nth(scratch, s->width, s->keep);
    for (int64_t j = 0; j < s->width; j++) {
        on[j] = fabsf(h[j]) > last;
        above += on[j];
    }
    left = s->keep - above;
    for (int64_t j = 0; j < s->width && left > 0; j++)
        if (!on[j] && (fabsf(h[j]) == last || (last == 0 && isnan(h[j])))) {
            on[j] = 1;
            left--;
        }
}

static mt_status overlap_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct overlap *s = arg;
    unsigned char *on;
    float *scratch;

    MT_TRY(mt_alloc(ctx, (size_t)s->width, sizeof(*scratch) + 1, "active neurons", &scratch));
    on = (unsigned char *)(scratch + s->width);
    for (int64_t t = job * OVERLAP_TOKENS; t < s->m && t < (job + 1) * OVERLAP_TOKENS; t++) {
        overlap_mark(s, s->h + t * s->width, scratch, on);
        for (int e = 0; e < s->split->n_experts; e++) {
            const int32_t *list = mt_split_expert(s->split, e);
            int64_t n = 0;
            for (int64_t i = 0; i < s->split->expert_width; i++)
                n += list[i] >= 0 && on[list[i]];
            s->count[t * s->split->n_experts + e] = (float)n;
        }
    }
    mt_free(scratch);
    return MT_OK;
}

static mt_status overlap_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                 const struct mt_observation *ob, const float *norms)
{
    struct overlap *s = state;

    (void)norms;
    s->m = ob->m;
    s->h = ob->h;
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)at->shape->n_experts * sizeof(*s->count),
                    "overlap counts", &s->count));
    mt_status st = mt_pool_run(ctx, (ob->m + OVERLAP_TOKENS - 1) / OVERLAP_TOKENS, overlap_job, s);
    if (st == MT_OK)
        st = mt_router_fit_add(ctx, s->fit, ob->m, ob->x, s->count);
    mt_free(s->count);
    s->count = NULL;
    return st;
}

static mt_status overlap_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                              struct mt_convert_routing *out)
{
    struct overlap *s = state;

    (void)at;
    if (!mt_router_fit_finite(s->fit))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted; use --router "
                       "centroid");
    return mt_router_fit_solve(ctx, s->fit, MT_ROUTER_FIT_LAMBDA, out->w);
}

static void overlap_end(void *state)
{
    struct overlap *s = state;

    if (s != NULL)
        mt_router_fit_free(s->fit);
    mt_free(s);
}

const struct mt_convert_router mt_convert_router_overlap = {
    .name = "overlap",
    .summary = "regression on which experts hold a token's most active neurons",
    .help = "Router overlap learns which experts hold most of the neurons that are most active for "
            "a token (--keep; Read-ME's label, arXiv 2410.19123), in closed form.",
    .data = true,
    .rounds = overlap_rounds,
    .memory = overlap_memory,
    .begin = overlap_begin,
    .observe = overlap_observe,
    .make = overlap_make,
    .end = overlap_end,
};
