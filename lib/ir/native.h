/* native.h: one layer's feed-forward block as an object of the native layout's config.
 *
 * The layout (docs/formats.md, "The native layout") is a safetensors directory whose config.json
 * has model_type "moetool": all but the feed-forward blocks is described by the config of another
 * family under `base`, and each block by one object of `layers`. This file is that object, both
 * ways: what mt_ffn says is written and read back without loss. Keys nobody knows, values of other
 * types, lists of other lengths and numbers out of range are MT_E_FORMAT naming the key: an object
 * that is understood in part would compute something else.
 */
#ifndef MT_IR_NATIVE_H
#define MT_IR_NATIVE_H

#include "lib/ir/model.h"

#define MT_NATIVE_VERSION 1 /* of the schema; later ones are refused */
#define MT_NATIVE_ROUTER_WIDTH_MAX ((int64_t)1 << 20)

/* `j` is untrusted; lists live in the arena of m. */
MT_NODISCARD mt_status mt_native_read_ffn(struct mt_ctx *ctx, struct mt_model *m,
                                          const struct mt_json *j, struct mt_ffn *out);
/* Into the empty object `out`; keys at their defaults are left out where that reads well. */
void mt_native_write_ffn(const struct mt_ffn *f, struct mt_json *out);
#endif
