#include "lib/text/pre_table.h"

#include "tests/t.h"

T_TEST(splits_find_their_name)
{
    static const char *const names[] = {"default",     "gpt-2",     "llama-bpe", "dbrx",
                                        "qwen2",       "stablelm2", "starcoder", "deepseek-llm",
                                        "deepseek-v3", "tekken",    "gpt-4o",    "command-r",
                                        "mpt",         "seed-coder"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct mt_pre *p = mt_pre_find(names[i]);
        const char *regex[MT_PRE_REGEX_MAX + 1] = {NULL};

        T_CHECK(t, p != NULL);
        for (int k = 0; k < MT_PRE_REGEX_MAX; k++)
            regex[k] = p->regex[k];
        T_EQ_STR(t, mt_pre_name(regex, p->nfc, p->ignore_merges), names[i]);
    }
}

T_TEST(other_splits_have_none)
{
    const char *const one[] = {"\\p{N}", NULL}, *const more[] = {"\\p{N}", "x", NULL};
    const char *const none[] = {NULL};

    T_CHECK(t, mt_pre_name(one, false, false) == NULL);
    T_CHECK(t, mt_pre_name(more, false, false) == NULL);
    T_CHECK(t, mt_pre_name(none, false, false) == NULL);
}

/* Settings choose between names of the same splits, but do not decide whether there is one. */
T_TEST(another_setting_is_no_other_split)
{
    const char *const gpt2[] = {mt_pre_find("gpt-2")->regex[0], NULL};

    T_EQ_STR(t, mt_pre_name(gpt2, false, false), "gpt-2");
    T_EQ_STR(t, mt_pre_name(gpt2, true, false), "mpt");
    T_EQ_STR(t, mt_pre_name(gpt2, true, true), "gpt-2");
}
