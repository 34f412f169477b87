/* cast: the same values in another float type.
 *
 * Plans only. Routers and selection biases are never rounded: a changed bit there changes which
 * experts a token meets (spec formats, 6: of tokens routed by a rounded bias nearly all went
 * elsewhere). GGML's blocks become the numbers they stand for; other types than those and F64, F32,
 * F16 and BF16 are left as they are.
 */
#include "lib/base/mem.h"
#include "lib/flow/pass.h"

#include <string.h>

enum cast_dtype { CAST_KEEP, CAST_BF16, CAST_F16, CAST_F32 };

static const char *const cast_names[] = {"keep", "bf16", "f16", "f32", NULL};
static const enum mt_dtype cast_types[] = {MT_F32, MT_BF16, MT_F16, MT_F32};

struct cast_opts {
    int dtype;
};

static const struct mt_opt cast_opt_table[] = {
    MT_OPT_ENUM(struct cast_opts, dtype, "dtype", 0, "TYPE", "keep", cast_names,
                "float type of the weights; routers that are stored otherwise become f32"),
    MT_OPT_END,
};

struct cast {
    enum cast_dtype dtype;
    int64_t n_cast;
};

static mt_status cast_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                             void **state)
{
    struct cast *c;

    (void)src;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *c, "cast", &c));
    c->dtype = (enum cast_dtype)((const struct cast_opts *)opts)->dtype;
    *state = c;
    return MT_OK;
}

/* Blocks that are read as numbers of the very type: they become such numbers only when asked. */
static bool cast_is_blocks(const struct mt_tensor *t)
{
    return t->src.kind == MT_SRC_RECIPE && strcmp(t->src.recipe.name, "mxfp4") == 0;
}

static mt_status cast_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    struct cast *c = state;

    for (size_t i = 0; i < m->n_tensors && c->dtype != CAST_KEEP; i++) {
        struct mt_tensor *t = m->tensors[i];
        enum mt_dtype want = cast_types[c->dtype];

        if (!mt_dtype_reads_f32(t->dtype) || t->src.kind != MT_SRC_ALIAS ||
            t->role.part >= MT_PART_CODES) /* scales belong to their codes */
            continue;
        if (t->dtype != want && mt_role_is_routing(t->role.kind))
            want = MT_F32;
        if (t->dtype == want && !cast_is_blocks(t->src.alias))
            continue;
        t->dtype = want;
        t->planner = "cast";
        MT_TRY(mt_recipe_cast(ctx, m, t, t->src.alias));
        c->n_cast++;
    }
    return MT_OK;
}

static mt_status cast_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    const struct cast *c = state;

    (void)ctx;
    mt_json_set_int(out, "tensors", c->n_cast);
    return MT_OK;
}

const struct mt_pass mt_pass_cast = {
    .name = "cast",
    .summary = "the same values in another float type",
    .help =
        "Rounds weights to the nearest value of the type (ties to even). Routers and selection "
        "biases are never rounded, because a small change there sends tokens to other experts: "
        "where they are stored in another type than the one asked for they become f32. Blocks of "
        "GGUF files and gpt-oss's MXFP4 become the numbers they stand for; integers and fp8 are "
        "left as they are. Values too large for f16 stop the run; "
        "they do not become infinite.",
    .opts = cast_opt_table,
    .opts_size = sizeof(struct cast_opts),
    .create = cast_create,
    .plan = cast_plan,
    .report = cast_report,
    .destroy = mt_free,
};
