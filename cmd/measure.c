#include "cmd/cmd.h"
#include "lib/base/mem.h"
#include "lib/base/scratch.h"
#include "lib/flow/profile_run.h"
#include "passes/convert/method.h"
#include "passes/lib/target_choice.h"

/* What masks will be refused for, told before a model has run over all of the text. */
static mt_status measure_check(struct mt_ctx *ctx, const struct cmd_args *a,
                               const struct mt_model *m, const struct mt_dataset *data)
{
    const struct mt_convert_method *method = mt_convert_method_asked(a->pass_opts);
    struct mt_shape_ask ask = mt_convert_ask(a->pass_opts);
    struct mt_moe_shape shape;

    if (method == NULL || !method->profiles)
        return MT_OK;
    if (data->n_domains < 2)
        return mt_fail(ctx, MT_E_OPTION,
                       "--method %s makes an expert of each domain of text and was given one: give "
                       "at least two with --data NAME=FILE, or a --profile of them",
                       method->name);
    ask.experts = data->n_domains;
    ask.active = "1";
    ask.shared = "0";
    MT_TRY(mt_moe_shape_read(ctx, &ask, m, &shape));
    return mt_target_holds(ctx, &shape, m, NULL);
}

mt_status cmd_measure_profile(struct mt_ctx *ctx, const struct cmd_args *a, struct mt_model *m,
                              struct mt_device *dev, const struct mt_dataset *data,
                              struct mt_profile **out)
{
    struct mt_profile_text text;
    uint64_t bytes;

    MT_TRY(measure_check(ctx, a, m, data));
    mt_log(ctx, MT_LOG_INFO, "measuring what the original's neurons do in %s%d domain%s",
           data->n_domains > 1 ? "each of " : "", data->n_domains, data->n_domains > 1 ? "s" : "");
    MT_TRY(mt_profile_text_make(ctx, data, 1, 0, &text));
    struct mt_profile_opts o = {.model = m,
                                .dev = dev,
                                .text = &text,
                                .seq_len = cmd_seq_len(a, m),
                                .gates = true,
                                .scratch_dir = mt_scratch_dir()};
    mt_status st = mt_profile_plan(ctx, &o, out);
    if (st == MT_OK)
        st = mt_profile_bytes(ctx, &o, *out, &bytes);
    if (st == MT_OK)
        st = mt_mem_fits(ctx, bytes, "measuring");
    if (st == MT_OK)
        st = mt_profile_run(ctx, &o, *out, NULL, NULL);
    mt_profile_text_free(&text);
    if (st == MT_OK) {
        m->profile = *out;
        return MT_OK;
    }
    mt_profile_free(*out);
    *out = NULL;
    return mt_wrap(ctx, st, "statistics by domain");
}
