/* profile_run.h: measuring a profile: one walk over the model's layers with a text.
 *
 * Each window is a batch of its own, so what is measured on it does not depend on the windows
 * beside it; with the exact sums of profile.h that makes profiles of parts add up to the profile
 * of the whole, bit for bit, as long as each window stays whole. Only experts that a token is
 * routed to are seen, unless `all_experts`.
 *
 * Memory: hidden states of all windows (spilled to a scratch file past the budget), one layer's
 * sums for every domain, a window's scratch. Results are handed on part by part when a layer is
 * done. They do not depend on the number of threads or the memory limit. Threads: one caller; the
 * pool inside.
 */
#ifndef MT_FLOW_PROFILE_RUN_H
#define MT_FLOW_PROFILE_RUN_H

#include "kernels/device.h"
#include "lib/flow/profile.h"
#include "lib/text/dataset.h"

/* Windows of several data sets, and where they come from. */
struct mt_profile_text {
    struct mt_dataset windows; /* a view: ids are the sets'; domains ordered by name, as the
                                  profile's */
    struct mt_profile_source *sources;
    int n_sources;
};
/* `samples` windows of the sets (opened with samples 0; they must outlive *out), shared equally
 * between the domains of each set and evenly spaced within one; what a small one leaves over goes
 * to the others. 0: all. */
MT_NODISCARD mt_status mt_profile_text_make(struct mt_ctx *ctx, const struct mt_dataset *sets,
                                            int n_sets, int64_t samples,
                                            struct mt_profile_text *out);
void mt_profile_text_free(struct mt_profile_text *t);

struct mt_profile_opts {
    const struct mt_model *model;
    struct mt_device *dev;
    const struct mt_profile_text *text;
    int64_t seq_len;
    bool x_gram, h_gram; /* of dense layers; x_gram of MoE layers too */
    bool gates;          /* a_sum */
    bool all_experts;
    const char *scratch_dir;
};

/* An empty profile that declares what will be measured. */
MT_NODISCARD mt_status mt_profile_plan(struct mt_ctx *ctx, const struct mt_profile_opts *o,
                                       struct mt_profile **out);
/* Counted bytes that measuring needs at the least. */
MT_NODISCARD mt_status mt_profile_bytes(struct mt_ctx *ctx, const struct mt_profile_opts *o,
                                        struct mt_profile *p, uint64_t *bytes);

/* Called for each part in the order of (layer, statistic, domain), when it is set; it is dropped
 * afterwards. NULL: parts stay in the profile. */
typedef mt_status (*mt_profile_put_fn)(struct mt_ctx *ctx, void *arg, const struct mt_profile *p,
                                       int layer, enum mt_stat s, int domain);
MT_NODISCARD mt_status mt_profile_run(struct mt_ctx *ctx, const struct mt_profile_opts *o,
                                      struct mt_profile *p, mt_profile_put_fn put, void *arg);

#endif
