#include "tests/family_kit.h"
#include "tests/tiny.h"

#include <stdlib.h>

T_TEST(what_a_family_writes_it_reads_back)
{
    static const char *const names[] = {
        "llama", "llama-linear", "llama-dynamic", "llama-yarn", "mistral",          "qwen2",
        "qwen3", "mixtral",      "qwen3_moe",     "glm4_moe",   "glm4_moe-plain",   "olmoe",
        "dots1", "deepseek_v2",  "deepseek_v3",   "granitemoe", "granitemoeshared", "granite"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char dir[128], path[160], *source;
        struct mt_model *m, *r;
        size_t n;

        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        snprintf(path, sizeof path, "%s/config.json", dir);
        m = tiny_open(t, dir);
        source = t_read_file(path, &n);
        T_CHECK(t, m != NULL && source != NULL);
        T_OK(t, m->family->can_hold(&t->ctx, m));
        T_OK(t, fk_again(t, m, source, &r, NULL));
        if (!fk_same(m, r))
            T_FAIL(t, "%s changed on its way through its own config", names[i]);
        mt_model_free(r);
        T_OK(t, fk_again(t, m, "{}", &r, NULL)); /* and needs nothing of the source but token ids */
        r->hp.bos_id = m->hp.bos_id;
        r->hp.eos_id = m->hp.eos_id;
        T_CHECK(t, fk_same(m, r));
        mt_model_free(r);
        mt_model_free(m);
        free(source);
    }
}

T_TEST(every_family_holds_its_plain_self)
{
    const struct mt_family *const *all = mt_family_all();

    for (int i = 0; all[i] != NULL; i++) {
        struct mt_model *m, *r;

        /* Latent attention has no plain form; its golden models stand for it. The native layout
         * is another family's. */
        if (all[i]->can_hold == NULL || all[i]->wraps || strncmp(all[i]->name, "deepseek", 8) == 0)
            continue;
        m = fk_plain(t, all[i]->name);
        T_CHECK(t, m != NULL);
        T_OK(t, all[i]->can_hold(&t->ctx, m));
        T_OK(t, fk_again(t, m, "{}", &r, NULL));
        T_CHECK(t, fk_same(m, r));
        mt_model_free(r);
        mt_model_free(m);
    }
}

/* Loaders have defaults of their own for what is absent, so the keys are those of the family's own
 * configs, but for training and generation. */
T_TEST(a_converted_model_has_every_key_of_its_family)
{
    static const char *const names[] = {"glm4_moe", "dots1",     "granitemoe", "granitemoeshared",
                                        "mixtral",  "qwen3_moe", "qwen2_moe",  "olmoe"};
    static const char *const other[] = {"attention_dropout",
                                        "initializer_range",
                                        "output_router_logits",
                                        "pad_token_id",
                                        "bos_token_id",
                                        "eos_token_id",
                                        "router_aux_loss_coef",
                                        "router_jitter_noise",
                                        "use_cache",
                                        "layer_types", /* follows from the windows */
                                        "max_window_layers",
                                        "dtype",
                                        "torch_dtype", /* of the embedding, which `plain` lacks */
                                        "num_local_experts" /* a second name of Qwen3-MoE's */};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128], *text;
        struct mt_model *m = fk_plain(t, names[i]), *r;
        struct mt_json *real;
        size_t n;

        snprintf(path, sizeof path, "tests/golden/%s/config.json", names[i]);
        text = t_read_file(path, &n);
        T_CHECK(t, m != NULL && text != NULL);
        T_OK(t, mt_json_parse(&t->ctx, text, n, path, &real));
        T_OK(t, fk_again(t, m, "{}", &r, NULL));
        for (const struct mt_json *j = mt_json_first(real); j != NULL; j = mt_json_next(j)) {
            /* Qwen3-MoE's count has two names. */
            bool skip = strcmp(names[i], "qwen3_moe") == 0 &&
                        strcmp(mt_json_key(j), "num_local_experts") == 0;
            for (size_t k = 0; k < sizeof other / sizeof other[0]; k++)
                skip = skip || strcmp(other[k], mt_json_key(j)) == 0;
            if (!skip && mt_json_get(r->config, mt_json_key(j)) == NULL)
                T_FAIL(t, "%s: %s is not written", names[i], mt_json_key(j));
        }
        mt_json_free(real);
        free(text);
        mt_model_free(r);
        mt_model_free(m);
    }
}

/* A Llama's attention with experts: the default target of a conversion. */
T_TEST(a_converted_llama_says_all_that_glm4_moe_loaders_assume)
{
    struct mt_model *m = fk_plain(t, "glm4_moe"), *r;
    char *text;

    T_CHECK(t, m != NULL);
    T_OK(t,
         fk_again(
             t, m,
             "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
             "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 9}, \"eos_token_id\": [3, 4], "
             "\"intermediate_size\": 999, \"mlp_bias\": false, \"pretraining_tp\": 2, "
             "\"auto_map\": {\"AutoModel\": \"x.Y\"}, \"rope_theta\": 7, "
             "\"initializer_range\": 0.02, \"num_nextn_predict_layers\": 1}",
             &r, &text));
    T_EQ_STR(t, mt_json_text(mt_json_first(mt_json_get(r->config, "architectures"))),
             "Glm4MoeForCausalLM");
    static const struct {
        const char *key;
        double want;
    } numbers[] = {{"partial_rotary_factor", 1},
                   {"n_group", 1},
                   {"topk_group", 1},
                   {"first_k_dense_replace", 0},
                   {"head_dim", 24},
                   {"num_nextn_predict_layers", 0},
                   {"n_shared_experts", 2},
                   {"rope_theta", 1e4},
                   {"initializer_range", 0.02},
                   {"n_routed_experts", 8},
                   {"moe_intermediate_size", 48},
                   {"num_experts_per_tok", 2},
                   {"routed_scaling_factor", 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        double got = -1;
        if (!mt_json_number(mt_json_get(r->config, numbers[i].key), &got) || got != numbers[i].want)
            T_FAIL(t, "%s is %g in %s", numbers[i].key, got, text);
    }
    struct mt_json *rope = mt_json_get(r->config, "rope_parameters");
    double partial = 0, theta = 0;
    bool flag = true;
    T_CHECK(t,
            mt_json_number(mt_json_get(rope, "partial_rotary_factor"), &partial) && partial == 1);
    T_CHECK(t, mt_json_number(mt_json_get(rope, "rope_theta"), &theta) && theta == 1e4);
    T_EQ_STR(t, mt_json_text(mt_json_get(rope, "rope_type")), "default");
    T_CHECK(t, mt_json_get(r->config, "rope_scaling") == NULL);
    T_CHECK(t, mt_json_truth(mt_json_get(r->config, "use_qk_norm"), &flag) && !flag);
    T_CHECK(t, mt_json_truth(mt_json_get(r->config, "attention_bias"), &flag) && !flag);
    T_CHECK(t, mt_json_get(r->config, "mlp_bias") == NULL);
    T_CHECK(t, mt_json_get(r->config, "pretraining_tp") == NULL);
    T_CHECK(t, mt_json_get(r->config, "auto_map") == NULL);
    T_EQ_INT(t, mt_json_count(mt_json_get(r->config, "eos_token_id")), 2);
    mt_free(text);
    mt_model_free(r);
    mt_model_free(m);
}

T_TEST(scaled_rope_is_written_in_both_spellings)
{
    struct mt_model *m = fk_plain(t, "glm4_moe"), *r;
    double inside = 0, outside = 0;

    T_CHECK(t, m != NULL);
    m->hp.rope.type = MT_ROPE_LLAMA3;
    m->hp.rope.factor = 8;
    m->hp.rope.low_freq_factor = 1;
    m->hp.rope.high_freq_factor = 4;
    m->hp.rope.original_max_pos = 8192;
    T_OK(t, fk_again(t, m, "{}", &r, NULL));
    T_CHECK(t, fk_same(m, r));
    T_CHECK(t, mt_json_number(mt_json_get(mt_json_get(r->config, "rope_scaling"), "factor"),
                              &outside) &&
                   mt_json_number(mt_json_get(mt_json_get(r->config, "rope_parameters"), "factor"),
                                  &inside) &&
                   inside == 8 && outside == 8);
    mt_model_free(r);
    mt_model_free(m);
}

T_TEST(the_dtype_written_is_that_of_the_tensors)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "qwen3_moe", .dtype = MT_BF16});
    struct mt_model *m = tiny_open(t, dir), *r;

    T_CHECK(t, m != NULL);
    T_OK(t, fk_again(t, m, "{\"torch_dtype\": \"float32\"}", &r, NULL));
    T_EQ_STR(t, mt_json_text(mt_json_get(r->config, "torch_dtype")), "bfloat16");
    T_EQ_STR(t, mt_json_text(mt_json_get(r->config, "dtype")), "bfloat16");
    mt_model_free(r);
    mt_model_free(m);
}

/* Next-token predictors that travel along stay declared; ones that are gone do not. */
T_TEST(predictor_layers_are_counted)
{
    static const char *const names[] = {"model.layers.4.eh_proj.weight",
                                        "model.layers.5.mlp.gate.weight",
                                        "model.layers.7.mlp.gate.weight"};
    struct mt_model *m = fk_plain(t, "glm4_moe"), *r;
    const int64_t shape[1] = {1};
    struct mt_tensor *x;
    int64_t n = -1;

    T_CHECK(t, m != NULL);
    for (int i = 0; i < 3; i++) {
        T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_F32, 1, shape, &x));
        x->name = names[i];
    }
    T_OK(t, fk_again(t, m, "{\"num_nextn_predict_layers\": 1}", &r, NULL));
    T_CHECK(t, mt_json_integer(mt_json_get(r->config, "num_nextn_predict_layers"), &n) && n == 2);
    mt_model_free(r);
    mt_model_free(m);
}

T_TEST(mixed_layers_of_qwen3_moe_are_listed)
{
    struct mt_model *m = fk_plain(t, "qwen3_moe"), *r;

    T_CHECK(t, m != NULL);
    m->ffn[2] = (struct mt_ffn){.gated = true, .width = 200};
    T_OK(t, m->family->can_hold(&t->ctx, m));
    T_OK(t, fk_again(t, m, "{\"decoder_sparse_step\": 3}", &r, NULL));
    T_CHECK(t, fk_same(m, r));
    mt_model_free(r);
    mt_model_free(m);
}
