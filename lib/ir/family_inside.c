/* Which family a config means, also that of a text model inside another (vision and text in one):
 * its config stands under text_config, and its tensors have a prefix. Tensors of the other parts
 * stay `other` and travel along. */
#include "lib/ir/family.h"
#include "lib/ir/family_impl.h"

#include <stdio.h>
#include <string.h>

/* By model_type, or by the class name where a config has only that. */
static const struct mt_family *inside_find(const struct mt_json *config, const char **type)
{
    const struct mt_family *const *all = mt_family_all();
    const char *arch = mt_json_text(mt_json_first(mt_json_get(config, "architectures")));

    *type = mt_json_text(mt_json_get(config, "model_type"));
    if (*type != NULL)
        return mt_family_find(*type);
    *type = arch;
    for (size_t i = 0; arch != NULL && all[i] != NULL; i++)
        if (strcmp(all[i]->architecture, arch) == 0)
            return all[i];
    return NULL;
}

mt_status family_of_config(struct mt_ctx *ctx, struct mt_model *m, struct mt_json *config,
                           const char **type, const struct mt_family **out, struct mt_json **own)
{
    struct mt_json *text = mt_json_get(config, "text_config");
    const struct mt_family *f;
    struct mt_family *copy;
    const char *inner;

    *own = config;
    *out = inside_find(config, type);
    if (*out != NULL || mt_json_kind(text) != MT_JSON_OBJECT)
        return MT_OK;
    f = inside_find(text, &inner);
    if (f == NULL || f->wraps || f->only_blocks)
        return MT_OK;
    /* Nobody writes such a config anew: the model is copied, or its blocks are replaced. */
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *copy, &copy));
    *copy = *f;
    copy->inside = true;
    copy->can_hold = NULL;
    copy->write_config = NULL;
    *out = copy;
    *own = text;
    return MT_OK;
}

const char *family_inner_name(const struct mt_model *m, const char *name, char buf[FAMILY_NAME_MAX])
{
    static const char outer[] = "language_model.", second[] = "model.language_model.";
    const char *rest;

    if (m->base == NULL || !m->base->inside)
        return name;
    if (strncmp(name, second, sizeof second - 1) == 0)
        rest = name + sizeof second - 1;
    else if (strncmp(name, outer, sizeof outer - 1) == 0)
        rest = name + sizeof outer - 1;
    else
        return name;
    if (strncmp(rest, "model.", 6) == 0 || strncmp(rest, "lm_head.", 8) == 0 ||
        strncmp(rest, "transformer.", 12) == 0)
        return rest;
    return (size_t)snprintf(buf, FAMILY_NAME_MAX, "model.%s", rest) < FAMILY_NAME_MAX ? buf : name;
}
