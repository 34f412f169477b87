/* facts.h: what a model is, in words and numbers, for people and for --json. From headers only. */
#ifndef MT_CMD_FACTS_H
#define MT_CMD_FACTS_H

#include "cmd/table.h"
#include "lib/base/json.h"
#include "lib/ir/model.h"

/* "128 experts x 768, top-8, shared 768; sigmoid, scale 2.5, not renormalised, selection bias". */
#define CMD_FFN_WORDS 640
void cmd_ffn_words(const struct mt_ffn *f, char *buf, size_t n);
/* The layer after the last one that has the same FFN as `layer`. */
int cmd_ffn_run_end(const struct mt_model *m, int layer);

/* Two columns: fact, value. Architecture only when the family is known. */
void cmd_facts_table(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_model *m);
void cmd_facts_json(struct mt_json *out, const struct mt_model *m);
#endif
