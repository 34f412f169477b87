#include "tests/planted.h"

#include "lib/base/rng.h"
#include "lib/run/runner.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/toy.h"

#include <stdlib.h>
#include <string.h>

#define PLANTED_BLOCK 500 /* tokens shown at once: blocks of unequal length */
#define PLANTED_LOUD 3.0  /* length of what points along a class's direction */

static float *planted_values(const struct mt_tensor *t)
{
    float *v;

    memcpy(&v, &t->src.owned, sizeof v);
    return v;
}

/* Row j along its group's direction; common neurons along the last one, which every token has. */
static void planted_row(const struct planted_spec *s, struct mt_rng *r, int group, float *row)
{
    int along = group >= 0 ? group : PLANTED_HIDDEN - 1;

    for (int i = 0; i < PLANTED_HIDDEN; i++)
        row[i] = (float)((i == along ? PLANTED_LOUD : 0) + s->noise * mt_rng_normal(r));
}

static void planted_weights(const struct planted_spec *s, struct planted *p)
{
    int width = s->groups * s->per_group + s->common;
    struct mt_rng r;

    mt_rng_seed(&r, s->seed, 1);
    for (int j = 0; j < width; j++)
        p->group[j] = j < s->common ? -1 : (j - s->common) / s->per_group;
    mt_rng_shuffle_i32(&r, p->group, (uint64_t)width);
    for (int j = 0; j < width; j++) {
        if (p->dense.gate != NULL)
            planted_row(s, &r, p->group[j], planted_values(p->dense.gate) + j * PLANTED_HIDDEN);
        planted_row(s, &r, p->group[j], planted_values(p->dense.up) + j * PLANTED_HIDDEN);
    }
}

static void planted_tokens(const struct planted_spec *s, struct planted *p)
{
    struct mt_rng r;

    mt_rng_seed(&r, s->seed, 2);
    for (int t = 0; t < PLANTED_TOKENS; t++) {
        float *x = p->x + (size_t)t * PLANTED_HIDDEN;
        p->class_of[t] =
            s->run > 0 ? t / s->run % s->groups : (int)mt_rng_below(&r, (uint64_t)s->groups);
        for (int i = 0; i < PLANTED_HIDDEN; i++)
            x[i] = (float)((i == p->class_of[t] ? 1 : 0) + s->noise * mt_rng_normal(&r));
        if (s->common > 0)
            x[PLANTED_HIDDEN - 1] += 2;
    }
}

/* h and y by plain loops in double. */
static void planted_compute(const struct planted_spec *s, struct planted *p)
{
    int width = (int)p->dense.width;

    for (int t = 0; t < PLANTED_TOKENS; t++) {
        const float *x = p->x + (size_t)t * PLANTED_HIDDEN;
        for (int j = 0; j < width; j++) {
            double g = 0, u = 0;
            for (int i = 0; i < PLANTED_HIDDEN; i++) {
                size_t at = (size_t)j * PLANTED_HIDDEN + (size_t)i;
                u += (double)planted_values(p->dense.up)[at] * (double)x[i];
                if (!s->relu)
                    g += (double)planted_values(p->dense.gate)[at] * (double)x[i];
            }
            p->h[(size_t)t * (size_t)width + (size_t)j] =
                (float)(s->relu ? (u > 0 ? u : 0) : g / (1 + exp(-g)) * u);
        }
        for (int i = 0; i < PLANTED_HIDDEN; i++) {
            double y = 0;
            for (int j = 0; j < width; j++)
                y += (double)planted_values(p->dense.down)[(size_t)i * (size_t)width + (size_t)j] *
                     (double)p->h[(size_t)t * (size_t)width + (size_t)j];
            p->y[(size_t)t * PLANTED_HIDDEN + (size_t)i] = (float)y;
        }
    }
}

static mt_status planted_make(struct t *t, const struct planted_spec *s, const char *options,
                              struct planted *p)
{
    struct toy spec = {.layers = 1,
                       .hidden = PLANTED_HIDDEN,
                       .width = s->groups * s->per_group + s->common,
                       .ungated = s->relu,
                       .seed = s->seed + 1};
    const struct mt_convert_method *method;

    MT_TRY(toy_model(&t->ctx, &spec, &p->m));
    if (s->relu)
        p->m->ffn[0].act = MT_ACT_RELU;
    MT_TRY(mt_dense_ffn_find(&t->ctx, p->m, 0, &p->dense));
    size_t width = (size_t)p->dense.width;
    p->options = strdup(options);
    p->group = calloc(width, sizeof(*p->group));
    p->class_of = calloc(PLANTED_TOKENS, sizeof(*p->class_of));
    p->x = calloc(PLANTED_TOKENS, PLANTED_HIDDEN * sizeof(*p->x));
    p->h = calloc(PLANTED_TOKENS, width * sizeof(*p->h));
    p->y = calloc(PLANTED_TOKENS, PLANTED_HIDDEN * sizeof(*p->y));
    mt_assert(p->options && p->group && p->class_of && p->x && p->h && p->y);
    planted_weights(s, p);
    planted_tokens(s, p);
    planted_compute(s, p);
    MT_TRY(pass_options(&t->ctx, mt_pass_find("convert-ffn"), p->options, &p->o));
    p->at = (struct mt_convert_at){
        .o = &p->o, .src = p->m, .shape = &p->shape, .dense = &p->dense, .observed = true};
    method = p->o.method > 0 ? mt_convert_methods[p->o.method] : NULL;
    if (method != NULL && method->shape != NULL)
        return method->shape(&t->ctx, &p->o, p->m, &p->shape);
    const struct mt_shape_ask ask = mt_convert_ask(&p->o);
    return mt_moe_shape_read(&t->ctx, &ask, p->m, &p->shape);
}

bool planted_open(struct t *t, const struct planted_spec *spec, const char *options,
                  struct planted *p)
{
    memset(p, 0, sizeof(*p));
    if (planted_make(t, spec, options, p) == MT_OK)
        return true;
    t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    planted_close(p);
    return false;
}

void planted_close(struct planted *p)
{
    mt_model_free(p->m);
    free(p->options);
    free(p->group);
    free(p->class_of);
    free(p->x);
    free(p->h);
    free(p->y);
    memset(p, 0, sizeof(*p));
}

static mt_status planted_show(struct t *t, struct planted *p, const struct mt_convert_method *m,
                              void *state)
{
    int rounds = m->rounds != NULL ? m->rounds(&p->at) : 0;

    for (int round = 0; round < rounds; round++) {
        for (int64_t at = 0; at < PLANTED_TOKENS; at += PLANTED_BLOCK) {
            int64_t left = PLANTED_TOKENS - at;
            struct mt_observation ob = {.round = round,
                                        .m = left < PLANTED_BLOCK ? left : PLANTED_BLOCK,
                                        .token0 = at,
                                        .n_tokens = PLANTED_TOKENS,
                                        .x = p->x + at * PLANTED_HIDDEN,
                                        .h = p->h + at * p->dense.width,
                                        .y = p->y + at * PLANTED_HIDDEN};
            MT_TRY(m->observe(&t->ctx, &p->at, state, &ob));
        }
    }
    return MT_OK;
}

bool planted_divide(struct t *t, struct planted *p, const char *method,
                    struct mt_convert_division *out)
{
    int i = mt_convert_name_find(mt_convert_method_names, method);
    const struct mt_convert_method *m = mt_convert_methods[i];
    void *state = NULL;
    mt_status st = MT_OK;

    memset(out, 0, sizeof(*out));
    if (m->begin != NULL)
        st = m->begin(&t->ctx, &p->at, &state);
    if (st == MT_OK)
        st = planted_show(t, p, m, state);
    if (st == MT_OK)
        st = m->decide(&t->ctx, &p->at, state, out);
    if (m->end != NULL)
        m->end(state);
    p->at.split = out->split;
    p->at.representative = out->representative;
    if (st == MT_OK)
        return true;
    t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    planted_division_free(out);
    return false;
}

void planted_division_free(struct mt_convert_division *d)
{
    mt_split_free(d->split);
    mt_free(d->scale);
    mt_free(d->representative);
    mt_free(d->weight);
    mt_json_free(d->facts);
    memset(d, 0, sizeof(*d));
}

bool planted_found(const struct planted *p, const struct mt_split *s)
{
    for (int e = 0; e < s->n_experts; e++) {
        const int32_t *list = mt_split_expert(s, e);
        for (int64_t i = 0; i < s->expert_width; i++)
            if (list[i] < 0 || p->group[list[i]] < 0 || p->group[list[i]] != p->group[list[0]])
                return false;
    }
    for (int64_t i = 0; i < mt_split_shared_width(s); i++)
        if (p->group[mt_split_shared(s)[i]] >= 0)
            return false;
    return true;
}
