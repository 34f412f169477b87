#include "lib/text/stage.h"

#include <string.h>

mt_status mt_stage_fields(struct mt_ctx *ctx, const struct mt_json *obj, const char *what,
                          const char *const *known)
{
    for (const struct mt_json *j = mt_json_first(obj); j != NULL; j = mt_json_next(j)) {
        const char *const *k = known;
        while (*k != NULL && strcmp(*k, mt_json_key(j)) != 0)
            k++;
        if (*k == NULL)
            return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: field \"%.60s\" is not supported", what,
                           mt_json_key(j));
    }
    return MT_OK;
}

mt_status mt_stage_type(struct mt_ctx *ctx, const struct mt_json *obj, const char *what,
                        const char **type)
{
    if (mt_json_kind(obj) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "%s is not an object", what);
    return mt_stage_text(ctx, obj, what, "type", type);
}

mt_status mt_stage_text(struct mt_ctx *ctx, const struct mt_json *obj, const char *what,
                        const char *key, const char **out)
{
    *out = mt_json_text(mt_json_get(obj, key));
    if (*out == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "%s: \"%s\" is missing or not a string", what, key);
    return MT_OK;
}

mt_status mt_stage_pattern(struct mt_ctx *ctx, const struct mt_json *obj, const char *what,
                           bool *is_regex, const char **out)
{
    const struct mt_json *p = mt_json_get(obj, "pattern");
    const char *plain = mt_json_text(mt_json_get(p, "String"));

    *out = plain != NULL ? plain : mt_json_text(mt_json_get(p, "Regex"));
    *is_regex = plain == NULL;
    if (mt_json_kind(p) != MT_JSON_OBJECT || mt_json_count(p) != 1 || *out == NULL)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: \"pattern\" is not {\"String\": ...} or {\"Regex\": "
                       "...}",
                       what);
    if (*out[0] == '\0')
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: an empty pattern is not supported", what);
    return MT_OK;
}

mt_status mt_stage_vocab(struct mt_ctx *ctx, const struct mt_json *vocab, struct mt_vocab_table *t)
{
    size_t n = 0, n_bytes = 0;

    if (mt_json_kind(vocab) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "model: \"vocab\" must be an object of tokens and ids");
    for (const struct mt_json *j = mt_json_first(vocab); j != NULL; j = mt_json_next(j)) {
        n++;
        n_bytes += strlen(mt_json_key(j));
    }
    MT_TRY(mt_vocab_reserve(ctx, t, n, n_bytes));
    for (const struct mt_json *j = mt_json_first(vocab); j != NULL; j = mt_json_next(j)) {
        const char *token = mt_json_key(j);
        int64_t id;
        if (!mt_json_integer(j, &id))
            return mt_fail(ctx, MT_E_FORMAT, "model: the id of token \"%.60s\" is not an integer",
                           token);
        MT_TRY(mt_wrap(ctx, mt_vocab_add(ctx, t, token, strlen(token), id), "model"));
    }
    return MT_OK;
}

mt_status mt_stage_each(struct mt_ctx *ctx, const struct mt_json *obj, const char *what,
                        const char *list, mt_stage_fn fn, void *arg)
{
    const char *const known[] = {"type", list, NULL};
    const struct mt_json *stages;
    const char *type = "";

    if (mt_json_kind(obj) == MT_JSON_ABSENT || mt_json_kind(obj) == MT_JSON_NULL)
        return MT_OK;
    MT_TRY(mt_stage_type(ctx, obj, what, &type));
    if (strcmp(type, "Sequence") != 0)
        return mt_wrap(ctx, fn(ctx, obj, type, arg), "%s \"%.60s\"", what, type);
    MT_TRY(mt_stage_fields(ctx, obj, what, known));
    stages = mt_json_get(obj, list);
    if (mt_json_kind(stages) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "%s: \"%s\" is not an array", what, list);
    for (const struct mt_json *j = mt_json_first(stages); j != NULL; j = mt_json_next(j))
        MT_TRY(mt_stage_each(ctx, j, what, list, fn, arg));
    return MT_OK;
}
