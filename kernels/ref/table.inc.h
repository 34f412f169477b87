/* table.inc.h: the kernels of this directory as a table for one instruction set.
 *
 * Included once each by kernels_ref.c and its siblings in kernels/cpu, which differ only in the
 * compiler flags of their file name. MTK_TABLE(isa) defines mtk_table_<isa>.
 */
#ifndef MT_KERNELS_REF_TABLE_INC_H
#define MT_KERNELS_REF_TABLE_INC_H

#include "kernels/kernels.h"
#include "kernels/ref/convert.inc.h"
#include "kernels/ref/elementwise.inc.h"
#include "kernels/ref/reduce.inc.h"
#include "kernels/ref/tables.h"

#define MTK_TABLE(isa_)                                                                            \
    const struct mt_kernels mtk_table_##isa_ = {                                                   \
        .isa = #isa_,                                                                              \
        .to_f32 = mtk_to_f32,                                                                      \
        .from_f32 = mtk_from_f32,                                                                  \
        .find_nonfinite = mtk_find_nonfinite,                                                      \
        .dot = mtk_dot,                                                                            \
        .sumsq = mtk_sumsq,                                                                        \
        .axpy = mtk_axpy,                                                                          \
        .act_mul = mtk_act_mul,                                                                    \
        .act_grad = mtk_act_grad,                                                                  \
        .adam = mtk_adam,                                                                          \
        .rmsnorm = mtk_rmsnorm,                                                                    \
        .softmax = mtk_softmax,                                                                    \
        .logsumexp = mtk_logsumexp,                                                                \
        .kl = mtk_kl,                                                                              \
        .argmax = mtk_argmax,                                                                      \
        .gemv = mtk_gemv,                                                                          \
    }
#endif
