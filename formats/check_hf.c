/* Rules for safetensors models: config.json, names and types of tensors, files beside them. */
#include "formats/check.h"

#include "formats/safetensors.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <stdio.h>
#include <string.h>

/* ---- config.json ---- */

static mt_status hf_no_config(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m->config == NULL
               ? mt_check_found(ctx, c, "config.json", "it is missing; nothing tells the shape")
               : MT_OK;
}

static mt_status hf_no_type(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m->config != NULL && mt_json_text(mt_json_get(c->m->config, "model_type")) == NULL
               ? mt_check_found(ctx, c, "model_type", "AutoConfig does not recognize the model")
               : MT_OK;
}

static mt_status hf_no_architecture(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m->config != NULL && mt_check_architecture(c) == NULL
               ? mt_check_found(ctx, c, "architectures", "it names no class, so none is chosen")
               : MT_OK;
}

static mt_status hf_unknown_type(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *type = mt_json_text(mt_json_get(c->m->config, "model_type"));

    if (type == NULL || mt_family_find(type) != NULL)
        return MT_OK;
    return mt_check_found(ctx, c, "model_type",
                          "%s is not known here: files were checked, tensors were not", type);
}

static mt_status hf_unknown_class(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch = mt_check_architecture(c);

    return arch != NULL && !mt_check_vllm_knows(arch)
               ? mt_check_found(ctx, c, "architectures",
                                "no code of its own for %s is known here; at best the slower code "
                                "of transformers runs",
                                arch)
               : MT_OK;
}

/* The class runs in vLLM, model_type in transformers: they must mean one model. */
static mt_status hf_class_and_type(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *arch = mt_check_architecture(c);
    const char *type = mt_json_text(mt_json_get(c->m->config, "model_type"));
    const struct mt_family *f = type != NULL ? mt_family_find(type) : NULL;

    if (f == NULL || arch == NULL || strcmp(arch, f->architecture) == 0)
        return MT_OK;
    for (size_t i = 0; mt_family_all()[i] != NULL; i++)
        if (strcmp(mt_family_all()[i]->architecture, arch) == 0)
            return mt_check_found(ctx, c, "architectures", "%s runs, but model_type %s means %s",
                                  arch, type, f->architecture);
    return MT_OK;
}

static mt_status hf_flaw(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->flaw != NULL && c->m->family != NULL
               ? mt_check_found(ctx, c, "tensors", "%s", c->flaw)
               : MT_OK;
}

static mt_status hf_id_range(struct mt_ctx *ctx, struct mt_check *c)
{
    int64_t id, vocab;

    if (!mt_json_integer(mt_json_get(c->m->config, "pad_token_id"), &id) ||
        !mt_json_integer(mt_json_get(c->m->config, "vocab_size"), &vocab) || id < vocab)
        return MT_OK;
    return mt_check_found(ctx, c, "pad_token_id",
                          "%lld lies outside the vocabulary of %lld: the embedding is refused",
                          (long long)id, (long long)vocab);
}

/* ---- files ---- */

static bool hf_beside(const struct mt_check *c, const char *name)
{
    for (size_t i = 0; i < c->m->n_sidecars; i++)
        if (strcmp(c->m->sidecars[i].name, name) == 0)
            return true;
    return false;
}

static mt_status hf_no_tokenizer(struct mt_ctx *ctx, struct mt_check *c)
{
    static const char *const any[] = {"tokenizer.json", "tokenizer.model", "vocab.json",
                                      "vocab.txt",      "tekken.json",     NULL};

    for (size_t i = 0; any[i] != NULL; i++)
        if (hf_beside(c, any[i]))
            return MT_OK;
    return mt_check_found(ctx, c, "tokenizer.json",
                          "no tokenizer lies beside the weights; only token ids can be given");
}

static mt_status hf_no_format_key(struct mt_ctx *ctx, struct mt_check *c)
{
    for (size_t i = 0; i < c->n_st; i++) {
        const char *format = NULL;
        for (size_t k = 0; k < c->st[i].n_meta; k++)
            if (strcmp(c->st[i].meta[k].key, "format") == 0)
                format = c->st[i].meta[k].value;
        if (format == NULL || strcmp(format, "pt") != 0)
            MT_TRY(mt_check_found(ctx, c, mt_path_base(c->m->maps[i]->path),
                                  "its __metadata__ does not say \"format\": \"pt\"; releases "
                                  "before 5 refuse it"));
    }
    return MT_OK;
}

/* ---- routers ---- */

static mt_status hf_bias_dtype(struct mt_ctx *ctx, struct mt_check *c)
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

static mt_status hf_expert_count(struct mt_ctx *ctx, struct mt_check *c)
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

const struct mt_check_rule mt_check_hf[] = {
    MT_RULE("config", "safetensors", HF, REFUSED, "no config.json",
            "put the model's config.json beside its weights", hf_no_config),
    MT_RULE("model-type", "safetensors", TRANSFORMERS, REFUSED, "config.json has no model_type",
            "add \"model_type\"", hf_no_type),
    MT_RULE("architectures", "safetensors", VLLM, REFUSED, "config.json has no architectures",
            "add \"architectures\" with the name of the class", hf_no_architecture),
    MT_RULE("known-model", "safetensors", TRANSFORMERS, REMARK, "a model_type without rules",
            "try it", hf_unknown_type),
    MT_RULE("known-model", "safetensors", VLLM, REMARK,
            "a class that vLLM has no code of its own for", "try it", hf_unknown_class),
    MT_RULE("class-and-type", "safetensors", VLLM, WRONG,
            "architectures and model_type mean different models", "make them agree",
            hf_class_and_type),
    MT_RULE("tensors", "safetensors", HF, REFUSED,
            "tensors are missing, surplus or of another shape than the config says",
            "compare config.json with the tensors; moetool inspect --tensors lists them", hf_flaw),
    MT_RULE("pad-token", "safetensors", HF, REFUSED, "pad_token_id lies outside the vocabulary",
            "remove it or name a token that exists", hf_id_range),
    MT_RULE("tokenizer", "safetensors", HF, REMARK, "no tokenizer files",
            "copy tokenizer.json and tokenizer_config.json from the source model", hf_no_tokenizer),
    MT_RULE("format-key", "safetensors", TRANSFORMERS, REMARK, "__metadata__ without format pt",
            "moetool export MODEL -o OUT writes it", hf_no_format_key),
    MT_RULE("selection-bias", "safetensors", HF_MOETOOL, REMARK, "a selection bias that is not F32",
            "take it from a source that keeps it in F32", hf_bias_dtype),
    MT_RULE("expert-count", "safetensors", VLLM, REMARK,
            "an expert count that some kernels do not take",
            "choose a power of two, or a multiple of 64", hf_expert_count),
    MT_RULES_END,
};
