#include "lib/ir/family.h"
#include "lib/ir/family_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct mt_family *const family_all[] = {
#define MT_FAMILY(name) &mt_family_##name,
#include "lib/ir/family.def"
#undef MT_FAMILY
    NULL,
};

const struct mt_family *const *mt_family_all(void)
{
    return family_all;
}

const struct mt_family *mt_family_find(const char *model_type)
{
    for (size_t i = 0; family_all[i] != NULL; i++)
        if (strcmp(family_all[i]->name, model_type) == 0)
            return family_all[i];
    return NULL;
}

/* Digits without leading zeros, at most nine of them; NULL when there is no such number. */
static const char *family_number(const char *s, int32_t *out)
{
    int n = 0;

    *out = 0;
    for (; s[n] >= '0' && s[n] <= '9'; n++) {
        if (n == 9)
            return NULL;
        *out = *out * 10 + (s[n] - '0');
    }
    return n == 0 || (s[0] == '0' && n > 1) ? NULL : s + n;
}

bool family_match(const struct mt_name_row *row, const char *name, struct mt_role *role)
{
    *role =
        mt_role(row->kind, -1, row->expert == MT_NAME_SHARED ? MT_EXPERT_SHARED : MT_EXPERT_NONE);
    role->part = row->part;
    for (const char *p = row->pattern; *p != 0; p++) {
        if (*p != '%') {
            if (*name++ != *p)
                return false;
            continue;
        }
        p++;
        name = family_number(name, *p == 'l' ? &role->layer : &role->expert);
        if (name == NULL)
            return false;
    }
    return *name == 0;
}

bool mt_family_parse(const struct mt_family *f, const char *name, struct mt_role *role)
{
    for (const struct mt_name_row *row = f->names; row->pattern != NULL; row++)
        if (family_match(row, name, role))
            return true;
    return false;
}

/* Blocks and routers: what the native layout names itself. */
static bool family_is_block(enum mt_role_kind kind)
{
    return kind == MT_ROLE_FFN_GATE || kind == MT_ROLE_FFN_UP || kind == MT_ROLE_FFN_DOWN ||
           mt_role_is_routing(kind);
}

static bool family_row_is(const struct mt_name_row *row, struct mt_role role)
{
    enum mt_name_expert expert = role.expert == MT_EXPERT_SHARED ? MT_NAME_SHARED
                                 : role.expert >= 0              ? MT_NAME_ROUTED
                                                                 : MT_NAME_NO_EXPERT;

    return row->kind == role.kind && row->part == role.part && row->expert == expert &&
           (strstr(row->pattern, "%l") != NULL) == (role.layer >= 0);
}

mt_status family_print_pattern(struct mt_ctx *ctx, struct mt_model *m, const char *pattern,
                               struct mt_role role, const char **name)
{
    char buf[FAMILY_NAME_MAX];
    size_t n = 0;

    for (const char *p = pattern; *p != 0; p++) {
        mt_assert(n + 16 < sizeof buf); /* patterns are ours */
        if (*p == '%')
            n += (size_t)snprintf(buf + n, sizeof buf - n, "%" PRId32,
                                  *++p == 'l' ? role.layer : role.expert);
        else
            buf[n++] = *p;
    }
    return mt_arena_strndup(ctx, &m->arena, buf, n, name);
}

static const struct mt_name_row *family_row(const struct mt_family *f, struct mt_role role)
{
    const struct mt_name_row *row = f->names;

    while (row->pattern != NULL && !family_row_is(row, role))
        row++;
    return row->pattern != NULL ? row : NULL;
}

mt_status mt_family_print(struct mt_ctx *ctx, const struct mt_family *f, struct mt_model *m,
                          struct mt_role role, const char **name)
{
    const struct mt_name_row *row = family_row(f, role);
    char label[128];

    if (row == NULL && f->wraps && m->base != NULL && !family_is_block(role.kind))
        row = family_row(m->base, role);
    /* Queries that come straight from the hidden states have the other name of theirs. */
    if (row != NULL && role.kind == MT_ROLE_ATTN_Q && m->hp.mla.kv_rank > 0 &&
        m->hp.mla.q_rank == 0)
        for (const struct mt_name_row *r = row + 1; r->pattern != NULL; r++)
            if (family_row_is(r, role))
                row = r;
    if (row == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s has no name for %s", f->name,
                       mt_role_print(role, label, sizeof label));
    return family_print_pattern(ctx, m, row->pattern, role, name);
}

mt_status mt_model_rename(struct mt_ctx *ctx, struct mt_model *m, const struct mt_family *f)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        struct mt_tensor *t = m->tensors[i];

        /* Of a model inside another all but the blocks keeps its name, prefix and all. */
        if (t->role.kind == MT_ROLE_OTHER || (f->wraps && m->base != NULL && m->base->inside &&
                                              t->name != NULL && !family_is_block(t->role.kind)))
            continue;
        MT_TRY(mt_family_print(ctx, f, m, t->role, &t->name));
    }
    m->family = f;
    m->model_type = f->name;
    return MT_OK;
}

static bool family_parse_in(const struct mt_model *m, const char *name, struct mt_role *role)
{
    char buf[FAMILY_NAME_MAX];

    if (mt_family_parse(m->family, name, role))
        return true;
    name = family_inner_name(m, name, buf);
    if (m->family->inside)
        return mt_family_parse(m->family, name, role);
    return m->family->wraps && mt_family_parse(m->base, name, role) && !family_is_block(role->kind);
}

static mt_status family_bind_names(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_role role;
    bool cut;

    for (size_t i = 0; i < m->n_tensors; i++) {
        struct mt_tensor *t = m->tensors[i];

        if (t->role.kind != MT_ROLE_OTHER || t->name == NULL)
            continue;
        if (!family_parse_in(m, t->name, &role)) {
            MT_TRY(family_cut(ctx, m, t, &cut));
            i -= cut; /* the next record took its place */
            continue;
        }
        /* Layers behind the last one are next-token predictors (MTP): carried, not run. */
        if (role.layer >= m->hp.n_layers)
            continue;
        MT_TRY(mt_model_set_role(ctx, m, t, role));
    }
    return MT_OK;
}

/* A text model inside another that is not what its text_config says: the whole is of unknown
 * family, as it would be without looking inside. */
static mt_status family_let_go(struct mt_ctx *ctx, struct mt_model *m, mt_status why)
{
    if (why != MT_E_FORMAT && why != MT_E_UNSUPPORTED && why != MT_E_ABSENT)
        return why;
    mt_log(ctx, MT_LOG_WARN, "%s: its text_config (%s) does not serve, so the model is unknown: %s",
           m->path, m->family->name, mt_error(ctx));
    for (size_t i = 0; i < m->n_tensors; i++)
        MT_TRY(
            mt_model_set_role(ctx, m, m->tensors[i], mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE)));
    m->family = m->base = NULL;
    memset(&m->hp, 0, sizeof m->hp);
    m->hp.bos_id = m->hp.eos_id = -1;
    return MT_OK;
}

static mt_status family_bind(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_json *config = m->config, *own;
    const struct mt_json *quant;
    const char *method;
    mt_status st;

    m->family = NULL;
    if (m->config == NULL)
        return MT_OK;
    MT_TRY(family_of_config(ctx, m, config, &m->model_type, &m->family, &own));
    m->base = m->family;
    if (m->family == NULL)
        return MT_OK;
    m->config = own;
    st = m->family->read_config(ctx, m);
    m->config = config;
    if (st != MT_OK && m->family->inside)
        return family_let_go(ctx, m, st);
    if (st != MT_OK) {
        st = mt_wrap(ctx, st, "%s: config of %s", m->path, m->family->name);
        if (m->flaws != NULL)
            m->family = NULL;
        return st;
    }
    MT_TRY(family_bind_names(ctx, m));
    family_drop_scales(m);
    MT_TRY(mt_wrap(ctx, family_read_fp8(ctx, m), "%s", m->path));
    st = mt_model_verify(ctx, m);
    if (st == MT_OK && m->flaws != NULL && m->flaws->n > 0)
        st = mt_fail(ctx, MT_E_FORMAT, "%s", m->flaws->v[0].what);
    if (st != MT_OK && m->family->inside && m->cuts == NULL && m->flaws == NULL)
        return family_let_go(ctx, m, st);
    quant = mt_json_get(m->config, "quantization_config");
    if (st != MT_OK && mt_json_kind(quant) == MT_JSON_OBJECT) {
        method = mt_json_text(mt_json_get(quant, "quant_method"));
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: quantized checkpoint (%s); give the unquantized one", m->path,
                       method != NULL ? method : "quantization_config");
    }
    return mt_wrap(ctx, st, "%s", m->path);
}

mt_status mt_model_be_lenient(struct mt_ctx *ctx, struct mt_model *m)
{
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *m->flaws, &m->flaws));
    m->flaws->arena = &m->arena;
    return MT_OK;
}

mt_status mt_model_bind(struct mt_ctx *ctx, struct mt_model *m)
{
    mt_status st = family_bind(ctx, m);

    if (m->flaws == NULL || (st != MT_E_FORMAT && st != MT_E_UNSUPPORTED && st != MT_E_ABSENT))
        return st;
    m->flaw_status = st;
    return mt_arena_strndup(ctx, &m->arena, mt_error(ctx), strlen(mt_error(ctx)), &m->flaw);
}
