/* A file that is right in every respect, made by hand for each architecture; one thing is broken,
 * and exactly that is found. */
#include "tests/check_kit.h"
#include "tests/gguf_fixture.h"

#include <stdlib.h>

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, TEXT = 8, LIST = 9 };
enum { T_F32 = 0, T_F16 = 1 };

struct pair {
    char key[96];
    int type, item;
    uint32_t u;
    float f;
    const char *s;
    uint32_t n; /* of a list */
};

struct tensor {
    char name[80];
    uint64_t ne[3];
    uint32_t rank, type;
    bool zero;
};

struct file {
    struct pair pairs[64];
    size_t n_pairs;
    struct tensor tensors[64];
    size_t n_tensors;
    const char *arch;
};

static struct pair *pair_add(struct file *f, const char *key, int type)
{
    struct pair *p = &f->pairs[f->n_pairs++];

    memset(p, 0, sizeof *p);
    if (strchr(key, '.') != NULL && (strncmp(key, "general.", 8) == 0 || key[0] == 't'))
        snprintf(p->key, sizeof p->key, "%s", key);
    else
        snprintf(p->key, sizeof p->key, "%s.%s", f->arch, key);
    p->type = type;
    return p;
}

static void key_u32(struct file *f, const char *key, uint32_t v)
{
    pair_add(f, key, U32)->u = v;
}

static struct pair *pair_of(struct file *f, const char *end)
{
    for (size_t i = 0; i < f->n_pairs; i++) {
        size_t n = strlen(f->pairs[i].key), e = strlen(end);
        if (n >= e && strcmp(f->pairs[i].key + n - e, end) == 0)
            return &f->pairs[i];
    }
    abort();
}

static void pair_drop(struct file *f, const char *end)
{
    struct pair *p = pair_of(f, end);

    *p = f->pairs[--f->n_pairs];
}

static struct tensor *tensor_of(struct file *f, const char *name)
{
    for (size_t i = 0; i < f->n_tensors; i++)
        if (strcmp(f->tensors[i].name, name) == 0)
            return &f->tensors[i];
    abort();
}

static void tensor_drop(struct file *f, const char *name)
{
    struct tensor *x = tensor_of(f, name);

    *x = f->tensors[--f->n_tensors];
}

static void add(struct file *f, const char *name, uint64_t a, uint64_t b, uint64_t c)
{
    struct tensor *x = &f->tensors[f->n_tensors++];

    memset(x, 0, sizeof *x);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->ne[0] = a;
    x->ne[1] = b;
    x->ne[2] = c;
    x->rank = c > 0 ? 3 : b > 0 ? 2 : 1;
}

static const char *write_file(struct t *t, const struct file *f, const char *name)
{
    static struct gg g;
    uint64_t offset = 0;

    gg_begin(&g, f->n_tensors, f->n_pairs);
    for (size_t i = 0; i < f->n_pairs; i++) {
        const struct pair *p = &f->pairs[i];
        gg_key(&g, p->key, (uint32_t)p->type);
        if (p->type == TEXT)
            gg_text(&g, p->s);
        else if (p->type == F32)
            gg_f32(&g, p->f);
        else if (p->type == BOOL)
            gg_raw(&g, &(char){(char)p->u}, 1);
        else if (p->type != LIST)
            gg_u32(&g, p->u);
        if (p->type != LIST)
            continue;
        gg_u32(&g, (uint32_t)p->item);
        gg_u64(&g, p->n);
        for (uint32_t k = 0; k < p->n; k++)
            if (p->item == TEXT)
                gg_text(&g, (char[2]){(char)('a' + k), 0});
            else
                gg_u32(&g, 0);
    }
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *x = &f->tensors[i];
        uint64_t bytes = x->type == T_F32 ? 4 : 2;
        gg_tensor(&g, x->name, x->rank, x->ne, x->type, offset);
        for (uint32_t d = 0; d < x->rank; d++)
            bytes *= x->ne[d];
        offset += (bytes + 31) / 32 * 32;
    }
    gg_pad(&g, 32);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *x = &f->tensors[i];
        size_t bytes = x->type == T_F32 ? 4 : 2;
        for (uint32_t d = 0; d < x->rank; d++)
            bytes *= x->ne[d];
        for (size_t k = 0; k < bytes; k++)
            gg_raw(&g, &(char){x->zero ? 0 : (char)(k * 7 + 1)}, 1);
        gg_pad(&g, 32);
    }
    return gg_file(t, &g, name);
}

/* ---- right files ---- */

enum { HIDDEN = 8, FF = 256, EXPERTS = 2, VOCAB = 5, HEADS = 2 };

static void good_vocab(struct file *f)
{
    struct pair *p;

    pair_add(f, "tokenizer.ggml.model", TEXT)->s = "gpt2";
    pair_add(f, "tokenizer.ggml.pre", TEXT)->s = "gpt-2";
    p = pair_add(f, "tokenizer.ggml.tokens", LIST);
    p->item = TEXT;
    p->n = VOCAB;
    p = pair_add(f, "tokenizer.ggml.token_type", LIST);
    p->item = I32;
    p->n = VOCAB;
    p = pair_add(f, "tokenizer.ggml.scores", LIST);
    p->item = F32;
    p->n = VOCAB;
    p = pair_add(f, "tokenizer.ggml.merges", LIST);
    p->item = TEXT;
    p->n = 1;
    key_u32(f, "tokenizer.ggml.bos_token_id", 1);
}

static void good_keys(struct file *f)
{
    pair_add(f, "general.architecture", TEXT)->s = f->arch;
    key_u32(f, "block_count", 1);
    key_u32(f, "context_length", 16);
    key_u32(f, "embedding_length", HIDDEN);
    key_u32(f, "feed_forward_length", FF);
    key_u32(f, "attention.head_count", HEADS);
    key_u32(f, "attention.head_count_kv", 1);
    pair_add(f, "attention.layer_norm_rms_epsilon", F32)->f = 1e-5f;
    good_vocab(f);
}

static void good_attention(struct file *f, bool norms)
{
    add(f, "blk.0.attn_norm.weight", HIDDEN, 0, 0);
    add(f, "blk.0.attn_q.weight", HIDDEN, HIDDEN, 0);
    add(f, "blk.0.attn_k.weight", HIDDEN, HIDDEN / HEADS, 0);
    add(f, "blk.0.attn_v.weight", HIDDEN, HIDDEN / HEADS, 0);
    add(f, "blk.0.attn_output.weight", HIDDEN, HIDDEN, 0);
    if (norms)
        add(f, "blk.0.attn_q_norm.weight", HIDDEN / HEADS, 0, 0);
    if (norms)
        add(f, "blk.0.attn_k_norm.weight", HIDDEN / HEADS, 0, 0);
}

static void good_experts(struct file *f)
{
    key_u32(f, "expert_count", EXPERTS);
    key_u32(f, "expert_used_count", 1);
    key_u32(f, "expert_feed_forward_length", FF);
    add(f, "blk.0.ffn_gate_inp.weight", HIDDEN, EXPERTS, 0);
    add(f, "blk.0.ffn_gate_exps.weight", HIDDEN, FF, EXPERTS);
    add(f, "blk.0.ffn_up_exps.weight", HIDDEN, FF, EXPERTS);
    add(f, "blk.0.ffn_down_exps.weight", FF, HIDDEN, EXPERTS);
}

static void good_shared(struct file *f)
{
    add(f, "blk.0.ffn_gate_shexp.weight", HIDDEN, FF, 0);
    add(f, "blk.0.ffn_up_shexp.weight", HIDDEN, FF, 0);
    add(f, "blk.0.ffn_down_shexp.weight", FF, HIDDEN, 0);
}

static bool is(const struct file *f, const char *arch)
{
    return strcmp(f->arch, arch) == 0;
}

static void good(struct file *f, const char *arch)
{
    bool dense = strcmp(arch, "llama") == 0 || strcmp(arch, "qwen3") == 0;

    memset(f, 0, sizeof *f);
    f->arch = arch;
    good_keys(f);
    add(f, "token_embd.weight", HIDDEN, VOCAB, 0);
    add(f, "output_norm.weight", HIDDEN, 0, 0);
    if (is(f, "qwen2moe") || is(f, "olmoe") || is(f, "dots1"))
        add(f, "output.weight", HIDDEN, VOCAB, 0);
    if (is(f, "gpt-oss"))
        add(f, "output.weight", HIDDEN, VOCAB, 0);
    good_attention(f, is(f, "qwen3") || is(f, "qwen3moe") || is(f, "dots1"));
    add(f,
        is(f, "glm4moe") || is(f, "gpt-oss") ? "blk.0.post_attention_norm.weight"
                                             : "blk.0.ffn_norm.weight",
        HIDDEN, 0, 0);
    if (is(f, "olmoe")) {
        pair_of(f, "head_count_kv")->u = HEADS;
        tensor_of(f, "blk.0.attn_k.weight")->ne[1] = HIDDEN;
        tensor_of(f, "blk.0.attn_v.weight")->ne[1] = HIDDEN;
        add(f, "blk.0.attn_q_norm.weight", HIDDEN, 0, 0);
        add(f, "blk.0.attn_k_norm.weight", HIDDEN, 0, 0);
    }
    if (!dense)
        good_experts(f);
    if (is(f, "qwen2moe"))
        add(f, "blk.0.ffn_gate_inp_shexp.weight", HIDDEN, 0, 0);
    if (is(f, "glm4moe") || is(f, "dots1"))
        key_u32(f, "expert_shared_count", 1);
    if (is(f, "glm4moe") || is(f, "dots1") || is(f, "qwen2moe"))
        good_shared(f);
    if (is(f, "glm4moe"))
        add(f, "blk.0.exp_probs_b.bias", EXPERTS, 0, 0);
    if (is(f, "glm4moe") || is(f, "qwen2moe")) {
        add(f, "blk.0.attn_q.bias", HIDDEN, 0, 0);
        add(f, "blk.0.attn_k.bias", HIDDEN / HEADS, 0, 0);
        add(f, "blk.0.attn_v.bias", HIDDEN / HEADS, 0, 0);
    }
    if (is(f, "gpt-oss")) {
        add(f, "blk.0.attn_output.bias", HIDDEN, 0, 0);
        add(f, "blk.0.attn_sinks.weight", HEADS, 0, 0);
        add(f, "blk.0.ffn_gate_inp.bias", EXPERTS, 0, 0);
        add(f, "blk.0.ffn_gate_exps.bias", FF, EXPERTS, 0);
        add(f, "blk.0.ffn_up_exps.bias", FF, EXPERTS, 0);
        add(f, "blk.0.ffn_down_exps.bias", HIDDEN, EXPERTS, 0);
    }
    if (is(f, "granitemoe"))
        pair_add(f, "logit_scale", F32)->f = 1;
    if (!dense)
        return;
    add(f, "blk.0.ffn_gate.weight", HIDDEN, FF, 0);
    add(f, "blk.0.ffn_up.weight", HIDDEN, FF, 0);
    add(f, "blk.0.ffn_down.weight", FF, HIDDEN, 0);
}

static struct file f; /* large, so not on the stack */

static void expect(struct t *t, enum mt_severity severity, const char *rules)
{
    ck_only(t, write_file(t, &f, "x.gguf"), MT_ENGINE_LLAMA_CPP, severity, rules);
}

#define REFUSED MT_SEVERITY_REFUSED
#define WRONG MT_SEVERITY_WRONG
#define REMARK MT_SEVERITY_REMARK

/* ---- tests ---- */

T_TEST(right_files_have_no_findings)
{
    static const char *const archs[] = {"llama",   "qwen3", "qwen2moe",   "qwen3moe",
                                        "glm4moe", "olmoe", "granitemoe", "dots1"};

    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        good(&f, archs[i]);
        expect(t, REMARK, "");
        T_CHECK(t, !t->failed);
    }
}

T_TEST(optional_tensors_are_no_findings)
{
    good(&f, "llama");
    add(&f, "output.weight", HIDDEN, VOCAB, 0);
    add(&f, "rope_freqs.weight", HIDDEN / HEADS / 2, 0, 0);
    add(&f, "blk.0.attn_q.bias", HIDDEN, 0, 0);
    add(&f, "blk.0.attn_output.bias", HIDDEN, 0, 0);
    add(&f, "blk.0.ffn_up.bias", FF, 0, 0);
    expect(t, REMARK, "");
    good(&f, "glm4moe");
    add(&f, "blk.0.attn_q_norm.weight", HIDDEN / HEADS, 0, 0);
    expect(t, REMARK, "");
    /* Gate and up in one stack. */
    good(&f, "qwen3moe");
    tensor_drop(&f, "blk.0.ffn_up_exps.weight");
    tensor_drop(&f, "blk.0.ffn_gate_exps.weight");
    add(&f, "blk.0.ffn_gate_up_exps.weight", HIDDEN, 2 * FF, EXPERTS);
    expect(t, REMARK, "");
}

/* The one tensor of the name that may be absent. */
static bool optional(const char *name)
{
    return strstr(name, ".attn_q.bias") != NULL || strstr(name, ".attn_k.bias") != NULL ||
           strstr(name, ".attn_v.bias") != NULL;
}

T_TEST(every_tensor_that_lacks_is_found)
{
    static const char *const archs[] = {"llama", "qwen2moe",   "qwen3moe", "glm4moe",     "olmoe",
                                        "dots1", "granitemoe", "gpt-oss",  "ernie4_5-moe"};

    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        size_t n;
        good(&f, archs[i]);
        n = f.n_tensors;
        for (size_t k = 0; k < n && !t->failed; k++) {
            good(&f, archs[i]);
            if (optional(f.tensors[k].name))
                continue;
            f.tensors[k] = f.tensors[--f.n_tensors];
            expect(t, REFUSED, "tensors-missing");
        }
    }
}

T_TEST(every_shape_is_compared)
{
    static const char *const archs[] = {"glm4moe", "gpt-oss"};

    for (size_t i = 0; i < 2; i++) {
        size_t n;
        good(&f, archs[i]);
        n = f.n_tensors;
        for (size_t k = 0; k < n && !t->failed; k++) {
            good(&f, archs[i]);
            f.tensors[k].ne[f.tensors[k].rank - 1]++;
            expect(t, REFUSED, "tensors-shape");
        }
    }
}

T_TEST(one_tensor_too_many_is_refused)
{
    good(&f, "qwen3moe");
    add(&f, "rope_freqs.weight", HIDDEN / HEADS / 2, 0, 0); /* its graph takes no factors */
    expect(t, REFUSED, "tensors-surplus");
    good(&f, "llama");
    add(&f, "blk.1.attn_norm.weight", HIDDEN, 0, 0);
    expect(t, REFUSED, "tensors-surplus");
}

T_TEST(experts_in_some_layers_only_lack_elsewhere)
{
    good(&f, "qwen3moe");
    pair_of(&f, "block_count")->u = 2;
    expect(t, REFUSED, "tensors-missing");
}

T_TEST(heads_are_of_the_size_the_loader_takes)
{
    good(&f, "qwen2moe");
    key_u32(&f, "attention.key_length", HIDDEN);
    key_u32(&f, "attention.value_length", HIDDEN);
    expect(t, REMARK, ""); /* the loader does not look */
    tensor_of(&f, "blk.0.attn_q.weight")->ne[1] = 2 * HIDDEN;
    expect(t, REFUSED, "tensors-shape");
}

T_TEST(declared_predictors_need_tensors)
{
    good(&f, "glm4moe");
    key_u32(&f, "nextn_predict_layers", 1);
    expect(t, REFUSED, "tensors-missing");
    add(&f, "blk.0.nextn.eh_proj.weight", 2 * HIDDEN, HIDDEN, 0);
    add(&f, "blk.0.nextn.enorm.weight", HIDDEN, 0, 0);
    add(&f, "blk.0.nextn.hnorm.weight", HIDDEN, 0, 0);
    expect(t, REMARK, "");
}

T_TEST(shared_experts_are_added_always)
{
    good(&f, "glm4moe");
    pair_of(&f, "expert_shared_count")->u = 0;
    expect(t, REFUSED, "shared-expert tensors-surplus");
}

T_TEST(required_keys)
{
    static const char *const keys[] = {"context_length", "layer_norm_rms_epsilon", NULL};

    for (size_t i = 0; keys[i] != NULL; i++) {
        good(&f, "llama");
        pair_drop(&f, keys[i]);
        expect(t, REFUSED, "keys");
    }
    good(&f, "granitemoe");
    pair_drop(&f, "logit_scale");
    expect(t, REFUSED, "keys");
    good(&f, "qwen3moe");
    pair_drop(&f, "expert_used_count");
    expect(t, REFUSED, "keys");
}

T_TEST(architectures)
{
    good(&f, "llama");
    pair_of(&f, "general.architecture")->s = "abacus";
    expect(t, REFUSED, "architecture");
    pair_of(&f, "general.architecture")->s = "mamba";
    expect(t, REMARK, "unjudged");
    pair_drop(&f, "general.architecture");
    expect(t, REFUSED, "architecture");
}

T_TEST(expert_limits)
{
    good(&f, "qwen3moe");
    pair_of(&f, "expert_count")->u = 513;
    ck_has(t, write_file(t, &f, "x.gguf"), MT_ENGINE_LLAMA_CPP, REFUSED, "expert-limit");
    good(&f, "qwen3moe");
    pair_of(&f, "expert_used_count")->u = EXPERTS + 1;
    expect(t, REFUSED, "expert-limit");
}

T_TEST(renormalisation_is_fixed_by_the_architecture)
{
    good(&f, "qwen2moe");
    pair_add(&f, "expert_weights_norm", BOOL)->u = 1;
    expect(t, WRONG, "renormalisation");
    good(&f, "olmoe");
    pair_add(&f, "expert_weights_norm", BOOL)->u = 1;
    expect(t, WRONG, "renormalisation");
    good(&f, "qwen3moe");
    pair_add(&f, "expert_weights_norm", BOOL)->u = 0;
    expect(t, WRONG, "renormalisation");
    good(&f, "qwen3moe");
    pair_add(&f, "expert_weights_norm", BOOL)->u = 1;
    expect(t, REMARK, "");
    good(&f, "glm4moe");
    pair_add(&f, "expert_weights_norm", BOOL)->u = 0;
    expect(t, REMARK, "");
}

T_TEST(scores_and_scales_are_fixed_by_the_architecture)
{
    good(&f, "qwen3moe");
    key_u32(&f, "expert_gating_func", 2);
    expect(t, WRONG, "router-rule");
    good(&f, "qwen3moe");
    pair_add(&f, "expert_weights_scale", F32)->f = 2;
    expect(t, WRONG, "router-rule");
    good(&f, "glm4moe");
    key_u32(&f, "expert_gating_func", 2);
    pair_add(&f, "expert_weights_scale", F32)->f = 2;
    expect(t, REMARK, "");
    good(&f, "glm4moe");
    key_u32(&f, "expert_gating_func", 9);
    expect(t, WRONG, "router-rule");
}

T_TEST(a_shared_gate_of_zeros_is_nan)
{
    good(&f, "qwen2moe");
    tensor_of(&f, "blk.0.ffn_gate_inp_shexp.weight")->zero = true;
    expect(t, WRONG, "zero-shared-gate");
    good(&f, "qwen2moe");
    tensor_of(&f, "blk.0.ffn_gate_inp.weight")->zero = true; /* a zero router is fine */
    expect(t, REMARK, "");
}

T_TEST(positions)
{
    good(&f, "llama");
    pair_add(&f, "t.", F32)->f = 8;
    snprintf(f.pairs[f.n_pairs - 1].key, sizeof f.pairs[0].key, "moetool.rope.factor");
    expect(t, WRONG, "rope-factors");
    add(&f, "rope_freqs.weight", HIDDEN / HEADS / 2, 0, 0);
    expect(t, REMARK, "");
    good(&f, "llama");
    pair_add(&f, "rope.scaling.type", TEXT)->s = "dynamic";
    expect(t, WRONG, "rope-scaling");
    f.pairs[f.n_pairs - 1].s = "yarn";
    expect(t, REMARK, "");
}

T_TEST(heads_that_graphs_assert)
{
    good(&f, "qwen3moe");
    key_u32(&f, "rope.dimension_count", HIDDEN / HEADS / 2);
    expect(t, REFUSED, "head-size");
    good(&f, "glm4moe"); /* rotates a part */
    key_u32(&f, "rope.dimension_count", HIDDEN / HEADS / 2);
    expect(t, REMARK, "");
    good(&f, "glm4moe");
    key_u32(&f, "attention.value_length", 2);
    tensor_of(&f, "blk.0.attn_v.weight")->ne[1] = 2;
    tensor_of(&f, "blk.0.attn_v.bias")->ne[0] = 2;
    expect(t, REFUSED, "head-size");
}

T_TEST(what_older_releases_ask_for)
{
    good(&f, "glm4moe");
    tensor_drop(&f, "blk.0.attn_q.bias");
    tensor_drop(&f, "blk.0.attn_k.bias");
    tensor_drop(&f, "blk.0.attn_v.bias");
    expect(t, REMARK, "older-releases");
    good(&f, "qwen3moe");
    expect(t, REMARK, "");
}

T_TEST(types_of_vectors_and_routers)
{
    good(&f, "qwen3moe");
    tensor_of(&f, "blk.0.ffn_gate_inp.weight")->type = T_F16;
    expect(t, REMARK, "router-dtype");
    good(&f, "glm4moe");
    tensor_of(&f, "blk.0.exp_probs_b.bias")->type = T_F16;
    expect(t, REFUSED, "vector-dtype");
    good(&f, "llama");
    tensor_of(&f, "blk.0.attn_q.weight")->type = T_F16;
    expect(t, REMARK, "");
}

T_TEST(widths_that_k_quants_do_not_take)
{
    good(&f, "qwen3moe");
    pair_of(&f, "expert_feed_forward_length")->u = 48;
    tensor_of(&f, "blk.0.ffn_gate_exps.weight")->ne[1] = 48;
    tensor_of(&f, "blk.0.ffn_up_exps.weight")->ne[1] = 48;
    tensor_of(&f, "blk.0.ffn_down_exps.weight")->ne[0] = 48;
    expect(t, REMARK, "expert-width");
}

T_TEST(vocabularies)
{
    good(&f, "llama");
    pair_drop(&f, "tokenizer.ggml.model");
    expect(t, REFUSED, "vocabulary");
    good(&f, "llama");
    pair_drop(&f, "tokenizer.ggml.tokens");
    expect(t, REFUSED, "vocabulary");
    good(&f, "llama");
    pair_drop(&f, "tokenizer.ggml.merges");
    expect(t, REFUSED, "merges");
    good(&f, "llama");
    pair_of(&f, "tokenizer.ggml.pre")->s = "my-own";
    expect(t, REFUSED, "pre-tokenizer");
    good(&f, "llama");
    pair_drop(&f, "tokenizer.ggml.pre");
    expect(t, REMARK, "pre-tokenizer");
    good(&f, "llama");
    pair_of(&f, "tokenizer.ggml.token_type")->n = VOCAB - 1;
    expect(t, REFUSED, "vocabulary-lists");
    good(&f, "llama");
    pair_of(&f, "tokenizer.ggml.scores")->item = I32;
    expect(t, REFUSED, "vocabulary-lists");
    good(&f, "llama");
    pair_of(&f, "tokenizer.ggml.tokens")->n = VOCAB - 1;
    expect(t, REFUSED, "tensors-shape");
    good(&f, "llama");
    pair_of(&f, "bos_token_id")->u = VOCAB;
    expect(t, REMARK, "token-ids");
}

T_TEST(a_file_that_claims_a_million_layers_is_done_soon)
{
    good(&f, "llama");
    pair_of(&f, "block_count")->u = MT_LAYERS_MAX;
    expect(t, REFUSED, "tensors-missing layer-limit");
    pair_of(&f, "block_count")->u = UINT32_MAX;
    expect(t, REFUSED, "layer-limit");
}
