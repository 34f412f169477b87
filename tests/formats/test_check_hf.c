/* A small model that is right in every respect; one thing is broken, and exactly that is found. */
#include "lib/base/path.h"
#include "tests/check_kit.h"
#include "tests/st_fixture.h"
#include "tests/tiny.h"

#include <stdlib.h>
#include <unistd.h>

#define REFUSED MT_SEVERITY_REFUSED
#define WRONG MT_SEVERITY_WRONG
#define REMARK MT_SEVERITY_REMARK

static char dir[512];

/* A glm4_moe of two layers, four experts and one shared expert, with its tokenizer. */
static void good(struct t *t)
{
    static int n;
    char name[32];

    snprintf(name, sizeof name, "m%d", n++);
    snprintf(
        dir, sizeof dir, "%s",
        tiny_write(t, name, &(struct tiny){.family = "glm4_moe", .shared = 1, .tokenizer = true}));
}

static void good_as(struct t *t, const struct tiny *o)
{
    static int n;
    char name[32];

    snprintf(name, sizeof name, "a%d", n++);
    snprintf(dir, sizeof dir, "%s", tiny_write(t, name, o));
}

static const char *in_dir(const char *name)
{
    static char path[2][600];
    static int turn;

    turn ^= 1;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void config(struct t *t, const char *from, const char *to)
{
    ck_edit(t, in_dir("config.json"), from, to);
}

static void weights(struct t *t, const char *from, const char *to)
{
    ck_edit(t, in_dir("model.safetensors"), from, to);
}

/* The same to both engines. */
static void hf(struct t *t, enum mt_severity severity, const char *rules)
{
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, severity, rules);
    ck_only(t, dir, MT_ENGINE_VLLM, severity, rules);
}

/* A golden model as a directory of its own. */
static void golden(struct t *t, const char *family)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char from[512], name[64];
    static int n;

    snprintf(name, sizeof name, "g%d", n++);
    fx_mkdir(t, name);
    snprintf(dir, sizeof dir, "%s", t_path(t, name));
    for (size_t i = 0; i < 2; i++) {
        size_t bytes;
        snprintf(from, sizeof from, "../golden/%s/%s", family, names[i]);
        char *p = t_read_file(t_shipped(from), &bytes);
        if (p == NULL)
            t_fail(t, __FILE__, __LINE__, "%s: not there", from);
        else
            t_write_file(t, in_dir(names[i]), p, bytes);
        free(p);
    }
}

/* ---- nothing is wrong ---- */

T_TEST(right_models_have_no_findings)
{
    static const char *const families[] = {"llama",   "mistral",   "qwen2",   "qwen3",
                                           "mixtral", "qwen3_moe", "glm4_moe"};

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        good_as(t, &(struct tiny){.family = families[i], .tokenizer = true, .shared = 1});
        hf(t, REMARK, "");
        ck_only(t, dir, MT_ENGINE_MOETOOL, REMARK, "");
        good_as(t, &(struct tiny){.family = families[i], .tokenizer = true, .shards = 3});
        hf(t, REMARK, "");
    }
}

/* What transformers computed the logits of is certainly loaded by it. */
T_TEST(models_that_transformers_ran_are_not_refused)
{
    static const char *const names[] = {"deepseek_v2",
                                        "deepseek_v3",
                                        "deepseek_v3-fp8",
                                        "dots1",
                                        "ernie4_5_moe",
                                        "gemma2",
                                        "gemma3_text",
                                        "glm4_moe",
                                        "glm4_moe-plain",
                                        "gpt2",
                                        "gpt_oss",
                                        "gpt_oss-mxfp4",
                                        "granitemoe",
                                        "granitemoeshared",
                                        "llama",
                                        "llama-yarn",
                                        "mistral",
                                        "mixtral",
                                        "mixtral-fused",
                                        "olmoe",
                                        "phi3",
                                        "qwen2",
                                        "qwen2_moe",
                                        "qwen3",
                                        "qwen3_moe"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        struct mt_check *c;
        snprintf(path, sizeof path, "../golden/%s", names[i]);
        T_OK(t, mt_check_path(&t->ctx, t_shipped(path), MT_FOR_TRANSFORMERS, &c));
        if (mt_check_worst(c, MT_ENGINE_TRANSFORMERS) > REMARK)
            t_fail(t, __FILE__, __LINE__, "%s: %s", names[i], c->v[0].what);
        mt_check_free(c);
    }
}

/* ---- config.json ---- */

T_TEST(a_config_must_be_there)
{
    good(t);
    unlink(in_dir("config.json"));
    hf(t, REFUSED, "config");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REMARK, "known-model");
}

T_TEST(the_model_must_be_named)
{
    good(t);
    config(t, "\"model_type\": \"glm4_moe\",", "");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "model-type");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "");
    good(t);
    config(t, "\"architectures\": [\"Glm4MoeForCausalLM\"],", "");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "architectures");
    good(t);
    config(t, "Glm4MoeForCausalLM", "MixtralForCausalLM");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "");
    ck_only(t, dir, MT_ENGINE_VLLM, WRONG, "class-and-type");
}

T_TEST(what_is_not_known_is_a_remark)
{
    good(t);
    config(t, "\"glm4_moe\"", "\"abacus\"");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REMARK, "known-model");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REMARK, "known-model");
    good(t);
    config(t, "Glm4MoeForCausalLM", "AbacusForCausalLM");
    ck_only(t, dir, MT_ENGINE_VLLM, REMARK, "known-model");
    /* Settings that are not read here: no verdict on the tensors. */
    good(t);
    config(t, "\"rope_theta\"", "\"rope_scaling\": {\"rope_type\": \"abacus\"}, \"rope_theta\"");
    hf(t, REMARK, "unjudged");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REFUSED, "whole");
    good(t);
    config(t, "\"rope_theta\"",
           "\"quantization_config\": {\"quant_method\": \"gptq\"}, \"rope_theta\"");
    config(t, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    hf(t, REMARK, "unjudged");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REFUSED, "whole");
}

T_TEST(values_that_make_no_model_are_refused)
{
    good(t);
    config(t, "\"num_attention_heads\": 4", "\"num_attention_heads\": -4");
    hf(t, REFUSED, "config-values");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REFUSED, "whole");
    good(t);
    config(t, "\"n_group\": 1", "\"n_group\": 3");
    hf(t, REFUSED, "config-values");
}

T_TEST(the_padding_token_lies_in_the_vocabulary)
{
    good(t);
    config(t, "\"rope_theta\"", "\"pad_token_id\": 260, \"rope_theta\"");
    hf(t, REFUSED, "pad-token");
    good(t);
    config(t, "\"rope_theta\"", "\"pad_token_id\": 259, \"rope_theta\"");
    hf(t, REMARK, "");
}

T_TEST(two_spellings_of_positions_agree)
{
    good(t);
    config(t, "\"rope_theta\"",
           "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5}, \"rope_theta\"");
    hf(t, WRONG, "rope-spellings");
    good(t);
    config(t, "\"rope_theta\"",
           "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2.0}, \"rope_theta\"");
    hf(t, WRONG, "rope-spellings");
    good(t);
    config(
        t, "\"rope_theta\"",
        "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000}, \"rope_theta\"");
    hf(t, REMARK, "");
}

T_TEST(partial_rotation_stands_in_both_places)
{
    static const char inner[] = "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": "
                                "10000, \"partial_rotary_factor\": 1.0}, \"rope_theta\"";
    static const char hidden[] =
        "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2.0, \"rope_theta\": 10000, "
        "\"partial_rotary_factor\": 1.0}, \"rope_scaling\": {\"rope_type\": \"linear\", "
        "\"factor\": 2.0}, \"rope_theta\"";

    good(t);
    config(t, "\"rope_theta\"", inner);
    hf(t, REMARK, "partial-rotary");
    config(t, "\"num_hidden_layers\"", "\"partial_rotary_factor\": 1.0, \"num_hidden_layers\"");
    hf(t, REMARK, "");
    good(t);
    config(t, "\"rope_theta\"", hidden);
    hf(t, WRONG, "partial-rotary");
    config(t, "\"num_hidden_layers\"", "\"partial_rotary_factor\": 1.0, \"num_hidden_layers\"");
    hf(t, REMARK, "");
}

T_TEST(the_type_of_weights_is_the_stored_one)
{
    good(t);
    config(t, "\"torch_dtype\": \"float32\"", "\"torch_dtype\": \"float16\"");
    hf(t, REMARK, "dtype");
}

/* ---- files ---- */

T_TEST(weights_have_the_names_that_are_looked_for)
{
    char from[600];

    good(t);
    snprintf(from, sizeof from, "%s", in_dir("model.safetensors"));
    rename(from, in_dir("weights.safetensors"));
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "weights-name");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "");
    snprintf(from, sizeof from, "%s", in_dir("weights.safetensors"));
    ck_only(t, from, MT_ENGINE_TRANSFORMERS, REFUSED, "weights-name");
}

T_TEST(an_index_has_metadata)
{
    good_as(t, &(struct tiny){.family = "llama", .tokenizer = true, .shards = 2});
    ck_edit(t, in_dir("model.safetensors.index.json"), "\"metadata\"", "\"meta\"");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "index");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "");
}

T_TEST(damaged_files_are_refused_by_all)
{
    good(t);
    weights(t, "\"model.norm.weight\"", "\"model.morn.weight\\");
    for (int e = 0; e < MT_ENGINE_COUNT; e++)
        ck_only(t, dir, (enum mt_engine)e, REFUSED, "readable");
}

T_TEST(a_shard_that_is_not_there_is_told)
{
    good_as(t, &(struct tiny){.family = "llama", .tokenizer = true, .shards = 2});
    unlink(in_dir("model-00002-of-00002.safetensors"));
    for (int e = 0; e < MT_ENGINE_COUNT; e++)
        ck_only(t, dir, (enum mt_engine)e, REFUSED, "readable");
}

T_TEST(the_format_key)
{
    good(t);
    weights(t, "\"format\":\"pt\"", "\"format\":\"xx\"");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REMARK, "format-key");
    ck_only(t, dir, MT_ENGINE_VLLM, REMARK, "");
}

T_TEST(files_beside_the_weights)
{
    good_as(t, &(struct tiny){.family = "llama"});
    hf(t, REMARK, "tokenizer");
    good(t);
    config(t, "\"rope_theta\"",
           "\"auto_map\": {\"AutoModel\": \"modeling_x.X\", \"AutoConfig\": "
           "\"some/where--conf.C\"}, \"rope_theta\"");
    hf(t, REMARK, "remote-code");
    t_write_file(t, in_dir("modeling_x.py"), "", 0);
    hf(t, REMARK, "");
    good(t);
    t_write_file(t, in_dir("generation_config.json"), "{\"eos_token_id\": [1, 260]}", 26);
    hf(t, REMARK, "generation-config");
    t_write_file(t, in_dir("generation_config.json"), "{\"eos_token_id\": [1, 259]}", 25);
    hf(t, REMARK, "generation-config"); /* not JSON: the last brace is cut */
    t_write_file(t, in_dir("generation_config.json"), "{\"eos_token_id\": [1, 25]}", 25);
    hf(t, REMARK, "");
}

T_TEST(files_larger_than_the_hub_takes)
{
    static const char head[] = "{\"x\":{\"dtype\":\"U8\",\"shape\":[50000000000],"
                               "\"data_offsets\":[0,50000000000]}}";
    const char *path = fx_st(t, "big/model.safetensors", head, 0);

    if (truncate(path, 8 + (off_t)strlen(head) + 50000000000) != 0)
        T_SKIP(t, "no sparse files here");
    ck_has(t, path, MT_ENGINE_VLLM, REMARK, "file-size");
}

/* ---- tensors ---- */

T_TEST(tensors_that_lack)
{
    good(t);
    config(t, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, WRONG, "tensors-missing");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "tensors-missing");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REFUSED, "whole");
}

T_TEST(all_that_lack_are_counted)
{
    struct mt_check *c;

    good(t);
    config(t, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    T_OK(t, mt_check_path(&t->ctx, dir, MT_FOR_VLLM, &c));
    T_EQ_INT(t, c->n, MT_CHECK_LISTED_MAX);
    /* Two norms, four of attention, router and its bias, 3 for 4 experts and the shared one. */
    T_EQ_INT(t, c->n + c->v[c->n - 1].more, 2 + 4 + 2 + 3 * 5);
    T_CHECK(t, strstr(c->v[0].subject, "layers.2") != NULL);
    mt_check_free(c);
}

T_TEST(a_config_that_claims_thousands_is_done_soon)
{
    good(t);
    config(t, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 9999");
    config(t, "\"n_routed_experts\": 4", "\"n_routed_experts\": 65536");
    ck_has(t, dir, MT_ENGINE_VLLM, REFUSED, "tensors-missing");
}

T_TEST(tensors_of_other_shapes)
{
    good(t);
    config(t, "\"moe_intermediate_size\": 48", "\"moe_intermediate_size\": 40");
    hf(t, REFUSED, "tensors-shape");
}

T_TEST(tensors_without_a_place)
{
    good_as(t,
            &(struct tiny){.family = "glm4_moe", .shared = 1, .tokenizer = true, .biases = true});
    hf(t, REMARK, "");
    config(t, "\"attention_bias\": true", "\"attention_bias\": false");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, WRONG, "tensors-surplus");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "tensors-surplus");
    good(t);
    config(t, "\"n_routed_experts\": 4", "\"n_routed_experts\": 3");
    ck_has(t, dir, MT_ENGINE_VLLM, REFUSED, "tensors-surplus");
    ck_has(t, dir, MT_ENGINE_VLLM, REFUSED, "tensors-shape");
}

T_TEST(tensors_of_unknown_names)
{
    good(t);
    config(t, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    weights(t, "\"lm_head.weight\"", "\"lm_hexd.weight\"");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REMARK, "tensors-unknown");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "tensors-unknown");
    weights(t, "\"lm_hexd.weight\"", "\"x.attn.bias   \""); /* a buffer is no news */
    weights(t, "\"x.attn.bias   \"", "\"xxxx.attn.bias\"");
    hf(t, REMARK, "");
}

T_TEST(layers_behind_the_last_one)
{
    good(t);
    config(t, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "predictors");
    config(t, "\"rope_theta\"", "\"num_nextn_predict_layers\": 1, \"rope_theta\"");
    hf(t, REMARK, "");
    good(t);
    config(t, "\"rope_theta\"", "\"num_nextn_predict_layers\": 1, \"rope_theta\"");
    ck_only(t, dir, MT_ENGINE_VLLM, REMARK, "predictors");
}

T_TEST(a_tied_head_is_the_embedding)
{
    good(t);
    config(t, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    ck_only(t, dir, MT_ENGINE_VLLM, WRONG, "tied-head");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REMARK, "tied-head");
}

T_TEST(selection_biases_are_f32)
{
    good(t);
    weights(t, "gate.e_score_correction_bias\":{\"dtype\":\"F32\"",
            "gate.e_score_correction_bias\":{\"dtype\":\"I32\"");
    hf(t, REMARK, "selection-bias");
    ck_only(t, dir, MT_ENGINE_MOETOOL, REMARK, "selection-bias");
}

/* One layer's name grows by two bytes, which the header's padding gives. */
T_TEST(queries_have_the_name_that_the_config_asks_for)
{
    golden(t, "deepseek_v2");
    weights(t, "layers.0.self_attn.q_proj.weight\"", "layers.0.self_attn.q_b_proj.weight\"");
    weights(t, "}}  ", "}}");
    ck_has(t, dir, MT_ENGINE_TRANSFORMERS, WRONG, "query-names");
    ck_has(t, dir, MT_ENGINE_VLLM, REFUSED, "query-names");
}

T_TEST(stacks_of_experts_are_a_remark)
{
    golden(t, "mixtral-fused");
    ck_has(t, dir, MT_ENGINE_VLLM, REMARK, "stacked-experts");
    golden(t, "granitemoe"); /* whose experts are stacked by nature */
    t_write_file(t, in_dir("tokenizer.json"), "{}", 2);
    ck_only(t, dir, MT_ENGINE_VLLM, REMARK, "expert-count");
}

T_TEST(what_vllm_takes_for_granted)
{
    good_as(t, &(struct tiny){.family = "llama", .tokenizer = true});
    config(t, "\"silu\"", "\"gelu\"");
    ck_only(t, dir, MT_ENGINE_VLLM, REFUSED, "activation");
    ck_only(t, dir, MT_ENGINE_TRANSFORMERS, REFUSED, "");
    good_as(t, &(struct tiny){.family = "mixtral", .tokenizer = true, .experts = 6});
    ck_only(t, dir, MT_ENGINE_VLLM, REMARK, "expert-count");
    golden(t, "qwen2_moe");
    config(t, "\"qkv_bias\": true", "\"qkv_bias\": false");
    ck_has(t, dir, MT_ENGINE_VLLM, REFUSED, "attention-bias");
    golden(t, "qwen2_moe");
    config(t, "\"vocab_size\"", "\"head_dim\": 64, \"vocab_size\"");
    ck_has(t, dir, MT_ENGINE_VLLM, REFUSED, "head-size");
}
