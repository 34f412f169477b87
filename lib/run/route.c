/* Routers: hidden states become logits on the device, logits become choices on the host, choices
 * become rows sorted by expert. */
#include "lib/base/pool.h"
#include "lib/run/run_impl.h"

#include <math.h>
#include <string.h>

#define ROUTE_ROWS 64 /* tokens handled by one job, and loaded at a time */

static size_t route_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Values a token has on the device in each of two slots before they become logits. */
static void route_inner(const struct mt_ffn *f, size_t *b, size_t *c)
{
    size_t width = (size_t)f->router.width, rows = (size_t)mt_ffn_rows(f);

    *b = *c = 0;
    switch (f->router.kind) {
    case MT_ROUTER_LINEAR:
        return;
    case MT_ROUTER_MLP:
        *b = width;
        return;
    case MT_ROUTER_REPRESENTATIVE:
        *b = rows;
        *c = f->router.gated ? rows : 0;
        return;
    case MT_ROUTER_SPECTRAL:
        *b = rows * width;
        *c = f->router.gated ? rows * width : 0;
        return;
    }
}

void mt_run_route_slots(const struct mt_hparams *hp, const struct mt_ffn *f, int64_t m,
                        size_t need[RUN_SLOTS])
{
    size_t b, c;

    route_inner(f, &b, &c);
    need[RUN_SLOT_B] = route_max(need[RUN_SLOT_B], (size_t)m * b);
    need[RUN_SLOT_C] = route_max(need[RUN_SLOT_C], (size_t)m * c);
    if (f->router.unit_input)
        need[RUN_SLOT_D] = route_max(need[RUN_SLOT_D], (size_t)m * (size_t)hp->hidden);
    need[RUN_SLOT_E] = route_max(need[RUN_SLOT_E], (size_t)m * (size_t)mt_ffn_rows(f));
}

/* ---- weights ---- */

static mt_status route_want(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w,
                            enum mt_role_kind kind, int64_t rows, int64_t cols,
                            struct run_weight *weight, struct run_weight *bias)
{
    struct mt_role role = mt_role(kind, l->layer, MT_EXPERT_NONE);

    MT_TRY(mt_run_want_need(ctx, l->r->m, w, role, rows, cols, weight));
    if (bias != NULL)
        mt_run_want_may(l->r->m, w, mt_role_part(role, MT_PART_BIAS), 1, rows, bias);
    return MT_OK;
}

mt_status mt_run_route_wants(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w)
{
    const struct mt_router *r = &l->ffn->router;
    int64_t rows = mt_ffn_rows(l->ffn), d = l->r->m->hp.hidden;

    if (r->kind == MT_ROUTER_MLP) {
        MT_TRY(route_want(ctx, l, w, MT_ROLE_ROUTER_HIDDEN, r->width, d, &l->router_hidden,
                          &l->router_hidden_bias));
        if (r->skip)
            MT_TRY(route_want(ctx, l, w, MT_ROLE_ROUTER_SKIP, rows, d, &l->router_skip, NULL));
        d = r->width;
    }
    if (r->kind == MT_ROUTER_SPECTRAL)
        rows *= r->width;
    if (r->kind >= MT_ROUTER_REPRESENTATIVE && r->gated)
        MT_TRY(route_want(ctx, l, w, MT_ROLE_ROUTER_GATE, rows, d, &l->router_hidden,
                          &l->router_hidden_bias));
    return route_want(ctx, l, w, MT_ROLE_ROUTER, rows, d, &l->router, &l->router_bias);
}

mt_status mt_run_route_open(struct mt_ctx *ctx, struct mt_run_layer *l)
{
    int n = mt_ffn_rows(l->ffn);
    struct mt_tensor *t;
    float *values;
    mt_status st;

    if (!l->ffn->rule.has_bias)
        return MT_OK;
    MT_TRY(mt_model_need(ctx, l->r->m, mt_role(MT_ROLE_ROUTER_BIAS, l->layer, MT_EXPERT_NONE), &t));
    if (mt_tensor_count(t) != n)
        return mt_fail(ctx, MT_E_FORMAT, "layers.%d: selection bias of %lld values for %d experts",
                       l->layer, (long long)mt_tensor_count(t), n);
    MT_TRY(mt_tensor_load_f32(ctx, t, &values));
    st = mt_alloc(ctx, (size_t)n, sizeof(double), "selection bias", &l->selection_bias);
    for (int e = 0; st == MT_OK && e < n; e++)
        l->selection_bias[e] = (double)values[e];
    mt_free(values);
    return st;
}

static void route_free_arrays(struct mt_run_layer *l)
{
    mt_free(l->expert);
    mt_free(l->weight);
    mt_free(l->logits);
    mt_free(l->row_of_slot);
    mt_free(l->token_of_row);
    l->expert = l->row_of_slot = l->token_of_row = NULL;
    l->weight = l->logits = NULL;
    l->cap = 0;
}

void mt_run_route_close(struct mt_run_layer *l)
{
    mt_run_weight_free(l->r, &l->router);
    mt_run_weight_free(l->r, &l->router_bias);
    mt_run_weight_free(l->r, &l->router_hidden);
    mt_run_weight_free(l->r, &l->router_hidden_bias);
    mt_run_weight_free(l->r, &l->router_skip);
    mt_free(l->selection_bias);
    route_free_arrays(l);
}

mt_status mt_run_route_room(struct mt_ctx *ctx, struct mt_run_layer *l, int64_t m)
{
    size_t slots = (size_t)m * (size_t)l->ffn->k;

    if (m <= l->cap)
        return MT_OK;
    route_free_arrays(l);
    MT_TRY(mt_alloc(ctx, slots, sizeof *l->expert, "routing", &l->expert));
    MT_TRY(mt_alloc(ctx, slots, sizeof *l->weight, "routing", &l->weight));
    MT_TRY(mt_alloc(ctx, slots, sizeof *l->row_of_slot, "routing", &l->row_of_slot));
    MT_TRY(mt_alloc(ctx, slots, sizeof *l->token_of_row, "routing", &l->token_of_row));
    MT_TRY(mt_alloc(ctx, (size_t)m * (size_t)mt_ffn_rows(l->ffn), sizeof *l->logits,
                    "router logits", &l->logits));
    l->cap = m;
    return MT_OK;
}

/* ---- logits ---- */

/* A block of device values on the host, ROUTE_ROWS tokens at a time. */
static mt_status route_get(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, int64_t row,
                           int64_t n, int64_t cols, double *dst)
{
    struct mt_device *dev = l->r->dev;

    return dev->ops->download_f64(ctx, dev, dst, mt_dev_at(dev, x, (size_t)(row * cols)),
                                  (size_t)(n * cols));
}

/* *x becomes a copy of itself with rows of length one. */
static mt_status route_unit(struct mt_ctx *ctx, struct mt_run_layer *l, int64_t m, mt_buf *x)
{
    struct mt_device *dev = l->r->dev;
    int64_t d = l->r->m->hp.hidden;
    double *block, *scale;
    mt_buf unit;

    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_D, (size_t)(m * d), &unit));
    MT_TRY(mt_alloc(ctx, (size_t)(ROUTE_ROWS * d + m), sizeof *block, "router input", &block));
    scale = block + ROUTE_ROWS * d;
    mt_status st = dev->ops->copy(ctx, dev, unit, *x, (size_t)(m * d));
    for (int64_t row = 0; st == MT_OK && row < m; row += ROUTE_ROWS) {
        int64_t n = m - row < ROUTE_ROWS ? m - row : ROUTE_ROWS;

        st = route_get(ctx, l, *x, row, n, d, block);
        for (int64_t t = 0; st == MT_OK && t < n; t++) {
            double sum = 0;
            for (int64_t c = 0; c < d; c++)
                sum += block[t * d + c] * block[t * d + c];
            scale[row + t] = sum > 0 ? 1 / sqrt(sum) : 0;
        }
    }
    if (st == MT_OK)
        st = dev->ops->scale_rows(ctx, dev, unit, m, d, scale);
    mt_free(block);
    *x = unit;
    return st;
}

static mt_status route_product(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf y, mt_buf x,
                               int64_t m, const struct run_weight *w, const struct run_weight *b)
{
    struct mt_device *dev = l->r->dev;

    MT_TRY(dev->ops->gemm(ctx, dev, y, x, m, w->h, false));
    return b->h == NULL ? MT_OK : dev->ops->add_bias(ctx, dev, y, m, b->h);
}

/* fn of all values, in fp64 on the host: devices have neither tanh nor cos. */
static mt_status route_fn(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf h, int64_t m)
{
    struct mt_device *dev = l->r->dev;
    const struct mt_router *r = &l->ffn->router;
    size_t room = (size_t)ROUTE_ROWS * (size_t)r->width;
    double *block;
    mt_status st = MT_OK;

    if (r->fn == MT_ROUTER_FN_IDENTITY)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, room, sizeof *block, "router features", &block));
    for (int64_t row = 0; st == MT_OK && row < m; row += ROUTE_ROWS) {
        int64_t n = (m - row < ROUTE_ROWS ? m - row : ROUTE_ROWS) * r->width;

        st = route_get(ctx, l, h, row, n / r->width, r->width, block);
        for (int64_t i = 0; st == MT_OK && i < n; i++)
            block[i] = mt_router_fn(r->fn, block[i]);
        if (st == MT_OK)
            st = dev->ops->upload_f64(ctx, dev, mt_dev_at(dev, h, (size_t)(row * r->width)), block,
                                      (size_t)n);
    }
    mt_free(block);
    return st;
}

/* One matrix, or two with a function between. */
static mt_status route_by_layers(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, int64_t m)
{
    struct mt_device *dev = l->r->dev;
    const struct mt_router *r = &l->ffn->router;
    int64_t rows = mt_ffn_rows(l->ffn);
    mt_buf h = x, z;

    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_E, (size_t)(m * rows), &z));
    if (r->kind == MT_ROUTER_MLP) {
        MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_B, (size_t)(m * r->width), &h));
        MT_TRY(route_product(ctx, l, h, x, m, &l->router_hidden, &l->router_hidden_bias));
        MT_TRY(route_fn(ctx, l, h, m));
    }
    MT_TRY(route_product(ctx, l, z, h, m, &l->router, &l->router_bias));
    if (r->skip)
        MT_TRY(dev->ops->gemm(ctx, dev, z, x, m, l->router_skip.h, true));
    return dev->ops->download_f64(ctx, dev, l->logits, z, (size_t)(m * rows));
}

static double route_norm(const double *v, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += v[i] * v[i];
    return sqrt(sum);
}

/* The logit of one row: `u` and, when gated, `g` hold its values for one token. */
static double route_pair(const struct mt_router *r, const double *u, const double *g)
{
    mt_assert(u != NULL);
    if (r->kind == MT_ROUTER_SPECTRAL)
        return route_norm(u, r->width) * (g != NULL ? route_norm(g, r->width) : 1);
    return fabs(g != NULL ? mt_router_fn(r->fn, *g) * *u : mt_router_fn(r->fn, *u));
}

/* Products of two factors: representative neurons, spectral routers. */
static mt_status route_by_pairs(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, int64_t m)
{
    const struct mt_router *r = &l->ffn->router;
    int64_t rows = mt_ffn_rows(l->ffn), width = r->kind == MT_ROUTER_SPECTRAL ? r->width : 1;
    int64_t cols = rows * width;
    mt_buf up, gate = NULL;
    double *u, *g = NULL;
    mt_status st = MT_OK;

    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_B, (size_t)(m * cols), &up));
    MT_TRY(route_product(ctx, l, up, x, m, &l->router, &l->router_bias));
    if (r->gated) {
        MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_C, (size_t)(m * cols), &gate));
        MT_TRY(route_product(ctx, l, gate, x, m, &l->router_hidden, &l->router_hidden_bias));
    }
    MT_TRY(mt_alloc(ctx, (size_t)cols * 2 * ROUTE_ROWS, sizeof *u, "router factors", &u));
    for (int64_t row = 0; st == MT_OK && row < m; row += ROUTE_ROWS) {
        int64_t n = m - row < ROUTE_ROWS ? m - row : ROUTE_ROWS;

        st = route_get(ctx, l, up, row, n, cols, u);
        if (st == MT_OK && r->gated) {
            g = u + ROUTE_ROWS * cols;
            st = route_get(ctx, l, gate, row, n, cols, g);
        }
        for (int64_t i = 0; st == MT_OK && i < n * rows; i++)
            l->logits[row * rows + i] =
                route_pair(r, u + i * width, g != NULL ? g + i * width : NULL);
    }
    mt_free(u);
    return st;
}

/* ---- choices ---- */

static mt_status route_rows(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct mt_run_layer *l = arg;
    int n = l->routing.n_rows, k = l->ffn->k;
    int64_t end = (i + 1) * ROUTE_ROWS;

    (void)ctx;
    end = end < l->routing.m ? end : l->routing.m;
    for (int64_t t = i * ROUTE_ROWS; t < end; t++) {
        mt_router_apply(&l->ffn->rule, l->logits + t * n, l->selection_bias, n, k,
                        l->expert + t * k, l->weight + t * k);
        if (l->ffn->map != NULL)
            mt_router_join(l->ffn->map, k, l->expert + t * k, l->weight + t * k);
    }
    return MT_OK;
}

/* A stable counting sort of the slots by expert: rows of one expert stand in token order. */
static void route_bucket(struct mt_run_layer *l)
{
    int64_t slots = l->routing.m * l->ffn->k, sum = 0;
    int n = l->ffn->n_experts;

    memset(l->offset, 0, ((size_t)n + 1) * sizeof *l->offset);
    for (int64_t i = 0; i < slots; i++)
        if (l->expert[i] >= 0)
            l->offset[l->expert[i]]++;
    for (int e = 0; e <= n; e++) {
        int64_t count = l->offset[e];
        l->offset[e] = sum;
        sum += count;
    }
    for (int64_t i = 0; i < slots; i++) {
        int64_t row = l->expert[i] < 0 ? -1 : l->offset[l->expert[i]]++;
        l->row_of_slot[i] = (int32_t)row;
        if (row >= 0)
            l->token_of_row[row] = (int32_t)(i / l->ffn->k);
    }
    /* Filling moved each start to the next one's. */
    memmove(l->offset + 1, l->offset, (size_t)n * sizeof *l->offset);
    l->offset[0] = 0;
}

mt_status mt_run_route(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m)
{
    const struct mt_router *r = &l->ffn->router;

    MT_TRY(mt_run_route_room(ctx, l, m));
    if (r->unit_input)
        MT_TRY(route_unit(ctx, l, m, &n));
    MT_TRY(r->kind <= MT_ROUTER_MLP ? route_by_layers(ctx, l, n, m) : route_by_pairs(ctx, l, n, m));
    l->routing = (struct mt_routing){.m = m,
                                     .k = l->ffn->k,
                                     .expert = l->expert,
                                     .weight = l->weight,
                                     .logits = l->logits,
                                     .n_rows = mt_ffn_rows(l->ffn)};
    MT_TRY(mt_pool_run(ctx, (m + ROUTE_ROWS - 1) / ROUTE_ROWS, route_rows, l));
    route_bucket(l);
    return MT_OK;
}
