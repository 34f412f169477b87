/* stats_json.c: scores made elsewhere.
 *
 * {"layers": {"3": {"experts": [0.2, ...], "neurons": [0.1, ...]}}, "model_sha256": "..."}
 *
 * One number for each routed expert or for each neuron of a dense FFN; the largest are kept.
 * Layers may be missing, and so may "model_sha256".
 */
#include "formats/stats.h"
#include "lib/base/hash.h"
#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/flow/walk.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCORES_BYTES_MAX ((size_t)256 << 20)

static mt_status scores_take(struct mt_ctx *ctx, struct mt_profile *p, const struct mt_model *m,
                             int layer, enum mt_stat s, const struct mt_json *list)
{
    int64_t rows, cols, n = 0;
    double *v;

    if (list == NULL)
        return MT_OK;
    mt_stat_shape(m, layer, s, &rows, &cols);
    if (mt_json_kind(list) != MT_JSON_ARRAY || rows < 1 || mt_json_count(list) != (size_t)cols)
        return mt_fail(ctx, MT_E_FORMAT,
                       "layer %d: %zu scores of %s, but the model has %lld there: they were made "
                       "of another model or of another stage of it",
                       layer, mt_json_count(list),
                       s == MT_STAT_EXPERT_SCORE ? "experts" : "neurons", (long long)cols);
    MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *v, "scores", &v));
    for (const struct mt_json *j = mt_json_first(list); j != NULL; j = mt_json_next(j), n++) {
        if (mt_json_number(j, &v[n]) && isfinite(v[n]))
            continue;
        mt_free(v);
        return mt_fail(ctx, MT_E_FORMAT, "layer %d: score %lld is no number", layer, (long long)n);
    }
    mt_profile_declare(p, layer, s, 1, cols);
    mt_profile_set(p, layer, s, 0, v, NULL, true);
    return MT_OK;
}

static mt_status scores_layers(struct mt_ctx *ctx, struct mt_profile *p, const struct mt_model *m,
                               const struct mt_json *layers)
{
    if (mt_json_kind(layers) != MT_JSON_OBJECT || mt_json_count(layers) == 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "no scores: {\"layers\": {\"3\": {\"experts\": [...]}}} is wanted");
    for (const struct mt_json *j = mt_json_first(layers); j != NULL; j = mt_json_next(j)) {
        char *end;
        errno = 0;
        long l = strtol(mt_json_key(j), &end, 10);
        if (end == mt_json_key(j) || *end != '\0' || errno != 0 || l < 0 || l >= m->hp.n_layers)
            return mt_fail(ctx, MT_E_FORMAT, "layer \"%.40s\": %s has layers 0 to %d",
                           mt_json_key(j), m->path, m->hp.n_layers - 1);
        MT_TRY(scores_take(ctx, p, m, (int)l, MT_STAT_EXPERT_SCORE, mt_json_get(j, "experts")));
        MT_TRY(scores_take(ctx, p, m, (int)l, MT_STAT_NEURON_SCORE, mt_json_get(j, "neurons")));
    }
    return MT_OK;
}

static mt_status scores_check_model(struct mt_ctx *ctx, const struct mt_json *j,
                                    const struct mt_model *m)
{
    const char *want;
    char hex[65];

    MT_TRY(mt_json_get_str(ctx, j, "model_sha256", NULL, &want));
    if (want == NULL)
        return MT_OK;
    MT_TRY(mt_model_identity(ctx, m, hex));
    if (strcmp(want, hex) != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "scores of model %.12s, but %s is %.12s: another model, or another stage of "
                       "it",
                       want, m->path, hex);
    return MT_OK;
}

static mt_status scores_read(struct mt_ctx *ctx, const char *text, size_t n,
                             const struct mt_model *m, struct mt_profile **out)
{
    const struct mt_profile_info info = {
        .origin = "json", .n_layers = m->hp.n_layers, .hidden = m->hp.hidden};
    struct mt_profile_source source = {.domain = "scores"};
    struct mt_json *j = NULL;
    struct mt_sha256 sha;
    mt_status st;

    if (m->hp.n_layers < 1)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: its layers are not known", m->path);
    mt_sha256_begin(&sha);
    mt_sha256_add(&sha, text, n);
    mt_sha256_hex(&sha, source.sha256);
    MT_TRY(mt_profile_create(ctx, &info, &source, 1, out));
    st = mt_json_parse(ctx, text, n, "scores", &j);
    if (st == MT_OK)
        st = scores_check_model(ctx, j, m);
    if (st == MT_OK)
        st = scores_layers(ctx, *out, m, mt_json_get(j, "layers"));
    mt_json_free(j);
    return st;
}

mt_status mt_stats_import_json(struct mt_ctx *ctx, const char *path, const struct mt_model *m,
                               struct mt_profile **out)
{
    char *text;
    size_t n;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_read_file(ctx, path, SCORES_BYTES_MAX, &text, &n));
    st = scores_read(ctx, text, n, m, out);
    mt_free(text);
    if (st != MT_OK) {
        mt_profile_free(*out);
        *out = NULL;
    }
    return mt_wrap(ctx, st, "%s", path);
}
