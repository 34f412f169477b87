#include "lib/run/trace.h"

#include "lib/base/json_scan.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_LAYERS_MAX 4096
#define TRACE_K_MAX 256

void mt_trace_free(struct mt_trace *t)
{
    mt_free(t->first);
    mt_free(t->expert);
    mt_free(t->layer);
    *t = (struct mt_trace){0};
}

/* ---- JSONL ---- */

/* One line: where it is, and what it tells without its choices. */
struct trace_line {
    const char *text;
    size_t n;
    uint64_t seq, layer;
    size_t tokens;
    int number;
};

struct trace_reader {
    const char *path;
    struct trace_line *v;
    size_t n, cap;
    int k, n_experts;
    struct mt_trace *out;
    uint16_t *to; /* NULL while counting; else the choices of the line's first token */
};

/* null, -1 or an expert's number. */
static mt_status trace_choice(struct trace_reader *r, struct mt_scan *s, uint16_t *e)
{
    struct mt_scan_text raw;
    const char *at = s->p;
    uint64_t v;

    *e = MT_TRACE_NONE;
    if (mt_scan_peek(s) == 'n' || mt_scan_peek(s) == '-') {
        MT_TRY(mt_scan_skip(s, &raw));
        return mt_scan_is(raw, "null") || mt_scan_is(raw, "-1")
                   ? MT_OK
                   : mt_scan_fail(s, at, "expected an expert's number, -1 or null");
    }
    MT_TRY(mt_scan_u64(s, &v));
    if (v >= MT_ROUTER_EXPERTS_MAX)
        return mt_scan_fail(s, at, "expert %" PRIu64 " is beyond the %d that are supported", v,
                            MT_ROUTER_EXPERTS_MAX);
    if ((int)v >= r->n_experts)
        r->n_experts = (int)v + 1;
    *e = (uint16_t)v;
    return MT_OK;
}

static mt_status trace_token(struct trace_reader *r, struct mt_scan *s, size_t token)
{
    size_t step = r->to != NULL ? (size_t)r->out->n_layers * (size_t)r->out->k : 0;
    bool more = true, list = mt_scan_peek(s) == '[';
    uint16_t e;
    int n = 0;

    if (list)
        MT_TRY(mt_scan_enter(s, '['));
    for (;;) {
        if (list)
            MT_TRY(mt_scan_next(s, ']', &more));
        if (!more)
            break;
        MT_TRY(trace_choice(r, s, &e));
        if (n >= TRACE_K_MAX)
            return mt_scan_fail(s, s->p, "more than %d experts of one token", TRACE_K_MAX);
        if (r->to != NULL)
            r->to[token * step + (size_t)n] = e;
        n++;
        if (!list)
            break;
    }
    if (n > r->k)
        r->k = n;
    return MT_OK;
}

static mt_status trace_experts(struct trace_reader *r, struct mt_scan *s, size_t *tokens)
{
    bool more;

    *tokens = 0;
    MT_TRY(mt_scan_enter(s, '['));
    for (;;) {
        MT_TRY(mt_scan_next(s, ']', &more));
        if (!more)
            return MT_OK;
        MT_TRY(trace_token(r, s, (*tokens)++));
    }
}

/* *told false: a line about something else. */
static mt_status trace_object(struct trace_reader *r, struct mt_scan *s, struct trace_line *l,
                              bool *told)
{
    struct mt_scan_text key;
    bool more;
    uint64_t v;

    *told = false;
    MT_TRY(mt_scan_enter(s, '{'));
    for (;;) {
        MT_TRY(mt_scan_next(s, '}', &more));
        if (!more)
            return mt_scan_end(s);
        MT_TRY(mt_scan_key(s, &key));
        if (mt_scan_is(key, "seq")) {
            MT_TRY(mt_scan_u64(s, &l->seq));
        } else if (mt_scan_is(key, "layer")) {
            MT_TRY(mt_scan_u64(s, &l->layer));
        } else if (mt_scan_is(key, "n_experts")) {
            MT_TRY(mt_scan_u64(s, &v));
            if (v <= MT_ROUTER_EXPERTS_MAX && (int)v > r->n_experts)
                r->n_experts = (int)v;
        } else if (mt_scan_is(key, "experts") && mt_scan_peek(s) == '[') {
            MT_TRY(trace_experts(r, s, &l->tokens));
            *told = true;
        } else {
            MT_TRY(mt_scan_skip(s, NULL));
        }
    }
}

static mt_status trace_scan(struct mt_ctx *ctx, struct trace_reader *r, struct trace_line *l,
                            bool *told)
{
    struct mt_scan s;
    char what[600];

    snprintf(what, sizeof what, "%s: line %d", r->path, l->number);
    mt_status st = mt_scan_open(ctx, &s, l->text, l->n, what, 0);
    if (st == MT_OK)
        st = trace_object(r, &s, l, told);
    mt_scan_close(&s);
    return st;
}

static bool trace_blank(const char *p, size_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++;
        n--;
    }
    return n == 0;
}

static mt_status trace_count(struct mt_ctx *ctx, struct trace_reader *r, const char *text, size_t n)
{
    int number = 0;

    for (const char *p = text, *end = text + n; p < end; number++) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t len = nl != NULL ? (size_t)(nl - p) : (size_t)(end - p);
        struct trace_line l = {.text = p, .n = len, .seq = (uint64_t)number, .number = number + 1};
        bool told = false;
        if (!trace_blank(p, len))
            MT_TRY(trace_scan(ctx, r, &l, &told));
        if (told) {
            MT_TRY(mt_grow(ctx, r->n, &r->cap, sizeof *r->v, "lines of a trace", &r->v));
            r->v[r->n++] = l;
        }
        p += len + 1;
        MT_TRY(mt_check_cancel(ctx));
    }
    if (r->n == 0 || r->k == 0)
        return mt_fail(ctx, MT_E_FORMAT, "%s: no routing in it; lines look like %s", r->path,
                       "{\"seq\": 0, \"layer\": 0, \"experts\": [[3, 1], [0, 2]]}");
    return MT_OK;
}

static int trace_by_seq(const void *a, const void *b)
{
    const struct trace_line *x = a, *y = b;

    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return x->layer < y->layer ? -1 : x->layer > y->layer;
}

/* Layers from the first sequence; every other one must have the same. */
static mt_status trace_shape(struct mt_ctx *ctx, struct trace_reader *r)
{
    struct mt_trace *t = r->out;
    size_t n_layers = 1, tokens = 0;

    mt_assert(r->n > 0 && r->v != NULL);
    qsort(r->v, r->n, sizeof *r->v, trace_by_seq);
    while (n_layers < r->n && r->v[n_layers].seq == r->v[0].seq)
        n_layers++;
    if (n_layers > TRACE_LAYERS_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "%s: more than %d layers", r->path, TRACE_LAYERS_MAX);
    t->n_layers = (int)n_layers;
    t->k = r->k;
    t->n_experts = r->n_experts;
    t->n_seqs = (r->n + n_layers - 1) / n_layers;
    MT_TRY(mt_alloc(ctx, n_layers, sizeof *t->layer, "trace", &t->layer));
    MT_TRY(mt_alloc0(ctx, t->n_seqs + 1, sizeof *t->first, "trace", &t->first));
    for (size_t i = 0; i < r->n; i++) {
        const struct trace_line *l = &r->v[i], *lead = &r->v[i / n_layers * n_layers];
        if (i < n_layers)
            t->layer[i] = (int)l->layer;
        if (i > 0 && trace_by_seq(l, l - 1) == 0)
            return mt_fail(ctx, MT_E_FORMAT,
                           "%s: lines %d and %d are both layer %" PRIu64 " of sequence %" PRIu64,
                           r->path, l[-1].number, l->number, l->layer, l->seq);
        if (l->seq != lead->seq || l->layer != r->v[i % n_layers].layer ||
            l->tokens != lead->tokens)
            return mt_fail(ctx, MT_E_FORMAT,
                           "%s: line %d: sequence %" PRIu64
                           " has other layers, or another number of tokens, than line %d has",
                           r->path, l->number, l->seq, lead->number);
        if (i % n_layers == 0) {
            t->first[i / n_layers] = tokens;
            tokens += l->tokens;
        }
    }
    t->first[t->n_seqs] = tokens;
    if (r->n % n_layers != 0)
        return mt_fail(ctx, MT_E_FORMAT, "%s: line %d: sequence %" PRIu64 " lacks layers", r->path,
                       r->v[r->n - 1].number, r->v[r->n - 1].seq);
    return MT_OK;
}

static mt_status trace_fill(struct mt_ctx *ctx, struct trace_reader *r)
{
    struct mt_trace *t = r->out;
    size_t per_token = (size_t)t->n_layers * (size_t)t->k, n = t->first[t->n_seqs] * per_token;
    bool told;

    MT_TRY(mt_alloc(ctx, n, sizeof *t->expert, "trace", &t->expert));
    memset(t->expert, 0xff, n * sizeof *t->expert);
    for (size_t i = 0; i < r->n; i++) {
        size_t seq = i / (size_t)t->n_layers, l = i % (size_t)t->n_layers;
        r->to = t->expert + t->first[seq] * per_token + l * (size_t)t->k;
        MT_TRY(trace_scan(ctx, r, &r->v[i], &told));
        MT_TRY(mt_check_cancel(ctx));
    }
    return MT_OK;
}

mt_status mt_trace_read(struct mt_ctx *ctx, const char *path, struct mt_trace *out)
{
    struct trace_reader r = {.path = path, .out = out};
    struct mt_map *map;
    mt_status st;

    *out = (struct mt_trace){0};
    MT_TRY(mt_map_open(ctx, path, &map));
    st = trace_count(ctx, &r, (const char *)map->base, (size_t)map->bytes);
    if (st == MT_OK)
        st = trace_shape(ctx, &r);
    if (st == MT_OK)
        st = trace_fill(ctx, &r);
    mt_free(r.v);
    mt_map_close(map);
    return st;
}

/* ---- tensors ---- */

/* Row `row` of the tensor is a sequence in one layer. Whole numbers only. */
static mt_status trace_row(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, float *v)
{
    char label[128];

    MT_TRY(mt_tensor_fetch_f32(ctx, t, row, 1, v));
    for (int64_t i = 0; i < t->shape[2]; i++) {
        if (v[i] >= -1 && v[i] < (float)MT_ROUTER_EXPERTS_MAX && v[i] == (float)(int)v[i])
            continue;
        return mt_fail(
            ctx, MT_E_FORMAT, "%s: %g at [%lld, %lld, %lld] is not an expert's number, nor -1",
            mt_tensor_label(t, label, sizeof label), (double)v[i], (long long)(row / t->shape[1]),
            (long long)(row % t->shape[1]), (long long)i);
    }
    return MT_OK;
}

/* Sequence `seq` of batch `batch` becomes the next one, if it has any choice. */
static mt_status trace_take(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t batch,
                            int64_t seq, float *v, struct mt_trace *out)
{
    size_t tokens = (size_t)t->shape[2], at = out->first[out->n_seqs];
    bool any = false;

    for (int l = 0; l < out->n_layers; l++) {
        MT_TRY(trace_row(ctx, t, (batch * out->n_layers + l) * t->shape[1] + seq, v));
        for (size_t i = 0; i < tokens; i++) {
            int e = (int)v[i];
            out->expert[(at + i) * (size_t)out->n_layers + (size_t)l] =
                e < 0 ? MT_TRACE_NONE : (uint16_t)e;
            any = any || e >= 0;
            if (e >= out->n_experts)
                out->n_experts = e + 1;
        }
    }
    if (any) {
        out->n_seqs++;
        out->first[out->n_seqs] = at + tokens;
    }
    return MT_OK;
}

mt_status mt_trace_from_tensor(struct mt_ctx *ctx, const struct mt_tensor *t, int n_layers,
                               struct mt_trace *out)
{
    char label[128];
    float *v;

    *out = (struct mt_trace){.n_layers = n_layers, .k = 1};
    mt_tensor_label(t, label, sizeof label);
    if (t->rank != 3 || mt_tensor_count(t) == 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: a trace is a tensor [batches * layers, sequences, tokens]", label);
    if (t->shape[0] % n_layers != 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: its first dimension, %lld, is no multiple of %d layers; give their "
                       "number with --layers",
                       label, (long long)t->shape[0], n_layers);
    size_t seqs = (size_t)(t->shape[0] / n_layers * t->shape[1]);
    MT_TRY(mt_alloc(ctx, (size_t)n_layers, sizeof *out->layer, "trace", &out->layer));
    for (int l = 0; l < n_layers; l++)
        out->layer[l] = l;
    MT_TRY(mt_alloc0(ctx, seqs + 1, sizeof *out->first, "trace", &out->first));
    MT_TRY(mt_alloc(ctx, (size_t)mt_tensor_count(t), sizeof *out->expert, "trace", &out->expert));
    MT_TRY(mt_alloc(ctx, (size_t)t->shape[2], sizeof *v, "trace", &v));
    mt_status st = MT_OK;
    for (size_t i = 0; st == MT_OK && i < seqs; i++)
        st = trace_take(ctx, t, (int64_t)i / t->shape[1], (int64_t)i % t->shape[1], v, out);
    mt_free(v);
    if (st == MT_OK && out->n_seqs == 0)
        st = mt_fail(ctx, MT_E_FORMAT, "%s: all of it is -1", label);
    return st;
}
