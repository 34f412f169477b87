/* check_kit.h: what an engine is told about a model, for tests of the rules in formats/check*.c. */
#ifndef MT_TESTS_CHECK_KIT_H
#define MT_TESTS_CHECK_KIT_H

#include "formats/check.h"
#include "tests/t.h"

/* Checks the model at `path` for one engine and fails the test unless all findings are of the rules
 * named ("a b"; "": none at all), each with the severity, and every rule has one at least. */
void ck_only(struct t *t, const char *path, enum mt_engine e, enum mt_severity severity,
             const char *rules);
/* The same, among whatever else there may be. */
void ck_has(struct t *t, const char *path, enum mt_engine e, enum mt_severity severity,
            const char *rule);
/* Replaces every occurrence of a text in a file (any length); fails the test when there is none. */
void ck_edit(struct t *t, const char *path, const char *from, const char *to);
#endif
