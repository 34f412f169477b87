/* The native layout: any family's attention, norms and embeddings under that family's names, and
 * feed-forward blocks that the config describes one by one (docs/formats.md). */
#include "lib/ir/family.h"
#include "lib/ir/family_impl.h"
#include "lib/ir/native.h"

#include <string.h>

#define MOETOOL_ROW(name, kind, part, expert)                                                      \
    {                                                                                              \
        "ffn.%l." name, MT_ROLE_##kind, MT_PART_##part, MT_NAME_##expert                           \
    }
#define MOETOOL_EXPERT(matrix, suffix, kind, part)                                                 \
    MOETOOL_ROW("experts.%e." matrix suffix, kind, part, ROUTED)
#define MOETOOL_MATRIX(matrix, kind)                                                               \
    MOETOOL_ROW(matrix ".weight", kind, WEIGHT, NO_EXPERT),                                        \
        MOETOOL_ROW(matrix ".bias", kind, BIAS, NO_EXPERT),                                        \
        MOETOOL_ROW("shared." matrix ".weight", kind, WEIGHT, SHARED),                             \
        MOETOOL_ROW("shared." matrix ".bias", kind, BIAS, SHARED),                                 \
        MOETOOL_EXPERT(matrix, ".weight", kind, WEIGHT),                                           \
        MOETOOL_EXPERT(matrix, ".bias", kind, BIAS), MOETOOL_EXPERT(matrix, ".left", kind, LEFT),  \
        MOETOOL_EXPERT(matrix, ".right", kind, RIGHT),                                             \
        MOETOOL_EXPERT(matrix, ".sparse", kind, SPARSE),                                           \
        MOETOOL_EXPERT(matrix, ".sparse_rows", kind, SPARSE_ROWS),                                 \
        MOETOOL_EXPERT(matrix, ".codes", kind, CODES),                                             \
        MOETOOL_EXPERT(matrix, ".scale", kind, SCALE),                                             \
        MOETOOL_EXPERT(matrix, ".zero", kind, ZERO),                                               \
        MOETOOL_EXPERT(matrix, ".planes", kind, PLANES),                                           \
        MOETOOL_EXPERT(matrix, ".plane_scale", kind, PLANE_SCALE)

static const struct mt_name_row moetool_names[] = {
    MOETOOL_MATRIX("gate", FFN_GATE),
    MOETOOL_MATRIX("up", FFN_UP),
    MOETOOL_MATRIX("down", FFN_DOWN),
    MOETOOL_ROW("shared_gate.weight", SHARED_GATE, WEIGHT, NO_EXPERT),
    MOETOOL_ROW("router.weight", ROUTER, WEIGHT, NO_EXPERT),
    MOETOOL_ROW("router.bias", ROUTER, BIAS, NO_EXPERT),
    MOETOOL_ROW("router.hidden.weight", ROUTER_HIDDEN, WEIGHT, NO_EXPERT),
    MOETOOL_ROW("router.hidden.bias", ROUTER_HIDDEN, BIAS, NO_EXPERT),
    MOETOOL_ROW("router.gate.weight", ROUTER_GATE, WEIGHT, NO_EXPERT),
    MOETOOL_ROW("router.gate.bias", ROUTER_GATE, BIAS, NO_EXPERT),
    MOETOOL_ROW("router.skip.weight", ROUTER_SKIP, WEIGHT, NO_EXPERT),
    MOETOOL_ROW("router.selection_bias", ROUTER_BIAS, WEIGHT, NO_EXPERT),
    MT_ROWS_END,
};

/* All but the blocks: the base family reads its own config as if it stood alone. */
static mt_status moetool_read_base(struct mt_ctx *ctx, struct mt_model *m,
                                   const struct mt_json *own)
{
    struct mt_json *config = m->config, *base = mt_json_get(own, "base"), *inner;
    const struct mt_family *family = m->family;
    const char *type;
    mt_status st;

    if (mt_json_kind(base) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "moetool.base is missing: the config of another family");
    MT_TRY(family_of_config(ctx, m, base, &type, &m->base, &inner));
    if (m->base == NULL || m->base == family)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "moetool.base: model_type %s is not known here",
                       type != NULL ? type : "(none)");
    m->config = inner;
    m->family = m->base;
    st = m->base->read_config(ctx, m);
    m->config = config;
    m->family = family;
    return mt_wrap(ctx, st, "moetool.base (%s)", type);
}

static mt_status moetool_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *own = mt_json_get(m->config, "moetool"), *layers, *j;
    int64_t version;
    int l = 0;

    if (mt_json_kind(own) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "the object \"moetool\" is missing");
    MT_TRY(mt_cfg_int(ctx, own, "version", -1, 1, INT32_MAX, &version));
    if (version > MT_NATIVE_VERSION)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "moetool.version is %lld; this program knows up to %d: use a newer one",
                       (long long)version, MT_NATIVE_VERSION);
    MT_TRY(moetool_read_base(ctx, m, own));
    layers = mt_json_get(own, "layers");
    if (mt_json_kind(layers) != MT_JSON_ARRAY || mt_json_count(layers) != (size_t)m->hp.n_layers)
        return mt_fail(ctx, MT_E_FORMAT,
                       "moetool.layers has %zu entries, but the model has %d layers",
                       mt_json_count(layers), m->hp.n_layers);
    for (j = mt_json_first(layers); j != NULL; j = mt_json_next(j), l++)
        MT_TRY(mt_wrap(ctx, mt_native_read_ffn(ctx, m, j, &m->ffn[l]), "moetool.layers[%d]", l));
    return MT_OK;
}

static mt_status moetool_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_hparams *a = &m->hp, *b = m->source != NULL ? &m->source->hp : a;

    if (m->base == NULL)
        return mt_cfg_cannot(ctx, &mt_family_moetool, "a model of unknown family", NULL);
    if (a->n_layers != b->n_layers || a->hidden != b->hidden || a->vocab != b->vocab ||
        a->n_heads != b->n_heads || a->n_kv_heads != b->n_kv_heads || a->head_dim != b->head_dim ||
        a->tied != b->tied)
        return mt_cfg_cannot(ctx, &mt_family_moetool,
                             "other sizes of attention than its source's config tells", NULL);
    return MT_OK;
}

/* The source's own config, or that which a native source holds; a dtype it tells is the one that is
 * written. */
static mt_status moetool_base_of(struct mt_ctx *ctx, const struct mt_model *m,
                                 const struct mt_json *config, struct mt_json **out)
{
    static const char *const keys[] = {"torch_dtype", "dtype"};
    const struct mt_json *old = mt_json_get(mt_json_get(config, "moetool"), "base");
    struct mt_json *told;

    MT_TRY(mt_json_copy(ctx, old != NULL ? old : config, out));
    mt_json_remove(*out, "quantization_config");
    told = mt_json_new_object();
    mt_cfg_write_dtype(m, told);
    for (int i = 0; i < 2; i++) {
        const char *dtype = mt_json_text(mt_json_get(told, keys[i]));
        if (dtype != NULL && mt_json_get(*out, keys[i]) != NULL)
            mt_json_set_str(*out, keys[i], dtype);
    }
    mt_json_free(told);
    return MT_OK;
}

static mt_status moetool_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                      struct mt_json *config)
{
    struct mt_json *base, *own, *layers;

    MT_TRY(moetool_base_of(ctx, m, config, &base));
    while (mt_json_first(config) != NULL)
        mt_json_remove(config, mt_json_key(mt_json_first(config)));
    mt_json_add_str(mt_json_set_array(config, "architectures"), mt_family_moetool.architecture);
    mt_json_set_str(config, "model_type", mt_family_moetool.name);
    mt_cfg_write_dtype(m, config);
    own = mt_json_set_object(config, "moetool");
    mt_json_set_int(own, "version", MT_NATIVE_VERSION);
    mt_json_set(own, "base", base);
    layers = mt_json_set_array(own, "layers");
    for (int l = 0; l < m->hp.n_layers; l++)
        mt_native_write_ffn(&m->ffn[l], mt_json_add_object(layers));
    return MT_OK;
}

const struct mt_family mt_family_moetool = {
    .name = "moetool",
    .architecture = "MoetoolForCausalLM",
    .names = moetool_names,
    .moe = true,
    .wraps = true,
    .read_config = moetool_read_config,
    .can_hold = moetool_can_hold,
    .write_config = moetool_write_config,
};
