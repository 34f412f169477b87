/* identity.h: what a model is, whatever its path and shards; see mt_model_identity in walk.h. */
#ifndef MT_FLOW_IDENTITY_H
#define MT_FLOW_IDENTITY_H

#include "lib/ir/model.h"

/* SHA-256 over names, dtypes and shapes of records in their order, no bytes: what a
 * writer lays files out by. */
void mt_model_layout(struct mt_tensor *const *records, size_t n, char hex[65]);
#endif
