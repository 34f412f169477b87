/* family_impl.h: between family.c and family_cut.c. */
#ifndef MT_IR_FAMILY_IMPL_H
#define MT_IR_FAMILY_IMPL_H

#include "lib/ir/family.h"

/* Whether `name` is of the row's pattern; fills the role. */
bool family_match(const struct mt_name_row *row, const char *name, struct mt_role *role);

/* Lists the parts of a tensor that holds several roles in its place; *cut tells whether it was one.
 * What does not fit the hyper-parameters stays as it is, so that verification names what lacks. */
mt_status family_cut(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t, bool *cut);
#endif
