/* pre_table.h: what the names in tokenizer.ggml.pre stand for. GGUF files name the way text is
 * split, and do not say it; the table says what the tokenizer.json of the models behind the names
 * says. Threads: safe. */
#ifndef MT_TEXT_PRE_TABLE_H
#define MT_TEXT_PRE_TABLE_H

#include <stdbool.h>

#define MT_PRE_REGEX_MAX 7

struct mt_pre {
    const char *const *names;            /* NULL-ended */
    const char *regex[MT_PRE_REGEX_MAX]; /* one after the other, matches isolated; NULL-ended */
    bool nfc, ignore_merges, add_bos;
};

/* NULL: not known. */
const struct mt_pre *mt_pre_find(const char *name);
/* The first name whose splits are these, NULL-ended; one with these settings where there is one.
 * NULL: none. */
const char *mt_pre_name(const char *const *regex, bool nfc, bool ignore_merges);
#endif
