#include "cmd/verdict.h"

#include <math.h>
#include <stdio.h>

#define VERDICT_SEED 1

static int verdict_best(const struct mt_compare_report *reports, int n_base)
{
    int best = 0;

    for (int i = 1; i < n_base; i++)
        if (reports[1 + i].kl_mean < reports[1 + best].kl_mean)
            best = i;
    return best;
}

/* One window has no interval; any difference counts then. */
static bool verdict_even(const struct mt_paired *p)
{
    return isnan(p->low) ? p->mean == 0 : p->low <= 0 && p->high >= 0;
}

mt_status cmd_verdict(struct mt_ctx *ctx, const struct mt_compare_report *reports,
                      const char *const *base_names, int n_base, const struct mt_dataset *data,
                      struct cmd_verdict *out)
{
    int best = verdict_best(reports, n_base);
    const struct mt_compare_report *mine = &reports[0], *base = &reports[1 + best];
    const char *select = base_names[best];

    MT_TRY(mt_paired(ctx, mine->kl, base->kl, data, VERDICT_SEED, &out->paired));
    if (verdict_even(&out->paired)) {
        out->closer = "even";
        snprintf(out->text, sizeof out->text,
                 "static pruning (%s) and the experts are equally close to the original: KL %.3g "
                 "and %.3g",
                 select, base->kl_mean, mine->kl_mean);
    } else if (out->paired.mean > 0) {
        out->closer = "pruning";
        snprintf(out->text, sizeof out->text,
                 "static pruning (%s) is closer to the original: KL %.3g against %.3g of the "
                 "experts, at the same active parameters",
                 select, base->kl_mean, mine->kl_mean);
    } else {
        out->closer = "experts";
        snprintf(out->text, sizeof out->text,
                 "the experts are closer to the original than static pruning (best: %s): KL %.3g "
                 "against %.3g, at the same active parameters",
                 select, mine->kl_mean, base->kl_mean);
    }
    return MT_OK;
}

void cmd_verdict_json(struct mt_json *o, const struct cmd_verdict *v)
{
    mt_json_set_str(o, "closer", v->closer);
    mt_json_set_str(o, "verdict", v->text);
    mt_json_set_num(o, "kl_less_pruned", v->paired.mean);
    mt_json_set_num(o, "kl_less_pruned_low", v->paired.low);
    mt_json_set_num(o, "kl_less_pruned_high", v->paired.high);
}
