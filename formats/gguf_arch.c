/* The architectures of llama.cpp that hold one of our families, and what their graphs compute
 * (spec: formats, 4.3; checked against its loader and its logits). */
#include "formats/gguf_arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LLAMA                                                                                      \
    (MT_GGUF_PERMUTED | MT_GGUF_FREQS | MT_GGUF_QKV_BIAS | MT_GGUF_O_BIAS | MT_GGUF_FFN_BIAS |     \
     MT_GGUF_PARTIAL)
#define GRANITE                                                                                    \
    (MT_GGUF_PERMUTED | MT_GGUF_FREQS | MT_GGUF_QKV_BIAS | MT_GGUF_O_BIAS | MT_GGUF_SCALES)
#define DEEPSEEK                                                                                   \
    (MT_GGUF_PAIRS | MT_GGUF_LATENT | MT_GGUF_LEAD | MT_GGUF_SHARED_ALL | MT_GGUF_SHARED |         \
     MT_GGUF_ROUTER_KEYS)
#define GEMMA (MT_GGUF_NORM_ONE | MT_GGUF_NO_YARN)

static const struct mt_gguf_arch arch_table[] = {
    {"llama", "llama", false, MT_GGUF_SUM_FREE, 0, LLAMA},
    {"llama", "mistral", false, MT_GGUF_SUM_FREE, 0, LLAMA},
    {"llama", "mixtral", true, MT_GGUF_SUM_ONE, 0, LLAMA},
    {"qwen2", "qwen2", false, MT_GGUF_SUM_FREE, 0, MT_GGUF_QKV_BIAS},
    {"qwen3", "qwen3", false, MT_GGUF_SUM_FREE, 0, 0},
    {"qwen2moe", "qwen2_moe", true, MT_GGUF_SUM_FREE, 0,
     MT_GGUF_QKV_BIAS | MT_GGUF_NARROW | MT_GGUF_HEAD | MT_GGUF_SHARED | MT_GGUF_SHARED_ALL},
    {"qwen3moe", "qwen3_moe", true, MT_GGUF_SUM_ONE, 0, 0},
    {"glm4moe", "glm4_moe", true, MT_GGUF_SUM_KEY, 0,
     MT_GGUF_PARTIAL | MT_GGUF_QKV_BIAS | MT_GGUF_LEAD | MT_GGUF_SHARED | MT_GGUF_SHARED_ALL |
         MT_GGUF_ROUTER_KEYS},
    {"olmoe", "olmoe", true, MT_GGUF_SUM_FREE, 0,
     MT_GGUF_ALL_HEADS | MT_GGUF_NARROW | MT_GGUF_HEAD},
    {"granitemoe", "granitemoe", true, MT_GGUF_SUM_ONE, 0, GRANITE},
    {"granitemoe", "granitemoeshared", true, MT_GGUF_SUM_ONE, 0, GRANITE | MT_GGUF_SHARED},
    {"deepseek2", "deepseek_v2", true, MT_GGUF_SUM_KEY, 0, DEEPSEEK},
    {"deepseek2", "deepseek_v3", true, MT_GGUF_SUM_KEY, 0, DEEPSEEK},
    {"dots1", "dots1", true, MT_GGUF_SUM_KEY, 0,
     MT_GGUF_ALL_HEADS | MT_GGUF_HEAD | MT_GGUF_LEAD | MT_GGUF_SHARED | MT_GGUF_SHARED_ALL |
         MT_GGUF_ROUTER_KEYS},
    {"ernie4_5-moe", "ernie4_5_moe", true, MT_GGUF_SUM_ONE, 0,
     MT_GGUF_PAIRS | MT_GGUF_LEAD | MT_GGUF_SHARED},
    {"gpt-oss", "gpt_oss", true, MT_GGUF_SUM_ONE, 2,
     MT_GGUF_QKV_BIAS | MT_GGUF_O_BIAS | MT_GGUF_FFN_BIAS | MT_GGUF_SINKS},
    {"gpt2", "gpt2", false, MT_GGUF_SUM_FREE, 0,
     MT_GGUF_GPT2 | MT_GGUF_QKV_BIAS | MT_GGUF_O_BIAS | MT_GGUF_FFN_BIAS | MT_GGUF_NARROW},
    {"phi3", "phi3", false, MT_GGUF_SUM_FREE, 0, MT_GGUF_LONGROPE | MT_GGUF_PARTIAL},
    {"gemma2", "gemma2", false, MT_GGUF_SUM_FREE, 2, GEMMA | MT_GGUF_SOFTCAP},
    {"gemma3", "gemma3_text", false, MT_GGUF_SUM_FREE, 6, GEMMA | MT_GGUF_SOFTCAP},
};
#define ARCHS (sizeof arch_table / sizeof arch_table[0])

/* Names that stand for two families: which of them, by what the file says. */
static bool arch_fits(const struct mt_gguf_arch *a, bool sigmoid, bool shared)
{
    if (strcmp(a->name, "deepseek2") == 0)
        return sigmoid == (strcmp(a->family, "deepseek_v3") == 0);
    if (strcmp(a->name, "granitemoe") == 0)
        return shared == ((a->does & MT_GGUF_SHARED) != 0);
    return true;
}

const struct mt_gguf_arch *mt_gguf_arch_of_file(const char *name, bool experts, bool sigmoid,
                                                bool shared)
{
    for (size_t i = 0; i < ARCHS; i++)
        if (strcmp(arch_table[i].name, name) == 0 && arch_table[i].experts == experts &&
            arch_fits(&arch_table[i], sigmoid, shared))
            return &arch_table[i];
    return NULL;
}

const struct mt_gguf_arch *mt_gguf_arch_of_family(const struct mt_family *f)
{
    for (size_t i = 0; f != NULL && i < ARCHS; i++)
        if (strcmp(arch_table[i].family, f->name) == 0)
            return &arch_table[i];
    return NULL;
}

const char *mt_gguf_arch(const struct mt_family *f)
{
    const struct mt_gguf_arch *a = mt_gguf_arch_of_family(f);

    return a != NULL ? a->name : NULL;
}

/* ---- what a graph leaves out or computes otherwise ---- */

static mt_status arch_cannot(struct mt_ctx *ctx, const struct mt_gguf_arch *a, const char *what)
{
    return mt_fail(ctx, MT_E_UNSUPPORTED,
                   "GGUF architecture %s does not hold %s; write safetensors instead", a->name,
                   what);
}

static mt_status arch_check_rope(struct mt_ctx *ctx, const struct mt_model *m,
                                 const struct mt_gguf_arch *a)
{
    const struct mt_rope_params *r = &m->hp.rope;
    bool freqs = (a->does & MT_GGUF_FREQS) != 0;

    if (m->hp.learned_pos)
        return MT_OK;
    if ((r->type == MT_ROPE_LLAMA3 && !freqs) || r->type == MT_ROPE_DYNAMIC ||
        (r->type == MT_ROPE_LONGROPE && (a->does & MT_GGUF_LONGROPE) == 0) ||
        (r->type == MT_ROPE_YARN && (a->does & (MT_GGUF_NO_YARN | MT_GGUF_LONGROPE)) != 0))
        return arch_cannot(ctx, a,
                           r->type == MT_ROPE_DYNAMIC  ? "dynamic rope scaling"
                           : r->type == MT_ROPE_LLAMA3 ? "llama3 rope scaling"
                           : r->type == MT_ROPE_YARN   ? "yarn rope scaling"
                                                       : "longrope scaling");
    if (r->type == MT_ROPE_YARN && (a->does & MT_GGUF_LATENT) != 0) {
        if (r->attention_factor > 0 || r->mscale != r->mscale_all_dim || r->mscale <= 0)
            return arch_cannot(ctx, a, "yarn whose mscale is not its mscale_all_dim");
    } else if (r->type == MT_ROPE_YARN &&
               (r->attention_factor > 0 || r->mscale > 0 || r->mscale_all_dim > 0)) {
        return arch_cannot(ctx, a, "yarn with an attention factor of its own");
    }
    if (r->type == MT_ROPE_LONGROPE && m->hp.head_dim * r->partial / 2 < 1)
        return arch_cannot(ctx, a, "longrope without rotating features");
    if (r->partial < 1 && (a->does & MT_GGUF_PARTIAL) == 0)
        return arch_cannot(ctx, a, "rotary positions on a part of each head");
    if (m->hp.mla.kv_rank == 0 && r->pairs != ((a->does & MT_GGUF_PAIRS) != 0))
        return arch_cannot(ctx, a, "features that turn in another order");
    if ((a->does & MT_GGUF_LATENT) != 0 && !r->pairs)
        return arch_cannot(ctx, a, "features that turn half by half (rope_interleave false)");
    return MT_OK;
}

static mt_status arch_check_window(struct mt_ctx *ctx, const struct mt_model *m,
                                   const struct mt_gguf_arch *a)
{
    const struct mt_hparams *hp = &m->hp;
    char what[80];

    if (a->window_every == 0)
        return mt_hp_has_window(hp) ? arch_cannot(ctx, a, "a sliding window") : MT_OK;
    snprintf(what, sizeof what, "a window on other layers than all but each %d%s", a->window_every,
             a->window_every == 2 ? "nd" : "th");
    for (int l = 0; l < hp->n_layers; l++) {
        int64_t w = mt_hp_layer_window(hp, l);
        bool want = (l + 1) % a->window_every != 0;
        /* One as long as the context is none. */
        if (hp->sliding_window > 0 && hp->sliding_window < hp->max_pos && (w > 0) != want)
            return arch_cannot(ctx, a, what);
    }
    return MT_OK;
}

/* Gemma's scale of scores is fixed but for its largest models, which are told by their depth. */
static double arch_gemma_scale(const struct mt_model *m, const struct mt_gguf_arch *a)
{
    int largest = strcmp(a->name, "gemma2") == 0 ? 46 : 62;
    double per =
        m->hp.n_layers == largest ? (double)m->hp.hidden / m->hp.n_heads : (double)m->hp.head_dim;

    return 1 / sqrt(per);
}

static mt_status arch_check_factors(struct mt_ctx *ctx, const struct mt_model *m,
                                    const struct mt_gguf_arch *a)
{
    const struct mt_hparams *hp = &m->hp;
    bool scales = (a->does & MT_GGUF_SCALES) != 0, gemma = (a->does & MT_GGUF_NORM_ONE) != 0;

    if (gemma && fabs(hp->attn_scale - arch_gemma_scale(m, a)) > 1e-9 * hp->attn_scale)
        return arch_cannot(ctx, a, "a scale of attention scores other than head_dim^-1/2");
    if (!scales && !gemma && (a->does & MT_GGUF_LATENT) == 0 && hp->attn_scale > 0 &&
        fabs(hp->attn_scale - 1 / sqrt((double)hp->head_dim)) > 1e-9)
        return arch_cannot(ctx, a, "another scale of attention scores");
    if (!scales &&
        (hp->residual_scale != 1 || hp->logit_scale != 1 || (hp->embed_scale != 1 && !gemma)))
        return arch_cannot(ctx, a, "scaled embeddings, residuals or logits");
    if ((a->does & MT_GGUF_SOFTCAP) == 0 && (hp->attn_softcap != 0 || hp->logit_softcap != 0))
        return arch_cannot(ctx, a, "soft-capped scores or logits");
    if (strcmp(a->name, "gemma3") == 0 && hp->attn_softcap != 0)
        return arch_cannot(ctx, a, "soft-capped scores");
    if (strcmp(a->name, "gemma2") == 0 && (hp->attn_softcap == 0 || hp->logit_softcap == 0))
        return arch_cannot(ctx, a, "scores or logits without a soft-cap");
    if (hp->clip_qkv != 0)
        return arch_cannot(ctx, a, "clipped q, k and v (clip_qkv)");
    return MT_OK;
}

/* Models without a latent vector of queries are known by their depth. */
static bool arch_lite(const struct mt_hparams *hp)
{
    return hp->n_layers == 26 || hp->n_layers == 27 || (hp->n_layers == 48 && hp->vocab == 128256);
}

static mt_status arch_check_attention(struct mt_ctx *ctx, const struct mt_model *m,
                                      const struct mt_gguf_arch *a)
{
    const struct mt_hparams *hp = &m->hp;

    MT_TRY(arch_check_window(ctx, m, a));
    MT_TRY(arch_check_rope(ctx, m, a));
    MT_TRY(arch_check_factors(ctx, m, a));
    if (hp->o_bias && (a->does & MT_GGUF_O_BIAS) == 0)
        return arch_cannot(ctx, a, "a bias on o_proj");
    if (hp->qkv_bias && (a->does & MT_GGUF_QKV_BIAS) == 0)
        return arch_cannot(ctx, a, "biases on q, k and v");
    if ((a->does & MT_GGUF_NARROW) != 0 && hp->head_dim * (int64_t)hp->n_heads != hp->hidden)
        return arch_cannot(ctx, a, "heads that are not hidden size / heads wide");
    if ((a->does & MT_GGUF_ALL_HEADS) != 0 && hp->n_kv_heads != hp->n_heads)
        return arch_cannot(ctx, a, "fewer heads of keys and values than of queries");
    if ((a->does & MT_GGUF_LATENT) != 0 && fabs(hp->mla.eps - hp->norm_eps) > 1e-9)
        return arch_cannot(ctx, a, "another epsilon in the norms of latent vectors");
    if ((a->does & MT_GGUF_LATENT) != 0 && hp->mla.q_rank == 0 && !arch_lite(hp))
        return arch_cannot(ctx, a, "queries without a latent vector, but in 26 or 27 layers");
    if (hp->n_heads * hp->head_dim % 2 != 0 || hp->head_dim % 2 != 0)
        return arch_cannot(ctx, a, "heads of odd size");
    return MT_OK;
}

static mt_status arch_check_moe(struct mt_ctx *ctx, const struct mt_model *m,
                                const struct mt_gguf_arch *a, const struct mt_ffn *moe)
{
    const struct mt_router_rule *r = &moe->rule;
    bool to_one = r->renorm || r->score == MT_SCORE_SOFTMAX_TOPK, sparse = false;

    if (moe->shared_width == 0 && (a->does & MT_GGUF_SHARED_ALL) != 0)
        return arch_cannot(ctx, a, "layers without a shared expert");
    if (a->weights == MT_GGUF_SUM_ONE && !to_one)
        return arch_cannot(ctx, a, "a router whose weights do not sum to one");
    if (a->weights == MT_GGUF_SUM_FREE && to_one && moe->k > 1)
        return arch_cannot(ctx, a, "a router whose weights sum to one (norm_topk_prob)");
    /* A group's worth is the sum of its two best there. */
    if (r->n_group > 1 && r->score != MT_SCORE_SIGMOID && r->topk_group < r->n_group)
        return arch_cannot(ctx, a, "groups of experts chosen by their best");
    for (int l = 0; l < m->hp.n_layers; l++) {
        if (m->ffn[l].moe)
            sparse = true;
        else if ((a->does & MT_GGUF_LEAD) == 0 || sparse)
            return arch_cannot(ctx, a,
                               sparse ? "dense layers behind sparse ones"
                                      : "dense layers beside sparse ones");
    }
    if (moe->glu_limit != 0 && moe->glu_limit != 7)
        return arch_cannot(ctx, a, "a swiglu_limit other than 7");
    return MT_OK;
}

static mt_status arch_check_ffn(struct mt_ctx *ctx, const struct mt_model *m,
                                const struct mt_gguf_arch *a)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    enum mt_act act = (a->does & (MT_GGUF_GPT2 | MT_GGUF_NORM_ONE)) != 0 ? MT_ACT_GELU_TANH
                      : (a->does & MT_GGUF_SINKS) != 0                   ? MT_ACT_QUICK_GELU
                                                                         : MT_ACT_SILU;

    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        if (f->act != act || f->gated == ((a->does & MT_GGUF_GPT2) != 0))
            return arch_cannot(ctx, a,
                               act == MT_ACT_SILU ? "activations other than gated silu"
                                                  : "activations other than its own");
        if ((f->in_bias || f->out_bias) && (a->does & MT_GGUF_FFN_BIAS) == 0)
            return arch_cannot(ctx, a, "biases in FFNs");
    }
    return moe == NULL ? MT_OK : arch_check_moe(ctx, m, a, moe);
}

mt_status mt_gguf_holds(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_gguf_arch *a = mt_gguf_arch_of_family(m->family);

    if (a == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: no GGUF architecture is known for it, and none for moetool's native "
                       "layout; write a directory instead",
                       m->model_type != NULL ? m->model_type : m->path);
    MT_TRY(arch_check_attention(ctx, m, a));
    return arch_check_ffn(ctx, m, a);
}
