#include "cmd/cmd.h"

#include "cmd/table.h"
#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/run/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIMULATE_CACHES_MAX 8
#define SIMULATE_ORDERS 2

static const char *const simulate_token_names[] = {"queued", "decode", NULL};
static const char *const simulate_order_names[] = {"fifo", "expert"};
static const char *const simulate_policy_names[] = {"belady", "lru", "fifo", "lfu", "random"};

struct simulate_opts {
    int64_t layers, batch, window, by_layer;
    int tokens;
    const char *cache, *model;
    uint64_t expert_bytes;
    bool in_order;
};

static const struct mt_opt simulate_opt_table[] = {
    MT_OPT_INT(struct simulate_opts, batch, "batch", 0, "N", "32", 1, 1 << 20, "tokens per batch"),
    MT_OPT_INT(struct simulate_opts, window, "window", 0, "N", "0", 0, 1 << 24,
               "tokens that wait to be chosen from; 0: eight batches"),
    MT_OPT_ENUM(struct simulate_opts, tokens, "tokens", 0, "HOW", "queued", simulate_token_names,
                "queued: waiting tokens are independent, as in prompts; decode: one of each "
                "sequence waits, its successor comes when it has been served"),
    MT_OPT_INT(struct simulate_opts, by_layer, "by-layer", 0, "L", "-1", -1, 1 << 20,
               "the layer whose experts order the queue; -1: the first of the trace"),
    MT_OPT_STR(struct simulate_opts, cache, "cache", 0, "N,...", NULL,
               "experts held per layer; without it a quarter, half and three quarters of them"),
    MT_OPT_BOOL(
        struct simulate_opts, in_order, "in-order", 0,
        "run a batch's experts by their numbers; without it those that are held come first"),
    MT_OPT_SIZE(struct simulate_opts, expert_bytes, "expert-bytes", 0, "BYTES", "0",
                "size of one expert, to tell bytes moved"),
    MT_OPT_STR(struct simulate_opts, model, "model", 0, "MODEL", NULL,
               "take the size of an expert from this model"),
    MT_OPT_INT(struct simulate_opts, layers, "layers", 0, "N", "1", 1, 4096,
               "of a tensor trace: how many consecutive entries of its first dimension are the "
               "layers of one batch"),
    MT_OPT_END,
};

struct simulate {
    const struct simulate_opts *o;
    struct mt_trace trace;
    uint64_t seed, expert_bytes;
    int64_t window;
    int by_layer; /* index */
    int64_t places[SIMULATE_CACHES_MAX];
    int n_caches;
    struct mt_serve_result result[SIMULATE_ORDERS];
    uint64_t misses[SIMULATE_ORDERS][MT_CACHE_POLICIES][SIMULATE_CACHES_MAX];
};

/* ---- what is asked ---- */

static mt_status simulate_open_tensor(struct mt_ctx *ctx, const char *path, int n_layers,
                                      struct mt_trace *out)
{
    struct mt_model *m;
    mt_status st;

    if (mt_path_is_file(path))
        MT_TRY(mt_wrap(ctx, cmd_open_model(ctx, path, &m),
                       "no trace (.jsonl, or a file of one tensor)"));
    else
        MT_TRY(cmd_open_model(ctx, path, &m));
    if (m->n_tensors != 1)
        st = mt_fail(ctx, MT_E_FORMAT, "%s: has %zu tensors; a trace is one", path, m->n_tensors);
    else
        st = mt_wrap(ctx, mt_trace_from_tensor(ctx, m->tensors[0], n_layers, out), "%s", path);
    mt_model_free(m);
    return st;
}

static bool simulate_is_text(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL && (strcmp(dot, ".jsonl") == 0 || strcmp(dot, ".json") == 0);
}

/* Bytes of the first routed expert. */
static mt_status simulate_model_bytes(struct mt_ctx *ctx, struct simulate *s)
{
    struct mt_model *m;
    uint64_t bytes = 0;
    int layer = -1;

    MT_TRY(cmd_open_model(ctx, s->o->model, &m));
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        if (t->role.expert != 0 || (layer >= 0 && t->role.layer != layer))
            continue;
        layer = t->role.layer;
        bytes += mt_tensor_bytes(t);
    }
    mt_model_free(m);
    if (bytes == 0)
        return mt_fail(ctx, MT_E_OPTION, "--model %s: has no routed experts", s->o->model);
    s->expert_bytes = bytes;
    return MT_OK;
}

static mt_status simulate_read_cache(struct mt_ctx *ctx, struct simulate *s)
{
    const char *p = s->o->cache;
    int n = s->trace.n_experts;

    if (p == NULL) {
        for (int i = 1; i <= 3; i++)
            if (n * i / 4 >= 1 && (s->n_caches == 0 || n * i / 4 > s->places[s->n_caches - 1]))
                s->places[s->n_caches++] = n * i / 4;
        return MT_OK;
    }
    while (s->n_caches < SIMULATE_CACHES_MAX) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 1 || v > MT_ROUTER_EXPERTS_MAX || (*end != ',' && *end != '\0'))
            break;
        if (v > n)
            return mt_fail(ctx, MT_E_OPTION, "--cache %s: the trace has only %d experts per layer",
                           s->o->cache, n);
        s->places[s->n_caches++] = v;
        if (*end == '\0')
            return MT_OK;
        p = end + 1;
    }
    return mt_fail(ctx, MT_E_OPTION, "--cache %s: expected up to %d numbers of experts, as 2,4,8",
                   s->o->cache, SIMULATE_CACHES_MAX);
}

static mt_status simulate_setup(struct mt_ctx *ctx, const struct cmd_args *a, struct simulate *s)
{
    const char *path = a->pos->v[0];
    const struct simulate_opts *o = s->o;

    MT_TRY(simulate_is_text(path) ? mt_trace_read(ctx, path, &s->trace)
                                  : simulate_open_tensor(ctx, path, (int)o->layers, &s->trace));
    s->seed = (uint64_t)a->common->seed;
    s->expert_bytes = o->expert_bytes;
    s->window = o->window > 0 ? o->window : 8 * o->batch;
    if (s->window < o->batch)
        return mt_fail(ctx, MT_E_OPTION, "--window %lld is less than a batch of %lld",
                       (long long)s->window, (long long)o->batch);
    while (o->by_layer >= 0 && s->by_layer < s->trace.n_layers &&
           s->trace.layer[s->by_layer] != o->by_layer)
        s->by_layer++;
    if (s->by_layer == s->trace.n_layers)
        return mt_fail(ctx, MT_E_OPTION, "--by-layer %lld: the trace has no such layer",
                       (long long)o->by_layer);
    if (o->model != NULL)
        MT_TRY(simulate_model_bytes(ctx, s));
    return simulate_read_cache(ctx, s);
}

/* ---- what comes of it ---- */

/* Every layer has a cache of its own; its requests are those of the layer's keys. */
static mt_status simulate_caches(struct mt_ctx *ctx, struct simulate *s, int order)
{
    const struct mt_serve_result *r = &s->result[order];
    uint32_t n_keys = (uint32_t)s->trace.n_experts, *own, *from;
    mt_status st = MT_OK;

    /* One block for both lists. */
    MT_TRY(mt_alloc(ctx, r->n_requests, 2 * sizeof *own, "requests", &own));
    from = own + r->n_requests;
    for (int l = 0; l < s->trace.n_layers; l++) {
        size_t n = 0;
        for (size_t i = 0; i < r->n_requests; i++)
            if (r->request[i] / n_keys == (uint32_t)l) {
                from[n] = r->from[i];
                own[n++] = r->request[i] % n_keys;
            }
        for (int i = 0; i < MT_CACHE_POLICIES * s->n_caches && st == MT_OK; i++) {
            int policy = i / s->n_caches, c = i % s->n_caches;
            uint64_t misses = 0;
            st = mt_cache_misses(ctx, own, s->o->in_order ? NULL : from, n, n_keys, s->places[c],
                                 (enum mt_cache_policy)policy, s->seed, &misses);
            s->misses[order][policy][c] += misses;
        }
        if (st == MT_OK)
            st = mt_check_cancel(ctx);
    }
    mt_free(own);
    return st;
}

static mt_status simulate_all(struct mt_ctx *ctx, struct simulate *s)
{
    for (int order = 0; order < SIMULATE_ORDERS; order++) {
        struct mt_serve_opts o = {.order = (enum mt_serve_order)order,
                                  .tokens = (enum mt_serve_tokens)s->o->tokens,
                                  .batch = s->o->batch,
                                  .window = s->window,
                                  .by_layer = s->by_layer};
        MT_TRY(mt_serve(ctx, &s->trace, &o, &s->result[order]));
        MT_TRY(simulate_caches(ctx, s, order));
    }
    return MT_OK;
}

static double simulate_hits(const struct simulate *s, int order, int policy, int c)
{
    size_t n = s->result[order].n_requests;

    return n == 0 ? 0 : 1 - (double)s->misses[order][policy][c] / (double)n;
}

static double simulate_bytes(const struct simulate *s, int order, int policy, int c)
{
    return (double)s->misses[order][policy][c] * (double)s->expert_bytes;
}

static mt_status simulate_print_orders(struct mt_ctx *ctx, const struct simulate *s)
{
    struct cmd_table t;

    cmd_table_begin(&t, "lrrr");
    cmd_table_cell(ctx, &t, "batches put together by");
    cmd_table_cell(ctx, &t, "batches");
    cmd_table_cell(ctx, &t, "experts per batch and layer");
    cmd_table_cell(ctx, &t, "longest wait, batches");
    for (int o = 0; o < SIMULATE_ORDERS; o++) {
        const struct mt_serve_result *r = &s->result[o];
        cmd_table_cell(ctx, &t, "%s", o == MT_SERVE_FIFO ? "arrival" : "fullest expert");
        cmd_table_cell(ctx, &t, "%zu", r->n_batches);
        if (s->trace.n_layers > 1)
            cmd_table_cell(ctx, &t, "%.2f (layer %d: %.2f)", r->unique, s->trace.layer[s->by_layer],
                           r->unique_key);
        else
            cmd_table_cell(ctx, &t, "%.2f", r->unique);
        cmd_table_cell(ctx, &t, "%zu", r->wait_max);
    }
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    return st;
}

static mt_status simulate_print_caches(struct mt_ctx *ctx, const struct simulate *s)
{
    char align[2 + SIMULATE_CACHES_MAX + 1] = "ll";
    struct cmd_table t;

    memset(align + 2, 'r', (size_t)s->n_caches);
    cmd_table_begin(&t, align);
    cmd_table_cell(ctx, &t, "%s", s->expert_bytes > 0 ? "hits, MB moved" : "hits");
    cmd_table_cell(ctx, &t, "policy");
    for (int c = 0; c < s->n_caches; c++)
        cmd_table_cell(ctx, &t, "%lld held", (long long)s->places[c]);
    for (int o = 0; o < SIMULATE_ORDERS; o++) {
        for (int p = 0; p < MT_CACHE_POLICIES; p++) {
            cmd_table_cell(ctx, &t, "%s",
                           p > 0 ? "" : (o == MT_SERVE_FIFO ? "arrival" : "fullest expert"));
            cmd_table_cell(ctx, &t, "%s", simulate_policy_names[p]);
            for (int c = 0; c < s->n_caches; c++) {
                if (s->expert_bytes > 0)
                    cmd_table_cell(ctx, &t, "%.1f %%, %.1f", 100 * simulate_hits(s, o, p, c),
                                   simulate_bytes(s, o, p, c) / 1e6);
                else
                    cmd_table_cell(ctx, &t, "%.1f %%", 100 * simulate_hits(s, o, p, c));
            }
        }
    }
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    return st;
}

static mt_status simulate_print(struct mt_ctx *ctx, const struct simulate *s)
{
    const struct mt_trace *t = &s->trace;

    printf("%zu sequences, %zu tokens, %d layer%s of %d experts, top-%d\n", t->n_seqs,
           t->first[t->n_seqs], t->n_layers, t->n_layers > 1 ? "s" : "", t->n_experts, t->k);
    printf("batches of %lld, chosen from %lld waiting %s\n\n", (long long)s->o->batch,
           (long long)s->window,
           s->o->tokens == MT_SERVE_QUEUED ? "tokens" : "sequences, a token of each at a time");
    MT_TRY(simulate_print_orders(ctx, s));
    printf("\n");
    return simulate_print_caches(ctx, s);
}

static mt_status simulate_json(struct mt_ctx *ctx, const struct simulate *s, const char *path)
{
    struct mt_json *root = mt_json_new_object(), *orders;
    const struct mt_trace *t = &s->trace;

    mt_json_set_str(root, "trace", path);
    mt_json_set_int(root, "sequences", (int64_t)t->n_seqs);
    mt_json_set_int(root, "tokens", (int64_t)t->first[t->n_seqs]);
    mt_json_set_int(root, "layers", t->n_layers);
    mt_json_set_int(root, "experts", t->n_experts);
    mt_json_set_int(root, "top_k", t->k);
    mt_json_set_int(root, "batch", s->o->batch);
    mt_json_set_int(root, "window", s->window);
    mt_json_set_str(root, "waiting", simulate_token_names[s->o->tokens]);
    mt_json_set_int(root, "by_layer", t->layer[s->by_layer]);
    mt_json_set_bool(root, "in_order", s->o->in_order);
    mt_json_set_int(root, "expert_bytes", (int64_t)s->expert_bytes);
    orders = mt_json_set_array(root, "orders");
    for (int o = 0; o < SIMULATE_ORDERS; o++) {
        const struct mt_serve_result *r = &s->result[o];
        struct mt_json *j = mt_json_add_object(orders), *caches;
        mt_json_set_str(j, "order", simulate_order_names[o]);
        mt_json_set_int(j, "batches", (int64_t)r->n_batches);
        mt_json_set_num(j, "experts_per_batch", r->unique);
        mt_json_set_num(j, "experts_per_batch_by_layer", r->unique_key);
        mt_json_set_int(j, "wait_max", (int64_t)r->wait_max);
        mt_json_set_int(j, "requests", (int64_t)r->n_requests);
        caches = mt_json_set_array(j, "caches");
        for (int i = 0; i < MT_CACHE_POLICIES * s->n_caches; i++) {
            int p = i / s->n_caches, c = i % s->n_caches;
            struct mt_json *k = mt_json_add_object(caches);
            mt_json_set_str(k, "policy", simulate_policy_names[p]);
            mt_json_set_int(k, "held", s->places[c]);
            mt_json_set_num(k, "hit_rate", simulate_hits(s, o, p, c));
            mt_json_set_int(k, "misses", (int64_t)s->misses[o][p][c]);
            if (s->expert_bytes > 0)
                mt_json_set_num(k, "bytes_moved", simulate_bytes(s, o, p, c));
        }
    }
    return cmd_print_json(ctx, root);
}

static mt_status simulate_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct simulate s = {.o = a->opts};
    mt_status st = simulate_setup(ctx, a, &s);

    if (st == MT_OK)
        st = simulate_all(ctx, &s);
    if (st == MT_OK)
        st = a->common->json ? simulate_json(ctx, &s, a->pos->v[0]) : simulate_print(ctx, &s);
    for (int o = 0; o < SIMULATE_ORDERS; o++)
        mt_serve_free(&s.result[o]);
    mt_trace_free(&s.trace);
    return st;
}

static const struct cmd_example simulate_examples[] = {
    {"eval moe --data held-out.jsonl --trace routes.jsonl", "make a trace"},
    {"simulate routes.jsonl --model moe --cache 4,8,16", "what a cache of experts saves"},
    {"simulate routes.jsonl --tokens decode --batch 8 --window 64", "generation, 64 sequences"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_simulate = {
    .name = "simulate",
    .summary = "expert batching and caching on routing traces",
    .synopsis = "TRACE",
    .help = "Plays a routing trace to a server that holds some experts of each layer and fetches "
            "the others, and tells how many different experts a batch needs, how often they are "
            "there, and the bytes that move. Batches are put together by arrival, or by draining "
            "the queue of the fullest expert first (Read-ME, arXiv 2410.19123), which needs "
            "choices that are known before the layers run. belady evicts what is used again last "
            "and is the bound for all others.\n\n"
            "A trace is the JSONL that eval --trace writes (one line per sequence and layer: "
            "{\"seq\": 0, \"layer\": 3, \"experts\": [[5, 1], [0, 3]]}), or a tensor of top-1 "
            "choices [batches * layers, sequences, tokens] in a torch or safetensors file, -1 for "
            "none.",
    .examples = simulate_examples,
    .opts = simulate_opt_table,
    .opts_size = sizeof(struct simulate_opts),
    .args_min = 1,
    .args_max = 1,
    .run = simulate_run,
};
