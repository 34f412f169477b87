/* json.h: JSON read with care and written in order.
 *
 * The parser is our own, because what we rewrite must come back as it was and what we read comes
 * from strangers: cJSON keeps duplicate keys, cuts strings at \u0000, takes any bytes for UTF-8,
 * looks names up without case, and cannot tell 1 from 1.0 (loaders with typed configs can). Trees
 * are built from what json_scan.h scans, so text must be RFC 8259 and UTF-8; duplicate keys (found
 * in n log n), \u0000, half surrogate pairs and nesting deeper than 64 are refused; integers beyond
 * 2^53 or with a fraction are refused when read as integers. NaN and Infinity, which Python writes,
 * are carried along but never read as numbers. Messages give line and column.
 *
 * A tree is *given* by parse/new and ended by mt_json_free on its root; children are borrowed.
 * Reading functions accept a NULL node and treat it as absent. Lookup by key is linear: walk large
 * objects with first/next. What parse makes is charged to the budget (about 80 bytes and the text
 * for each value) until its root is freed; trees made by setters, which have no context, are not.
 * Large files of numbers have parsers of their own. Threads: one per tree; reading is safe from
 * any.
 */
#ifndef MT_BASE_JSON_H
#define MT_BASE_JSON_H

#include "lib/base/ctx.h"

#include <stddef.h>

struct mt_json;

/* `what` names the text in messages ("config.json"). Trailing garbage is refused. */
MT_NODISCARD mt_status mt_json_parse(struct mt_ctx *ctx, const char *text, size_t n,
                                     const char *what, struct mt_json **out);
/* Reads and parses a file of at most max_bytes. */
MT_NODISCARD mt_status mt_json_read(struct mt_ctx *ctx, const char *path, size_t max_bytes,
                                    struct mt_json **out);
void mt_json_free(struct mt_json *root);
MT_NODISCARD mt_status mt_json_copy(struct mt_ctx *ctx, const struct mt_json *j,
                                    struct mt_json **out);

enum mt_json_kind {
    MT_JSON_ABSENT,
    MT_JSON_NULL,
    MT_JSON_BOOL,
    MT_JSON_NUMBER,
    MT_JSON_STRING,
    MT_JSON_ARRAY,
    MT_JSON_OBJECT
};
enum mt_json_kind mt_json_kind(const struct mt_json *j);

struct mt_json *mt_json_get(const struct mt_json *obj, const char *key); /* NULL when absent */
struct mt_json *mt_json_first(const struct mt_json *j); /* children of an array or object */
struct mt_json *mt_json_next(const struct mt_json *j);
const char *mt_json_key(const struct mt_json *j); /* its name inside its object */
size_t mt_json_count(const struct mt_json *j);

/* The value of a node itself; NULL / false when it is of another kind. */
const char *mt_json_text(const struct mt_json *j);
bool mt_json_number(const struct mt_json *j, double *out);
bool mt_json_integer(const struct mt_json *j, int64_t *out); /* whole and within +-2^53 */
bool mt_json_truth(const struct mt_json *j, bool *out);

/* obj[key] with a default when absent or null; MT_E_FORMAT naming the key when of another kind. */
MT_NODISCARD mt_status mt_json_get_int(struct mt_ctx *ctx, const struct mt_json *obj,
                                       const char *key, int64_t dflt, int64_t *out);
MT_NODISCARD mt_status mt_json_get_num(struct mt_ctx *ctx, const struct mt_json *obj,
                                       const char *key, double dflt, double *out);
MT_NODISCARD mt_status mt_json_get_bool(struct mt_ctx *ctx, const struct mt_json *obj,
                                        const char *key, bool dflt, bool *out);
MT_NODISCARD mt_status mt_json_get_str(struct mt_ctx *ctx, const struct mt_json *obj,
                                       const char *key, const char *dflt, const char **out);

/* Writing. Setters replace a key of the same name in place, else append. On memory failure the
 * tree is marked broken and mt_json_print fails: no need to check each call. */
struct mt_json *mt_json_new_object(void);
struct mt_json *mt_json_new_array(void);
void mt_json_set(struct mt_json *obj, const char *key, struct mt_json *value /* taken */);
void mt_json_set_int(struct mt_json *obj, const char *key, int64_t v);
void mt_json_set_num(struct mt_json *obj, const char *key, double v); /* NaN, Inf become null */
void mt_json_set_bool(struct mt_json *obj, const char *key, bool v);
void mt_json_set_str(struct mt_json *obj, const char *key, const char *v);
void mt_json_set_null(struct mt_json *obj, const char *key);
void mt_json_remove(struct mt_json *obj, const char *key);
struct mt_json *mt_json_set_object(struct mt_json *obj, const char *key); /* new child, borrowed */
struct mt_json *mt_json_set_array(struct mt_json *obj, const char *key);
void mt_json_add(struct mt_json *arr, struct mt_json *value /* taken */);
void mt_json_add_int(struct mt_json *arr, int64_t v);
void mt_json_add_num(struct mt_json *arr, double v);
void mt_json_add_str(struct mt_json *arr, const char *v);
struct mt_json *mt_json_add_object(struct mt_json *arr);

/* Two-space indented text with a final newline; *given*. Arrays of numbers stand on one line.
 * Numbers print with the fewest digits that read back equal; those set or read as fractions keep a
 * point or an exponent. */
MT_NODISCARD mt_status mt_json_print(struct mt_ctx *ctx, const struct mt_json *j, char **text,
                                     size_t *n);
#endif
