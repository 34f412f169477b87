#include "cmd/blocks.h"

#include "formats/table.h"

const char *const cmd_blocks_layouts[] = {"auto", "out-in", "in-out", NULL};

mt_status cmd_open_blocks(struct mt_ctx *ctx, const char *path, const struct cmd_blocks *o,
                          int64_t hidden, bool assume_act, struct mt_model **m)
{
    const struct mt_blocks_ask ask = {.pattern = o->ffn,
                                      .act = o->act,
                                      .layout = (enum mt_blocks_layout)o->layout,
                                      .hidden = hidden,
                                      .assume_act = assume_act};
    mt_status st;

    if (o->ffn == NULL) {
        if (o->act != NULL || o->layout != MT_BLOCKS_AUTO)
            return mt_fail(ctx, MT_E_OPTION, "--act and --ffn-layout belong to --ffn PATTERN");
        return cmd_open_model(ctx, path, m);
    }
    MT_TRY(mt_model_open_lenient(ctx, mt_formats, path, m));
    st = mt_blocks_bind(ctx, *m, &ask);
    if (st != MT_OK) {
        mt_model_free(*m);
        *m = NULL;
    }
    return st;
}
