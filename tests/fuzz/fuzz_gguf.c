/* Any bytes as a GGUF header: refused with a sentence, or every range it names lies inside the
 * file and every value can be asked for. `make fuzz` runs it under libFuzzer; otherwise replay.c
 * feeds it a corpus. */
#include "formats/gguf.h"
#include "lib/base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static struct mt_ctx *fuzz_ctx(void)
{
    static struct mt_ctx ctx;
    static struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 64u << 20};

    if (ctx.env == NULL && mt_ctx_open(&ctx, &o) != MT_OK)
        abort();
    return &ctx;
}

static void fuzz_check(struct mt_ctx *ctx, const struct mt_gguf *g, struct mt_arena *arena)
{
    const unsigned char *base = g->map->base;
    const struct mt_gguf *list[] = {g};
    uint64_t end = 0;

    for (size_t i = 0; i < g->n_pairs; i++) {
        const struct mt_gguf_pair *p = &g->pairs[i];
        const char *text;
        int64_t v;
        double d;
        bool b;
        mt_assert(p->at >= base && p->bytes <= (uint64_t)(base + g->map->bytes - p->at));
        mt_assert(mt_gguf_find(g, p->key) == p);
        (void)!mt_gguf_int(ctx, g, p->key, 0, &v);
        (void)!mt_gguf_num(ctx, g, p->key, 0, &d);
        (void)!mt_gguf_bool(ctx, g, p->key, false, &b);
        (void)!mt_gguf_str(ctx, g, p->key, arena, &text);
    }
    for (size_t i = 0; i < g->n; i++) {
        const struct mt_gguf_record *r = &g->v[i];
        uint64_t count = 1, bytes;
        for (int d = 0; d < r->rank; d++)
            count *= r->ne[d];
        mt_assert(mt_dtype_bytes((enum mt_dtype)r->dtype, count, &bytes) && bytes == r->bytes);
        mt_assert(r->begin >= end && r->begin % g->alignment == 0);
        end = r->begin + r->bytes;
        mt_assert(g->headers_only ||
                  (g->data_offset <= g->map->bytes && end <= g->map->bytes - g->data_offset));
    }
    const struct mt_gguf_arch *arch;
    struct mt_json *config;
    if (mt_gguf_config(ctx, list, 1, &arch, &config) == MT_OK)
        mt_json_free(config);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct mt_ctx *ctx = fuzz_ctx();
    char name[] = "input";
    struct mt_map map = {.base = n > 0 ? data : NULL, .bytes = n, .path = name};
    struct mt_arena arena;
    struct mt_gguf g;

    mt_arena_init(&arena);
    ctx->error[0] = '\0';
    if (mt_gguf_header_read(ctx, &map, &arena, &g) == MT_OK)
        fuzz_check(ctx, &g, &arena);
    else
        mt_assert(mt_error(ctx)[0] != '\0');
    mt_gguf_header_free(&g);
    mt_arena_free(&arena);
    mt_assert(mt_mem_used(ctx) == 0);
    return 0;
}
