/* identity.h: what a model is, whatever its path and shards; see mt_model_identity in walk.h. */
#ifndef MT_FLOW_IDENTITY_H
#define MT_FLOW_IDENTITY_H

#include "lib/ir/model.h"

/* SHA-256 over names, dtypes and shapes of the listed records in their order, no bytes: what a
 * writer lays files out by. */
void mt_model_layout(const struct mt_model *m, char hex[65]);
#endif
