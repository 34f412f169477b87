#include "cmd/cmd.h"
#include "lib/base/mem.h"
#include "lib/flow/profile_run.h"

mt_status cmd_measure_profile(struct mt_ctx *ctx, const struct cmd_args *a, struct mt_model *m,
                              struct mt_device *dev, const struct mt_dataset *data,
                              struct mt_profile **out)
{
    struct mt_profile_text text;
    uint64_t bytes;

    mt_log(ctx, MT_LOG_INFO, "measuring what the original's neurons do in each of %d domains",
           data->n_domains);
    MT_TRY(mt_profile_text_make(ctx, data, 1, 0, &text));
    struct mt_profile_opts o = {.model = m,
                                .dev = dev,
                                .text = &text,
                                .seq_len = cmd_seq_len(a, m),
                                .scratch_dir = cmd_scratch_dir()};
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
