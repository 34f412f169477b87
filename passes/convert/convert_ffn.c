/* convert_ffn.c
 * convert-ffn: every dense FFN becomes shared and routed experts of one width.
 *
 * Neurons are divided into index lists (split.h) and gathered, so that with all experts active and
 * even weights the result is the dense model. Which lists are good depends on what fires together;
 * which experts act for a token is the router's choice; a refit makes good for what does not act
 * (method.h has the parts). All scales go into the routed down_proj (targets.h).
 */
#include "lib/base/mem.h"
#include "passes/convert/convert.h"
#include "passes/lib/router_fit.h"
#include "passes/lib/spill.h"

#include <string.h>

/* ---- create ---- */

static void convert_end_layer(struct convert *s)
{
    if (s->method->end != NULL)
        s->method->end(s->method_state);
    if (s->router != NULL && s->router->end != NULL)
        s->router->end(s->router_state);
    if (s->refit != NULL && s->refit->end != NULL)
        s->refit->end(s->refit_state);
    s->method_state = s->router_state = s->refit_state = NULL;
    mt_expert_norms_free(s->norms);
    mt_router_probe_free(s->probe);
    s->norms = NULL;
    s->probe = NULL;
    mt_split_free(s->division.split);
    mt_free(s->division.scale);
    mt_free(s->division.representative);
    mt_free(s->division.weight);
    mt_json_free(s->division.facts);
    s->division = (struct mt_convert_division){0};
    mt_free(s->routing.w);
    mt_free(s->routing.bias);
    mt_json_free(s->routing.facts);
    mt_router_form_free(&s->routing.form);
    mt_router_fit_free(s->near_fit);
    s->near_fit = NULL;
    s->near_made = false;
    s->routing = (struct mt_convert_routing){0};
    mt_free(s->down.down);
    mt_local_weights_free(&s->down.inner);
    mt_free(s->down.gain);
    mt_free(s->down.bias);
    s->down = (struct mt_convert_down){0};
    s->stage = CONVERT_METHOD;
}

static void convert_destroy(void *state)
{
    struct convert *s = state;

    if (s == NULL)
        return;
    convert_end_layer(s);
    for (int l = 0; s->numbers != NULL && l < s->shape.n_layers; l++)
        mt_json_free(s->numbers[l].facts);
    mt_free(s->dense);
    mt_free(s->numbers);
    mt_free(s->acting);
    mt_free(s->dense_layers);
    mt_free(s);
}

static mt_status convert_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                                void **state)
{
    struct convert *s;

    *state = NULL;
    if (mt_convert_method_asked(opts) == NULL)
        return mt_fail(ctx, MT_E_OPTION, "%s is no conversion: use the pass prune-ffn",
                       MT_CONVERT_PRUNE);
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "convert-ffn", &s));
    s->o = *(const struct mt_convert_opts *)opts;
    mt_status st = convert_setup(ctx, s, src);
    if (st != MT_OK) {
        convert_destroy(s);
        return st;
    }
    *state = s;
    return MT_OK;
}

/* Another format may want another target, and with it another shape; with text there may be a
 * threshold. */
static mt_status convert_aim(struct mt_ctx *ctx, void *state, const struct mt_model *src,
                             const struct mt_pass_run *run)
{
    struct convert *s = state;
    bool format = run->format != NULL && run->format->holds != NULL;

    if (!format && !run->data)
        return MT_OK;
    s->o.text = run->data;
    if (format)
        s->o.format = run->format;
    if (s->aimed)
        s->o.arch = 0;
    s->aimed = false;
    mt_free(s->dense);
    mt_free(s->numbers);
    mt_free(s->acting);
    s->dense = NULL;
    s->numbers = NULL;
    s->acting = NULL;
    return convert_setup(ctx, s, src);
}

static bool convert_profiles(const void *opts, const struct mt_model *src)
{
    const struct mt_convert_opts *o = opts;
    bool domain = strcmp(mt_convert_router_names[o->router], "domain") == 0;
    /* prune-baseline is a name only, behind the methods. */
    const struct mt_convert_method *m = o->method > 0 ? mt_convert_methods[o->method] : NULL;

    return (m != NULL && (m->profiles || (m->profiles_if != NULL && m->profiles_if(o)))) ||
           (src->n_siblings > 0 && (o->router == 0 || domain));
}

static unsigned convert_needs(const void *state)
{
    const struct convert *s = state;
    unsigned needs = 0;

    if (s->rounds[CONVERT_METHOD] > 0)
        needs |= s->method->needs | MT_NEED_STUDENT;
    if (s->rounds[CONVERT_ROUTER] > 0)
        needs |= MT_NEED_INPUTS | MT_NEED_HIDDEN | MT_NEED_STUDENT;
    if (s->rounds[CONVERT_REFIT] > 0)
        needs |= s->refit->needs | MT_NEED_INPUTS | MT_NEED_STUDENT;
    if (s->rounds[CONVERT_REFIT] > 0 && s->o.drift > 0 && (s->refit->needs & MT_NEED_OUTPUT) != 0)
        needs |= MT_NEED_DRIFT;
    /* What was asked for by name is not silently left out. */
    if (s->shape.by_token || (s->o.method > 0 && s->method->data) ||
        (s->o.router > 0 && s->router->data) || (s->o.refit > 0 && s->rounds[CONVERT_REFIT] > 0))
        needs |= MT_NEED_DATA;
    return needs;
}

static bool convert_asks(const void *state, int layer)
{
    return !convert_stays_dense(state, layer);
}

static int convert_rounds(const void *state)
{
    const struct convert *s = state;
    int n = s->rounds[CONVERT_METHOD] + s->rounds[CONVERT_ROUTER] + s->rounds[CONVERT_REFIT];

    return n > 0 ? n : 1;
}

static uint64_t convert_columns(const struct mt_moe_shape *p)
{
    return (uint64_t)(p->n_shared > 0 ? p->shared_width : 0) +
           (uint64_t)p->n_experts * (uint64_t)p->expert_width;
}

static uint64_t convert_memory(const void *state, const struct mt_model *m)
{
    const struct convert *s = state;
    uint64_t d = (uint64_t)s->shape.hidden, w = (uint64_t)s->shape.width,
             n = (uint64_t)s->shape.n_experts;
    uint64_t method = s->method->memory != NULL ? s->method->memory(&s->at) : 0;
    uint64_t router = s->router->memory != NULL ? s->router->memory(&s->at) : 0;
    uint64_t refit = s->refit->memory != NULL ? s->refit->memory(&s->at) : 0;

    (void)m;
    if (s->rounds[CONVERT_ROUTER] > 0)
        router += w * d * 4 + mt_router_probe_bytes(d, n) + MT_OBSERVE_TOKENS_MAX * n * 8;
    if (s->has_form)
        router += mt_router_form_bytes(&s->form, (int64_t)n, (int64_t)d);
    if (s->near)
        router += mt_router_fit_bytes(d, n);
    if (s->rounds[CONVERT_REFIT] > 0)
        refit += MT_OBSERVE_TOKENS_MAX * n * 5;
    if (router > method)
        method = router;
    if (refit > method)
        method = refit;
    /* Routers and index lists stay with the plan. */
    uint64_t lists = w * (s->shape.copies > 0 ? (uint64_t)s->shape.copies : 1);
    method += 2 * n * d * 4 + (uint64_t)s->shape.n_layers * (n * d * 4 + lists * 16);
    if (s->shape.own_widths)
        method += convert_columns(&s->shape) * (d * 4 + (uint64_t)s->shape.n_layers * 8);
    return method;
}

static void convert_scratch(const void *state, const struct mt_model *m, int64_t n_tokens,
                            struct mt_pass_scratch *out)
{
    const struct convert *s = state;

    if (s->rounds[CONVERT_REFIT] == 0 || n_tokens == 0)
        return;
    out->kept += mt_spill_bytes(m, s->refit->inner);
    if (s->refit->scratch != NULL)
        out->passing += s->refit->scratch(&s->at, n_tokens);
}

static const char *convert_spare(const void *state)
{
    const struct convert *s = state;

    if (s->rounds[CONVERT_REFIT] == 0 || s->refit->spare == NULL)
        return NULL;
    return s->refit->spare(&s->at);
}

static mt_status convert_plan_hook(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    const struct convert *s = state;

    if (s->o.dynamic_k == MT_SWITCH_ON && !s->shape.by_token)
        mt_log(ctx, MT_LOG_WARN,
               "--dynamic-k: every expert acts for every token, so there is nothing to choose");
    return convert_plan(ctx, state, m);
}

/* ---- the layer's parts in their order ---- */

static void convert_count_lists(struct mt_layer_numbers *out, const struct mt_split *split,
                                const unsigned char *seen)
{
    int64_t total = mt_split_entries(split), entries = 0, distinct = 0;

    for (int64_t i = 0; i < total; i++)
        entries += split->idx[i] >= 0;
    for (int64_t j = 0; j < split->width; j++)
        distinct += seen[j];
    out->padded = total - entries;
    out->dropped = split->width - distinct;
    out->copies = entries - distinct;
}

/* Settles which neuron goes where. */
static mt_status convert_decide(struct mt_ctx *ctx, struct convert *s)
{
    struct mt_layer_numbers *out = &s->numbers[s->at.layer];
    unsigned char *seen;

    MT_TRY(s->method->decide(ctx, &s->at, s->method_state, &s->division));
    if (s->method->end != NULL)
        s->method->end(s->method_state);
    s->method_state = NULL;
    const struct mt_split *split = s->at.split = s->division.split;
    s->at.representative = s->division.representative;
    s->at.weight = s->division.weight;
    s->at.scale = s->division.scale;
    mt_split_checksum(split, out->lists);
    out->shared = mt_split_shared_width(split);
    out->shared_by = s->division.shared_by;
    out->facts = s->division.facts;
    s->division.facts = NULL;
    MT_TRY(mt_alloc0(ctx, (size_t)split->width, 1, "neurons", &seen));
    for (int64_t i = 0; i < mt_split_entries(split); i++)
        if (split->idx[i] >= 0)
            seen[split->idx[i]] = 1;
    convert_count_lists(out, split, seen);
    mt_free(seen);
    s->stage = CONVERT_ROUTER;
    if (s->router->begin == NULL || s->n_tokens == 0 || s->all_act)
        return MT_OK;
    return s->router->begin(ctx, &s->at, s->n_tokens, &s->router_state);
}

static mt_status convert_route(struct mt_ctx *ctx, struct convert *s)
{
    MT_TRY(convert_make_router(ctx, s));
    if (s->router->end != NULL)
        s->router->end(s->router_state);
    s->router_state = NULL;
    mt_expert_norms_free(s->norms);
    mt_router_probe_free(s->probe);
    s->norms = NULL;
    s->probe = NULL;
    s->stage = CONVERT_REFIT;
    if (s->refit->begin == NULL || s->n_tokens == 0 || s->all_act)
        return MT_OK;
    return s->refit->begin(ctx, &s->at, s->n_tokens, &s->refit_state);
}

static mt_status convert_fit_down(struct mt_ctx *ctx, struct convert *s)
{
    if (s->refit->solve != NULL && s->refit_state != NULL)
        MT_TRY(s->refit->solve(ctx, &s->at, s->refit_state, &s->down));
    s->numbers[s->at.layer].refit = s->down.told;
    s->stage = CONVERT_DONE;
    return MT_OK;
}

/* Ends the parts before `stage`. */
static mt_status convert_reach(struct mt_ctx *ctx, struct convert *s, enum convert_stage stage)
{
    if (s->stage == CONVERT_METHOD && stage > CONVERT_METHOD)
        MT_TRY(convert_decide(ctx, s));
    if (s->stage == CONVERT_ROUTER && stage > CONVERT_ROUTER)
        MT_TRY(convert_route(ctx, s));
    if (s->stage == CONVERT_REFIT && stage > CONVERT_REFIT)
        MT_TRY(convert_fit_down(ctx, s));
    return MT_OK;
}

static mt_status convert_begin(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct convert *s = state;

    convert_end_layer(s);
    s->plan = m;
    mt_json_free(s->numbers[layer].facts);
    memset(&s->numbers[layer], 0, sizeof(s->numbers[layer]));
    s->n_tokens = 0;
    s->at = (struct mt_convert_at){.o = &s->o,
                                   .labels = s->at.labels,
                                   .src = s->at.src,
                                   .shape = &s->here,
                                   .dense = &s->dense[layer],
                                   .layer = layer};
    if (convert_stays_dense(s, layer))
        return MT_OK;
    MT_TRY(convert_layer_shape(ctx, s, layer, &s->here));
    s->all_act = convert_all_act(&s->here);
    if (s->method->begin != NULL)
        MT_TRY(s->method->begin(ctx, &s->at, &s->method_state));
    return MT_OK;
}

static mt_status convert_show_refit(struct mt_ctx *ctx, struct convert *s,
                                    const struct mt_observation *ob)
{
    struct mt_observation mine = *ob;
    unsigned char *picked;

    mine.round -= s->rounds[CONVERT_METHOD] + s->rounds[CONVERT_ROUTER];
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)s->shape.n_experts, "choices", &picked));
    mt_status st = convert_pick(ctx, s, ob->m, ob->x, picked);
    if (st == MT_OK)
        st = s->refit->observe(ctx, &s->at, s->refit_state, &mine, picked);
    mt_free(picked);
    return st;
}

static mt_status convert_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct convert *s = state;
    int method = s->rounds[CONVERT_METHOD], router = method + s->rounds[CONVERT_ROUTER];

    /* Another pass of the pipeline may ask for more rounds than this one. */
    if (ob->round >= router + s->rounds[CONVERT_REFIT])
        return MT_OK;
    if (s->all_act && ob->round >= convert_part_rounds(s->method->rounds, &s->at))
        return MT_OK;
    s->at.observed = true;
    s->n_tokens = ob->n_tokens;
    if (ob->round < method)
        return s->method->observe(ctx, &s->at, s->method_state, ob);
    MT_TRY(convert_reach(ctx, s, ob->round < router ? CONVERT_ROUTER : CONVERT_REFIT));
    return ob->round < router ? convert_show_router(ctx, s, ob) : convert_show_refit(ctx, s, ob);
}

static mt_status convert_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct convert *s = state;

    if (convert_stays_dense(s, layer))
        return MT_OK;
    MT_TRY(convert_reach(ctx, s, CONVERT_DONE));
    MT_TRY(convert_store(ctx, s, m));
    convert_end_layer(s);
    return MT_OK;
}

/* ---- report ---- */

static mt_status convert_layer_report(struct mt_ctx *ctx, void *state, int layer,
                                      struct mt_json *out)
{
    const struct convert *s = state;

    if (convert_stays_dense(s, layer)) {
        mt_json_set_bool(out, "dense", true);
        return MT_OK;
    }
    return mt_layer_numbers_write(ctx, &s->numbers[layer], mt_convert_router_names, out);
}

static mt_status convert_layer_restore(struct mt_ctx *ctx, void *state, int layer,
                                       const struct mt_json *in)
{
    struct convert *s = state;

    if (convert_stays_dense(s, layer))
        return MT_OK;
    return mt_layer_numbers_read(ctx, &s->numbers[layer], mt_convert_router_names, in);
}

static mt_status convert_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    return convert_tell(ctx, state, out);
}

const struct mt_pass mt_pass_convert_ffn = {
    .name = "convert-ffn",
    .summary = "cut dense FFNs into shared and routed experts",
    .help =
        "Divides the neurons of every dense FFN among experts of one width, gathered bit for bit, "
        "so that with all experts active the model computes what it did. Zero neurons pad widths "
        "that do not divide.\n\n"
        "A conversion is a method (which neurons go where), a router and a refit; `moetool passes "
        "convert-ffn` describes them all.\n\n"
        "Dense experts want weight 1. Formats that normalise weights get the missing factor in "
        "down_proj, and routers are multiplied by 2^-M so that weights become even while the "
        "choice stays; the report tells the remaining error.",
    .opts = mt_convert_opt_table,
    .opts_size = sizeof(struct mt_convert_opts),
    .create = convert_create,
    .aim = convert_aim,
    .profiles = convert_profiles,
    .needs = convert_needs,
    .rounds = convert_rounds,
    .asks = convert_asks,
    .plan = convert_plan_hook,
    .memory = convert_memory,
    .scratch = convert_scratch,
    .spare = convert_spare,
    .begin = convert_begin,
    .observe = convert_observe,
    .layer = convert_layer,
    .layer_report = convert_layer_report,
    .layer_restore = convert_layer_restore,
    .report = convert_report,
    .destroy = convert_destroy,
};
