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
    {"active", offsetof(struct mt_router_quality, active)},
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

static const char *numbers_coverage(const struct mt_layer_numbers *n)
{
    if (n->copies > 0)
        return n->dropped > 0 ? "overlap, dropped" : "overlap";
    return n->dropped > 0 ? "dropped" : "partition";
}

void mt_refit_numbers_write(const struct mt_refit_numbers *r, struct mt_json *out)
{
    if (r->tokens == 0)
        return;
    struct mt_json *j = mt_json_set_object(out, "refit");
    mt_json_set_int(j, "tokens", r->tokens);
    mt_json_set_int(j, "held_out", r->held_out);
    mt_json_set_num(j, "error_before", r->before);
    if (r->trained)
        mt_json_set_num(j, "error_down", r->down);
    mt_json_set_num(j, "error_after", r->after);
    mt_json_set_num(j, "lambda", r->lambda);
    if (r->trained)
        mt_json_set_int(j, "epoch", r->epoch);
    mt_json_set_bool(j, "reverted", r->reverted);
}

static mt_status numbers_read_refit(struct mt_ctx *ctx, struct mt_refit_numbers *r,
                                    const struct mt_json *in)
{
    const struct mt_json *j = mt_json_get(in, "refit");

    if (j == NULL)
        return MT_OK;
    MT_TRY(mt_json_get_int(ctx, j, "tokens", 0, &r->tokens));
    MT_TRY(mt_json_get_int(ctx, j, "held_out", 0, &r->held_out));
    MT_TRY(mt_json_get_num(ctx, j, "error_before", NAN, &r->before));
    MT_TRY(mt_json_get_num(ctx, j, "error_after", NAN, &r->after));
    MT_TRY(mt_json_get_num(ctx, j, "lambda", NAN, &r->lambda));
    r->trained = mt_json_get(j, "epoch") != NULL;
    MT_TRY(mt_json_get_int(ctx, j, "epoch", 0, &r->epoch));
    MT_TRY(mt_json_get_num(ctx, j, "error_down", NAN, &r->down));
    return mt_json_get_bool(ctx, j, "reverted", false, &r->reverted);
}

mt_status mt_layer_numbers_write(struct mt_ctx *ctx, const struct mt_layer_numbers *n,
                                 const char *const *router_names, struct mt_json *out)
{
    struct mt_router_quality quality = n->fit;
    struct mt_json *facts;

    mt_json_set_str(out, "lists", n->lists);
    mt_json_set_str(out, "coverage", numbers_coverage(n));
    if (n->dropped > 0)
        mt_json_set_int(out, "dropped", n->dropped);
    if (n->copies > 0)
        mt_json_set_int(out, "copies", n->copies);
    mt_json_set_int(out, "padded", n->padded);
    mt_json_set_int(out, "shared_neurons", n->shared);
    if (n->shared_by != MT_SHARED_BY_NONE)
        mt_json_set_str(out, "shared_by", numbers_shared_by[n->shared_by]);
    mt_json_set_str(out, "router", router_names[n->router]);
    mt_json_set_int(out, "flatten", n->flatten);
    mt_json_set_num(out, "weight_bound", n->weight_bound);
    if (n->near > 0)
        mt_json_set_num(out, "nearest_linear_agreement", n->near);
    mt_refit_numbers_write(&n->refit, out);
    if (n->facts != NULL) {
        MT_TRY(mt_json_copy(ctx, n->facts, &facts));
        mt_json_set(out, "method", facts);
    }
    if (quality.tokens == 0)
        return MT_OK;
    struct mt_json *fit = mt_json_set_object(out, "measured");
    mt_json_set_int(fit, "tokens", quality.tokens);
    for (size_t i = 0; i < NUMBERS_MEASURED; i++)
        mt_json_set_num(fit, numbers_measured[i].key, *numbers_measured_at(&quality, i));
    return MT_OK;
}

mt_status mt_layer_numbers_read(struct mt_ctx *ctx, struct mt_layer_numbers *n,
                                const char *const *router_names, const struct mt_json *in)
{
    const struct mt_json *fit = mt_json_get(in, "measured"), *facts = mt_json_get(in, "method");
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
    MT_TRY(mt_json_get_int(ctx, in, "dropped", 0, &n->dropped));
    MT_TRY(mt_json_get_int(ctx, in, "copies", 0, &n->copies));
    MT_TRY(mt_json_get_num(ctx, in, "nearest_linear_agreement", 0, &n->near));
    MT_TRY(numbers_read_refit(ctx, &n->refit, in));
    if (facts != NULL)
        MT_TRY(mt_json_copy(ctx, facts, &n->facts));
    if (fit == NULL)
        return MT_OK;
    MT_TRY(mt_json_get_int(ctx, fit, "tokens", 0, &n->fit.tokens));
    for (size_t i = 0; i < NUMBERS_MEASURED; i++)
        MT_TRY(
            mt_json_get_num(ctx, fit, numbers_measured[i].key, 0, numbers_measured_at(&n->fit, i)));
    return MT_OK;
}
