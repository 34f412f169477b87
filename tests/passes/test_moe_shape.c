#include "passes/lib/moe_shape.h"
#include "tests/t.h"
#include "tests/tiny.h"

T_TEST(a_share_of_the_width_becomes_the_nearest_number_of_experts)
{
    static const struct {
        int width, experts;
        const char *shared, *active;
        int k, expert_width;
    } cases[] = {
        {96, 8, "0", "50%", 4, 12},    {96, 8, "0", "100%", 8, 12}, {96, 8, "0", "1%", 1, 12},
        {96, 7, "1", "50%", 3, 12},    {96, 7, "1", "75%", 5, 12},  {96, 6, "2", "10%", 1, 12},
        {96, 8, "0", "55%", 4, 12},    {96, 8, "0", "57%", 5, 12},  {96, 8, "0", "3", 3, 12},
        {5, 4, "0", "100%", 4, 2},     {5, 4, "0", "50%", 1, 2},    {101, 10, "auto", "50%", 4, 10},
        {96, 5, "auto", "50%", 2, 16},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct mt_shape_ask ask = {.experts = cases[i].experts,
                                         .active = cases[i].active,
                                         .shared = cases[i].shared,
                                         .arch = "auto"};
        struct mt_model *m =
            tiny_open(t, tiny_write(t, "m", &(struct tiny){.width = cases[i].width, .layers = 1}));
        struct mt_moe_shape s;
        T_CHECK(t, m != NULL);
        T_OK(t, mt_moe_shape_read(&t->ctx, &ask, m, &s));
        T_EQ_INT(t, s.k, cases[i].k);
        T_EQ_INT(t, s.expert_width, cases[i].expert_width);
        mt_model_free(m);
    }
}

T_TEST(unasked_counts_leave_whole_blocks)
{
    static const struct {
        int width;
        const char *shared;
        int experts, expert_width;
    } cases[] = {
        {1024, "1", 32, 32},   {1024, "0", 32, 32}, {4096, "1", 64, 64}, {2048, "0", 64, 32},
        {11008, "1", 42, 256}, {172, "1", 8, 20},   {96, "0", 8, 12},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct mt_shape_ask ask = {
            .active = "50%", .shared = cases[i].shared, .arch = "glm4_moe"};
        struct mt_model *m =
            tiny_open(t, tiny_write(t, "m", &(struct tiny){.width = cases[i].width, .layers = 1}));
        struct mt_moe_shape s;
        T_CHECK(t, m != NULL);
        T_OK(t, mt_moe_shape_read(&t->ctx, &ask, m, &s));
        T_EQ_INT(t, s.n_experts, cases[i].experts);
        T_EQ_INT(t, s.expert_width, cases[i].expert_width);
        mt_model_free(m);
    }
}

T_TEST(the_target_follows_source_and_shared_experts)
{
    static const struct {
        const char *family, *arch, *shared, *target;
        int n_shared;
        const char *config;
    } cases[] = {
        {"mistral", "auto", "auto", "mixtral", 0, "\"sliding_window\": 8"},
        {"mistral", "auto", "0", "mixtral", 0, "\"sliding_window\": 8"},
        {"mistral", "glm4_moe", "auto", "glm4_moe", 1, "\"sliding_window\": 8"},
        {"mistral", "auto", "auto", "glm4_moe", 1, NULL},
        {"llama", "auto", "auto", "glm4_moe", 1, NULL},
        {"llama", "auto", "0", "glm4_moe", 0, NULL},
        {"llama", "mixtral", "auto", "mixtral", 0, NULL},
        {"qwen3", "auto", "auto", "qwen3_moe", 0, NULL},
        {"qwen3", "auto", "2", "glm4_moe", 2, NULL},
        {"qwen3", "glm4_moe", "auto", "glm4_moe", 1, NULL},
        {"qwen3", "qwen3_moe", "0", "qwen3_moe", 0, NULL},
        {"qwen2", "auto", "auto", "glm4_moe", 1, NULL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct mt_shape_ask ask = {
            .experts = 6, .active = "2", .shared = cases[i].shared, .arch = cases[i].arch};
        struct mt_model *m = tiny_open(
            t, tiny_write(t, "m",
                          &(struct tiny){.family = cases[i].family, .config = cases[i].config}));
        struct mt_moe_shape s;
        T_CHECK(t, m != NULL);
        T_OK(t, mt_moe_shape_read(&t->ctx, &ask, m, &s));
        T_EQ_STR(t, s.target->family, cases[i].target);
        T_EQ_INT(t, s.n_shared, cases[i].n_shared);
        /* glm4_moe always stores one, if only zeros. */
        T_EQ_INT(t, s.shared_width > 0, strcmp(cases[i].target, "glm4_moe") == 0);
        mt_model_free(m);
    }
}

/* Shares and counts may stand side by side; of each layer is what would be of all. */
T_TEST(a_list_gives_each_layer_its_own_number)
{
    static const bool dense[] = {false, true, false, false};
    static const struct {
        const char *active;
        bool own, dense;
        int mean, k[4]; /* 0: dense */
    } cases[] = {
        {"50%,25%,8,1%", true, false, 4, {4, 2, 8, 1}},
        {"8,100%,8,7", true, false, 7, {8, 8, 8, 7}},
        {"4,50%,45%,4", false, false, 4, {4, 4, 4, 4}},
        {"100%,8,8,8", false, false, 8, {8, 8, 8, 8}},
        {"4,-,2,3", true, true, 3, {4, 0, 2, 3}},
        {"50%,-,4,50%", false, true, 4, {4, 0, 4, 4}},
    };
    struct mt_model *m = tiny_open(t, tiny_write(t, "m", &(struct tiny){.width = 96, .layers = 4}));

    T_CHECK(t, m != NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct mt_shape_ask ask = {.experts = 8,
                                         .active = cases[i].active,
                                         .shared = "0",
                                         .arch = "auto",
                                         .dense = cases[i].dense ? dense : NULL};
        struct mt_moe_shape s;
        T_OK(t, mt_moe_shape_read(&t->ctx, &ask, m, &s));
        T_EQ_INT(t, s.own_active, cases[i].own);
        T_EQ_INT(t, s.k, cases[i].mean);
        T_EQ_INT(t, strcmp(s.target->family, "moetool") == 0, cases[i].own);
        for (int l = 0; l < 4; l++) {
            struct mt_moe_shape here = s;
            here.by_token = true;
            if (cases[i].k[l] == 0)
                continue;
            T_OK(t, mt_moe_shape_layer(&t->ctx, &ask, l, &here));
            T_EQ_INT(t, here.k, cases[i].k[l]);
            if (cases[i].own)
                T_EQ_INT(t, here.by_token, here.k < 8);
        }
    }
    mt_model_free(m);
}
