/* verdict.h: are experts closer to the original than static pruning is?
 *
 * The conversion against the best of the pruned models, token by token on the same text, with a
 * paired interval (lib/run/paired.h): while it holds zero they are even.
 */
#ifndef MT_CMD_VERDICT_H
#define MT_CMD_VERDICT_H

#include "lib/base/json.h"
#include "lib/run/paired.h"

struct cmd_verdict {
    const char *closer;      /* "experts", "pruning" or "even" */
    char text[256];          /* the sentence */
    struct mt_paired paired; /* KL of the experts less that of the best pruned model */
};

/* reports[0] is the conversion's, reports[1 .. n_base] the pruned models', n_base >= 1. */
MT_NODISCARD mt_status cmd_verdict(struct mt_ctx *ctx, const struct mt_compare_report *reports,
                                   const char *const *base_names, int n_base,
                                   const struct mt_dataset *data, struct cmd_verdict *out);
/* "closer", "verdict" and the interval. */
void cmd_verdict_json(struct mt_json *o, const struct cmd_verdict *v);
#endif
