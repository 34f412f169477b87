/* Rules for any format: is there something an engine can read at all? And what engines know. */
#include "formats/check.h"

#include <string.h>

static bool files_listed(const char *const *list, const char *name)
{
    for (size_t i = 0; list[i] != NULL; i++)
        if (strcmp(list[i], name) == 0)
            return true;
    return false;
}

/* Classes of decoders that moetool reads or writes, or that MoE models commonly have. */
bool mt_check_vllm_knows(const char *architecture)
{
    static const char *const names[] = {"BailingMoeForCausalLM",
                                        "DeepseekForCausalLM",
                                        "DeepseekV2ForCausalLM",
                                        "DeepseekV3ForCausalLM",
                                        "DeepseekV32ForCausalLM",
                                        "Dots1ForCausalLM",
                                        "Ernie4_5ForCausalLM",
                                        "Ernie4_5_MoeForCausalLM",
                                        "FlexOlmoForCausalLM",
                                        "GPT2LMHeadModel",
                                        "Gemma2ForCausalLM",
                                        "Gemma3ForCausalLM",
                                        "GemmaForCausalLM",
                                        "Glm4ForCausalLM",
                                        "Glm4MoeForCausalLM",
                                        "GlmForCausalLM",
                                        "GptOssForCausalLM",
                                        "GraniteForCausalLM",
                                        "GraniteMoeForCausalLM",
                                        "GraniteMoeHybridForCausalLM",
                                        "GraniteMoeSharedForCausalLM",
                                        "HunYuanMoEV1ForCausalLM",
                                        "JambaForCausalLM",
                                        "Lfm2MoeForCausalLM",
                                        "Llama4ForCausalLM",
                                        "LlamaForCausalLM",
                                        "MistralForCausalLM",
                                        "MixtralForCausalLM",
                                        "NemotronHForCausalLM",
                                        "Olmo2ForCausalLM",
                                        "OlmoForCausalLM",
                                        "OlmoeForCausalLM",
                                        "Phi3ForCausalLM",
                                        "PhiForCausalLM",
                                        "PhiMoEForCausalLM",
                                        "Qwen2ForCausalLM",
                                        "Qwen2MoeForCausalLM",
                                        "Qwen3ForCausalLM",
                                        "Qwen3MoeForCausalLM",
                                        "Qwen3NextForCausalLM",
                                        "SeedOssForCausalLM",
                                        NULL};

    return files_listed(names, architecture);
}

bool mt_check_llama_cpp_knows(const char *arch)
{
    static const char *const names[] = {"llama",       "llama4",        "qwen",
                                        "qwen2",       "qwen2moe",      "qwen3",
                                        "qwen3moe",    "qwen3next",     "olmo",
                                        "olmo2",       "olmoe",         "granite",
                                        "granitemoe",  "granitehybrid", "glm4",
                                        "glm4moe",     "dots1",         "deepseek",
                                        "deepseek2",   "ernie4_5",      "ernie4_5-moe",
                                        "gpt2",        "gpt-oss",       "gptneox",
                                        "phi2",        "phi3",          "phimoe",
                                        "gemma",       "gemma2",        "gemma3",
                                        "gemma3n",     "bailingmoe",    "bailingmoe2",
                                        "hunyuan-moe", "hunyuan-dense", "jamba",
                                        "lfm2",        "lfm2moe",       "smallthinker",
                                        "grok",        "dbrx",          "arctic",
                                        "falcon",      "starcoder2",    "stablelm",
                                        "bert",        "nomic-bert",    "nomic-bert-moe",
                                        "mamba",       "mamba2",        "minicpm",
                                        "minicpm3",    "command-r",     "cohere2",
                                        "nemotron",    "nemotron_h",    "seed_oss",
                                        "exaone",      "exaone4",       "afmoe",
                                        NULL};

    return files_listed(names, arch);
}

static mt_status files_unreadable(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m == NULL ? mt_check_found(ctx, c, "files", "%s", c->flaw) : MT_OK;
}

static bool files_is(const struct mt_check *c, const char *format)
{
    return c->m != NULL && strcmp(c->m->format, format) == 0;
}

static mt_status files_not_gguf(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m != NULL && !files_is(c, "gguf")
               ? mt_check_found(ctx, c, c->path, "llama.cpp reads GGUF files and no others")
               : MT_OK;
}

static mt_status files_gguf(struct mt_ctx *ctx, struct mt_check *c)
{
    return files_is(c, "gguf")
               ? mt_check_found(ctx, c, c->path,
                                "GGUF files are read for a few architectures only, if at all")
               : MT_OK;
}

static mt_status files_native(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m != NULL && mt_check_is_native(c->m)
               ? mt_check_found(ctx, c, "model_type", "the native layout is read by moetool alone")
               : MT_OK;
}

static mt_status files_flaw(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m != NULL && c->flaw != NULL ? mt_check_found(ctx, c, "model", "%s", c->flaw) : MT_OK;
}

static mt_status files_no_family(struct mt_ctx *ctx, struct mt_check *c)
{
    return c->m != NULL && c->flaw == NULL && c->m->family == NULL
               ? mt_check_found(ctx, c, "model_type",
                                "%s is not known: tensors are carried by name, nothing is run",
                                c->m->model_type != NULL ? c->m->model_type : "(none)")
               : MT_OK;
}

const struct mt_check_rule mt_check_files[] = {
    MT_RULE("readable", NULL, ALL, REFUSED, "a file is damaged or not what it says",
            "fetch or write it again", files_unreadable),
    MT_RULE("format", NULL, LLAMA_CPP, REFUSED, "not a GGUF file",
            "moetool export MODEL -o OUT.gguf", files_not_gguf),
    MT_RULE("format", NULL, HF, REFUSED, "a GGUF file", "moetool export MODEL -o DIRECTORY",
            files_gguf),
    MT_RULE("format", NULL, HF, REFUSED, "the native layout",
            "give convert an --arch that engines have, or run it with moetool", files_native),
    MT_RULE("whole", NULL, MOETOOL, REFUSED,
            "tensors and config do not make a model that is known here",
            "compare config.json with the tensors; moetool inspect --tensors lists them",
            files_flaw),
    MT_RULE("known-model", NULL, MOETOOL, REMARK, "a model of no known family",
            "export can copy it; convert and the like need a family", files_no_family),
    MT_RULES_END,
};
