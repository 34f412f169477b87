/* Rules for safetensors models: config.json and the files; those about tensors are in
 * check_hf_tensors.c. */
#include "formats/check_hf.h"

#include "formats/safetensors.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define HF_SMALL_BYTES_MAX ((size_t)1 << 20)
#define HF_HUB_BYTES_MAX 50000000000u /* of one file */

static const struct mt_json *hf_key(const struct mt_check *c, const char *key)
{
    return mt_json_get(c->m->config, key);
}

static const struct mt_family *hf_type_family(const struct mt_check *c)
{
    const char *type = mt_json_text(hf_key(c, "model_type"));

    return type != NULL ? mt_family_find(type) : NULL;
}

/* ---- config.json ---- */

static mt_status hf_no_config(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m->config == NULL
               ? mt_check_found(ctx, c, "config.json", "it is missing; nothing tells the shape")
               : MT_OK;
}

static mt_status hf_no_type(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m->config != NULL && mt_json_text(hf_key(c, "model_type")) == NULL
               ? mt_check_found(ctx, c, "model_type",
                                "missing: AutoConfig does not recognize the model")
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
    const char *type = mt_json_text(hf_key(c, "model_type"));

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
    const struct mt_family *f = hf_type_family(c);

    if (f == NULL || arch == NULL || strcmp(arch, f->architecture) == 0)
        return MT_OK;
    for (size_t i = 0; mt_family_all()[i] != NULL; i++)
        if (strcmp(mt_family_all()[i]->architecture, arch) == 0)
            return mt_check_found(ctx, c, "architectures", "%s runs, but model_type %s means %s",
                                  arch, f->name, f->architecture);
    return MT_OK;
}

static mt_status hf_pad_id(struct mt_ctx *ctx, struct mt_check *c)
{
    int64_t id, vocab;

    if (!mt_json_integer(hf_key(c, "pad_token_id"), &id) ||
        !mt_json_integer(hf_key(c, "vocab_size"), &vocab) || (id < vocab && id >= -vocab))
        return MT_OK;
    return mt_check_found(ctx, c, "pad_token_id",
                          "%" PRId64 " lies outside the vocabulary of %" PRId64
                          ": the embedding cannot be made",
                          id, vocab);
}

/* Two spellings of one number that disagree. */
static mt_status hf_disagree(struct mt_ctx *ctx, struct mt_check *c, const char *key)
{
    const struct mt_json *both = hf_key(c, "rope_parameters");
    double outer, inner;

    if (!mt_json_number(hf_key(c, key), &outer) || !mt_json_number(mt_json_get(both, key), &inner))
        return MT_OK;
    return fabs(outer - inner) <= 1e-9 * fabs(outer)
               ? MT_OK
               : mt_check_found(ctx, c, key,
                                "%g, but %g in rope_parameters: releases differ in "
                                "which they read",
                                outer, inner);
}

static const char *hf_rope_type(const struct mt_json *j)
{
    const char *type = mt_json_text(mt_json_get(j, "rope_type"));

    return type != NULL ? type : mt_json_text(mt_json_get(j, "type"));
}

static mt_status hf_rope_spellings(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_json *old = hf_key(c, "rope_scaling"), *both = hf_key(c, "rope_parameters");
    const char *a = hf_rope_type(old), *b = hf_rope_type(both);

    MT_TRY(hf_disagree(ctx, c, "rope_theta"));
    MT_TRY(hf_disagree(ctx, c, "partial_rotary_factor"));
    if (mt_json_kind(both) != MT_JSON_OBJECT || b == NULL)
        return MT_OK;
    a = a != NULL ? a : "default";
    /* Without rope_theta outside, the new spelling is the only one. */
    return strcmp(a, b) == 0 || hf_key(c, "rope_theta") == NULL
               ? MT_OK
               : mt_check_found(ctx, c, "rope_scaling",
                                "%s, but %s in rope_parameters: releases "
                                "differ in which they read",
                                a, b);
}

/* glm4_moe takes one half where it finds nothing. Version 5 looks in both places, but where there
 * is rope_scaling that stands for all of rope_parameters; before, the top alone was read. */
static mt_status hf_inner_partial(struct mt_ctx *ctx, struct mt_check *c, bool scaled)
{
    static const char key[] = "partial_rotary_factor";
    const struct mt_json *old = hf_key(c, "rope_scaling");
    const struct mt_family *f = hf_type_family(c);
    double partial;

    if (f == NULL || strcmp(f->name, "glm4_moe") != 0 || hf_key(c, key) != NULL ||
        !mt_json_number(mt_json_get(hf_key(c, "rope_parameters"), key), &partial) ||
        partial == 0.5 || scaled != (mt_json_kind(old) == MT_JSON_OBJECT) ||
        mt_json_get(old, key) != NULL)
        return MT_OK;
    return mt_check_found(ctx, c, key, "%g in rope_parameters only: %s", partial,
                          scaled ? "rope_scaling is read in its place, and 0.5 taken"
                                 : "releases before transformers 5 look at the top and take 0.5");
}

static mt_status hf_lost_partial(struct mt_ctx *ctx, struct mt_check *c)
{
    return hf_inner_partial(ctx, c, true);
}

static mt_status hf_partial_rotary(struct mt_ctx *ctx, struct mt_check *c)
{
    return hf_inner_partial(ctx, c, false);
}

static mt_status hf_dtype(struct mt_ctx *ctx, struct mt_check *c)
{
    static const struct {
        const char *name;
        enum mt_dtype dtype;
    } names[] = {{"float32", MT_F32}, {"float16", MT_F16}, {"bfloat16", MT_BF16}};
    const char *said = mt_json_text(hf_key(c, "dtype"));
    const struct mt_tensor *t = mt_model_find(c->m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE));

    if (said == NULL)
        said = mt_json_text(hf_key(c, "torch_dtype"));
    for (size_t i = 0; said != NULL && t != NULL && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].name, said) == 0 && names[i].dtype != t->dtype)
            return mt_check_found(ctx, c, "dtype",
                                  "%s, but weights are stored as %s: they are "
                                  "cast when they are loaded",
                                  said, mt_dtype_name(t->dtype));
    return MT_OK;
}

/* ---- files ---- */

static bool hf_beside(const struct mt_check *c, const char *name)
{
    for (size_t i = 0; i < c->m->n_sidecars; i++)
        if (strcmp(c->m->sidecars[i].name, name) == 0)
            return true;
    return false;
}

static mt_status hf_weights_name(struct mt_ctx *ctx, struct mt_check *c)
{
    const char *first = c->m->n_maps > 0 ? mt_path_base(c->m->maps[0]->path) : MT_ST_SINGLE;
    char *index;

    if (strcmp(first, MT_ST_SINGLE) == 0)
        return MT_OK;
    if (!mt_path_is_dir(c->m->path))
        return mt_check_found(
            ctx, c, first, "directories are loaded, whose one weight file is called " MT_ST_SINGLE);
    MT_TRY(mt_path_join(ctx, c->m->path, MT_ST_INDEX, &index));
    bool there = mt_path_is_file(index);
    mt_free(index);
    return there ? MT_OK
                 : mt_check_found(ctx, c, first,
                                  "neither " MT_ST_SINGLE " nor " MT_ST_INDEX
                                  " is here, so no weights are found");
}

static mt_status hf_index_metadata(struct mt_ctx *ctx, struct mt_check *c)
{
    struct mt_hf_index ix = {0};
    mt_status st = MT_OK;
    char *path;

    if (!mt_path_is_dir(c->m->path))
        return MT_OK;
    MT_TRY(mt_path_join(ctx, c->m->path, MT_ST_INDEX, &path));
    if (mt_path_is_file(path)) {
        st = mt_hf_index_read(ctx, path, MT_ST_SUFFIX, &c->arena, &ix);
        if (st == MT_OK && !ix.has_metadata)
            st = mt_check_found(ctx, c, MT_ST_INDEX, "it has no \"metadata\", which is read");
        mt_hf_index_free(&ix);
    }
    mt_free(path);
    return st;
}

static mt_status hf_torch(struct mt_ctx *ctx, struct mt_check *c)
{
    return strcmp(c->m->format, "torch") == 0
               ? mt_check_found(ctx, c, "weights",
                                "pickled torch files: they load slowly, and some "
                                "releases ask for a newer torch to trust them")
               : MT_OK;
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

static mt_status hf_large_file(struct mt_ctx *ctx, struct mt_check *c)
{
    for (size_t i = 0; i < c->m->n_maps; i++)
        if (c->m->maps[i]->bytes > HF_HUB_BYTES_MAX)
            MT_TRY(mt_check_found(ctx, c, mt_path_base(c->m->maps[i]->path),
                                  "%" PRIu64 " bytes: the hub takes files of 50 GB at most",
                                  c->m->maps[i]->bytes));
    return MT_OK;
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

/* "modeling_x.XForCausalLM" of auto_map without modeling_x.py. */
static mt_status hf_no_code(struct mt_ctx *ctx, struct mt_check *c)
{
    for (const struct mt_json *j = mt_json_first(hf_key(c, "auto_map")); j != NULL;
         j = mt_json_next(j)) {
        const char *value = mt_json_text(j);
        char file[128];

        if (value == NULL || strstr(value, "--") != NULL || strlen(value) + 4 > sizeof file)
            continue; /* code of another repository */
        snprintf(file, sizeof file, "%.*s.py", (int)strcspn(value, "."), value);
        if (!hf_beside(c, file))
            MT_TRY(mt_check_found(ctx, c, file, "auto_map names it, and it is not here"));
    }
    return MT_OK;
}

static mt_status hf_generation_ids(struct mt_ctx *ctx, struct mt_check *c, const struct mt_json *g)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id", NULL};
    int64_t vocab, id;

    if (!mt_json_integer(hf_key(c, "vocab_size"), &vocab))
        return MT_OK;
    for (size_t i = 0; keys[i] != NULL; i++) {
        const struct mt_json *j = mt_json_get(g, keys[i]);
        const struct mt_json *one = mt_json_kind(j) == MT_JSON_ARRAY ? mt_json_first(j) : j;
        for (; one != NULL; one = one == j ? NULL : mt_json_next(one))
            if (mt_json_integer(one, &id) && (id < 0 || id >= vocab))
                MT_TRY(mt_check_found(ctx, c, "generation_config.json",
                                      "%s %" PRId64 " lies outside the vocabulary of %" PRId64,
                                      keys[i], id, vocab));
    }
    return MT_OK;
}

static mt_status hf_generation(struct mt_ctx *ctx, struct mt_check *c)
{
    struct mt_json *g = NULL;
    mt_status st;

    for (size_t i = 0; i < c->m->n_sidecars; i++) {
        if (strcmp(c->m->sidecars[i].name, "generation_config.json") != 0)
            continue;
        st = mt_json_read(ctx, c->m->sidecars[i].path, HF_SMALL_BYTES_MAX, &g);
        if (st == MT_E_FORMAT || st == MT_E_LIMIT)
            return mt_check_found(ctx, c, "generation_config.json", "it cannot be read: %s",
                                  mt_error(ctx));
        MT_TRY(st);
        st = hf_generation_ids(ctx, c, g);
        mt_json_free(g);
        return st;
    }
    return MT_OK;
}

#define HF_AGREE "compare config.json with the tensors; moetool inspect --tensors lists them"

const struct mt_check_rule mt_check_hf[] = {
    MT_RULE("config", "hf", HF, REFUSED, "no config.json",
            "put the model's config.json beside its weights", hf_no_config),
    MT_RULE("model-type", "hf", TRANSFORMERS, REFUSED, "config.json has no model_type",
            "add \"model_type\"", hf_no_type),
    MT_RULE("architectures", "hf", VLLM, REFUSED, "config.json has no architectures",
            "add \"architectures\" with the name of the class", hf_no_architecture),
    MT_RULE("known-model", "hf", TRANSFORMERS, REMARK, "a model_type without rules here", "try it",
            hf_unknown_type),
    MT_RULE("known-model", "hf", VLLM, REMARK, "a class that vLLM has no code of its own for",
            "try it", hf_unknown_class),
    MT_RULE("unjudged", "hf", HF, REMARK, "a config or scheme without rules here", "try it",
            mt_check_hf_unjudged),
    MT_RULE("config-values", "hf", HF, REFUSED, "values in config.json that make no model",
            "correct the key", mt_check_hf_values),
    MT_RULE("class-and-type", "hf", VLLM, WRONG,
            "architectures and model_type mean different models", "make them agree",
            hf_class_and_type),
    MT_RULE("pad-token", "hf", HF, REFUSED, "pad_token_id lies outside the vocabulary",
            "remove it or name a token that exists", hf_pad_id),
    MT_RULE("rope-spellings", "hf", HF, WRONG, "the two spellings of rotary settings disagree",
            "make them agree", hf_rope_spellings),
    MT_RULE("partial-rotary", "hf", HF, WRONG,
            "partial_rotary_factor stands where rope_scaling hides it", "write it at the top, too",
            hf_lost_partial),
    MT_RULE("partial-rotary", "hf", HF, REMARK,
            "partial_rotary_factor stands in rope_parameters alone", "write it at the top, too",
            hf_partial_rotary),
    MT_RULE("dtype", "hf", HF, REMARK, "the config names another float type",
            "set dtype and torch_dtype to the stored type", hf_dtype),
    MT_RULE("weights-name", "safetensors", TRANSFORMERS, REFUSED,
            "weight files under names that are not looked for",
            "moetool export MODEL -o DIRECTORY names them as loaders expect", hf_weights_name),
    MT_RULE("index", "safetensors", TRANSFORMERS, REFUSED, "an index without metadata",
            "add \"metadata\": {} to the index", hf_index_metadata),
    MT_RULE("format-key", "safetensors", TRANSFORMERS, REMARK, "__metadata__ without format pt",
            "moetool export MODEL -o OUT writes it", hf_no_format_key),
    MT_RULE("torch-files", "hf", HF, REMARK, "weights in torch files",
            "moetool export MODEL -o OUT writes safetensors", hf_torch),
    MT_RULE("file-size", "hf", HF, REMARK, "a file larger than the hub takes",
            "moetool export --max-shard-size 5G", hf_large_file),
    MT_RULE("tokenizer", "hf", HF, REMARK, "no tokenizer files",
            "copy tokenizer.json and tokenizer_config.json from the source model", hf_no_tokenizer),
    MT_RULE("remote-code", "hf", HF, REMARK, "auto_map names code that is not here",
            "copy the file from the source model, or remove auto_map", hf_no_code),
    MT_RULE("generation-config", "hf", HF, REMARK, "generation_config.json is unusable",
            "correct it, or remove it", hf_generation),
    MT_RULE("tensors-missing", "hf", TRANSFORMERS, WRONG,
            "a tensor is missing: random values are taken in its place", HF_AGREE,
            mt_check_hf_missing),
    MT_RULE("tensors-missing", "hf", VLLM, REFUSED, "a tensor is missing", HF_AGREE,
            mt_check_hf_missing),
    MT_RULE("tensors-shape", "hf", HF, REFUSED, "a tensor is of another shape", HF_AGREE,
            mt_check_hf_shapes),
    MT_RULE("tensors-surplus", "hf", TRANSFORMERS, WRONG,
            "a tensor that the config leaves no place for: it is ignored", HF_AGREE,
            mt_check_hf_surplus),
    MT_RULE("tensors-surplus", "hf", VLLM, REFUSED, "a tensor that the config leaves no place for",
            HF_AGREE, mt_check_hf_surplus),
    MT_RULE("tensors", "hf", HF, REFUSED, "tensors and config contradict each other", HF_AGREE,
            mt_check_hf_flaw),
    MT_RULE_SOURCE("tensors-unknown", "hf", TRANSFORMERS, REMARK,
                   "a tensor of a name it does not know: reported as unexpected and ignored",
                   "remove it if it is a leftover", mt_check_hf_unknown),
    MT_RULE_SOURCE("tensors-unknown", "hf", VLLM, REFUSED, "a tensor of a name it does not know",
                   "remove it if it is a leftover", mt_check_hf_unknown),
    MT_RULE("query-names", "hf", TRANSFORMERS, WRONG,
            "queries under the name that the config does not ask for: random values are taken",
            HF_AGREE, mt_check_hf_queries),
    MT_RULE("query-names", "hf", VLLM, REFUSED,
            "queries under the name that the config does not ask for", HF_AGREE,
            mt_check_hf_queries),
    MT_RULE_SOURCE("predictors", "hf", VLLM, REFUSED,
                   "layers behind the last one that are not declared",
                   "set num_nextn_predict_layers, or remove the tensors", mt_check_hf_undeclared),
    MT_RULE("predictors", "hf", VLLM, REMARK, "declared predictor layers without tensors",
            "set num_nextn_predict_layers to 0", mt_check_hf_declared),
    MT_RULE("stacked-experts", "hf", VLLM, REMARK,
            "stacks of experts, which older releases do not read",
            "moetool export MODEL -o OUT --experts per-expert", mt_check_hf_stacked),
    MT_RULE("tied-head", "hf", VLLM, WRONG,
            "tied embeddings with a head of its own: the embedding is taken for it",
            "set tie_word_embeddings to false", mt_check_hf_tied),
    MT_RULE("tied-head", "hf", TRANSFORMERS, REMARK,
            "tied embeddings with a head of its own: it is kept, with a warning",
            "set tie_word_embeddings to false", mt_check_hf_tied),
    MT_RULE("head-size", "hf", VLLM, REFUSED, "heads of a size its code does not expect",
            "use an architecture that reads head_dim: glm4_moe, qwen3_moe or mixtral",
            mt_check_hf_heads),
    MT_RULE("attention-bias", "hf", VLLM, REFUSED, "biases that its code asks for",
            "use an architecture with a choice: glm4_moe", mt_check_hf_needed_bias),
    MT_RULE("activation", "hf", VLLM, REFUSED, "an activation its code does not have",
            "run it with transformers", mt_check_hf_activation),
    MT_RULE("selection-bias", "hf", HF_MOETOOL, REMARK, "a selection bias that is not F32",
            "take it from a source that keeps it in F32", mt_check_hf_bias_dtype),
    MT_RULE("router-dtype", "hf", TRANSFORMERS, REMARK, "F32 routers that are rounded",
            "load it with dtype float32 where it matters", mt_check_hf_rounded_transformers),
    MT_RULE("router-dtype", "hf", VLLM, REMARK, "F32 routers that are rounded",
            "glm4_moe keeps them: moetool convert --arch glm4_moe", mt_check_hf_rounded_vllm),
    MT_RULE("expert-count", "hf", VLLM, REMARK, "an expert count that some kernels do not take",
            "choose a power of two, or a multiple of 64", mt_check_hf_expert_count),
    MT_RULES_END,
};
