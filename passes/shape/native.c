/* native: the same model in the native layout (docs/formats.md).
 *
 * Plans only: records get other names, roles that the source's family keeps together become
 * tensors of their own, and the config tells each block. No value changes.
 */
#include "lib/flow/pass.h"

static const struct mt_opt native_opt_table[] = {
    MT_OPT_END,
};

static mt_status native_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                               void **state)
{
    (void)opts;
    *state = NULL;
    if (src->family != NULL)
        return MT_OK;
    return mt_fail(ctx, MT_E_UNSUPPORTED,
                   "model_type %s is not known, so its blocks cannot be told apart",
                   src->model_type != NULL ? src->model_type : "(none)");
}

static mt_status native_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    (void)state;
    m->family = &mt_family_moetool;
    return m->family->can_hold(ctx, m);
}

const struct mt_pass mt_pass_native = {
    .name = "native",
    .summary = "the same model in moetool's own layout",
    .help =
        "Writes any model of a known family in the native layout (docs/formats.md), which holds "
        "blocks of every kind and which moetool alone reads: one tensor for each role, one "
        "object of config.json for each block. No value changes. FP8 and MXFP4 blocks become "
        "the BF16 numbers they stand for.",
    .opts = native_opt_table,
    .opts_size = 1,
    .create = native_create,
    .plan = native_plan,
};
