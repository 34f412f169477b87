#include "passes/lib/target_choice.h"

#include "lib/base/mem.h"

#include <stdio.h>
#include <string.h>

#define CHOICE_MAX 16

enum choice_verdict { CHOICE_EXACT, CHOICE_ROUNDS, CHOICE_CANNOT };

struct choice_one {
    const struct mt_target *target;
    enum choice_verdict verdict;
    char reason[160]; /* "cannot hold a sliding window"; empty when exact */
};

bool mt_target_exact(const struct mt_moe_shape *s)
{
    return mt_scale_is_exact(mt_target_alpha(&s->use, s->n_experts, s->k));
}

static void choice_ffn(const struct mt_moe_shape *s, struct mt_ffn *f)
{
    f->moe = true;
    f->width = s->expert_width;
    f->n_experts = s->n_experts;
    f->k = s->k;
    f->shared_width = s->shared_width;
    f->shared_gated = s->shared_width > 0 && s->target->shared_gated;
    f->rule = s->use.rule;
    f->layer_bias = f->out_bias && !s->expert_bias;
    f->out_bias = f->out_bias && s->expert_bias;
}

mt_status mt_target_holds(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                          const struct mt_model *src, const struct mt_format *format)
{
    struct mt_model m = *src; /* as it would be: looked at, never owned */
    size_t n = (size_t)src->hp.n_layers;
    mt_status st;

    m.family = mt_family_find(s->target->family);
    mt_assert(m.family != NULL && m.family->can_hold != NULL);
    m.model_type = m.family->name;
    m.hp.qkv_bias |= s->zero_biases;
    MT_TRY(mt_alloc(ctx, n, sizeof(*m.ffn), "layers", &m.ffn));
    memcpy(m.ffn, src->ffn, n * sizeof(*m.ffn));
    for (size_t l = 0; l < n; l++)
        if (s->dense == NULL || !s->dense[l])
            choice_ffn(s, &m.ffn[l]);
    st = m.family->can_hold(ctx, &m);
    if (st == MT_OK && format != NULL && format->holds != NULL)
        st = format->holds(ctx, &m);
    mt_free(m.ffn);
    return st;
}

static void choice_order(const struct mt_model *src, const struct mt_shape_ask *ask,
                         struct choice_one *all, int *n)
{
    static const char *const order[][9] = {
        {"glm4_moe", "granitemoeshared", "dots1", "mixtral", "qwen3_moe", "granitemoe", "qwen2_moe",
         "olmoe", "native"},
        /* Without shared experts the plainest come earlier. */
        {"glm4_moe", "mixtral", "dots1", "qwen3_moe", "granitemoe", "granitemoeshared", "qwen2_moe",
         "olmoe", "native"},
        /* Copies share nothing. */
        {"mixtral", "qwen3_moe", "granitemoe", "glm4_moe", "dots1", "granitemoeshared", "qwen2_moe",
         "olmoe", "native"},
    };
    bool copies = ask->copies > 0, none = strcmp(ask->shared, "0") == 0;
    bool shared = !copies && !none && strcmp(ask->shared, "auto") != 0;
    const char *const *names = order[copies ? 2 : none];
    bool qwen3 = !shared && strcmp(src->family->name, "qwen3") == 0;

    *n = 0;
    if (qwen3)
        all[(*n)++].target = mt_target_find("qwen3_moe");
    for (size_t i = 0; i < sizeof(order[0]) / sizeof(order[0][0]); i++)
        if (!qwen3 || strcmp(names[i], "qwen3_moe") != 0)
            all[(*n)++].target = mt_target_find(names[i]);
}

/* What a refusal says of the thing refused, without who refuses and who else could. */
static void choice_reason(const char *family, const char *error, char *out, size_t size)
{
    const char *end = strchr(error, ';'), *tail = strstr(error, ", and no other"), *p;
    size_t n = strlen(family);

    if (tail != NULL && (end == NULL || tail < end))
        end = tail;
    p = strstr(error, "not supported: ");
    error = p != NULL ? p + strlen("not supported: ") : error;
    if (strncmp(error, family, n) == 0 && error[n] == ' ')
        error += n + 1;
    snprintf(out, size, "%.*s", end != NULL && end > error ? (int)(end - error) : (int)size, error);
}

static mt_status choice_judge(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                              const struct mt_model *src, struct choice_one *one,
                              struct mt_moe_shape *s)
{
    mt_status st;

    one->verdict = CHOICE_CANNOT;
    MT_TRY(mt_moe_shape_for(ctx, ask, src, one->target, s));
    if (s->n_shared > 0 && !one->target->shared) {
        snprintf(one->reason, sizeof(one->reason), "no shared experts");
        return MT_OK;
    }
    if (s->own_active && !one->target->any_ffn) {
        snprintf(one->reason, sizeof(one->reason),
                 "cannot hold a number of active experts for each layer");
        return MT_OK;
    }
    if (s->copies > 0 && !mt_target_sums(&s->use)) {
        snprintf(one->reason, sizeof(one->reason), "expert weights that do not sum to one");
        return MT_OK;
    }
    st = mt_target_holds(ctx, s, src, ask->format);
    if (st == MT_E_UNSUPPORTED) {
        choice_reason(one->target->family, mt_error(ctx), one->reason, sizeof(one->reason));
        return MT_OK;
    }
    MT_TRY(st);
    one->verdict = mt_target_exact(s) ? CHOICE_EXACT : CHOICE_ROUNDS;
    if (one->verdict == CHOICE_ROUNDS)
        snprintf(one->reason, sizeof(one->reason), "would round down_proj (times %g)",
                 mt_target_alpha(&s->use, s->n_experts, s->k));
    return MT_OK;
}

static bool choice_is_verb(const char *reason)
{
    return strncmp(reason, "cannot ", 7) == 0 || strncmp(reason, "would ", 6) == 0;
}

/* "glm4_moe, dots1 cannot hold a sliding window; mixtral ...": all but `but`, those with one reason
 * together. What a format says names itself. */
static void choice_reasons(const struct choice_one *all, int n, int but, char *out, size_t size)
{
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        bool told = i == but;
        for (int j = 0; j < i && !told; j++)
            told = j != but && strcmp(all[j].reason, all[i].reason) == 0;
        for (int j = i; j < n && !told && at < size; j++)
            if (j != but && strcmp(all[j].reason, all[i].reason) == 0)
                at += (size_t)snprintf(out + at, size - at, "%s%s",
                                       j > i    ? ", "
                                       : at > 0 ? "; "
                                                : "",
                                       mt_target_name(all[j].target));
        if (!told && at < size)
            at += (size_t)snprintf(out + at, size - at, "%s%s",
                                   choice_is_verb(all[i].reason) ? " " : ": ", all[i].reason);
    }
}

mt_status mt_target_choose(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                           const struct mt_model *src, struct mt_moe_shape *out)
{
    struct choice_one all[CHOICE_MAX] = {{0}};
    char text[MT_WHY_BYTES - 128] = "";
    int n, tried = 0, pick = -1;

    choice_order(src, ask, all, &n);
    for (; tried < n && (pick < 0 || all[pick].verdict != CHOICE_EXACT); tried++) {
        /* A rounded factor is a smaller price than a layout that no engine loads; and that layout
         * is a directory. */
        if (all[tried].target->any_ffn && (pick >= 0 || ask->format != NULL))
            break;
        MT_TRY(choice_judge(ctx, ask, src, &all[tried], out));
        if (all[tried].verdict == CHOICE_EXACT || (all[tried].verdict == CHOICE_ROUNDS && pick < 0))
            pick = tried;
    }
    choice_reasons(all, tried, pick, text, sizeof(text));
    if (pick < 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "no architecture that can be written as %s holds this model%s: %s",
                       ask->format != NULL ? ask->format->name : "safetensors",
                       ask->format != NULL ? ", but a directory can" : "", text);
    MT_TRY(mt_moe_shape_for(ctx, ask, src, all[pick].target, out));
    snprintf(out->why, sizeof(out->why), "architecture %s %s%s%s", mt_target_name(all[pick].target),
             all[pick].verdict == CHOICE_EXACT ? "holds the result exactly"
                                               : "holds the result but for rounding",
             text[0] != 0 ? "; " : "", text);
    return MT_OK;
}
