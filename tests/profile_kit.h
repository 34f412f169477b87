/* profile_kit.h: what the tests of profiles share: a fixed text that can be cut up, one call to
 * measure.
 */
#ifndef MT_TESTS_PROFILE_KIT_H
#define MT_TESTS_PROFILE_KIT_H

#include "lib/flow/profile_run.h"
#include "tests/t.h"

#define PROFILE_KIT_WINDOWS 6
#define PROFILE_KIT_WINDOW_MAX 24

struct profile_kit_text {
    int32_t ids[PROFILE_KIT_WINDOWS][PROFILE_KIT_WINDOW_MAX];
    struct mt_window w[PROFILE_KIT_WINDOWS];
    struct mt_dataset set;
    char *domains[1];
};

/* Windows [first, first + n) of one fixed text, as a set of its own; `domain` is borrowed. */
void profile_kit_text(struct profile_kit_text *x, const char *domain, int first, int n);

/* extras: Gram matrices and every expert on every token. End *out with mt_profile_free. */
mt_status profile_kit_measure(struct mt_ctx *ctx, const struct mt_model *m, const char *device,
                              const struct mt_dataset *sets, int n_sets, bool extras,
                              struct mt_profile **out);
#endif
