/* report.h: what a comparison found, as tables and JSON; used by validate and convert.
 *
 * One column per model, the reference first. KL is in nats per token.
 */
#ifndef MT_CMD_REPORT_H
#define MT_CMD_REPORT_H

#include "lib/base/json.h"
#include "lib/run/paired.h"

struct cmd_report_row {
    const char *name; /* column title */
    const struct mt_model *m;
    const struct mt_compare_report *r; /* NULL for the reference; NULL for all: sizes only */
    const struct mt_paired *paired;    /* KL less that of rows[1]; NULL: not told */
};

/* How much was measured, and the unit of KL. `of`: what to say behind the windows. */
void cmd_report_head(size_t n_tokens, size_t n_windows, const char *of);
/* rows[0] is the reference; at most 10 candidates. `data` names the domains. */
MT_NODISCARD mt_status cmd_report_table(struct mt_ctx *ctx, const struct cmd_report_row *rows,
                                        int n, const struct mt_dataset *data);
/* Per layer: FFN error, drift, expert load of one candidate. */
MT_NODISCARD mt_status cmd_report_layers(struct mt_ctx *ctx, const struct cmd_report_row *row);
/* {"reference": {...}, "candidates": [{...}]} added to `out`. */
void cmd_report_json(struct mt_json *out, const struct cmd_report_row *rows, int n,
                     const struct mt_dataset *data);
/* What a model card tells of one candidate, added to `j` (lib/flow/card.h). */
void cmd_report_figures(struct mt_json *j, const struct mt_compare_report *r,
                        const struct mt_dataset *data);
#endif
