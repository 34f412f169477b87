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

T_TEST(golden_models_open)
{
    static const char *const names[] = {"llama",     "llama-linear", "llama-dynamic", "llama-yarn",
                                        "mistral",   "qwen2",        "qwen3",         "mixtral",
                                        "qwen3_moe", "glm4_moe",     "glm4_moe-plain"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char dir[128];
        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        struct mt_model *m = tiny_open(t, dir);

        if (m == NULL)
            T_FAIL(t, "%s: %s", names[i], mt_error(&t->ctx));
        mt_model_free(m);
    }
}
