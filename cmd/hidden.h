/* hidden.h: --hidden FILE of commands that fit something to FFN inputs, and what is measured where
 * there are no logits, of several models side by side: the relative error of each block on the part
 * of a file that is held out, or that of an encoder's last hidden states on texts.
 */
#ifndef MT_CMD_HIDDEN_H
#define MT_CMD_HIDDEN_H

#include "cmd/blocks.h"
#include "lib/flow/hidden.h"

#define CMD_HIDDEN_MODELS 8
struct cmd_hidden {
    bool on; /* --hidden was given */
    struct mt_hidden h;
    /* Encoders: measured on these texts instead; borrowed. n_layers of h is then 0. */
    const struct mt_dataset *texts;
    int n;                               /* models measured */
    const char *name[CMD_HIDDEN_MODELS]; /* the first is the result; then ways of pruning */
    double *error[CMD_HIDDEN_MODELS];    /* [n_layers + 1]; the last over all layers */
};

/* Opens the file (NULL: none) and then the model, whose hidden size it tells. Where it fails,
 * nothing is left but *m, which may be NULL. */
MT_NODISCARD mt_status cmd_hidden_open(struct mt_ctx *ctx, const char *file, const char *model,
                                       const struct cmd_blocks *o, struct cmd_hidden *out,
                                       struct mt_model **m);
bool cmd_hidden_measures(const struct cmd_hidden *c);
void cmd_hidden_free(struct cmd_hidden *c);

/* Measures one more model; `name` is borrowed. */
MT_NODISCARD mt_status cmd_hidden_measure(struct mt_ctx *ctx, struct cmd_hidden *c,
                                          const struct mt_model *ref, const struct mt_model *cand,
                                          struct mt_device *dev, const char *name);
/* Counted bytes that measuring takes, at the least. */
uint64_t cmd_hidden_bytes(const struct cmd_hidden *c);

/* A row for each layer, a column for each model, and a sentence on who is closest. */
MT_NODISCARD mt_status cmd_hidden_print(struct mt_ctx *ctx, const struct cmd_hidden *c);
/* "ffn_error" and "layers" of the first model, the others beside them. */
void cmd_hidden_json(struct mt_json *out, const struct cmd_hidden *c);
#endif
