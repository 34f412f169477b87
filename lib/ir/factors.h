/* factors.h: a matrix that is stored in parts, seen as one.
 *
 * Experts of the native layout may be stored as factors or as planes of bits (ffn.h). Whoever
 * wants the matrix gets a record that is evaluated row by row from its parts, like any recipe.
 */
#ifndef MT_IR_FACTORS_H
#define MT_IR_FACTORS_H

#include "lib/ir/model.h"

/* True when the matrix of `role` (part WEIGHT) stands in m in parts and not whole. */
bool mt_matrix_in_parts(const struct mt_model *m, struct mt_role role);

/* The matrix of `role`: the record itself, or one of dtype F32 or F64 that is made of its parts.
 * That one and its lists live in `arena`; it borrows the parts. F64 is summed in fp64, F32
 * multiplied by BLAS. Parts of shapes that do not fit, and row numbers that do not rise within the
 * matrix, are MT_E_FORMAT naming the tensor; nothing at all is MT_E_ABSENT. */
MT_NODISCARD mt_status mt_matrix_of(struct mt_ctx *ctx, const struct mt_model *m,
                                    struct mt_arena *arena, struct mt_role role,
                                    enum mt_dtype dtype, const struct mt_tensor **out);
#endif
