/* Any bytes as JSON: refused with a sentence, or a tree that prints, parses again and prints the
 * same. `make fuzz` runs it under libFuzzer; otherwise replay.c feeds it a corpus. */
#include "lib/base/json.h"
#include "lib/base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static struct mt_ctx *fuzz_ctx(void)
{
    static struct mt_ctx ctx;
    static struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 256u << 20};

    if (ctx.env == NULL && mt_ctx_open(&ctx, &o) != MT_OK)
        abort();
    return &ctx;
}

/* Every question that can be asked of a node. */
static void fuzz_ask(struct mt_ctx *ctx, const struct mt_json *j)
{
    size_t n = 0;
    int64_t i;
    double d;
    bool b;

    (void)!mt_json_number(j, &d);
    (void)!mt_json_truth(j, &b);
    if (mt_json_integer(j, &i))
        mt_assert(i >= -((int64_t)1 << 53) && i <= (int64_t)1 << 53);
    for (struct mt_json *c = mt_json_first(j); c != NULL; c = mt_json_next(c), n++) {
        if (mt_json_kind(j) == MT_JSON_OBJECT)
            mt_assert(mt_json_key(c) != NULL && (n > 64 || mt_json_get(j, mt_json_key(c)) == c));
        fuzz_ask(ctx, c);
    }
    mt_assert(n == mt_json_count(j));
    if (mt_json_kind(j) == MT_JSON_STRING)
        mt_assert(mt_json_text(j) != NULL);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct mt_json *j, *again, *copy;
    struct mt_ctx *ctx = fuzz_ctx();
    char *a, *b;
    size_t n_a, n_b;

    ctx->error[0] = '\0';
    if (mt_json_parse(ctx, (const char *)data, n, "input", &j) != MT_OK) {
        mt_assert(mt_error(ctx)[0] != '\0' && strchr(mt_error(ctx), '\n') == NULL);
        mt_assert(mt_mem_used(ctx) == 0);
        return 0;
    }
    fuzz_ask(ctx, j);
    if (mt_json_print(ctx, j, &a, &n_a) == MT_OK) {
        mt_assert(mt_json_parse(ctx, a, n_a, "printed", &again) == MT_OK);
        mt_assert(mt_json_print(ctx, again, &b, &n_b) == MT_OK);
        mt_assert(n_a == n_b && memcmp(a, b, n_a) == 0);
        mt_free(b);
        mt_json_free(again);
        mt_assert(mt_json_copy(ctx, j, &copy) == MT_OK);
        mt_assert(mt_json_print(ctx, copy, &b, &n_b) == MT_OK);
        mt_assert(n_a == n_b && memcmp(a, b, n_a) == 0);
        mt_free(b);
        mt_json_free(copy);
        mt_free(a);
    }
    mt_json_free(j);
    mt_assert(mt_mem_used(ctx) == 0);
    return 0;
}
