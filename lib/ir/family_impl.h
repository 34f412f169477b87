/* family_impl.h: between family.c, family_cut.c and family_quant.c. */
#ifndef MT_IR_FAMILY_IMPL_H
#define MT_IR_FAMILY_IMPL_H

#include "lib/ir/family.h"

#define FAMILY_NAME_MAX 256

/* Whether `name` is of the row's pattern; fills the role. */
bool family_match(const struct mt_name_row *row, const char *name, struct mt_role *role);

/* The pattern with a role's numbers in it, in the arena of m. */
MT_NODISCARD mt_status family_print_pattern(struct mt_ctx *ctx, struct mt_model *m,
                                            const char *pattern, struct mt_role role,
                                            const char **name);

/* family_inside.c: the family of a config, its word for it, and the object that family reads:
 * `config`, or the text_config of a model of several parts, whose family is then a copy in m's
 * arena that is `inside`. *out NULL: unknown. */
MT_NODISCARD mt_status family_of_config(struct mt_ctx *ctx, struct mt_model *m,
                                        struct mt_json *config, const char **type,
                                        const struct mt_family **out, struct mt_json **own);
/* A tensor's name without the prefix that models inside others have; into buf, or `name`. */
const char *family_inner_name(const struct mt_model *m, const char *name,
                              char buf[FAMILY_NAME_MAX]);

/* Lists the parts of a tensor that holds several roles in its place; *cut tells whether it was one.
 * What does not fit the hyper-parameters stays as it is, so that verification names what lacks. */
mt_status family_cut(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t, bool *cut);

/* family_quant.c: FP8 weights that have scales become recipes of BF16, what their publisher's own
 * conversion gives; the scales are unlisted. */
MT_NODISCARD mt_status family_read_fp8(struct mt_ctx *ctx, struct mt_model *m);
/* One tensor of MXFP4 blocks and its scales become BF16 records by expert and role (exact). */
MT_NODISCARD mt_status family_cut_mx(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                     const struct mt_fused_row *row, struct mt_role role,
                                     bool *cut);
/* Unlists the scales that family_cut_mx used. */
void family_drop_scales(struct mt_model *m);
#endif
