#include "cmd/baseline.h"

#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/table.h"

#include <stdio.h>
#include <string.h>

int64_t cmd_baseline_width(const struct mt_model *m)
{
    int64_t sum = 0, n = m->hp.n_layers;

    for (int l = 0; l < n; l++) {
        int64_t rows = m->ffn[l].gated ? 3 : 2;
        sum += mt_ffn_active_width(&m->ffn[l]) + (m->ffn[l].n_experts + rows - 1) / rows;
    }
    return (sum + n - 1) / n;
}

mt_status cmd_baseline_step(struct mt_ctx *ctx, const struct cmd_baseline *b,
                            struct mt_walk_pass *step)
{
    const struct mt_pass *p = mt_pass_find("prune-ffn");
    char drift[32], epochs[24];
    void *opts;

    mt_assert(p != NULL);
    *step = (struct mt_walk_pass){.pass = p};
    MT_TRY(mt_alloc0(ctx, 1, p->opts_size, "options", &opts));
    mt_opt_defaults(p->opts, opts);
    /* Options keep pointers to texts, which the caller's outlive. */
    mt_status st = MT_OK;
    if (strcmp(b->width, "auto") != 0)
        st = mt_opt_set(ctx, p->opts, opts, "width", b->width);
    if (st == MT_OK)
        st = mt_opt_set(ctx, p->opts, opts, "select", b->select);
    if (st == MT_OK && b->refit != NULL)
        st = mt_opt_set(ctx, p->opts, opts, "refit", b->refit);
    snprintf(drift, sizeof drift, "%.17g", b->drift);
    if (st == MT_OK && b->drift >= 0)
        st = mt_opt_set(ctx, p->opts, opts, "drift", drift);
    snprintf(epochs, sizeof epochs, "%lld", (long long)b->refit_epochs);
    if (st == MT_OK && b->refit_epochs >= 0)
        st = mt_opt_set(ctx, p->opts, opts, "refit-epochs", epochs);
    if (st != MT_OK) {
        mt_free(opts);
        return st;
    }
    step->opts = opts;
    return MT_OK;
}

mt_status cmd_convert_step(struct mt_ctx *ctx, const void *pass_opts, struct mt_walk_pass *step,
                           bool *owned)
{
    const struct mt_convert_opts *p = pass_opts;
    const struct cmd_baseline want = {.width = p->active,
                                      .select = mt_convert_select_names[p->select],
                                      .refit = mt_convert_refit_names[p->refit],
                                      .drift = p->drift,
                                      .refit_epochs = p->refit_epochs};

    *owned = strcmp(mt_convert_method_names[p->method], MT_CONVERT_PRUNE) == 0;
    *step = (struct mt_walk_pass){.pass = mt_pass_find("convert-ffn"), .opts = p};
    return *owned ? cmd_baseline_step(ctx, &want, step) : MT_OK;
}
