/* Rules for GGUF files: what llama.cpp's loader asks for and what its graphs take for granted
 * (spec: formats, 4.3 and 4.4). */
#include "formats/check.h"

#include "lib/text/pre_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GGUF_EXPERTS_MAX 512
#define GGUF_LAYERS_MAX 512

static const struct mt_gguf_pair *gguf_find(const struct mt_check *c, const char *key)
{
    return c->n_gguf > 0 ? mt_gguf_find(&c->gguf[0], key) : NULL;
}

mt_status mt_check_gguf_text(struct mt_ctx *ctx, struct mt_check *c, const char *key,
                             const char **out)
{
    const struct mt_gguf_pair *p = gguf_find(c, key);

    *out = NULL;
    return p != NULL && p->type == MT_GGUF_STRING
               ? mt_gguf_str(ctx, &c->gguf[0], key, &c->arena, out)
               : MT_OK;
}

/* The architecture, and a key of it. */
struct gguf_key {
    const char *arch;
    char text[160];
};

static mt_status gguf_arch_key(struct mt_ctx *ctx, struct mt_check *c, const char *name,
                               struct gguf_key *k)
{
    MT_TRY(mt_check_gguf_text(ctx, c, "general.architecture", &k->arch));
    snprintf(k->text, sizeof k->text, "%s.%s", k->arch != NULL ? k->arch : "", name);
    return MT_OK;
}

static bool gguf_one_of(const char *arch, const char *const *list)
{
    for (size_t i = 0; arch != NULL && list[i] != NULL; i++)
        if (strcmp(list[i], arch) == 0)
            return true;
    return false;
}

static const struct mt_gguf_record *gguf_next_record(const struct mt_check *c, size_t *file,
                                                     size_t *at)
{
    while (*file < c->n_gguf && *at == c->gguf[*file].n) {
        (*file)++;
        *at = 0;
    }
    return *file < c->n_gguf ? &c->gguf[*file].v[(*at)++] : NULL;
}

/* ---- metadata ---- */

static mt_status gguf_arch(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch;

    MT_TRY(mt_check_gguf_text(ctx, c, "general.architecture", &arch));
    if (arch == NULL)
        return mt_check_found(ctx, c, "general.architecture", "it is missing");
    return mt_check_llama_cpp_knows(arch) ? MT_OK
                                          : mt_check_found(ctx, c, "general.architecture",
                                                           "no architecture %s is known", arch);
}

static mt_status gguf_unjudged(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch;

    MT_TRY(mt_check_gguf_text(ctx, c, "general.architecture", &arch));
    return arch != NULL && mt_check_llama_cpp_knows(arch) && !mt_check_gguf_judged(c, arch)
               ? mt_check_found(ctx, c, "general.architecture",
                                "the tensors of %s were not compared with what its code asks for",
                                arch)
               : MT_OK;
}

static mt_status gguf_keys(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const all[] = {"block_count",
                                      "context_length",
                                      "embedding_length",
                                      "attention.head_count",
                                      "attention.layer_norm_rms_epsilon",
                                      "feed_forward_length",
                                      NULL};
    static const char *const granite[] = {"granite", "granitemoe", NULL};
    struct gguf_key k;
    int64_t v;

    MT_TRY(gguf_arch_key(ctx, c, "", &k));
    if (k.arch == NULL || !mt_check_gguf_judged(c, k.arch))
        return MT_OK;
    for (size_t i = 0; all[i] != NULL; i++) {
        MT_TRY(gguf_arch_key(ctx, c, all[i], &k));
        if (gguf_find(c, k.text) == NULL)
            MT_TRY(mt_check_found(ctx, c, k.text, "the key is missing"));
    }
    MT_TRY(gguf_arch_key(ctx, c, "logit_scale", &k));
    if (gguf_one_of(k.arch, granite) && gguf_find(c, k.text) == NULL)
        MT_TRY(mt_check_found(ctx, c, k.text, "the key is missing"));
    MT_TRY(gguf_arch_key(ctx, c, "expert_count", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 0, &v));
    MT_TRY(gguf_arch_key(ctx, c, "expert_used_count", &k));
    return v > 0 && gguf_find(c, k.text) == NULL
               ? mt_check_found(ctx, c, k.text, "the key is missing")
               : MT_OK;
}

static mt_status gguf_expert_limit(struct mt_ctx *ctx, struct mt_check *c)
{
    struct gguf_key k;
    int64_t n, used;

    MT_TRY(gguf_arch_key(ctx, c, "expert_used_count", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 0, &used));
    MT_TRY(gguf_arch_key(ctx, c, "expert_count", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 0, &n));
    if (n > GGUF_EXPERTS_MAX)
        MT_TRY(mt_check_found(ctx, c, k.text, "%" PRId64 " experts; it is built for %d", n,
                              GGUF_EXPERTS_MAX));
    return used > n ? mt_check_found(ctx, c, k.text, "%" PRId64 " of %" PRId64 " experts per token",
                                     used, n)
                    : MT_OK;
}

static mt_status gguf_layer_limit(struct mt_ctx *ctx, struct mt_check *c)
{
    struct gguf_key k;
    int64_t n;

    MT_TRY(gguf_arch_key(ctx, c, "block_count", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 1, &n));
    return n >= 1 && n <= GGUF_LAYERS_MAX
               ? MT_OK
               : mt_check_found(ctx, c, k.text, "%" PRId64 " layers; it is built for 1 to %d", n,
                                GGUF_LAYERS_MAX);
}

static mt_status gguf_no_shared(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const need[] = {"glm4moe", NULL};
    struct gguf_key k;
    int64_t n;

    MT_TRY(gguf_arch_key(ctx, c, "expert_shared_count", &k));
    if (!gguf_one_of(k.arch, need))
        return MT_OK;
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 0, &n));
    return n > 0 ? MT_OK
                 : mt_check_found(ctx, c, k.text,
                                  "0: its code adds a shared expert in every sparse layer");
}

/* ---- what graphs take for granted about routers ---- */

static mt_status gguf_renorm(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const never[] = {"qwen2moe", "olmoe", NULL};
    static const char *const always[] = {"llama", "qwen3moe", "granitemoe", "ernie4_5-moe", NULL};
    struct gguf_key k;
    bool fixed, said;

    MT_TRY(gguf_arch_key(ctx, c, "expert_weights_norm", &k));
    fixed = gguf_one_of(k.arch, always);
    if (!fixed && !gguf_one_of(k.arch, never))
        return MT_OK;
    MT_TRY(mt_gguf_bool(ctx, &c->gguf[0], k.text, fixed, &said));
    return said == fixed
               ? MT_OK
               : mt_check_found(ctx, c, k.text, "%s, but its code for %s %s renormalises",
                                said ? "true" : "false", k.arch, fixed ? "always" : "never");
}

static mt_status gguf_fixed_router(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const softmax[] = {"llama",      "qwen2moe",     "qwen3moe", "olmoe",
                                          "granitemoe", "ernie4_5-moe", NULL};
    struct gguf_key k;
    double scale;
    int64_t func;

    MT_TRY(gguf_arch_key(ctx, c, "expert_gating_func", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 1, &func));
    if (func < 0 || func > 4)
        MT_TRY(mt_check_found(ctx, c, k.text, "no score is numbered %" PRId64, func));
    if (!gguf_one_of(k.arch, softmax))
        return MT_OK;
    if (func != 1 && func != 0)
        MT_TRY(mt_check_found(ctx, c, k.text, "%" PRId64 ", but its code for %s takes the softmax",
                              func, k.arch));
    MT_TRY(gguf_arch_key(ctx, c, "expert_weights_scale", &k));
    MT_TRY(mt_gguf_num(ctx, &c->gguf[0], k.text, 1, &scale));
    return scale == 1 || scale == 0
               ? MT_OK
               : mt_check_found(ctx, c, k.text, "%g, but its code for %s does not scale", scale,
                                k.arch);
}

static mt_status gguf_gating_default(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const softmax[] = {"deepseek2", NULL};
    struct gguf_key k;

    MT_TRY(gguf_arch_key(ctx, c, "expert_gating_func", &k));
    return gguf_one_of(k.arch, softmax) && gguf_find(c, k.text) == NULL
               ? mt_check_found(ctx, c, k.text, "absent, so the softmax is taken")
               : MT_OK;
}

/* silu(x) / x of a gate that is exactly zero. */
static mt_status gguf_zero_gate(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char end[] = ".ffn_gate_inp_shexp.weight";
    const struct mt_gguf_record *r;
    size_t file = 0, at = 0;

    while ((r = gguf_next_record(c, &file, &at)) != NULL) {
        const struct mt_gguf *g = &c->gguf[file];
        size_t n = strlen(r->name);
        uint64_t i = 0;

        if (n < sizeof end || strcmp(r->name + n - (sizeof end - 1), end) != 0 || g->headers_only ||
            r->bytes == 0)
            continue;
        while (i < r->bytes && g->map->base[g->data_offset + r->begin + i] == 0)
            i++;
        if (i == r->bytes)
            MT_TRY(mt_check_found(ctx, c, r->name,
                                  "all zeros: its sigmoid is computed as silu(x)/x, which is NaN "
                                  "at zero"));
    }
    return MT_OK;
}

/* ---- positions ---- */

static mt_status gguf_no_freqs(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_gguf_record *r;
    size_t file = 0, at = 0;

    if (gguf_find(c, "moetool.rope.factor") == NULL)
        return MT_OK;
    while ((r = gguf_next_record(c, &file, &at)) != NULL)
        if (strcmp(r->name, MT_GGUF_ROPE_FREQS) == 0)
            return MT_OK;
    return mt_check_found(ctx, c, MT_GGUF_ROPE_FREQS,
                          "missing, though the positions are scaled by frequency; they run "
                          "unscaled");
}

static mt_status gguf_scaling(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const known[] = {"none", "linear", "yarn", "longrope", NULL};
    const char *type;
    struct gguf_key k;

    MT_TRY(gguf_arch_key(ctx, c, "rope.scaling.type", &k));
    MT_TRY(mt_check_gguf_text(ctx, c, k.text, &type));
    return type == NULL || gguf_one_of(type, known)
               ? MT_OK
               : mt_check_found(ctx, c, k.text, "no scaling is named %s; it is taken for none",
                                type);
}

/* What graphs assert before they run. */
static mt_status gguf_heads(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const whole[] = {"llama",    "qwen2",        "qwen2moe",   "qwen3",
                                        "qwen3moe", "olmoe",        "granitemoe", "granite",
                                        "dots1",    "ernie4_5-moe", NULL};
    static const char *const equal[] = {"glm4moe", NULL};
    int64_t hidden, heads, key, value, rot;
    struct gguf_key k;

    MT_TRY(gguf_arch_key(ctx, c, "embedding_length", &k));
    if (!gguf_one_of(k.arch, whole) && !gguf_one_of(k.arch, equal))
        return MT_OK;
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 0, &hidden));
    MT_TRY(gguf_arch_key(ctx, c, "attention.head_count", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, 0, &heads));
    MT_TRY(gguf_arch_key(ctx, c, "attention.key_length", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, heads > 0 ? hidden / heads : 0, &key));
    MT_TRY(gguf_arch_key(ctx, c, "attention.value_length", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, heads > 0 ? hidden / heads : 0, &value));
    if (key != value)
        MT_TRY(mt_check_found(ctx, c, k.text,
                              "%" PRId64 ", but keys of %" PRId64
                              ": its code for %s asserts that they are equal",
                              value, key, k.arch));
    MT_TRY(gguf_arch_key(ctx, c, "rope.dimension_count", &k));
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], k.text, key, &rot));
    return gguf_one_of(k.arch, equal) || rot == key
               ? MT_OK
               : mt_check_found(ctx, c, k.text,
                                "%" PRId64 " of %" PRId64
                                ": its code for %s asserts that whole heads rotate",
                                rot, key, k.arch);
}

/* Since one function makes the three projections of all architectures, their biases are optional.
 */
static mt_status gguf_older(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const asked[] = {"glm4moe", "qwen2moe", NULL};
    const struct mt_gguf_record *r;
    size_t file = 0, at = 0;
    struct gguf_key k;

    MT_TRY(gguf_arch_key(ctx, c, "block_count", &k));
    if (!gguf_one_of(k.arch, asked))
        return MT_OK;
    while ((r = gguf_next_record(c, &file, &at)) != NULL)
        if (strcmp(r->name, "blk.0.attn_q.bias") == 0)
            return MT_OK;
    return mt_check_found(ctx, c, "blk.0.attn_q.bias", "absent, which older releases refuse in %s",
                          k.arch);
}

/* ---- types ---- */

static mt_status gguf_vector_types(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_gguf_record *r;
    size_t file = 0, at = 0;

    while ((r = gguf_next_record(c, &file, &at)) != NULL)
        if (r->rank == 1 && r->dtype != MT_F32 && strncmp(r->name, "blk.", 4) == 0)
            MT_TRY(mt_check_found(ctx, c, r->name, "a vector in %s; its code computes with F32",
                                  mt_dtype_name((enum mt_dtype)r->dtype)));
    return MT_OK;
}

static mt_status gguf_router_types(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char end[] = ".ffn_gate_inp.weight";
    const struct mt_gguf_record *r;
    size_t file = 0, at = 0;

    while ((r = gguf_next_record(c, &file, &at)) != NULL) {
        size_t n = strlen(r->name);
        if (n >= sizeof end && strcmp(r->name + n - (sizeof end - 1), end) == 0 &&
            r->dtype != MT_F32)
            MT_TRY(mt_check_found(ctx, c, r->name,
                                  "a router in %s: near-ties choose other experts than in F32",
                                  mt_dtype_name((enum mt_dtype)r->dtype)));
    }
    return MT_OK;
}

static mt_status gguf_width(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char end[] = "_exps.weight";
    const struct mt_gguf_record *r;
    size_t file = 0, at = 0;

    while ((r = gguf_next_record(c, &file, &at)) != NULL) {
        size_t n = strlen(r->name);
        if (n < sizeof end || strcmp(r->name + n - (sizeof end - 1), end) != 0 ||
            strstr(r->name, "down") == NULL || r->ne[0] % 256 == 0)
            continue;
        return mt_check_found(ctx, c, r->name,
                              "experts are %" PRIu64 " wide, no multiple of %d: quantizing gives "
                              "%s",
                              r->ne[0], r->ne[0] % 32 != 0 ? 32 : 256,
                              r->ne[0] % 32 != 0 ? "F16" : "larger types than asked for");
    }
    return MT_OK;
}

/* ---- vocabulary ---- */

static mt_status gguf_no_vocab(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *model;

    MT_TRY(mt_check_gguf_text(ctx, c, "tokenizer.ggml.model", &model));
    if (gguf_find(c, "tokenizer.ggml.model") == NULL)
        return mt_check_found(ctx, c, "tokenizer.ggml.model", "it is missing");
    if (model != NULL && strcmp(model, "no_vocab") == 0) /* takes token ids */
        return MT_OK;
    return gguf_find(c, "tokenizer.ggml.tokens") == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.tokens", "the list of tokens is missing")
               : MT_OK;
}

static mt_status gguf_no_merges(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *model;

    MT_TRY(mt_check_gguf_text(ctx, c, "tokenizer.ggml.model", &model));
    return model != NULL && strcmp(model, "gpt2") == 0 &&
                   gguf_find(c, "tokenizer.ggml.merges") == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.merges", "a BPE tokenizer without merges")
               : MT_OK;
}

static mt_status gguf_pre(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *pre;

    MT_TRY(mt_check_gguf_text(ctx, c, "tokenizer.ggml.pre", &pre));
    return pre != NULL && mt_pre_find(pre) == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.pre", "no splitting of text named %s", pre)
               : MT_OK;
}

static mt_status gguf_no_pre(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *model;

    MT_TRY(mt_check_gguf_text(ctx, c, "tokenizer.ggml.model", &model));
    return model != NULL && strcmp(model, "gpt2") == 0 && gguf_find(c, "tokenizer.ggml.pre") == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.pre",
                                "missing: text is split by default rules, which are rarely the "
                                "model's")
               : MT_OK;
}

static mt_status gguf_vocab_arrays(struct mt_ctx *ctx, struct mt_check *c)
{
    static const struct {
        const char *key;
        uint8_t item;
        const char *is;
    } lists[] = {{"tokenizer.ggml.tokens", MT_GGUF_STRING, "texts"},
                 {"tokenizer.ggml.scores", MT_GGUF_F32, "F32"},
                 {"tokenizer.ggml.token_type", MT_GGUF_I32, "I32"}};
    const struct mt_gguf_pair *tokens = gguf_find(c, lists[0].key);

    for (size_t i = 0; tokens != NULL && i < sizeof lists / sizeof lists[0]; i++) {
        const struct mt_gguf_pair *p = gguf_find(c, lists[i].key);
        if (p == NULL)
            continue;
        if (p->type != MT_GGUF_ARRAY || p->item != lists[i].item)
            MT_TRY(mt_check_found(ctx, c, lists[i].key, "no list of %s", lists[i].is));
        else if (p->n < tokens->n)
            MT_TRY(mt_check_found(ctx, c, lists[i].key,
                                  "%" PRIu64 " entries for %" PRIu64 " tokens", p->n, tokens->n));
    }
    return MT_OK;
}

static mt_status gguf_ids(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.padding_token_id", NULL};
    const struct mt_gguf_pair *tokens = gguf_find(c, "tokenizer.ggml.tokens");
    int64_t id;

    for (size_t i = 0; tokens != NULL && keys[i] != NULL; i++) {
        MT_TRY(mt_gguf_int(ctx, &c->gguf[0], keys[i], 0, &id));
        if (id < 0 || (uint64_t)id >= tokens->n)
            MT_TRY(mt_check_found(ctx, c, keys[i],
                                  "%" PRId64 " is none of the %" PRIu64 " tokens and is ignored",
                                  id, tokens->n));
    }
    return MT_OK;
}

const struct mt_check_rule mt_check_gguf[] = {
    MT_RULE("architecture", "gguf", LLAMA_CPP, REFUSED,
            "an architecture that llama.cpp does not have", "export to safetensors instead",
            gguf_arch),
    MT_RULE("unjudged", "gguf", LLAMA_CPP, REMARK, "an architecture without rules here", "try it",
            gguf_unjudged),
    MT_RULE("keys", "gguf", LLAMA_CPP, REFUSED, "metadata that the loader requires are missing",
            "export it again from its safetensors", gguf_keys),
    MT_RULE("tensors-missing", "gguf", LLAMA_CPP, REFUSED, "a tensor is missing",
            "export it again from its safetensors", mt_check_gguf_missing),
    MT_RULE("tensors-shape", "gguf", LLAMA_CPP, REFUSED, "a tensor is of another shape",
            "export it again from its safetensors", mt_check_gguf_shapes),
    MT_RULE("tensors-surplus", "gguf", LLAMA_CPP, REFUSED,
            "a tensor that the architecture has no use for", "export it again from its safetensors",
            mt_check_gguf_surplus),
    MT_RULE("expert-limit", "gguf", LLAMA_CPP, REFUSED, "more experts than its arrays hold",
            "use fewer, or build it with a larger LLAMA_MAX_EXPERTS", gguf_expert_limit),
    MT_RULE("layer-limit", "gguf", LLAMA_CPP, REFUSED, "more layers than its arrays hold",
            "build it with a larger LLAMA_MAX_LAYERS", gguf_layer_limit),
    MT_RULE("shared-expert", "gguf", LLAMA_CPP, REFUSED, "no shared expert where one is needed",
            "give the layers one of zeros: moetool convert --arch glm4_moe does", gguf_no_shared),
    MT_RULE("renormalisation", "gguf", LLAMA_CPP, WRONG,
            "router weights are renormalised otherwise than the metadata say",
            "use an architecture that reads the key: glm4moe", gguf_renorm),
    MT_RULE("router-rule", "gguf", LLAMA_CPP, WRONG,
            "scores or a scale that the architecture's code does not read",
            "use an architecture that reads the key: glm4moe", gguf_fixed_router),
    MT_RULE("gating-default", "gguf", LLAMA_CPP, REMARK, "no score function is named",
            "write expert_gating_func: 1 softmax, 2 sigmoid", gguf_gating_default),
    MT_RULE("zero-shared-gate", "gguf", LLAMA_CPP, WRONG, "a shared expert's gate of zeros",
            "store a tiny row instead, such as 1e-20: the sigmoid is then exactly one half",
            gguf_zero_gate),
    MT_RULE("rope-factors", "gguf", LLAMA_CPP, WRONG, "scaled positions without their factors",
            "export it again from its safetensors", gguf_no_freqs),
    MT_RULE("rope-scaling", "gguf", LLAMA_CPP, WRONG, "a scaling of positions it does not have",
            "use linear, yarn or longrope", gguf_scaling),
    MT_RULE("head-size", "gguf", LLAMA_CPP, REFUSED, "heads of a size its code does not expect",
            "export to safetensors instead", gguf_heads),
    MT_RULE("older-releases", "gguf", LLAMA_CPP, REMARK,
            "something that older releases do not load", "use a release of 2026", gguf_older),
    MT_RULE("vector-dtype", "gguf", LLAMA_CPP, REFUSED, "norms or biases that are not F32",
            "store vectors in F32", gguf_vector_types),
    MT_RULE("router-dtype", "gguf", LLAMA_CPP, REMARK, "a router that is not F32",
            "store routers in F32", gguf_router_types),
    MT_RULE("expert-width", "gguf", LLAMA_CPP, REMARK,
            "experts whose rows do not fill the blocks of K-quants",
            "choose widths that are multiples of 256 before quantizing", gguf_width),
    MT_RULE_SOURCE("vocabulary", "gguf", LLAMA_CPP, REFUSED, "no vocabulary",
                   "export from a directory with a tokenizer.json", gguf_no_vocab),
    MT_RULE_SOURCE("merges", "gguf", LLAMA_CPP, REFUSED, "BPE without merges",
                   "export from a directory with a tokenizer.json", gguf_no_merges),
    MT_RULE_SOURCE("pre-tokenizer", "gguf", LLAMA_CPP, REFUSED,
                   "a name of a text splitting that llama.cpp does not have",
                   "give the name of one that it has", gguf_pre),
    MT_RULE("pre-tokenizer", "gguf", LLAMA_CPP, REMARK, "no name of a text splitting",
            "set tokenizer.ggml.pre", gguf_no_pre),
    MT_RULE("vocabulary-lists", "gguf", LLAMA_CPP, REFUSED,
            "lists of the vocabulary that do not fit each other",
            "export from a directory with a tokenizer.json", gguf_vocab_arrays),
    MT_RULE("token-ids", "gguf", LLAMA_CPP, REMARK, "special tokens outside the vocabulary",
            "correct the ids in the source's config.json", gguf_ids),
    MT_RULES_END,
};
