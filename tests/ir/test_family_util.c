#include "lib/base/rng.h"
#include "tests/tiny.h"

#include <stdlib.h>

/* Bit for bit, so that a NaN equals itself and zeros of either sign differ. */
static bool same_bits(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n) == 0;
}

/* Reads a config as `family` does, without tensors. The text goes into an object after sizes that
 * fit together; later members must not repeat them. */
static mt_status read_as(struct t *t, const char *family, const char *more, struct mt_model **out)
{
    char text[4096];
    struct mt_model *m;
    mt_status st;

    snprintf(text, sizeof text,
             "{\"hidden_size\": 64, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, "
             "\"vocab_size\": 100, \"intermediate_size\": 96%s%s}",
             more[0] != 0 ? ", " : "", more);
    MT_TRY(mt_model_create(&t->ctx, &m));
    m->family = mt_family_find(family);
    st = mt_json_parse(&t->ctx, text, strlen(text), "config.json", &m->config);
    if (st == MT_OK)
        st = m->family->read_config(&t->ctx, m);
    *out = m;
    return st;
}

#define READS(family, more)                                                                        \
    T_OK(t, read_as(t, family, more, &m));                                                         \
    hp = &m->hp;                                                                                   \
    (void)hp

T_TEST(defaults_of_a_bare_llama)
{
    const struct mt_hparams *hp;
    struct mt_model *m;

    READS("llama", "");
    T_CHECK(t, hp->n_layers == 4 && hp->hidden == 64 && hp->vocab == 100 && hp->max_pos == 2048);
    T_CHECK(t, hp->n_heads == 4 && hp->n_kv_heads == 4 && hp->head_dim == 16);
    T_CHECK(t, hp->norm_eps == 1e-6 && hp->rope.theta == 10000 && hp->rope.partial == 1);
    T_CHECK(t, !hp->tied && !hp->qkv_bias && !hp->o_bias && hp->qk_norm == MT_QK_NORM_NONE);
    T_CHECK(t, hp->embed_scale == 1 && hp->logit_scale == 1 && hp->residual_scale == 1);
    T_CHECK(t, hp->bos_id == -1 && hp->eos_id == -1 && hp->sliding_window == 0);
    T_CHECK(t, m->ffn[3].gated && m->ffn[3].width == 96 && m->ffn[3].act == MT_ACT_SILU);
    mt_model_free(m);
}

/* head_dim and kv heads can be there as null; eos as a list; both are common. */
T_TEST(nulls_lists_and_biases)
{
    const struct mt_hparams *hp;
    struct mt_model *m;

    READS("llama", "\"head_dim\": null, \"num_key_value_heads\": null, \"bos_token_id\": 5, "
                   "\"eos_token_id\": [7, 8], \"attention_bias\": true, \"mlp_bias\": true, "
                   "\"rope_scaling\": null, \"hidden_act\": \"gelu_pytorch_tanh\"");
    T_CHECK(t, hp->head_dim == 16 && hp->n_kv_heads == 4 && hp->bos_id == 5 && hp->eos_id == 7);
    T_CHECK(t, hp->qkv_bias && hp->o_bias && m->ffn[0].in_bias && m->ffn[0].out_bias);
    T_CHECK(t, m->ffn[0].act == MT_ACT_GELU_TANH && hp->rope.type == MT_ROPE_DEFAULT);
    mt_model_free(m);
    READS("llama", "\"bos_token_id\": 100, \"eos_token_id\": [-2, 5]");
    T_CHECK(t, hp->bos_id == -1 && hp->eos_id == -1);
    T_CHECK(t, strstr(t->log, "bos_token_id 100 lies outside the vocabulary of 100") != NULL);
    T_CHECK(t, strstr(t->log, "eos_token_id -2 lies outside the vocabulary of 100") != NULL);
    mt_model_free(m);
    READS("llama", "\"bos_token_id\": null, \"eos_token_id\": []");
    T_CHECK(t, hp->bos_id == -1 && hp->eos_id == -1);
    mt_model_free(m);
}

T_TEST(families_have_their_own_defaults)
{
    const struct mt_hparams *hp;
    struct mt_model *m;

    READS("qwen2", "");
    T_CHECK(t, hp->qkv_bias && !hp->o_bias && hp->sliding_window == 0);
    mt_model_free(m);
    READS("qwen3", "\"attention_bias\": true");
    T_CHECK(t, hp->head_dim == 128 && hp->qk_norm == MT_QK_NORM_HEAD && hp->qkv_bias && hp->o_bias);
    mt_model_free(m);
    READS("mistral", "");
    T_CHECK(t, hp->sliding_window == 4096);
    mt_model_free(m);
    READS("mistral", "\"sliding_window\": null");
    T_CHECK(t, hp->sliding_window == 0);
    mt_model_free(m);
    READS("mixtral", "");
    T_CHECK(t, hp->sliding_window == 0 && hp->rope.theta == 1e6 && hp->norm_eps == 1e-5);
    T_CHECK(t, m->ffn[0].moe && m->ffn[3].n_experts == 8 && m->ffn[3].k == 2);
    T_CHECK(t, m->ffn[0].rule.renorm && m->ffn[0].rule.score == MT_SCORE_SOFTMAX);
    mt_model_free(m);
    READS("qwen3_moe", "");
    T_CHECK(t, hp->head_dim == 16 && m->ffn[0].n_experts == 128 && m->ffn[0].width == 768);
    T_CHECK(t, !m->ffn[0].rule.renorm && m->ffn[0].shared_width == 0);
    mt_model_free(m);
}

T_TEST(glm4_moe_reads_its_router)
{
    const struct mt_hparams *hp;
    const struct mt_ffn *f;
    struct mt_model *m;

    READS("glm4_moe", "");
    f = &m->ffn[1];
    T_CHECK(t, hp->rope.partial == 0.5 && hp->norm_eps == 1e-5 && !m->ffn[0].moe && f->moe);
    T_CHECK(t, f->rule.score == MT_SCORE_SIGMOID && f->rule.renorm && f->rule.has_bias);
    T_CHECK(t, f->rule.scale == 1 && f->rule.renorm_eps == 1e-20 && f->rule.n_group == 1);
    T_CHECK(t, f->shared_width == 1408 && f->width == 1408 && f->n_experts == 128 && f->k == 8);
    mt_model_free(m);
    READS("glm4_moe", "\"n_routed_experts\": 16, \"num_experts_per_tok\": 3, \"n_group\": 4, "
                      "\"topk_group\": 2, \"n_shared_experts\": 2, \"moe_intermediate_size\": 32, "
                      "\"first_k_dense_replace\": 3, \"norm_topk_prob\": false, "
                      "\"routed_scaling_factor\": 2.5, \"use_qk_norm\": true, "
                      "\"attention_bias\": true, \"partial_rotary_factor\": 1.0");
    f = &m->ffn[3];
    T_CHECK(t, !m->ffn[2].moe && m->ffn[2].width == 96 && f->moe && f->shared_width == 64);
    T_CHECK(t, f->rule.n_group == 4 && f->rule.topk_group == 2 && !f->rule.renorm);
    T_CHECK(t, f->rule.scale == 2.5 && hp->rope.partial == 1 && hp->qkv_bias && !hp->o_bias);
    T_CHECK(t, hp->qk_norm == MT_QK_NORM_HEAD);
    mt_model_free(m);
}

T_TEST(qwen3_moe_reads_which_layers_are_sparse)
{
    const struct mt_hparams *hp;
    struct mt_model *m;

    READS("qwen3_moe", "\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 90]");
    T_CHECK(t, !m->ffn[0].moe && m->ffn[1].moe && !m->ffn[2].moe && !m->ffn[3].moe);
    T_EQ_INT(t, m->ffn[3].width, 96);
    mt_model_free(m);
    READS("qwen3_moe", "\"mlp_only_layers\": [0]");
    T_CHECK(t, !m->ffn[0].moe && m->ffn[1].moe && m->ffn[3].moe);
    mt_model_free(m);
}

T_TEST(both_rope_spellings_read_the_same)
{
    static const char *const pairs[][2] = {
        {"\"rope_theta\": 500000.0",
         "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500000.0}"},
        {"\"rope_theta\": 7000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}",
         "\"rope_parameters\": {\"rope_type\": \"linear\", \"rope_theta\": 7000, \"factor\": 2.0}"},
        {"\"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 3.0}",
         "\"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 3.0}"},
        {"\"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
         "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
         "\"original_max_position_embeddings\": 8192}",
         "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"llama3\", \"factor\": 8.0, "
         "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
         "\"original_max_position_embeddings\": 8192}"},
        {"\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"mscale\": 0.7, "
         "\"mscale_all_dim\": 1.0}, \"max_position_embeddings\": 4096",
         "\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4.0, \"mscale\": 0.7, "
         "\"mscale_all_dim\": 1.0, \"beta_fast\": 32, \"beta_slow\": 1}, "
         "\"max_position_embeddings\": 4096"},
        {"\"partial_rotary_factor\": 0.25",
         "\"rope_parameters\": {\"partial_rotary_factor\": 0.25, \"rope_theta\": 10000}"},
    };

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct mt_model *a, *b;

        T_OK(t, read_as(t, "llama", pairs[i][0], &a));
        T_OK(t, read_as(t, "llama", pairs[i][1], &b));
        T_CHECK(t, same_bits(&a->hp.rope, &b->hp.rope, sizeof a->hp.rope));
        mt_model_free(a);
        mt_model_free(b);
    }
}

T_TEST(rope_values_arrive)
{
    const struct mt_hparams *hp;
    struct mt_model *m;

    READS("llama", "\"rope_theta\": 5e5, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": "
                   "8.0, \"low_freq_factor\": 1.5, \"high_freq_factor\": 4.0, "
                   "\"original_max_position_embeddings\": 8192}");
    T_CHECK(t, hp->rope.type == MT_ROPE_LLAMA3 && hp->rope.theta == 5e5 && hp->rope.factor == 8);
    T_CHECK(t, hp->rope.low_freq_factor == 1.5 && hp->rope.high_freq_factor == 4);
    T_CHECK(t, hp->rope.original_max_pos == 8192);
    mt_model_free(m);
    READS("llama", "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}");
    T_CHECK(t, hp->rope.beta_fast == 32 && hp->rope.beta_slow == 1);
    T_CHECK(t, hp->rope.attention_factor == 0 && hp->rope.original_max_pos == 2048);
    mt_model_free(m);
    /* A loader that finds both takes rope_scaling; rope_theta inside wins over outside. */
    READS("llama", "\"rope_theta\": 3, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}, "
                   "\"rope_parameters\": {\"rope_type\": \"dynamic\", \"factor\": 5.0}");
    T_CHECK(t, hp->rope.type == MT_ROPE_LINEAR && hp->rope.theta == 3);
    mt_model_free(m);
    READS("llama", "\"rope_theta\": 3, \"rope_parameters\": {\"rope_theta\": 4}");
    T_CHECK(t, hp->rope.type == MT_ROPE_DEFAULT && hp->rope.theta == 4);
    mt_model_free(m);
}

T_TEST(qwen_windows)
{
    const struct mt_hparams *hp;
    struct mt_model *m;

    READS("qwen2", "\"sliding_window\": 128, \"max_window_layers\": 2");
    T_CHECK(t, hp->sliding_window == 0); /* not switched on */
    mt_model_free(m);
    READS("qwen2",
          "\"use_sliding_window\": true, \"sliding_window\": 128, \"max_window_layers\": 2");
    T_CHECK(t, hp->sliding_window == 128 && hp->window_first_layer == 2 && mt_hp_has_window(hp));
    mt_model_free(m);
    READS("qwen2", "\"use_sliding_window\": true, \"sliding_window\": 128");
    T_CHECK(t, !mt_hp_has_window(hp)); /* from layer 28 on, of 4 */
    mt_model_free(m);
    READS("qwen3", "\"use_sliding_window\": true, \"sliding_window\": 128, \"layer_types\": "
                   "[\"full_attention\", \"sliding_attention\", \"sliding_attention\", "
                   "\"sliding_attention\"]");
    T_CHECK(t, hp->window_first_layer == 1 && hp->windowed == NULL);
    T_CHECK(t, mt_hp_layer_window(hp, 0) == 0 && mt_hp_layer_window(hp, 1) == 128);
    mt_model_free(m);
    READS("qwen3_moe", "\"use_sliding_window\": true, \"sliding_window\": 128");
    T_CHECK(t, hp->sliding_window == 128 && hp->window_first_layer == 0);
    mt_model_free(m);
    READS("mistral", "\"sliding_window\": 2048");
    T_CHECK(t, !mt_hp_has_window(hp)); /* as long as the context: never cuts */
    mt_model_free(m);
}

T_TEST(nonsense_is_refused_by_key)
{
    static const struct {
        const char *family, *more, *want;
        mt_status st;
    } bad[] = {
        {"llama", "\"num_key_value_heads\": 3", "num_attention_heads 4 is not a multiple",
         MT_E_FORMAT},
        {"llama", "\"num_key_value_heads\": 8", "num_key_value_heads is 8, expected 1 to 4",
         MT_E_FORMAT},
        {"llama", "\"num_key_value_heads\": 0", "num_key_value_heads is 0", MT_E_FORMAT},
        {"llama", "\"head_dim\": 7", "rotating dimensions, expected an even", MT_E_FORMAT},
        {"llama", "\"head_dim\": -16", "head_dim is -16", MT_E_FORMAT},
        {"llama", "\"head_dim\": 16.5", "head_dim", MT_E_FORMAT},
        {"llama", "\"head_dim\": 1e300", "head_dim", MT_E_FORMAT},
        {"llama", "\"max_position_embeddings\": 0", "max_position_embeddings is 0", MT_E_FORMAT},
        {"llama", "\"rms_norm_eps\": -1", "rms_norm_eps is -1", MT_E_FORMAT},
        {"llama", "\"rms_norm_eps\": \"small\"", "rms_norm_eps", MT_E_FORMAT},
        {"llama", "\"rope_theta\": 0", "rope_theta is 0", MT_E_FORMAT},
        {"llama", "\"rope_theta\": -1e4", "rope_theta is -10000", MT_E_FORMAT},
        {"llama", "\"partial_rotary_factor\": 1.5", "partial_rotary_factor", MT_E_FORMAT},
        {"llama", "\"rope_scaling\": {\"type\": \"linear\"}", "factor is missing", MT_E_FORMAT},
        {"llama", "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}", "factor is 0",
         MT_E_FORMAT},
        {"llama", "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}",
         "low_freq_factor is missing", MT_E_FORMAT},
        {"llama",
         "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
         "\"high_freq_factor\": 1}",
         "high_freq_factor 1 is not above low_freq_factor 4", MT_E_FORMAT},
        {"llama", "\"rope_scaling\": {\"type\": \"mystery\", \"factor\": 8}",
         "rope_type \"mystery\" is not known", MT_E_UNSUPPORTED},
        {"llama", "\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 8}",
         "short_factor has 0 entries", MT_E_FORMAT},
        {"llama", "\"rope_scaling\": {\"type\": 3}", "type", MT_E_FORMAT},
        {"llama", "\"rope_scaling\": 7", "rope_scaling is neither an object", MT_E_FORMAT},
        {"llama", "\"rope_scaling\": []", "rope_scaling is neither an object", MT_E_FORMAT},
        {"llama", "\"rope_parameters\": \"yarn\"", "rope_parameters is neither", MT_E_FORMAT},
        {"llama", "\"bos_token_id\": \"x\"", "bos_token_id is no token id", MT_E_FORMAT},
        {"llama", "\"bos_token_id\": 1.5", "bos_token_id is no token id", MT_E_FORMAT},
        {"llama", "\"eos_token_id\": true", "eos_token_id is no token id", MT_E_FORMAT},
        {"llama", "\"eos_token_id\": [1, \"x\"]", "eos_token_id is no token id", MT_E_FORMAT},
        {"gpt2", "\"eos_token_id\": {}, \"n_head\": 4, \"n_embd\": 64",
         "eos_token_id is no token id", MT_E_FORMAT},
        {"llama", "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1e4}}",
         "for layers of type full_attention alone", MT_E_UNSUPPORTED},
        {"llama", "\"hidden_act\": \"mish\"", "hidden_act \"mish\" is not known", MT_E_UNSUPPORTED},
        {"llama", "\"attention_bias\": 1", "attention_bias", MT_E_FORMAT},
        {"mistral", "\"sliding_window\": 0", "sliding_window is 0", MT_E_FORMAT},
        {"qwen2", "\"use_sliding_window\": true, \"layer_types\": [\"full_attention\"]",
         "layer_types has 1 entries for 4 layers", MT_E_FORMAT},
        {"qwen2", "\"use_sliding_window\": true, \"layer_types\": [\"chunked_attention\"]",
         "layer_types[0] \"chunked_attention\"", MT_E_UNSUPPORTED},
        {"mixtral", "\"num_local_experts\": 0", "num_local_experts is 0", MT_E_FORMAT},
        {"mixtral", "\"num_local_experts\": 100000", "num_local_experts is 100000", MT_E_FORMAT},
        {"mixtral", "\"num_experts_per_tok\": 9", "num_experts_per_tok is 9, but there are 8",
         MT_E_FORMAT},
        {"qwen3_moe", "\"mlp_only_layers\": [\"a\"]", "mlp_only_layers", MT_E_FORMAT},
        {"qwen3_moe", "\"decoder_sparse_step\": 0", "decoder_sparse_step is 0", MT_E_FORMAT},
        {"glm4_moe", "\"n_routed_experts\": 9, \"n_group\": 2", "do not divide into n_group = 2",
         MT_E_FORMAT},
        {"glm4_moe", "\"n_group\": 4, \"topk_group\": 5", "topk_group is 5", MT_E_FORMAT},
        {"glm4_moe",
         "\"n_routed_experts\": 8, \"n_group\": 4, \"topk_group\": 1, "
         "\"num_experts_per_tok\": 3",
         "1 groups of 2 hold fewer", MT_E_FORMAT},
        {"glm4_moe", "\"routed_scaling_factor\": \"big\"", "routed_scaling_factor", MT_E_FORMAT},
        {"glm4_moe", "\"n_shared_experts\": -1", "n_shared_experts is -1", MT_E_FORMAT},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct mt_model *m = NULL;
        mt_status st = read_as(t, bad[i].family, bad[i].more, &m);

        if (st != bad[i].st || strstr(mt_error(&t->ctx), bad[i].want) == NULL)
            T_FAIL(t, "%s: status %d, \"%s\"", bad[i].more, (int)st, mt_error(&t->ctx));
        mt_model_free(m);
    }
}

static void refuse(struct t *t, const char *family, const char *text, const char *want)
{
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    m->family = mt_family_find(family);
    T_OK(t, mt_json_parse(&t->ctx, text, strlen(text), "config.json", &m->config));
    T_FAILS(t, m->family->read_config(&t->ctx, m), MT_E_FORMAT, want);
    mt_model_free(m);
}

T_TEST(missing_and_monstrous_sizes_are_refused)
{
#define SIZES "\"hidden_size\": 64, \"num_attention_heads\": 4, \"vocab_size\": 100"
    refuse(t, "llama", "{}", "num_hidden_layers is missing");
    refuse(t, "llama", "{\"num_hidden_layers\": 4}", "hidden_size is missing");
    refuse(t, "llama", "{\"num_hidden_layers\": 4, " SIZES "}", "intermediate_size is missing");
    refuse(t, "llama", "{\"num_hidden_layers\": 10001, " SIZES "}", "num_hidden_layers is 10001");
    refuse(t, "llama", "{\"num_hidden_layers\": 4000000000, " SIZES "}", "num_hidden_layers is");
    refuse(t, "llama", "{\"num_hidden_layers\": 1, \"hidden_size\": 9e15}", "hidden_size is");
    refuse(t, "llama", "{\"num_hidden_layers\": [], " SIZES "}", "num_hidden_layers");
    refuse(t, "qwen3_moe", "{\"num_hidden_layers\": 2, \"mlp_only_layers\": [1], " SIZES "}",
           "intermediate_size is missing, but layer 1 is dense");
#undef SIZES
}

/* Numbers, words and punctuation of real configs replaced at random: every outcome is a status. */
T_TEST(damaged_configs_never_crash)
{
    static const char *const names[] = {"llama",   "llama-yarn", "qwen2",
                                        "mixtral", "qwen3_moe",  "glm4_moe"};
    static const char *const values[] = {"0",    "-1",   "1e308", "2147483648", "9007199254740993",
                                         "null", "true", "[]",    "{}",         "\"x\"",
                                         "0.5",  "7",    "65536", "1e-320",     "10000"};
    struct mt_rng rng;
    int opened = 0, refused = 0;

    mt_rng_seed(&rng, 3, 0);
    for (int round = 0; round < 3000; round++) {
        char path[128], text[6000], *whole, *at;
        struct mt_model *m;
        size_t n, line = 0, start;
        mt_status st;

        snprintf(path, sizeof path, "tests/golden/%s/config.json", names[round % 6]);
        whole = t_read_file(path, &n);
        T_CHECK(t, whole != NULL && n < 4000);
        /* The value of a random line is replaced; sometimes a byte of the text as well. */
        start = (size_t)mt_rng_below(&rng, n);
        at = strstr(whole + start, "\": ");
        if (at != NULL) {
            at += 3;
            line = strcspn(at, ",\n");
            snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole,
                     values[mt_rng_below(&rng, 15)], at + line);
        } else {
            whole[start] = (char)(32 + mt_rng_below(&rng, 95));
            snprintf(text, sizeof text, "%s", whole);
        }
        free(whole);
        T_OK(t, mt_model_create(&t->ctx, &m));
        st = mt_json_parse(&t->ctx, text, strlen(text), "config.json", &m->config);
        if (st == MT_OK)
            st = mt_model_bind(&t->ctx, m);
        /* Without tensors a config that reads well ends at the first missing one. */
        if (st == MT_OK || strstr(mt_error(&t->ctx), "embed_tokens is missing") != NULL)
            opened++;
        else
            refused++;
        T_CHECK(t, st == MT_OK || mt_error(&t->ctx)[0] != 0);
        mt_model_free(m);
    }
    T_CHECK(t, opened > 300 && refused > 300);
}
