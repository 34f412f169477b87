#include "formats/table.h"
#include "passes/lib/target_choice.h"
#include "tests/t.h"
#include "tests/tiny.h"
#include "tests/toy.h"

#define LLAMA3                                                                                     \
    "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 4, \"low_freq_factor\": 1, "        \
    "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}"

static mt_status choose(struct t *t, const struct mt_model *m, const char *format,
                        const char *shared, const char *active, struct mt_moe_shape *s)
{
    const struct mt_shape_ask ask = {.experts = 6,
                                     .active = active,
                                     .shared = shared,
                                     .arch = "auto",
                                     .format = format != NULL ? mt_format_writer(format) : NULL};

    return mt_moe_shape_read(&t->ctx, &ask, m, s);
}

/* Copies want no shared expert and weights that sum to one. */
T_TEST(copies_have_an_order_of_their_own)
{
    static const struct {
        const char *family, *config, *format;
        int granules;
        const char *target, *said;
    } cases[] = {
        {"llama", NULL, NULL, 2, "mixtral", NULL},
        {"llama", NULL, NULL, 3, "glm4_moe", "mixtral, granitemoe would round down_proj (times 3)"},
        {"qwen2", NULL, NULL, 2, "glm4_moe", "mixtral cannot hold"},
        {"qwen3", NULL, NULL, 2, "qwen3_moe", NULL},
        {"llama", LLAMA3, "gguf", 4, "mixtral", NULL},
        {"biased", NULL, NULL, 2, "native", "olmoe: expert weights that do not sum to one"},
    };
    struct mt_moe_shape s;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool biased = strcmp(cases[i].family, "biased") == 0;
        const struct tiny of = {.family = biased ? "llama" : cases[i].family,
                                .config = cases[i].config,
                                .mlp_biases = biased};
        struct mt_model *m = tiny_open(t, tiny_write(t, "m", &of));
        char active[8];
        snprintf(active, sizeof active, "%d", cases[i].granules);
        const struct mt_shape_ask ask = {
            .copies = 4,
            .granules = cases[i].granules,
            .active = active,
            .shared = "auto",
            .arch = "auto",
            .format = cases[i].format != NULL ? mt_format_writer(cases[i].format) : NULL};
        T_CHECK(t, m != NULL);
        T_OK(t, mt_moe_shape_read(&t->ctx, &ask, m, &s));
        T_EQ_STR(t, mt_target_name(s.target), cases[i].target);
        T_CHECK(t, mt_target_exact(&s) && mt_target_sums(&s.use));
        T_EQ_INT(t, s.n_experts, 4 * cases[i].granules);
        if (cases[i].said != NULL && strstr(s.why, cases[i].said) == NULL)
            t_fail(t, __FILE__, __LINE__, "%s", s.why);
        mt_model_free(m);
    }
}

T_TEST(the_first_that_holds_it_exactly_is_taken)
{
    static const struct {
        const char *family, *config, *format, *shared, *active, *target;
        const char *said; /* of those passed over */
    } cases[] = {
        {"llama", NULL, NULL, "auto", "3", "glm4_moe", NULL},
        {"llama", NULL, "gguf", "auto", "3", "glm4_moe", NULL},
        {"qwen2", NULL, "gguf", "1", "3", "glm4_moe", NULL},
        {"llama", LLAMA3, NULL, "auto", "3", "glm4_moe", NULL},
        {"llama", LLAMA3, "gguf", "0", "4", "mixtral",
         "glm4_moe: GGUF architecture glm4moe does not hold llama3 rope scaling"},
        {"llama", LLAMA3, "gguf", "auto", "4", "granitemoeshared",
         "glm4_moe: GGUF architecture glm4moe does not hold llama3 rope scaling"},
        {"llama", LLAMA3, "gguf", "1", "2", "granitemoeshared", "llama3 rope scaling"},
        {"qwen3", NULL, NULL, "auto", "4", "qwen3_moe", NULL},
        {"qwen3", NULL, "gguf", "0", "2", "qwen3_moe", NULL},
        /* 3 is no power of two: every other way rounds. */
        {"qwen3", NULL, NULL, "auto", "3", "glm4_moe", "qwen3_moe would round down_proj (times 3)"},
        {"qwen3", NULL, NULL, "1", "4", "glm4_moe", NULL},
        {"mistral", "\"sliding_window\": 8", NULL, "auto", "4", "mixtral",
         "glm4_moe, granitemoeshared cannot hold sliding-window attention; dots1 cannot hold "
         "attention without q/k norms"},
        {"mistral", "\"sliding_window\": 8", NULL, "1", "4", "native",
         "mixtral, qwen3_moe, granitemoe, olmoe: no shared experts"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_model *m = tiny_open(
            t, tiny_write(t, "m",
                          &(struct tiny){.family = cases[i].family, .config = cases[i].config}));
        struct mt_moe_shape s;
        T_CHECK(t, m != NULL);
        T_OK(t, choose(t, m, cases[i].format, cases[i].shared, cases[i].active, &s));
        T_EQ_STR(t, mt_target_name(s.target), cases[i].target);
        T_CHECK(t, strncmp(s.why, "architecture ", 13) == 0);
        T_CHECK(t, strstr(s.why, "holds the result exactly") != NULL);
        T_CHECK(t, mt_target_exact(&s));
        if (cases[i].said == NULL)
            T_CHECK(t, strchr(s.why, ';') == NULL);
        else
            T_CHECK(t, strstr(s.why, cases[i].said) != NULL);
        mt_model_free(m);
    }
}

T_TEST(rounding_is_preferred_to_a_layout_that_no_engine_loads)
{
    struct mt_model *m = tiny_open(
        t,
        tiny_write(t, "m", &(struct tiny){.family = "mistral", .config = "\"sliding_window\": 8"}));
    struct mt_moe_shape s;

    T_CHECK(t, m != NULL);
    T_OK(t, choose(t, m, NULL, "auto", "3", &s));
    T_EQ_STR(t, mt_target_name(s.target), "mixtral");
    T_CHECK(t, strstr(s.why, "mixtral holds the result but for rounding") != NULL);
    mt_model_free(m);
}

T_TEST(what_no_engine_computes_becomes_the_native_layout)
{
    static const char *const names[] = {"gemma2", "gemma3_text", "gpt2", "qwen2", "phi3"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct mt_moe_shape s;
        struct mt_model *m;
        char dir[64];

        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &m));
        T_OK(t, choose(t, m, NULL, "auto", "3", &s));
        T_EQ_STR(t, mt_target_name(s.target), "native");
        T_FAILS(t, choose(t, m, "gguf", "auto", "3", &s), MT_E_UNSUPPORTED,
                "no architecture that can be written as gguf holds this model, but a directory "
                "can: ");
        mt_model_free(m);
    }
}

T_TEST(odd_attention_finds_the_one_family_that_has_it)
{
    const struct toy full = {.qk_norm = MT_QK_NORM_FULL};
    struct mt_moe_shape s;
    struct mt_model *m;

    /* 8 experts, because its softmax is over all of them. */
    const struct mt_shape_ask ask = {.experts = 8, .active = "3", .shared = "auto", .arch = "auto"};
    T_OK(t, toy_model(&t->ctx, &full, &m));
    T_OK(t, mt_moe_shape_read(&t->ctx, &ask, m, &s));
    T_EQ_STR(t, mt_target_name(s.target), "olmoe");
    m->hp.qk_norm = MT_QK_NORM_NONE;
    m->hp.attn_scale = 0.25;
    m->hp.residual_scale = 0.5;
    T_OK(t, choose(t, m, NULL, "auto", "4", &s));
    T_EQ_STR(t, mt_target_name(s.target), "granitemoeshared");
    m->hp.attn_scale = 0;
    m->hp.residual_scale = 1;
    m->hp.qkv_bias = m->hp.o_bias = true;
    T_OK(t, choose(t, m, NULL, "auto", "4", &s));
    T_EQ_STR(t, mt_target_name(s.target), "granitemoeshared");
    mt_model_free(m);
}

T_TEST(mistaken_options_are_not_taken_for_what_targets_lack)
{
    const struct mt_shape_ask ask = {.experts = 4, .active = "5", .shared = "auto", .arch = "auto"};
    struct mt_model *m = tiny_open(t, tiny_write(t, "m", &(struct tiny){.seed = 1}));
    struct mt_moe_shape s;

    T_CHECK(t, m != NULL);
    T_FAILS(t, mt_moe_shape_read(&t->ctx, &ask, m, &s), MT_E_OPTION,
            "there are only 4 routed experts");
    mt_model_free(m);
}
