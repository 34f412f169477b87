/* tap.h: looking at what a layer computes on its way, for calibration.
 *
 * A tap hung on an open layer is shown the rows at each point below while mt_run_attn and
 * mt_run_ffn go through it. Without one nothing is done: a pointer is compared. Rows lie on the
 * device and are valid during the call; the tap downloads what it wants and must not run the
 * layer. Experts come in the order of their numbers, but with little memory, or when they are of
 * different widths, not all in one call; HIDDEN of some experts comes before OUT of the same.
 */
#ifndef MT_RUN_TAP_H
#define MT_RUN_TAP_H

#include "lib/run/runner.h"

enum mt_tap_point {
    MT_TAP_ATTN_IN,       /* normed inputs of q, k and v [m, hidden] */
    MT_TAP_ATTN_OUT,      /* inputs of o_proj [m, width] */
    MT_TAP_GATE,          /* Gx of a dense gated FFN, bias included [m, D] */
    MT_TAP_HIDDEN,        /* act(Gx)*(Ux) of a dense FFN [m, D] */
    MT_TAP_SHARED_HIDDEN, /* of the shared expert [m, S] */
    MT_TAP_EXPERT_HIDDEN, /* of experts [first, end), all of one width above 0: [m, I] */
    MT_TAP_EXPERT_OUT,    /* their outputs, not multiplied by weights: [m, hidden] */
    MT_TAP_EXPERT_ALL,    /* as OUT, of mt_run_ffn_all_experts */
};

struct mt_tap_rows {
    enum mt_tap_point point;
    mt_buf rows;
    int64_t m, width;
    /* Experts only: row r belongs to expert e when offset[e] <= r0 + r < offset[e + 1], where r0 =
     * offset[first]; token_of_row[r0 + r] is its token. `weight` of routed rows is that of
     * mt_run_routing: slot s of row_of_slot[s] == r0 + r. */
    int first, end;
    const int64_t *offset;
    const int32_t *token_of_row, *row_of_slot;
};

struct mt_tap {
    void *arg;
    mt_status (*see)(struct mt_ctx *ctx, void *arg, const struct mt_tap_rows *rows);
};

/* NULL takes it off. Borrowed until then or until the layer is closed. */
void mt_run_layer_tap(struct mt_run_layer *l, const struct mt_tap *tap);

/* Every routed expert on every token of n[m, hidden], shown to the tap as MT_TAP_EXPERT_ALL in
 * groups of tokens that fit the scratch of an ordinary batch. Costs n_experts / k forward passes of
 * the experts. After it mt_run_routing is empty. */
MT_NODISCARD mt_status mt_run_ffn_all_experts(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n,
                                              int64_t m);
#endif
