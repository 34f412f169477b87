/* What a family cannot hold is refused by the name of the one thing. */
#include "tests/family_kit.h"

#include <stdlib.h>

enum change {
    QKV_BIAS,
    O_BIAS,
    ALL_BIAS,
    NO_BIAS,
    WIDE_HEADS,
    HEAD_NORM,
    NO_NORM,
    FULL_NORM,
    PARTIAL,
    WINDOW,
    LATE_WINDOW,
    LONG_WINDOW,
    LAYER_NORM,
    OFFSET_NORM,
    EMBED_SCALE,
    SHARED,
    GATED_SHARED,
    ODD_SHARED,
    NO_SHARED,
    SIGMOID,
    SOFTMAX,
    BIASED_ROUTER,
    UNBIASED_ROUTER,
    SCALED,
    GROUPS,
    NO_RENORM,
    TOPK_SOFTMAX,
    NO_EPS,
    GELU,
    UNGATED,
    CLAMPED,
    FFN_BIAS,
    IN_BIAS,
    DENSE_FIRST,
    DENSE_LAST,
    DENSE,
    MOE,
    TWO_COUNTS,
    TWO_K,
    TWO_WIDTHS,
    TWO_RULES,
    TWO_DENSE,
    ONE_EXPERT,
};

static void change_ffn(struct mt_ffn *f, enum change c)
{
    switch (c) {
    case SHARED:
        f->shared_width = f->width;
        break;
    case GATED_SHARED:
        f->shared_width = f->width, f->shared_gated = true;
        break;
    case ODD_SHARED:
        f->shared_width = f->width + 1;
        break;
    case NO_SHARED:
        f->shared_width = 0;
        break;
    case SIGMOID:
        f->rule.score = MT_SCORE_SIGMOID;
        break;
    case SOFTMAX:
        f->rule.score = MT_SCORE_SOFTMAX;
        break;
    case TOPK_SOFTMAX:
        f->rule.score = MT_SCORE_SOFTMAX_TOPK, f->rule.renorm = false;
        break;
    case BIASED_ROUTER:
        f->rule.has_bias = true;
        break;
    case UNBIASED_ROUTER:
        f->rule.has_bias = false;
        break;
    case SCALED:
        f->rule.scale = 2.5;
        break;
    case GROUPS:
        f->rule.n_group = 4, f->rule.topk_group = 2;
        break;
    case NO_RENORM:
        f->rule.renorm = false;
        break;
    case NO_EPS:
        f->rule.renorm_eps = 0;
        break;
    case GELU:
        f->act = MT_ACT_GELU_TANH;
        break;
    case UNGATED:
        f->gated = false;
        break;
    case CLAMPED:
        f->glu_limit = 7;
        break;
    case FFN_BIAS:
        f->in_bias = f->out_bias = true;
        break;
    case IN_BIAS:
        f->in_bias = true;
        break;
    case ONE_EXPERT:
        f->n_experts = f->k = 1;
        break;
    case MOE:
        f->moe = true, f->n_experts = 8, f->k = 2;
        break;
    default:
        break;
    }
}

static void change_hparams(struct mt_hparams *hp, enum change c)
{
    switch (c) {
    case QKV_BIAS:
        hp->qkv_bias = true;
        break;
    case O_BIAS:
        hp->o_bias = true;
        break;
    case ALL_BIAS:
        hp->qkv_bias = hp->o_bias = true;
        break;
    case NO_BIAS:
        hp->qkv_bias = false;
        break;
    case WIDE_HEADS:
        hp->head_dim += 8;
        break;
    case HEAD_NORM:
        hp->qk_norm = MT_QK_NORM_HEAD;
        break;
    case NO_NORM:
        hp->qk_norm = MT_QK_NORM_NONE;
        break;
    case FULL_NORM:
        hp->qk_norm = MT_QK_NORM_FULL;
        break;
    case PARTIAL:
        hp->rope.partial = 0.5;
        break;
    case WINDOW:
        hp->sliding_window = 128;
        break;
    case LATE_WINDOW:
        hp->sliding_window = 128, hp->window_first_layer = 1;
        break;
    case LONG_WINDOW:
        hp->sliding_window = 512;
        break;
    case LAYER_NORM:
        hp->norm = MT_NORM_LAYER;
        break;
    case OFFSET_NORM:
        hp->norm_offset = 1;
        break;
    case EMBED_SCALE:
        hp->embed_scale = 8;
        break;
    default:
        break;
    }
}

static void change_model(struct mt_model *m, enum change c)
{
    const struct mt_ffn dense = {.gated = true, .width = 100};

    change_hparams(&m->hp, c);
    switch (c) {
    case DENSE_FIRST:
        m->ffn[0] = dense;
        break;
    case DENSE_LAST:
        m->ffn[3] = dense;
        break;
    case DENSE:
        m->ffn[0] = m->ffn[1] = m->ffn[2] = m->ffn[3] = dense;
        break;
    case TWO_COUNTS:
        m->ffn[2].n_experts = 6;
        break;
    case TWO_K:
        m->ffn[2].k = 1;
        break;
    case TWO_WIDTHS:
        m->ffn[2].width = 64;
        break;
    case TWO_RULES:
        m->ffn[2].rule.scale = 3;
        break;
    case TWO_DENSE:
        m->ffn[0] = m->ffn[1] = dense, m->ffn[1].width++;
        break;
    default:
        for (int l = 0; l < 4; l++)
            change_ffn(&m->ffn[l], c);
        break;
    }
}

static const struct {
    const char *family;
    enum change change;
    const char *want; /* NULL: it can */
} holds[] = {
    {"qwen2_moe", WIDE_HEADS,
     "heads that together are not as wide as the hidden state; glm4_moe can"},
    {"olmoe", WIDE_HEADS,
     "heads that together are not as wide as the hidden state; only the native layout can"},
    {"granitemoe", SHARED, "granitemoe cannot hold a shared expert; granitemoeshared can"},
    {"granitemoe", EMBED_SCALE, NULL},
    {"granitemoeshared", SHARED, NULL},
    {"granitemoeshared", ALL_BIAS, NULL},
    {"granitemoeshared", QKV_BIAS, "biases on only some of q, k, v and o; glm4_moe can"},
    {"granitemoeshared", HEAD_NORM, "q/k norms; glm4_moe can"},
    {"granitemoeshared", SIGMOID, "a sigmoid router; glm4_moe can"},
    {"granitemoeshared", WINDOW, "sliding-window attention; mixtral can"},
    {"granitemoeshared", DENSE_FIRST, "dense layers beside sparse ones; glm4_moe can"},
    {"granitemoeshared", TWO_COUNTS, "expert counts that differ between layers"},
    {"mixtral", QKV_BIAS, "mixtral cannot hold biases on q, k and v; glm4_moe can"},
    {"mixtral", HEAD_NORM, "mixtral cannot hold q/k norms; glm4_moe can"},
    {"mixtral", SHARED, "mixtral cannot hold a shared expert; glm4_moe can"},
    {"mixtral", ALL_BIAS, "biases on q, k and v; granitemoeshared can"},
    {"mixtral", O_BIAS, "a bias on o_proj; only the native layout can"},
    {"mixtral", PARTIAL, "rotary positions on a part of each head; glm4_moe can"},
    {"mixtral", WINDOW, NULL},
    {"mixtral", LATE_WINDOW, "a sliding window in some layers only"},
    {"mixtral", SIGMOID, "a sigmoid router; glm4_moe can"},
    {"mixtral", BIASED_ROUTER, "a selection bias in the router; glm4_moe can"},
    {"mixtral", SCALED, "scaled router weights; glm4_moe can"},
    {"mixtral", GROUPS, "groups of experts; glm4_moe can"},
    {"mixtral", NO_RENORM, "router weights that are not renormalised; qwen3_moe can"},
    {"mixtral", TOPK_SOFTMAX, NULL},
    {"mixtral", GELU, "gelu"},
    {"mixtral", UNGATED, "FFNs without a gate"},
    {"mixtral", CLAMPED, "FFNs that clamp their gate"},
    {"mixtral", FFN_BIAS, "biases in FFNs"},
    {"mixtral", DENSE_FIRST, "dense layers beside sparse ones; glm4_moe can"},
    {"mixtral", DENSE, "a model without experts"},
    {"mixtral", TWO_COUNTS, "expert counts that differ between layers"},
    {"mixtral", TWO_K, "different numbers of active experts by layer"},
    {"mixtral", TWO_WIDTHS, "expert widths that differ between layers"},
    {"mixtral", TWO_RULES, "router rules that differ between layers"},
    {"mixtral", LAYER_NORM, "plain RMSNorm only"},
    {"mixtral", OFFSET_NORM, "plain RMSNorm only"},
    {"mixtral", EMBED_SCALE, "scaled embeddings"},
    {"mixtral", FULL_NORM, "q/k norms over all heads at once"},
    {"qwen3_moe", NO_NORM, "qwen3_moe cannot hold attention without q/k norms; glm4_moe can"},
    {"qwen3_moe", SHARED, "qwen3_moe cannot hold a shared expert; glm4_moe can"},
    {"qwen3_moe", QKV_BIAS, "biases on only some of q, k, v and o; glm4_moe can"},
    {"qwen3_moe", ALL_BIAS, NULL},
    {"qwen3_moe", NO_RENORM, NULL},
    {"qwen3_moe", WINDOW, NULL},
    {"qwen3_moe", LATE_WINDOW, "a sliding window in some layers only"},
    {"qwen3_moe", SIGMOID, "a sigmoid router; glm4_moe can"},
    {"qwen3_moe", DENSE_FIRST, NULL},
    {"qwen3_moe", DENSE_LAST, NULL},
    {"qwen3_moe", TWO_DENSE, "FFN widths that differ between layers"},
    {"qwen3_moe", GELU, "experts (SiLU only)"},
    {"glm4_moe", QKV_BIAS, NULL},
    {"glm4_moe", O_BIAS, "glm4_moe cannot hold a bias on o_proj; only the native layout can"},
    {"glm4_moe", ALL_BIAS, "glm4_moe cannot hold a bias on o_proj"},
    {"glm4_moe", HEAD_NORM, NULL},
    {"glm4_moe", PARTIAL, NULL},
    {"glm4_moe", WINDOW, "glm4_moe cannot hold sliding-window attention; mixtral can"},
    {"glm4_moe", LONG_WINDOW, NULL},
    {"glm4_moe", SOFTMAX, "a softmax router; qwen3_moe or mixtral can"},
    {"glm4_moe", UNBIASED_ROUTER, "a router without a selection bias (zeros where unused)"},
    {"glm4_moe", SCALED, NULL},
    {"glm4_moe", GROUPS, NULL},
    {"glm4_moe", NO_RENORM, NULL},
    {"glm4_moe", NO_EPS, "a renormalisation without its 1e-20"},
    {"glm4_moe", NO_SHARED, NULL},
    {"glm4_moe", ODD_SHARED, "a shared expert whose width is no multiple"},
    {"glm4_moe", GATED_SHARED, "a gated shared expert"},
    {"glm4_moe", DENSE_FIRST, NULL},
    {"glm4_moe", DENSE_LAST, "dense layers behind sparse ones"},
    {"glm4_moe", ONE_EXPERT, "fewer than two experts in a group"},
    {"glm4_moe", GELU, "experts (SiLU only)"},
    {"llama", QKV_BIAS, "biases on only some of q, k, v and o; qwen2 can"},
    {"llama", ALL_BIAS, NULL},
    {"llama", FFN_BIAS, NULL},
    {"llama", IN_BIAS, "biases on only a part of the FFN"},
    {"llama", GELU, NULL},
    {"llama", HEAD_NORM, "llama cannot hold q/k norms; qwen3 can"},
    {"llama", WINDOW, "llama cannot hold sliding-window attention; mistral can"},
    {"llama", MOE, "llama cannot hold experts; glm4_moe can"},
    {"llama", TWO_DENSE, "FFN widths that differ"},
    {"llama", PARTIAL, "rotary positions on a part of each head"},
    {"mistral", WINDOW, NULL},
    {"mistral", FFN_BIAS, "biases in FFNs; llama can"},
    {"mistral", ALL_BIAS, "mistral cannot hold biases on q, k and v; llama can"},
    {"qwen2", NO_BIAS, "qwen2 cannot hold attention without biases on q, k and v; llama can"},
    {"qwen2", LATE_WINDOW, NULL},
    {"qwen2", O_BIAS, "qwen2 cannot hold a bias on o_proj; llama can"},
    {"qwen3", NO_NORM, "qwen3 cannot hold attention without q/k norms; llama can"},
    {"qwen3", ALL_BIAS, NULL},
};

T_TEST(refusals_name_the_one_thing_and_who_can)
{
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        struct mt_model *m = fk_plain(t, holds[i].family), *r;
        mt_status st;

        T_CHECK(t, m != NULL);
        change_model(m, holds[i].change);
        st = m->family->can_hold(&t->ctx, m);
        if (holds[i].want != NULL) {
            if (st != MT_E_UNSUPPORTED || strstr(mt_error(&t->ctx), holds[i].want) == NULL)
                T_FAIL(t, "row %zu: status %d, \"%s\", wanted \"%s\"", i, (int)st,
                       mt_error(&t->ctx), holds[i].want);
        } else {
            /* What it says it can hold, its config must be able to say. */
            T_OK(t, st);
            T_OK(t, fk_again(t, m, "{}", &r, NULL));
            if (holds[i].change == TOPK_SOFTMAX)
                for (int l = 0; l < 4; l++)
                    m->ffn[l].rule = r->ffn[l].rule;
            if (holds[i].change == LONG_WINDOW)
                m->hp.sliding_window = 0;
            if (!fk_same(m, r))
                T_FAIL(t, "row %zu (%s) does not survive its config", i, holds[i].family);
            mt_model_free(r);
        }
        mt_model_free(m);
    }
}
