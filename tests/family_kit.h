/* family_kit.h: models without tensors, for tests of what families hold and write. */
#ifndef MT_TESTS_FAMILY_KIT_H
#define MT_TESTS_FAMILY_KIT_H

#include "lib/ir/family.h"
#include "tests/t.h"

/* A model of the family, 4 layers, with plain hyper-parameters that it can hold; NULL when memory
 * runs out. *Given*. */
struct mt_model *fk_plain(struct t *t, const char *family);
/* What the config of m, written over `source`, reads back as (*given* also after a failure, once it
 * is there); text of it in *json when asked. */
mt_status fk_again(struct t *t, const struct mt_model *m, const char *source, struct mt_model **out,
                   char **json);
/* Whether all that a config tells is the same. */
bool fk_same(const struct mt_model *a, const struct mt_model *b);
#endif
