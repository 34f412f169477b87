/* template.h: the "post_processor" of a tokenizer.json as far as one sequence's ids go: what stands
 * before and behind it. TemplateProcessing (its "single" template), BertProcessing,
 * RobertaProcessing, ByteLevel (which changes offsets only) and Sequences of them.
 *
 * Ownership: mt_template_open fills a zeroed struct, mt_template_end ends it also after a failure.
 * Threads: read-only once open.
 */
#ifndef MT_TEXT_TEMPLATE_H
#define MT_TEXT_TEMPLATE_H

#include "lib/base/json.h"
#include "lib/text/tokenizer.h"

struct mt_template {
    struct mt_ids before, after;
};
MT_NODISCARD mt_status mt_template_open(struct mt_ctx *ctx, const struct mt_json *j,
                                        struct mt_template *out);
void mt_template_end(struct mt_template *t);
#endif
