#include "passes/lib/layer_numbers.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* What was measured on calibration tokens; written and read back by the same rows. */
static const struct {
    const char *key;
    size_t offset;
} numbers_measured[] = {
    {"agreement", offsetof(struct mt_router_quality, agreement)},
    {"captured", offsetof(struct mt_router_quality, captured)},
    {"weight_error", offsetof(struct mt_router_quality, weight_error)},
    {"ties", offsetof(struct mt_router_quality, ties)},
    {"load_oracle_max", offsetof(struct mt_router_quality, load_oracle_max)},
    {"load_router_max", offsetof(struct mt_router_quality, load_router_max)},
};
#define NUMBERS_MEASURED (sizeof(numbers_measured) / sizeof(*numbers_measured))

static double *numbers_measured_at(struct mt_router_quality *r, size_t i)
{
    return (void *)((char *)r + numbers_measured[i].offset);
}

/* enum mt_shared_by */
static const char *const numbers_shared_by[] = {"none", "weights", "activations", NULL};

static int numbers_find(const char *const *names, const char *text)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    return 0;
}

void mt_layer_numbers_write(const struct mt_layer_numbers *n, const char *const *router_names,
                            struct mt_json *out)
{
    struct mt_router_quality quality = n->fit;

    mt_json_set_str(out, "lists", n->lists);
    mt_json_set_str(out, "coverage", "partition");
    mt_json_set_int(out, "padded", n->padded);
    mt_json_set_int(out, "shared_neurons", n->shared);
    if (n->shared_by != MT_SHARED_BY_NONE)
        mt_json_set_str(out, "shared_by", numbers_shared_by[n->shared_by]);
    mt_json_set_str(out, "router", router_names[n->router]);
    mt_json_set_int(out, "flatten", n->flatten);
    mt_json_set_num(out, "weight_bound", n->weight_bound);
    if (quality.tokens == 0)
        return;
    struct mt_json *fit = mt_json_set_object(out, "measured");
    mt_json_set_int(fit, "tokens", quality.tokens);
    for (size_t i = 0; i < NUMBERS_MEASURED; i++)
        mt_json_set_num(fit, numbers_measured[i].key, *numbers_measured_at(&quality, i));
}

mt_status mt_layer_numbers_read(struct mt_ctx *ctx, struct mt_layer_numbers *n,
                                const char *const *router_names, const struct mt_json *in)
{
    const struct mt_json *fit = mt_json_get(in, "measured");
    const char *text;

    memset(n, 0, sizeof(*n));
    MT_TRY(mt_json_get_str(ctx, in, "lists", "", &text));
    snprintf(n->lists, sizeof(n->lists), "%s", text);
    MT_TRY(mt_json_get_str(ctx, in, "shared_by", "none", &text));
    n->shared_by = numbers_find(numbers_shared_by, text);
    MT_TRY(mt_json_get_str(ctx, in, "router", "", &text));
    n->router = numbers_find(router_names, text);
    MT_TRY(mt_json_get_int(ctx, in, "padded", 0, &n->padded));
    MT_TRY(mt_json_get_int(ctx, in, "shared_neurons", 0, &n->shared));
    MT_TRY(mt_json_get_int(ctx, in, "flatten", 0, &n->flatten));
    MT_TRY(mt_json_get_num(ctx, in, "weight_bound", NAN, &n->weight_bound));
    if (fit == NULL)
        return MT_OK;
    MT_TRY(mt_json_get_int(ctx, fit, "tokens", 0, &n->fit.tokens));
    for (size_t i = 0; i < NUMBERS_MEASURED; i++)
        MT_TRY(
            mt_json_get_num(ctx, fit, numbers_measured[i].key, 0, numbers_measured_at(&n->fit, i)));
    return MT_OK;
}
