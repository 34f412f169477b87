#include "lib/ir/factors.h"
#include "lib/run/run_impl.h"

#include <math.h>
#include <string.h>

static size_t ffn_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

void mt_run_ffn_slots(const struct mt_hparams *hp, const struct mt_ffn *f, int64_t m,
                      size_t need[RUN_SLOTS])
{
    size_t width = (size_t)m * (size_t)(f->moe ? f->shared_width : f->width);

    if (f->moe) {
        size_t rows = (size_t)m * (size_t)f->k;
        width = ffn_max(width, rows * (size_t)f->width);
        need[RUN_SLOT_D] = rows * (size_t)hp->hidden;
    }
    need[RUN_SLOT_B] = width;
    need[RUN_SLOT_C] = f->gated ? width : 0;
    if (f->moe)
        mt_run_route_slots(hp, f, m, need);
}

/* The wants of one dense block, of the shared expert or of a routed expert; an expert without
 * neurons has its output bias only. */
static mt_status ffn_block_wants(struct mt_ctx *ctx, struct mt_run_layer *l, int expert,
                                 int64_t width, struct mt_arena *arena, struct run_ffn_weights *b,
                                 struct run_wants *w)
{
    struct mt_runner *r = l->r;
    int64_t h = r->m->hp.hidden;
    struct mt_role gate = mt_role(MT_ROLE_FFN_GATE, l->layer, expert);
    struct mt_role up = mt_role(MT_ROLE_FFN_UP, l->layer, expert);
    struct mt_role down = mt_role(MT_ROLE_FFN_DOWN, l->layer, expert);

    mt_run_want_may(r->m, w, mt_role_part(down, MT_PART_BIAS), 1, h, &b->down_bias);
    if (width == 0)
        return MT_OK;
    if (l->ffn->gated) {
        MT_TRY(mt_run_want_matrix(ctx, r, arena, w, gate, width, h, &b->gate));
        mt_run_want_may(r->m, w, mt_role_part(gate, MT_PART_BIAS), 1, width, &b->gate_bias);
    }
    MT_TRY(mt_run_want_matrix(ctx, r, arena, w, up, width, h, &b->up));
    mt_run_want_may(r->m, w, mt_role_part(up, MT_PART_BIAS), 1, width, &b->up_bias);
    return mt_run_want_matrix(ctx, r, arena, w, down, h, width, &b->down);
}

mt_status mt_run_ffn_wants(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w)
{
    const struct mt_model *m = l->r->m;
    const struct mt_ffn *f = l->ffn;
    struct mt_role bias = mt_role(MT_ROLE_FFN_DOWN, l->layer, MT_EXPERT_NONE);

    /* Only routed experts are stored in parts, so none of these needs an arena. */
    if (!f->moe)
        return ffn_block_wants(ctx, l, MT_EXPERT_NONE, f->width, NULL, &l->dense, w);
    MT_TRY(mt_run_route_wants(ctx, l, w));
    if (f->shared_width > 0)
        MT_TRY(ffn_block_wants(ctx, l, MT_EXPERT_SHARED, f->shared_width, NULL, &l->dense, w));
    if (f->shared_width > 0 && f->shared_gated)
        MT_TRY(mt_run_want_need(ctx, m, w, mt_role(MT_ROLE_SHARED_GATE, l->layer, MT_EXPERT_NONE),
                                1, m->hp.hidden, &l->shared_gate));
    if (f->layer_bias)
        MT_TRY(mt_run_want_need(ctx, m, w, mt_role_part(bias, MT_PART_BIAS), 1, m->hp.hidden,
                                &l->layer_bias));
    return MT_OK;
}

mt_status mt_run_ffn_open(struct mt_ctx *ctx, struct mt_run_layer *l)
{
    size_t n = (size_t)l->ffn->n_experts;

    if (!l->ffn->moe)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, n, sizeof *l->experts, "experts", &l->experts));
    MT_TRY(mt_alloc0(ctx, n, sizeof(void *), "experts", &l->grouped));
    MT_TRY(mt_alloc0(ctx, n + 1, sizeof *l->offset, "experts", &l->offset));
    MT_TRY(mt_alloc0(ctx, n + 1, sizeof *l->from, "experts", &l->from));
    return mt_run_route_open(ctx, l);
}

static void ffn_block_free(struct mt_runner *r, struct run_ffn_weights *b)
{
    mt_run_weight_free(r, &b->gate);
    mt_run_weight_free(r, &b->up);
    mt_run_weight_free(r, &b->down);
    mt_run_weight_free(r, &b->gate_bias);
    mt_run_weight_free(r, &b->up_bias);
    mt_run_weight_free(r, &b->down_bias);
}

void mt_run_ffn_close(struct mt_run_layer *l)
{
    ffn_block_free(l->r, &l->dense);
    mt_run_weight_free(l->r, &l->shared_gate);
    mt_run_weight_free(l->r, &l->layer_bias);
    for (int e = 0; l->experts != NULL && e < l->ffn->n_experts; e++)
        ffn_block_free(l->r, &l->experts[e]);
    mt_free(l->experts);
    mt_free(l->grouped);
    mt_free(l->offset);
    mt_free(l->from);
    mt_run_route_close(l);
}

static mt_status ffn_bias(struct mt_ctx *ctx, struct mt_runner *r, mt_buf y, int64_t m,
                          const struct run_weight *b)
{
    return b->h == NULL ? MT_OK : r->dev->ops->add_bias(ctx, r->dev, y, m, b->h);
}

/* g = act(g) * u, or gpt-oss's cut form of it. */
static mt_status ffn_inner(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf g, mt_buf u, size_t n)
{
    struct mt_device *dev = l->r->dev;
    const struct mt_device_ops *ops = dev->ops;
    double c = l->ffn->glu_limit;
    int act = (int)l->ffn->act;

    if (c <= 0)
        return ops->act_mul(ctx, dev, act, g, g, u, n);
    MT_TRY(ops->clamp(ctx, dev, g, -INFINITY, c, n));
    MT_TRY(ops->clamp(ctx, dev, u, -c, c, n));
    MT_TRY(ops->act_mul(ctx, dev, act, u, g, u, n));
    MT_TRY(ops->act_mul(ctx, dev, act, g, g, NULL, n));
    return ops->add(ctx, dev, g, u, n);
}

/* y = down(act(gate n) * (up n)), the inner product left in `hidden`. */
static mt_status ffn_block(struct mt_ctx *ctx, struct mt_run_layer *l,
                           const struct run_ffn_weights *b, int64_t width, mt_buf n, int64_t m,
                           mt_buf y, mt_buf hidden)
{
    struct mt_runner *r = l->r;
    const struct mt_device_ops *ops = r->dev->ops;
    size_t elems = (size_t)m * (size_t)width;
    mt_buf up = NULL;

    if (hidden == NULL)
        MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_B, elems, &hidden));
    if (l->ffn->gated) {
        MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_C, elems, &up));
        MT_TRY(ops->gemm(ctx, r->dev, hidden, n, m, b->gate.h, false));
        MT_TRY(ffn_bias(ctx, r, hidden, m, &b->gate_bias));
        MT_TRY(ops->gemm(ctx, r->dev, up, n, m, b->up.h, false));
        MT_TRY(ffn_bias(ctx, r, up, m, &b->up_bias));
    } else {
        MT_TRY(ops->gemm(ctx, r->dev, hidden, n, m, b->up.h, false));
        MT_TRY(ffn_bias(ctx, r, hidden, m, &b->up_bias));
    }
    if (l->ffn->gated && !l->ffn->moe)
        MT_TRY(mt_run_tap(ctx, l, MT_TAP_GATE, hidden, m, width));
    MT_TRY(ffn_inner(ctx, l, hidden, up, elems));
    MT_TRY(
        mt_run_tap(ctx, l, l->ffn->moe ? MT_TAP_SHARED_HIDDEN : MT_TAP_HIDDEN, hidden, m, width));
    MT_TRY(ops->gemm(ctx, r->dev, y, hidden, m, b->down.h, false));
    return ffn_bias(ctx, r, y, m, &b->down_bias);
}

/* An expert without neurons counts as loaded with its bias alone. */
static bool ffn_loaded(const struct mt_run_layer *l, int e)
{
    return l->experts[e].up.h != NULL || l->experts[e].down_bias.h != NULL;
}

static bool ffn_reached(const struct mt_run_layer *l, int e)
{
    return l->offset[e + 1] > l->offset[e];
}

/* Counted bytes that loading expert e takes. */
static uint64_t ffn_expert_bytes(const struct mt_run_layer *l, int e)
{
    const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct mt_role role = mt_role(kinds[i], l->layer, e);
        if (mt_matrix_in_parts(l->r->m, role))
            sum += (uint64_t)(mt_ffn_expert_width(l->ffn, e) * l->r->m->hp.hidden) *
                   l->r->dev->elem_bytes;
        else
            sum += mt_run_weight_bytes(mt_model_find(l->r->m, role));
    }
    return sum;
}

/* What experts may take: half of what is free, the rest is for others. */
static uint64_t ffn_room(struct mt_ctx *ctx)
{
    uint64_t limit = mt_mem_limit(ctx), used = mt_mem_used(ctx);

    return limit == UINT64_MAX ? UINT64_MAX : used < limit ? (limit - used) / 2 : 0;
}

static void ffn_drop_experts(struct mt_run_layer *l)
{
    for (int e = 0; e < l->ffn->n_experts; e++)
        ffn_block_free(l->r, &l->experts[e]);
}

/* The end of the range of experts from `first` on that are loaded together: all, or as many as
 * there is room for. When not even the first has room, those kept from earlier make way. */
static int ffn_range(struct mt_ctx *ctx, struct mt_run_layer *l, int first)
{
    uint64_t sum = 0;
    int e = first;

    for (; e < l->ffn->n_experts; e++) {
        if (!ffn_reached(l, e) || ffn_loaded(l, e))
            continue;
        sum += ffn_expert_bytes(l, e);
        if (sum <= ffn_room(ctx))
            continue;
        if (e > first)
            break;
        ffn_drop_experts(l);
    }
    return e;
}

static mt_status ffn_load_range(struct mt_ctx *ctx, struct mt_run_layer *l, int first, int end)
{
    struct run_want *wants;
    struct run_wants one;
    struct mt_arena arena;
    int n = 0;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, (size_t)(end - first) * 6, sizeof *wants, "experts", &wants));
    mt_arena_init(&arena);
    for (int e = first; st == MT_OK && e < end; e++) {
        if (!ffn_reached(l, e) || ffn_loaded(l, e))
            continue;
        one.n = 0;
        st = ffn_block_wants(ctx, l, e, mt_ffn_expert_width(l->ffn, e), &arena, &l->experts[e],
                             &one);
        memcpy(wants + n, one.v, (size_t)one.n * sizeof *wants);
        n += one.n;
    }
    if (st == MT_OK && n > 0)
        st = mt_run_weights_load(ctx, l->r, wants, n);
    mt_arena_free(&arena);
    mt_free(wants);
    return st;
}

enum ffn_matrix { FFN_GATE, FFN_UP, FFN_DOWN };

/* One of the three products for experts [first, end), whose rows begin at 0 in x and y; biases
 * added. */
static mt_status ffn_grouped(struct mt_ctx *ctx, struct mt_run_layer *l, enum ffn_matrix which,
                             int first, int end, mt_buf y, mt_buf x, int64_t width)
{
    struct mt_runner *r = l->r;

    for (int e = first; e < end; e++) {
        const struct run_ffn_weights *b = &l->experts[e];
        l->grouped[e] = which == FFN_GATE ? b->gate.h : which == FFN_UP ? b->up.h : b->down.h;
    }
    MT_TRY(r->dev->ops->gemm_grouped(ctx, r->dev, y, x, end - first, l->from + first,
                                     l->grouped + first));
    for (int e = first; e < end; e++) {
        const struct run_ffn_weights *b = &l->experts[e];
        const struct run_weight *bias = which == FFN_GATE ? &b->gate_bias
                                        : which == FFN_UP ? &b->up_bias
                                                          : &b->down_bias;
        if (ffn_reached(l, e))
            MT_TRY(ffn_bias(ctx, r, mt_dev_at(r->dev, y, (size_t)(l->from[e] * width)),
                            l->offset[e + 1] - l->offset[e], bias));
    }
    return MT_OK;
}

static mt_status ffn_tap_range(struct mt_ctx *ctx, const struct mt_run_layer *l,
                               enum mt_tap_point point, int first, int end, mt_buf rows,
                               int64_t width)
{
    const struct mt_tap_rows r = {
        .point = point,
        .rows = rows,
        .m = l->offset[end] - l->offset[first],
        .width = width,
        .first = first,
        .end = end,
        .offset = l->offset,
        .token_of_row = l->token_of_row,
        .row_of_slot = l->row_of_slot,
    };

    return l->tap->see(ctx, l->tap->arg, &r);
}

/* Experts without neurons: their outputs are their biases, or nothing. */
static mt_status ffn_run_empty(struct mt_ctx *ctx, struct mt_run_layer *l, int first, int end,
                               mt_buf rows)
{
    struct mt_runner *r = l->r;
    int64_t hidden = r->m->hp.hidden;

    for (int e = first; e < end; e++) {
        int64_t n = l->offset[e + 1] - l->offset[e];
        mt_buf y = mt_dev_at(r->dev, rows, (size_t)(l->from[e] * hidden));
        if (n == 0)
            continue;
        MT_TRY(r->dev->ops->zero(ctx, r->dev, y, (size_t)(n * hidden)));
        MT_TRY(ffn_bias(ctx, r, y, n, &l->experts[e].down_bias));
    }
    return MT_OK;
}

/* The rows of experts [first, end) of one width, in place: inputs become outputs. */
static mt_status ffn_run_alike(struct mt_ctx *ctx, struct mt_run_layer *l, int first, int end,
                               mt_buf all, mt_buf gate, mt_buf up)
{
    struct mt_runner *r = l->r;
    int64_t width = mt_ffn_expert_width(l->ffn, first), hidden = r->m->hp.hidden;
    int64_t n = l->offset[end] - l->offset[first];
    mt_buf rows = mt_dev_at(r->dev, all, (size_t)(l->offset[first] * hidden)), u = NULL;

    if (n == 0)
        return MT_OK;
    for (int e = first; e <= end; e++)
        l->from[e] = l->offset[e] - l->offset[first];
    if (width == 0)
        return ffn_run_empty(ctx, l, first, end, rows);
    if (l->ffn->gated) {
        MT_TRY(ffn_grouped(ctx, l, FFN_GATE, first, end, gate, rows, width));
        MT_TRY(ffn_grouped(ctx, l, FFN_UP, first, end, up, rows, width));
        u = up;
    } else {
        MT_TRY(ffn_grouped(ctx, l, FFN_UP, first, end, gate, rows, width));
    }
    MT_TRY(ffn_inner(ctx, l, gate, u, (size_t)(n * width)));
    if (l->tap != NULL && !l->all_experts)
        MT_TRY(ffn_tap_range(ctx, l, MT_TAP_EXPERT_HIDDEN, first, end, gate, width));
    return ffn_grouped(ctx, l, FFN_DOWN, first, end, rows, gate, hidden);
}

/* Grouped products want one shape: experts that follow each other and are alike go together. */
static mt_status ffn_run_range(struct mt_ctx *ctx, struct mt_run_layer *l, int first, int end,
                               mt_buf rows, mt_buf gate, mt_buf up)
{
    for (int a = first, b; a < end; a = b) {
        int64_t width = mt_ffn_expert_width(l->ffn, a);
        for (b = a + 1; b < end && mt_ffn_expert_width(l->ffn, b) == width; b++)
            ;
        MT_TRY(ffn_run_alike(ctx, l, a, b, rows, gate, up));
    }
    if (l->tap == NULL || l->offset[first] == l->offset[end])
        return MT_OK;
    return ffn_tap_range(
        ctx, l, l->all_experts ? MT_TAP_EXPERT_ALL : MT_TAP_EXPERT_OUT, first, end,
        mt_dev_at(l->r->dev, rows, (size_t)(l->offset[first] * l->r->m->hp.hidden)),
        l->r->m->hp.hidden);
}

/* The outputs of the rows that token_of_row lists by expert; at most `slots`. */
static mt_status ffn_expert_rows(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n,
                                 int64_t slots, mt_buf *out)
{
    struct mt_runner *r = l->r;
    int64_t hidden = r->m->hp.hidden;
    size_t inner = (size_t)(slots * l->ffn->width);
    int n_experts = l->ffn->n_experts, end;
    mt_buf rows, gate, up = NULL;

    MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_D, (size_t)(slots * hidden), &rows));
    MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_B, inner, &gate));
    if (l->ffn->gated)
        MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_C, inner, &up));
    MT_TRY(r->dev->ops->gather_rows(ctx, r->dev, rows, n, l->offset[n_experts], hidden,
                                    l->token_of_row));
    for (int first = 0; first < n_experts; first = end) {
        end = ffn_range(ctx, l, first);
        MT_TRY(ffn_load_range(ctx, l, first, end));
        MT_TRY(ffn_run_range(ctx, l, first, end, rows, gate, up));
        if (end < n_experts)
            ffn_drop_experts(l);
    }
    *out = rows;
    return MT_OK;
}

static mt_status ffn_experts(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m,
                             mt_buf y)
{
    struct mt_runner *r = l->r;
    const struct mt_device_ops *ops = r->dev->ops;
    int64_t hidden = r->m->hp.hidden;
    mt_buf rows;

    MT_TRY(ffn_expert_rows(ctx, l, n, m * l->ffn->k, &rows));
    MT_TRY(ops->zero(ctx, r->dev, y, (size_t)(m * hidden)));
    return ops->combine_rows(ctx, r->dev, y, rows, m, l->ffn->k, hidden, l->row_of_slot, l->weight);
}

/* As many tokens at a time as give no more rows than routing the batch would. */
mt_status mt_run_ffn_all_experts(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m)
{
    int64_t n_experts = l->ffn->n_experts, k = l->ffn->k, step = m * k / n_experts;
    mt_buf rows;
    mt_status st = MT_OK;

    mt_assert(l->ffn->moe && l->tap != NULL);
    step = step < 1 ? 1 : step;
    MT_TRY(mt_run_route_room(ctx, l, (step * n_experts + k - 1) / k));
    l->routing = (struct mt_routing){0};
    l->all_experts = true;
    for (int64_t t = 0; t < m && st == MT_OK; t += step) {
        int64_t some = m - t < step ? m - t : step;
        for (int64_t e = 0; e <= n_experts; e++)
            l->offset[e] = e * some;
        for (int64_t i = 0; i < n_experts * some; i++)
            l->token_of_row[i] = (int32_t)(t + i % some);
        st = ffn_expert_rows(ctx, l, n, n_experts * some, &rows);
    }
    l->all_experts = false;
    return st;
}

/* y += shared(n), times sigmoid(gate . n) where the family has it. */
static mt_status ffn_shared(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m,
                            mt_buf y)
{
    struct mt_runner *r = l->r;
    const struct mt_device_ops *ops = r->dev->ops;
    int64_t hidden = r->m->hp.hidden;
    mt_buf out, score;
    double *s;
    mt_status st;

    MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_D, (size_t)(m * hidden), &out));
    MT_TRY(ffn_block(ctx, l, &l->dense, l->ffn->shared_width, n, m, out, NULL));
    if (l->ffn->shared_gated) {
        MT_TRY(mt_run_slot(ctx, r, RUN_SLOT_E, (size_t)m, &score));
        MT_TRY(ops->gemm(ctx, r->dev, score, n, m, l->shared_gate.h, false));
        MT_TRY(mt_alloc(ctx, (size_t)m, sizeof *s, "shared expert's gate", &s));
        st = ops->download_f64(ctx, r->dev, s, score, (size_t)m);
        for (int64_t t = 0; st == MT_OK && t < m; t++)
            s[t] = 1.0 / (1.0 + exp(-s[t]));
        if (st == MT_OK)
            st = ops->scale_rows(ctx, r->dev, out, m, hidden, s);
        mt_free(s);
        MT_TRY(st);
    }
    return ops->add(ctx, r->dev, y, out, (size_t)(m * hidden));
}

mt_status mt_run_ffn(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m, mt_buf y,
                     mt_buf hidden_out)
{
    l->routing = (struct mt_routing){0};
    if (!l->ffn->moe) {
        MT_TRY(ffn_block(ctx, l, &l->dense, l->ffn->width, n, m, y, hidden_out));
    } else {
        mt_assert(hidden_out == NULL);
        MT_TRY(mt_run_route(ctx, l, n, m));
        MT_TRY(ffn_experts(ctx, l, n, m, y));
        if (l->ffn->shared_width > 0)
            MT_TRY(ffn_shared(ctx, l, n, m, y));
        MT_TRY(ffn_bias(ctx, l->r, y, m, &l->layer_bias));
    }
    if (l->r->blocks_only)
        return MT_OK;
    if (l->r->m->hp.layer_scale)
        return l->r->dev->ops->scale_cols(ctx, l->r->dev, y, m, l->ffn_scale.h);
    if (!l->r->m->hp.post_norms)
        return MT_OK;
    return mt_run_norm(ctx, l->r, y, y, m, &l->ffn_post_norm, &l->ffn_post_bias);
}

const struct mt_routing *mt_run_routing(const struct mt_run_layer *l)
{
    return &l->routing;
}
