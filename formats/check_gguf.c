/* Rules for GGUF files: what llama.cpp's loader asks for and what its graphs take for granted
 * (spec: formats, 4.3 and 4.4). */
#include "formats/check.h"

#include "lib/text/pre_table.h"

#include <stdio.h>
#include <string.h>

#define GGUF_EXPERTS_MAX 512

static const struct mt_gguf_pair *gguf_find(const struct mt_check *c, const char *key)
{
    return c->n_gguf > 0 ? mt_gguf_find(&c->gguf[0], key) : NULL;
}

/* A text value; NULL when absent. It lives in the check's arena. */
static mt_status gguf_text(struct mt_ctx *ctx, struct mt_check *c, const char *key,
                           const char **out)
{
    const struct mt_gguf_pair *p = gguf_find(c, key);

    *out = NULL;
    return p != NULL && p->type == MT_GGUF_STRING
               ? mt_gguf_str(ctx, &c->gguf[0], key, &c->arena, out)
               : MT_OK;
}

static mt_status gguf_arch(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch;

    MT_TRY(gguf_text(ctx, c, "general.architecture", &arch));
    if (arch == NULL)
        return mt_check_found(ctx, c, "general.architecture", "it is missing");
    return mt_check_llama_cpp_knows(arch) ? MT_OK
                                          : mt_check_found(ctx, c, "general.architecture",
                                                           "no architecture %s is known", arch);
}

static mt_status gguf_expert_limit(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch;
    char key[160];
    int64_t n = 0;

    MT_TRY(gguf_text(ctx, c, "general.architecture", &arch));
    if (arch == NULL)
        return MT_OK;
    snprintf(key, sizeof key, "%s.expert_count", arch);
    MT_TRY(mt_gguf_int(ctx, &c->gguf[0], key, 0, &n));
    return n > GGUF_EXPERTS_MAX ? mt_check_found(ctx, c, key, "%lld experts; it is built for %d",
                                                 (long long)n, GGUF_EXPERTS_MAX)
                                : MT_OK;
}

static mt_status gguf_no_vocab(struct mt_ctx *ctx, struct mt_check *c)
{
    if (gguf_find(c, "tokenizer.ggml.model") == NULL)
        return mt_check_found(ctx, c, "tokenizer.ggml.model", "it is missing");
    return gguf_find(c, "tokenizer.ggml.tokens") == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.tokens", "the list of tokens is missing")
               : MT_OK;
}

static mt_status gguf_no_merges(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *model;

    MT_TRY(gguf_text(ctx, c, "tokenizer.ggml.model", &model));
    return model != NULL && strcmp(model, "gpt2") == 0 &&
                   gguf_find(c, "tokenizer.ggml.merges") == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.merges", "a BPE tokenizer without merges")
               : MT_OK;
}

static mt_status gguf_pre(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *pre;

    MT_TRY(gguf_text(ctx, c, "tokenizer.ggml.pre", &pre));
    return pre != NULL && mt_pre_find(pre) == NULL
               ? mt_check_found(ctx, c, "tokenizer.ggml.pre", "no splitting of text named %s", pre)
               : MT_OK;
}

const struct mt_check_rule mt_check_gguf[] = {
    MT_RULE("architecture", "gguf", LLAMA_CPP, REFUSED,
            "an architecture that llama.cpp does not have", "export to safetensors instead",
            gguf_arch),
    MT_RULE("expert-limit", "gguf", LLAMA_CPP, REFUSED, "more experts than its arrays hold",
            "use fewer, or build it with a larger LLAMA_MAX_EXPERTS", gguf_expert_limit),
    MT_RULE_SOURCE("vocabulary", "gguf", LLAMA_CPP, REFUSED, "no vocabulary",
                   "export from a directory with a tokenizer.json", gguf_no_vocab),
    MT_RULE_SOURCE("merges", "gguf", LLAMA_CPP, REFUSED, "BPE without merges",
                   "export from a directory with a tokenizer.json", gguf_no_merges),
    MT_RULE_SOURCE("pre-tokenizer", "gguf", LLAMA_CPP, REFUSED,
                   "a name of a text splitting that llama.cpp does not have",
                   "give the name of one that it has", gguf_pre),
    MT_RULES_END,
};
