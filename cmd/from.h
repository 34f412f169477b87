/* from.h: --from [NAME=]MODEL of commands that make one model of several. */
#ifndef MT_CMD_FROM_H
#define MT_CMD_FROM_H

#include "cmd/blocks.h"

struct cmd_from {
    int n;
    struct mt_model *m[MT_STRLIST_MAX];
    struct mt_sibling siblings[MT_STRLIST_MAX];
    char names[MT_STRLIST_MAX][64];
};

/* For a command whose pass is convert-ffn: opens all of `list` as src was opened and hangs them on
 * src. A path that exists is one, also with
 * '=' in it; without a name it is the path's last component. */
MT_NODISCARD mt_status cmd_from_open(struct mt_ctx *ctx, const struct cmd_args *a,
                                     const struct mt_strlist *list, const struct cmd_blocks *blocks,
                                     struct mt_model *src, struct cmd_from *out);
/* After src, which borrows from it. */
void cmd_from_free(struct cmd_from *f);
#endif
