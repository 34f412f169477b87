/* Bytes up to the first NUL are a config.json, the rest names tensors, one line each: "BF16
 * model.norm.weight 64" (type, name, sizes with commas). A model of these is bound to its family:
 * refused with a sentence, or verified, measured and written as every family that can hold it. No
 * tensor has bytes. */
#include "lib/ir/family.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

#define FUZZ_TENSORS_MAX 4096

static struct mt_ctx *fuzz_ctx(void)
{
    static struct mt_ctx ctx;
    static struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 256u << 20};

    if (ctx.env == NULL && mt_ctx_open(&ctx, &o) != MT_OK)
        abort();
    return &ctx;
}

/* One line without its end; false when it says nothing. */
static bool fuzz_tensor(struct mt_ctx *ctx, struct mt_model *m, const char *line, size_t n,
                        const struct mt_map *map)
{
    const char *name = memchr(line, ' ', n), *end = line + n, *sizes;
    int64_t shape[MT_RANK_MAX], step = 1;
    struct mt_tensor *t;
    enum mt_dtype dtype;
    int rank = 0;

    if (name == NULL || !mt_dtype_parse(line, (size_t)(name - line), &dtype))
        return false;
    name++;
    sizes = memchr(name, ' ', (size_t)(end - name));
    if (sizes == NULL)
        sizes = end;
    for (const char *p = sizes; p < end && rank < MT_RANK_MAX;) {
        int64_t v = 0;
        for (p++; p < end && *p >= '0' && *p <= '9'; p++)
            v = v > INT64_MAX / 20 ? v : v * 10 + *p - '0';
        shape[rank++] = v;
    }
    if (mt_model_add(ctx, m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE), dtype, rank, shape, &t) !=
        MT_OK)
        return false;
    t->src.kind = MT_SRC_SLICE;
    t->src.slice.map = map;
    for (int i = rank - 1; i >= 0; i--) {
        t->src.slice.stride[i] = step;
        step *= shape[i];
    }
    return mt_arena_strndup(ctx, &m->arena, name, (size_t)(sizes - name), &t->name) == MT_OK;
}

static void fuzz_tensors(struct mt_ctx *ctx, struct mt_model *m, const char *p, size_t n,
                         const struct mt_map *map)
{
    const char *end = p + n;

    while (p < end && m->n_tensors < FUZZ_TENSORS_MAX) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        if (eol == NULL)
            eol = end;
        if (!fuzz_tensor(ctx, m, p, (size_t)(eol - p), map))
            return;
        p = eol + 1;
    }
}

/* Every family that says it can hold the model must be able to write a config for it. */
static void fuzz_write(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_family *const *all = mt_family_all();
    struct mt_json *config;

    for (; *all != NULL; all++) {
        if ((*all)->can_hold == NULL || (*all)->can_hold(ctx, m) != MT_OK)
            continue;
        if (mt_json_copy(ctx, m->config, &config) != MT_OK)
            continue;
        if ((*all)->write_config(ctx, m, config) != MT_OK)
            mt_assert(mt_error(ctx)[0] != '\0');
        mt_json_free(config);
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    const unsigned char *nul = n == 0 ? NULL : memchr(data, 0, n);
    size_t n_json = nul != NULL ? (size_t)(nul - data) : n;
    char name[] = "input";
    const struct mt_map map = {.path = name};
    struct mt_ctx *ctx = fuzz_ctx();
    struct mt_model_size size;
    struct mt_model *m;

    ctx->error[0] = '\0';
    if (mt_model_create(ctx, &m) != MT_OK)
        return 0;
    m->path = name;
    m->format = "safetensors";
    if (mt_json_parse(ctx, (const char *)data, n_json, "config.json", &m->config) == MT_OK &&
        mt_json_kind(m->config) == MT_JSON_OBJECT) {
        if (nul != NULL)
            fuzz_tensors(ctx, m, (const char *)nul + 1, n - n_json - 1, &map);
        ctx->error[0] = '\0';
        if (mt_model_bind(ctx, m) == MT_OK) {
            mt_model_measure(m, &size);
            if (m->family != NULL) {
                mt_assert(mt_model_verify(ctx, m) == MT_OK);
                fuzz_write(ctx, m);
            }
        } else {
            mt_assert(mt_error(ctx)[0] != '\0' && strchr(mt_error(ctx), '\n') == NULL);
        }
    }
    mt_model_free(m);
    mt_assert(mt_mem_used(ctx) == 0);
    return 0;
}
