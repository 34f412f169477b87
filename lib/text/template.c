#include "lib/text/template.h"

#include "lib/text/stage.h"
#include "lib/text/vocab_table.h"

#include <string.h>

static mt_status template_special(struct mt_ctx *ctx, const struct mt_json *specials,
                                  const struct mt_json *piece, struct mt_ids *out)
{
    const char *name = mt_json_text(mt_json_get(piece, "id"));
    const struct mt_json *ids =
        name == NULL ? NULL : mt_json_get(mt_json_get(specials, name), "ids");

    if (mt_json_kind(ids) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "special token \"%.60s\" is not in \"special_tokens\"",
                       name != NULL ? name : "(none)");
    for (const struct mt_json *j = mt_json_first(ids); j != NULL; j = mt_json_next(j)) {
        int64_t id;
        if (!mt_json_integer(j, &id) || id < 0 || id > MT_TOKEN_ID_MAX)
            return mt_fail(ctx, MT_E_FORMAT, "special token \"%.60s\": an id is not within 0..%d",
                           name, MT_TOKEN_ID_MAX);
        MT_TRY(mt_ids_push(ctx, out, (int32_t)id));
    }
    return MT_OK;
}

/* In a Sequence of processors each template encloses what the earlier ones made: `before` is
 * gathered afresh and put in front. */
static mt_status template_single(struct mt_ctx *ctx, const struct mt_json *j, struct mt_template *t,
                                 struct mt_ids *before)
{
    const struct mt_json *specials = mt_json_get(j, "special_tokens");
    const struct mt_json *single = mt_json_get(j, "single");
    int n_sequences = 0;

    if (mt_json_kind(single) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "\"single\" is not an array");
    for (const struct mt_json *p = mt_json_first(single); p != NULL; p = mt_json_next(p)) {
        const struct mt_json *special = mt_json_get(p, "SpecialToken");
        const char *sequence = mt_json_text(mt_json_get(mt_json_get(p, "Sequence"), "id"));
        if (special != NULL)
            MT_TRY(template_special(ctx, specials, special, n_sequences == 0 ? before : &t->after));
        else if (sequence != NULL && strcmp(sequence, "A") == 0)
            n_sequences++;
        else
            return mt_fail(ctx, MT_E_FORMAT,
                           "\"single\" holds neither a SpecialToken nor the Sequence A");
    }
    if (n_sequences != 1)
        return mt_fail(ctx, MT_E_FORMAT, "\"single\" names the sequence %d times", n_sequences);
    for (size_t i = 0; i < t->before.n; i++)
        MT_TRY(mt_ids_push(ctx, before, t->before.v[i]));
    return MT_OK;
}

/* A field ["[SEP]", 102]. */
static mt_status template_pair(struct mt_ctx *ctx, const struct mt_json *j, const char *key,
                               struct mt_ids *out)
{
    const struct mt_json *pair = mt_json_get(j, key), *name = mt_json_first(pair);
    int64_t id;

    if (mt_json_kind(pair) != MT_JSON_ARRAY || mt_json_count(pair) != 2 ||
        mt_json_text(name) == NULL || !mt_json_integer(mt_json_next(name), &id) || id < 0 ||
        id > MT_TOKEN_ID_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "\"%s\" is not a token and its id", key);
    return mt_ids_push(ctx, out, (int32_t)id);
}

static mt_status template_bert(struct mt_ctx *ctx, const struct mt_json *j, struct mt_template *t,
                               struct mt_ids *before)
{
    MT_TRY(template_pair(ctx, j, "cls", before));
    for (size_t i = 0; i < t->before.n; i++)
        MT_TRY(mt_ids_push(ctx, before, t->before.v[i]));
    return template_pair(ctx, j, "sep", &t->after);
}

static mt_status template_stage(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                                void *arg)
{
    static const char *const known[] = {"type", "single", "pair", "special_tokens", NULL};
    static const char *const bytes[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                        NULL};
    static const char *const bert[] = {"type", "sep", "cls", "trim_offsets", "add_prefix_space",
                                       NULL};
    bool pair = strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0;
    struct mt_template *t = arg;
    struct mt_ids before = {0};
    mt_status st;

    if (strcmp(type, "ByteLevel") == 0)
        return mt_stage_fields(ctx, j, type, bytes);
    if (!pair && strcmp(type, "TemplateProcessing") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "this post-processor is not supported");
    MT_TRY(mt_stage_fields(ctx, j, type, pair ? bert : known));
    st = pair ? template_bert(ctx, j, t, &before) : template_single(ctx, j, t, &before);
    mt_ids_free(&t->before);
    t->before = before;
    return st;
}

mt_status mt_template_open(struct mt_ctx *ctx, const struct mt_json *j, struct mt_template *t)
{
    return mt_stage_each(ctx, j, "post_processor", "processors", template_stage, t);
}

void mt_template_end(struct mt_template *t)
{
    mt_ids_free(&t->before);
    mt_ids_free(&t->after);
}
