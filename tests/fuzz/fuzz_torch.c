/* Any bytes as a checkpoint of torch.save, and as the pickle inside of one: refused with a
 * sentence, or every tensor can be read. `make fuzz` runs it under libFuzzer; otherwise replay.c
 * feeds it a corpus. */
#include "formats/torch_zip.h"
#include "lib/ir/family.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

#define FUZZ_ROW_MAX 65536

static struct mt_ctx *fuzz_ctx(void)
{
    static struct mt_ctx ctx;
    static struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 256u << 20};

    if (ctx.env == NULL && mt_ctx_open(&ctx, &o) != MT_OK)
        abort();
    return &ctx;
}

static void fuzz_refused(struct mt_ctx *ctx, mt_status st)
{
    if (st != MT_OK)
        mt_assert(mt_error(ctx)[0] != '\0' && strchr(mt_error(ctx), '\n') == NULL);
}

static void fuzz_file(struct mt_ctx *ctx, const unsigned char *data, size_t n)
{
    static unsigned char row[FUZZ_ROW_MAX];
    char name[] = "input";
    struct mt_map map = {.base = n > 0 ? data : NULL, .bytes = n, .path = name};
    struct mt_model *m;

    if (mt_model_create(ctx, &m) != MT_OK)
        return;
    mt_status st = mt_torch_add_map(ctx, m, &map);
    fuzz_refused(ctx, st);
    for (size_t i = 0; st == MT_OK && i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        uint64_t bytes;
        if (mt_tensor_count(t) == 0 ||
            !mt_dtype_bytes(t->dtype, (uint64_t)mt_tensor_cols(t), &bytes) || bytes > sizeof row)
            continue;
        mt_assert(mt_tensor_fetch(ctx, t, 0, 1, row) == MT_OK);
        mt_assert(mt_tensor_fetch(ctx, t, mt_tensor_rows(t) - 1, 1, row) == MT_OK);
    }
    if (st == MT_OK && mt_model_bind(ctx, m) == MT_OK)
        fuzz_refused(ctx, mt_torch_untie(ctx, m));
    mt_model_free(m);
}

/* The same bytes as a pickle, so that the machine is reached by more of them. */
static void fuzz_pickle(struct mt_ctx *ctx, const unsigned char *data, size_t n)
{
    const struct mt_pickle *root;
    struct mt_torch_tree tree;
    struct mt_arena arena;
    char text[64];
    mt_status st;

    mt_arena_init(&arena);
    st = mt_pickle_read(ctx, data, n, "input", &arena, &root);
    fuzz_refused(ctx, st);
    if (st == MT_OK) {
        mt_assert(strlen(mt_pickle_show(root, text, sizeof text)) < sizeof text);
        fuzz_refused(ctx, mt_torch_tree_read(ctx, root, "input", &arena, &tree));
        mt_torch_tree_free(&tree);
    }
    mt_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct mt_ctx *ctx = fuzz_ctx();

    ctx->error[0] = '\0';
    fuzz_file(ctx, data, n);
    fuzz_pickle(ctx, data, n);
    mt_assert(mt_mem_used(ctx) == 0);
    return 0;
}
