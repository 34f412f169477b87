/* Any bytes as a safetensors file and as a shard index: refused with a sentence, or every range it
 * names lies inside the file. `make fuzz` runs it under libFuzzer; otherwise replay.c feeds it a
 * corpus. */
#include "formats/st_header.h"
#include "lib/base/json_scan.h"
#include "lib/ir/tensor.h"

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

static void fuzz_check(const struct mt_map *map, const struct mt_st_header *h)
{
    uint64_t at = 0;

    mt_assert(h->data_offset <= map->bytes);
    for (size_t i = 0; i < h->n; i++) {
        const struct mt_st_record *r = &h->v[i];
        uint64_t count = 1, bytes;
        mt_assert(r->begin == at && r->end >= at && r->rank <= MT_RANK_MAX);
        for (int d = 0; d < r->rank; d++)
            count *= r->shape[d];
        mt_assert(mt_dtype_bytes((enum mt_dtype)r->dtype, count, &bytes) && bytes == r->end - at);
        mt_assert(strlen(r->name) < map->bytes);
        at = r->end;
    }
    mt_assert(h->data_offset + at == map->bytes);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct mt_ctx *ctx = fuzz_ctx();
    char name[] = "input";
    struct mt_map map = {.base = n > 0 ? data : NULL, .bytes = n, .path = name};
    struct mt_st_header h;
    struct mt_arena arena;
    struct mt_scan s;

    mt_arena_init(&arena);
    ctx->error[0] = '\0';
    if (mt_st_header_read(ctx, &map, &arena, &h) == MT_OK)
        fuzz_check(&map, &h);
    else
        mt_assert(mt_error(ctx)[0] != '\0');
    mt_st_header_free(&h);
    mt_arena_free(&arena);
    /* The same bytes without the length, so that the scanner is reached by more of them. */
    if (mt_scan_open(ctx, &s, data, n, "input", 0) == MT_OK && mt_scan_skip(&s, NULL) == MT_OK)
        (void)!mt_scan_end(&s);
    mt_scan_close(&s);
    mt_assert(mt_mem_used(ctx) == 0);
    return 0;
}
