/* card.h: README.md of an output, written from facts alone.
 *
 * A Hugging Face model card: front matter, then what the model was made from and how, its shape,
 * what was measured, how to load it and what to keep in mind. Numbers come from the manifest and
 * from a comparison; nothing is claimed that was not measured, and a card without a comparison says
 * so.
 *
 * `validation` may be NULL. Keys that are used, all optional, named as in compare.h: n_tokens,
 * kl_mean, kl_stderr, kl_p99, ppl_ref, ppl_cand, ppl_ratio, top1; and `domains`, an array of
 * {"name", "kl_mean", "nll_ref", "nll_cand", "n_tokens"}.
 */
#ifndef MT_FLOW_CARD_H
#define MT_FLOW_CARD_H

#include "lib/base/json.h"
#include "lib/base/outdir.h"

struct mt_card_opts {
    const char *title;      /* of the card; NULL: "<architecture> made by moetool" */
    const char *base_model; /* "Org/Name" when it is known, else NULL */
    const char *license;    /* as in the source's own card; NULL: left out */
};

MT_NODISCARD mt_status mt_card_write(struct mt_ctx *ctx, struct mt_outdir *out,
                                     const struct mt_json *manifest,
                                     const struct mt_json *validation,
                                     const struct mt_card_opts *opts);
#endif
