/* stage.h: reading the typed objects of a tokenizer.json ("normalizer", "pre_tokenizer",
 * "decoder", ...), where what is not known is refused by name. Threads: safe. */
#ifndef MT_TEXT_STAGE_H
#define MT_TEXT_STAGE_H

#include "lib/base/json.h"
#include "lib/text/vocab_table.h"

/* Every field of obj must be in the NULL-ended list. */
MT_NODISCARD mt_status mt_stage_fields(struct mt_ctx *ctx, const struct mt_json *obj,
                                       const char *what, const char *const *known);
/* The text of "type"; obj must be an object. */
MT_NODISCARD mt_status mt_stage_type(struct mt_ctx *ctx, const struct mt_json *obj,
                                     const char *what, const char **type);
/* A field that must be there and be a string. */
MT_NODISCARD mt_status mt_stage_text(struct mt_ctx *ctx, const struct mt_json *obj,
                                     const char *what, const char *key, const char **out);
/* A field "pattern" of {"String": s} or {"Regex": s}. */
MT_NODISCARD mt_status mt_stage_pattern(struct mt_ctx *ctx, const struct mt_json *obj,
                                        const char *what, bool *is_regex, const char **out);

/* Fills a vocabulary from a model's object of tokens and ids. */
MT_NODISCARD mt_status mt_stage_vocab(struct mt_ctx *ctx, const struct mt_json *vocab,
                                      struct mt_vocab_table *out);

/* Calls fn for obj, or for the elements of a "Sequence" (their list is the field `list`), also of
 * nested ones. A null obj has no stages. */
typedef mt_status (*mt_stage_fn)(struct mt_ctx *ctx, const struct mt_json *obj, const char *type,
                                 void *arg);
MT_NODISCARD mt_status mt_stage_each(struct mt_ctx *ctx, const struct mt_json *obj,
                                     const char *what, const char *list, mt_stage_fn fn, void *arg);
#endif
