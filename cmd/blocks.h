/* blocks.h: options of commands that take models of unknown family, and their opening. */
#ifndef MT_CMD_BLOCKS_H
#define MT_CMD_BLOCKS_H

#include "cmd/cmd.h"
#include "lib/ir/blocks.h"

struct cmd_blocks {
    const char *ffn, *act;
    int layout;
};
extern const char *const cmd_blocks_layouts[]; /* enum mt_blocks_layout */

/* Rows for the command's own table; `f` is its struct cmd_blocks. */
#define CMD_BLOCKS_OPTS(st, f)                                                                     \
    MT_OPT_STR(st, f.ffn, "ffn", 0, "PATTERN", NULL,                                               \
               "where the FFNs of a model of unknown family are: 'h.*.mlp.{c_fc,c_proj}' (in, "    \
               "out), 'layers.*.{w1,w3,w2}' (gate, up, down), {gate+up=...,down=...}, or re:..."), \
        MT_OPT_STR(st, f.act, "act", 0, "NAME", NULL,                                              \
                   "their activation: silu, gelu, gelu_new, relu, relu2, quick_gelu (default: "    \
                   "what config.json says)"),                                                      \
        MT_OPT_ENUM(st, f.layout, "ffn-layout", 0, "HOW", "auto", cmd_blocks_layouts,              \
                    "how their matrices are stored; out-in is torch's Linear, in-out GPT-2's "     \
                    "Conv1D")

/* As cmd_open_model without --ffn. hidden: what is known of the hidden size, or 0. assume_act: an
 * activation that nobody tells is no failure. */
MT_NODISCARD mt_status cmd_open_blocks(struct mt_ctx *ctx, const char *path,
                                       const struct cmd_blocks *o, int64_t hidden, bool assume_act,
                                       struct mt_model **m);
#endif
