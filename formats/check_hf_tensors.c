/* What engines make of the tensors of a safetensors model: which they miss, which they have no
 * place for, and what their code takes for granted about those they load. */
#include "formats/check_hf.h"

#include "lib/base/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool tensors_ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);

    return n >= s && strcmp(name + n - s, suffix) == 0;
}

/* A quantization scheme that is not read here: its tensors have names of their own. */
static bool tensors_quantized(const struct mt_check *c)
{
    return mt_json_kind(mt_json_get(c->m->config, "quantization_config")) == MT_JSON_OBJECT &&
           !c->m->unblocked && c->flaw != NULL;
}

static bool tensors_family_is(const struct mt_check *c, const char *const *list)
{
    for (size_t i = 0; c->m->family != NULL && list[i] != NULL; i++)
        if (strcmp(c->m->family->name, list[i]) == 0)
            return true;
    return false;
}

/* ---- against the config ---- */

static mt_status tensors_flaws(struct mt_ctx *ctx, struct mt_check *c, enum mt_flaw_kind kind)
{
    const struct mt_flaws *all = c->m->flaws;

    for (size_t i = 0; all != NULL && !tensors_quantized(c) && i < all->n; i++)
        if (all->v[i].kind == kind)
            MT_TRY(mt_check_found(ctx, c, all->v[i].subject, "%s", all->v[i].what));
    return MT_OK;
}

mt_status mt_check_hf_missing(struct mt_ctx *ctx, struct mt_check *c)
{
    return tensors_flaws(ctx, c, MT_FLAW_MISSING);
}

mt_status mt_check_hf_shapes(struct mt_ctx *ctx, struct mt_check *c)
{
    return tensors_flaws(ctx, c, MT_FLAW_SHAPE);
}

mt_status mt_check_hf_surplus(struct mt_ctx *ctx, struct mt_check *c)
{
    return tensors_flaws(ctx, c, MT_FLAW_SURPLUS);
}

mt_status mt_check_hf_flaw(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->flaw != NULL && c->m->family != NULL && !tensors_quantized(c) &&
                   (c->m->flaws == NULL || c->m->flaws->n == 0)
               ? mt_check_found(ctx, c, "tensors", "%s", c->flaw)
               : MT_OK;
}

mt_status mt_check_hf_unjudged(struct mt_ctx *ctx, struct mt_check *c)
{
    if (tensors_quantized(c))
        return mt_check_found(ctx, c, "quantization_config",
                              "its tensors are not judged: only files were checked");
    return c->flaw != NULL && c->m->family == NULL && c->m->flaw_status != MT_E_FORMAT
               ? mt_check_found(ctx, c, "config.json", "%s; only files were checked", c->flaw)
               : MT_OK;
}

mt_status mt_check_hf_values(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->flaw != NULL && c->m->family == NULL && c->m->flaw_status == MT_E_FORMAT
               ? mt_check_found(ctx, c, "config.json", "%s", c->flaw)
               : MT_OK;
}

/* ---- tensors of no role ---- */

/* Buffers that old releases saved and all loaders skip. */
static bool tensors_buffer(const char *name)
{
    return tensors_ends(name, ".rotary_emb.inv_freq") || tensors_ends(name, ".attn.bias") ||
           tensors_ends(name, ".attn.masked_bias") || tensors_ends(name, "position_ids");
}

/* Of a layer behind the last one: the number of it; else -1. */
static int64_t tensors_predictor(const struct mt_check *c, const char *name)
{
    static const char prefix[] = "model.layers.";
    char *end;
    long l;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return -1;
    l = strtol(name + sizeof prefix - 1, &end, 10);
    return *end == '.' && l >= c->m->hp.n_layers ? l : -1;
}

/* Encoders and models with other heads have more than the rows of their family name. */
mt_status mt_check_hf_unknown(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch = mt_check_architecture(c);
    char show[MT_SHOW_BYTES];

    if (c->m->family == NULL || c->flaw != NULL || arch == NULL || !mt_check_vllm_knows(arch) ||
        strcmp(arch, c->m->family->architecture) != 0)
        return MT_OK;
    for (size_t i = 0; i < c->m->n_tensors; i++) {
        const struct mt_tensor *t = c->m->tensors[i];
        if (t->role.kind == MT_ROLE_OTHER && !tensors_buffer(t->name) &&
            tensors_predictor(c, t->name) < 0)
            MT_TRY(mt_check_found(ctx, c, mt_show_name(t->name, show), "%s has no place for it",
                                  c->m->family->architecture));
    }
    return MT_OK;
}

static bool tensors_have_predictors(const struct mt_check *c)
{
    for (size_t i = 0; i < c->m->n_tensors; i++)
        if (c->m->tensors[i]->role.kind == MT_ROLE_OTHER &&
            tensors_predictor(c, c->m->tensors[i]->name) >= 0)
            return true;
    return false;
}

static int64_t tensors_declared_predictors(const struct mt_check *c)
{
    int64_t n = 0;

    return mt_json_integer(mt_json_get(c->m->config, "num_nextn_predict_layers"), &n) ? n : 0;
}

mt_status mt_check_hf_undeclared(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m->family != NULL && tensors_declared_predictors(c) == 0 && tensors_have_predictors(c)
               ? mt_check_found(ctx, c, "num_nextn_predict_layers",
                                "0, but there are tensors behind layer %d", c->m->hp.n_layers - 1)
               : MT_OK;
}

mt_status mt_check_hf_declared(struct mt_ctx *ctx, struct mt_check *c)
{
    int64_t n = tensors_declared_predictors(c);

    return c->m->family != NULL && n > 0 && !tensors_have_predictors(c)
               ? mt_check_found(ctx, c, "num_nextn_predict_layers",
                                "%" PRId64 ", but there are no tensors behind layer %d: the model "
                                "loads, drafting with it and converting it to GGUF fail",
                                n, c->m->hp.n_layers - 1)
               : MT_OK;
}

/* DeepSeek's queries have a name for those of a latent vector and one for those without. */
mt_status mt_check_hf_queries(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_mla *mla = &c->m->hp.mla;

    for (size_t i = 0; c->m->family != NULL && mla->kv_rank > 0 && i < c->m->n_tensors; i++) {
        const struct mt_tensor *t = c->m->tensors[i];
        if (t->role.kind == MT_ROLE_ATTN_Q && t->role.part == MT_PART_WEIGHT &&
            (strstr(t->name, ".q_b_proj.") != NULL) != (mla->q_rank > 0))
            MT_TRY(mt_check_found(ctx, c, t->name,
                                  "q_lora_rank %" PRId64 " asks for queries of another name",
                                  mla->q_rank));
    }
    return MT_OK;
}

/* Experts in stacks of the families that publish them one by one. */
mt_status mt_check_hf_stacked(struct mt_ctx *ctx, struct mt_check *c)
{
    for (const struct mt_cut *cut = c->m->cuts; cut != NULL; cut = cut->next)
        if (strstr(cut->whole->name, ".mlp.experts.") != NULL && c->m->family->fused == NULL)
            return mt_check_found(
                ctx, c, cut->whole->name,
                "experts in a stack: releases before summer 2026 ask for those of "
                "%s one by one",
                c->m->family->architecture);
    return MT_OK;
}

/* ---- what code takes for granted ---- */

mt_status mt_check_hf_bias_dtype(struct mt_ctx *ctx, struct mt_check *c)
{
    for (size_t i = 0; i < c->m->n_tensors; i++) {
        const struct mt_tensor *t = c->m->tensors[i];
        if (t->role.kind == MT_ROLE_ROUTER_BIAS && t->dtype != MT_F32)
            MT_TRY(mt_check_found(ctx, c, t->name,
                                  "stored as %s: rounded selection biases send tokens to other "
                                  "experts",
                                  mt_dtype_name(t->dtype)));
    }
    return MT_OK;
}

static mt_status tensors_rounded(struct mt_ctx *ctx, struct mt_check *c, const char *const *keep)
{
    const struct mt_tensor *embed = mt_model_find(c->m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE));

    if (embed == NULL || (embed->dtype != MT_BF16 && embed->dtype != MT_F16) ||
        tensors_family_is(c, keep))
        return MT_OK;
    for (size_t i = 0; i < c->m->n_tensors; i++) {
        const struct mt_tensor *t = c->m->tensors[i];
        if (t->role.kind == MT_ROLE_ROUTER && t->role.part == MT_PART_WEIGHT && t->dtype == MT_F32)
            return mt_check_found(ctx, c, t->name,
                                  "routers are stored in F32, and loaded in %s like the rest: "
                                  "near-ties may choose other experts",
                                  mt_dtype_name(embed->dtype));
    }
    return MT_OK;
}

mt_status mt_check_hf_rounded_transformers(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const keep[] = {"ernie4_5_moe", NULL};

    return tensors_rounded(ctx, c, keep);
}

mt_status mt_check_hf_rounded_vllm(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const keep[] = {"glm4_moe", "ernie4_5_moe", NULL};

    return tensors_rounded(ctx, c, keep);
}

/* Whether two tensors of one shape differ, judged by three rows. */
static mt_status tensors_differ(struct mt_ctx *ctx, const struct mt_tensor *a,
                                const struct mt_tensor *b, bool *differ)
{
    int64_t rows = mt_tensor_rows(a), at[3] = {0, rows / 2, rows - 1};
    size_t cols = (size_t)mt_tensor_cols(a);
    float *x;

    *differ = false;
    if (rows != mt_tensor_rows(b) || mt_tensor_cols(a) != mt_tensor_cols(b) || rows == 0 ||
        !mt_dtype_is_plain_float(a->dtype) || !mt_dtype_is_plain_float(b->dtype))
        return MT_OK;
    MT_TRY(mt_alloc(ctx, cols, 2 * sizeof *x, "rows of the head", &x));
    mt_status st = MT_OK;
    for (int i = 0; i < 3 && st == MT_OK && !*differ; i++) {
        st = mt_tensor_fetch_f32(ctx, a, at[i], 1, x);
        if (st == MT_OK)
            st = mt_tensor_fetch_f32(ctx, b, at[i], 1, x + cols);
        *differ = st == MT_OK && memcmp(x, x + cols, cols * sizeof *x) != 0;
    }
    mt_free(x);
    return st;
}

mt_status mt_check_hf_tied(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_tensor *head = mt_model_find(c->m, mt_role(MT_ROLE_LM_HEAD, -1, -1));
    const struct mt_tensor *embed = mt_model_find(c->m, mt_role(MT_ROLE_EMBED, -1, -1));
    bool differ;

    if (c->m->family == NULL || !c->m->hp.tied || head == NULL || embed == NULL)
        return MT_OK;
    MT_TRY(tensors_differ(ctx, head, embed, &differ));
    return differ ? mt_check_found(ctx, c, head->name,
                                   "tie_word_embeddings is true, yet the head is another matrix "
                                   "than the embedding")
                  : MT_OK;
}

mt_status mt_check_hf_heads(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const of_hidden[] = {"qwen2_moe", "olmoe", NULL};
    const struct mt_hparams *hp = &c->m->hp;

    if (!tensors_family_is(c, of_hidden) || (int64_t)hp->n_heads * hp->head_dim == hp->hidden)
        return MT_OK;
    return mt_check_found(ctx, c, "head_dim",
                          "%d heads of %d are not %" PRId64 ": its code takes hidden_size / heads "
                          "for head_dim",
                          hp->n_heads, hp->head_dim, hp->hidden);
}

mt_status mt_check_hf_needed_bias(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const biased[] = {"qwen2_moe", NULL};

    return tensors_family_is(c, biased) && !c->m->hp.qkv_bias
               ? mt_check_found(ctx, c, "qkv_bias",
                                "false, but its code always has biases on q, k and v and asks for "
                                "them")
               : MT_OK;
}

mt_status mt_check_hf_activation(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const silu[] = {
        "llama",      "mistral",          "qwen2",        "qwen3", "mixtral",     "qwen3_moe",
        "glm4_moe",   "qwen2_moe",        "olmoe",        "dots1", "deepseek_v2", "deepseek_v3",
        "granitemoe", "granitemoeshared", "ernie4_5_moe", NULL};

    for (int l = 0; tensors_family_is(c, silu) && l < c->m->hp.n_layers; l++)
        if (c->m->ffn[l].act != MT_ACT_SILU)
            return mt_check_found(ctx, c, "hidden_act", "%s; its code for %s takes silu alone",
                                  mt_act_name(c->m->ffn[l].act), c->m->family->architecture);
    return MT_OK;
}

mt_status mt_check_hf_expert_count(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_ffn *moe = c->m->family != NULL ? mt_model_first_moe(c->m) : NULL;
    int n = moe != NULL ? moe->n_experts : 1;

    if ((n <= 128 && (n & (n - 1)) == 0) || (n > 128 && n % 64 == 0))
        return MT_OK;
    return mt_check_found(ctx, c, "experts",
                          "%d experts: some of its kernels take powers of two up to 128 and "
                          "multiples of 64 beyond, and others run instead",
                          n);
}
