#include "tests/tiny.h"

T_TEST(every_family_opens)
{
    const struct mt_family *const *all = mt_family_all();

    for (int i = 0; all[i] != NULL; i++) {
        const char *dir = tiny_write(t, all[i]->name, &(struct tiny){.family = all[i]->name});
        struct mt_model *m = tiny_open(t, dir);

        if (m == NULL)
            T_FAIL(t, "%s: %s", all[i]->name, mt_error(&t->ctx));
        T_CHECK(t, m->family == all[i]);
        mt_model_free(m);
    }
}
