#include "tests/tiny.h"

#include <stdlib.h>

/* Bit for bit, so that a NaN equals itself and zeros of either sign differ. */
static bool same_bits(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n) == 0;
}

/* Tensors of encoders in front of and behind the layers that run here. */
static bool beside_layers(const struct mt_model *m, const struct mt_tensor *t)
{
    return m->hp.both_ways && (strstr(t->name, "pooler.") != NULL ||
                               (m->hp.given_input && strstr(t->name, "embeddings.") != NULL));
}

/* Every family has a golden model of its name, in which no tensor is without a role; those of the
 * first kinds are also made here. */
T_TEST(every_family_opens)
{
    static const char *const made[] = {"llama",   "mistral",   "qwen2",   "qwen3",
                                       "mixtral", "qwen3_moe", "glm4_moe"};
    const struct mt_family *const *all = mt_family_all();
    char dir[128];

    for (int i = 0; all[i] != NULL; i++) {
        if (all[i]->only_blocks)
            continue; /* test_blocks.c */
        snprintf(dir, sizeof dir, "tests/golden/%s", all[i]->name);
        struct mt_model *m = tiny_open(t, dir);

        if (m == NULL)
            T_FAIL(t, "%s: %s", all[i]->name, mt_error(&t->ctx));
        T_CHECK(t, m->family == all[i] && mt_family_find(all[i]->name) == all[i]);
        for (size_t k = 0; k < m->n_tensors; k++)
            T_CHECK(t,
                    m->tensors[k]->role.kind != MT_ROLE_OTHER || beside_layers(m, m->tensors[k]));
        mt_model_free(m);
    }
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        struct mt_model *m =
            tiny_open(t, tiny_write(t, made[i], &(struct tiny){.family = made[i]}));

        if (m == NULL)
            T_FAIL(t, "%s: %s", made[i], mt_error(&t->ctx));
        mt_model_free(m);
    }
    T_CHECK(t, mt_family_find("gpt5") == NULL);
}

T_TEST(golden_models_open)
{
    static const char *const names[] = {
        "llama", "llama-linear", "llama-dynamic", "llama-yarn", "mistral",        "qwen2",
        "qwen3", "mixtral",      "qwen3_moe",     "glm4_moe",   "glm4_moe-plain", "mixtral-fused"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char dir[128];
        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        struct mt_model *m = tiny_open(t, dir);

        if (m == NULL)
            T_FAIL(t, "%s: %s", names[i], mt_error(&t->ctx));
        mt_model_free(m);
    }
}

/* The pattern with its numbers put in, by replacement of text. */
static void fill(const char *pattern, int layer, int expert, char *out, size_t n)
{
    size_t at = 0;

    for (const char *p = pattern; *p != 0; p++) {
        if (p[0] == '%' && (p[1] == 'l' || p[1] == 'e')) {
            at += (size_t)snprintf(out + at, n - at, "%d", p[1] == 'l' ? layer : expert);
            p++;
        } else {
            out[at++] = *p;
        }
    }
    out[at] = 0;
}

static const struct mt_name_row *first_of(const struct mt_family *f, const struct mt_name_row *row)
{
    const struct mt_name_row *r = f->names;

    while (r->kind != row->kind || r->part != row->part || r->expert != row->expert)
        r++;
    return r;
}

T_TEST(every_row_parses_and_prints_the_same_name)
{
    static const int layers[] = {0, 1, 10, 46, 9999}, experts[] = {0, 9, 100, 255, 65535};
    const struct mt_family *const *all = mt_family_all();
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    for (int f = 0; all[f] != NULL; f++)
        for (const struct mt_name_row *row = all[f]->names; row->pattern != NULL; row++)
            for (int i = 0; i < 5; i++) {
                char want[256];
                const char *printed;
                struct mt_role role;

                fill(row->pattern, layers[i], experts[i], want, sizeof want);
                T_CHECK(t, mt_family_parse(all[f], want, &role));
                T_CHECK(t, role.kind == row->kind && role.part == row->part);
                T_EQ_INT(t, role.layer, strstr(row->pattern, "%l") != NULL ? layers[i] : -1);
                T_EQ_INT(t, role.expert,
                         row->expert == MT_NAME_ROUTED   ? experts[i]
                         : row->expert == MT_NAME_SHARED ? MT_EXPERT_SHARED
                                                         : MT_EXPERT_NONE);
                T_OK(t, mt_family_print(&t->ctx, all[f], m, role, &printed));
                if (row == first_of(all[f], row))
                    T_EQ_STR(t, printed, want);
                else /* another spelling: read, not written */
                    T_CHECK(t, strcmp(printed, want) != 0);
            }
    mt_model_free(m);
}

/* The halves of the FFN that are easily confused, spelt out. */
T_TEST(gate_up_and_down_are_not_confused)
{
    static const struct {
        const char *family, *name;
        enum mt_role_kind kind;
    } want[] = {
        {"mixtral", "model.layers.2.block_sparse_moe.experts.3.w1.weight", MT_ROLE_FFN_GATE},
        {"mixtral", "model.layers.2.block_sparse_moe.experts.3.w2.weight", MT_ROLE_FFN_DOWN},
        {"mixtral", "model.layers.2.block_sparse_moe.experts.3.w3.weight", MT_ROLE_FFN_UP},
        {"mixtral", "model.layers.2.block_sparse_moe.gate.weight", MT_ROLE_ROUTER},
        {"qwen3_moe", "model.layers.2.mlp.gate.weight", MT_ROLE_ROUTER},
        {"qwen3_moe", "model.layers.2.mlp.gate_proj.weight", MT_ROLE_FFN_GATE},
        {"glm4_moe", "model.layers.2.mlp.gate.e_score_correction_bias", MT_ROLE_ROUTER_BIAS},
        {"glm4_moe", "model.layers.2.mlp.shared_experts.up_proj.weight", MT_ROLE_FFN_UP},
        {"llama", "model.layers.2.post_attention_layernorm.weight", MT_ROLE_FFN_NORM},
        {"llama", "model.layers.2.input_layernorm.weight", MT_ROLE_ATTN_NORM},
    };

    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        struct mt_role role;
        T_CHECK(t, mt_family_parse(mt_family_find(want[i].family), want[i].name, &role));
        T_CHECK(t, role.kind == want[i].kind && role.layer == 2);
    }
}

T_TEST(names_that_only_look_right_do_not_match)
{
    static const char *const names[] = {
        "",
        "model.layers..mlp.up_proj.weight",
        "model.layers.01.mlp.gate.weight",
        "model.layers.-1.mlp.gate.weight",
        "model.layers.1 .mlp.gate.weight",
        "model.layers.1.mlp.gate.weight_scale",
        "model.layers.1.mlp.gate.weigh",
        "xmodel.layers.1.mlp.gate.weight",
        "model.layers.1000000000.mlp.gate.weight",
        "model.layers.99999999999999999999.mlp.gate.weight",
        "model.layers.1.mlp.experts.00.up_proj.weight",
        "model.layers.1.mlp.experts.up_proj.weight",
        "model.layers.1.mlp.experts.%e.up_proj.weight",
        "model.layers.%l.mlp.gate.weight",
    };
    struct mt_role role;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        T_CHECK(t, !mt_family_parse(mt_family_find("qwen3_moe"), names[i], &role));
}

T_TEST(roles_without_a_name_are_refused)
{
    struct mt_model *m;
    const char *name;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_FAILS(t,
            mt_family_print(&t->ctx, mt_family_find("mixtral"), m,
                            mt_role(MT_ROLE_FFN_UP, 3, MT_EXPERT_SHARED), &name),
            MT_E_UNSUPPORTED, "mixtral has no name for layers.3.shared_expert.up_proj");
    mt_model_free(m);
}

static const struct mt_tensor *named(const struct mt_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i]->name, name) == 0)
            return m->tensors[i];
    return NULL;
}

/* A model read from `dir` with a record more, then bound. */
static struct mt_model *bound_with(struct t *t, const char *dir, const char *name)
{
    struct mt_model *plain = tiny_open(t, dir), *m;
    const int64_t shape[1] = {4};
    struct mt_tensor *x;
    char path[600];

    if (plain == NULL || mt_model_create(&t->ctx, &m) != MT_OK)
        return NULL;
    for (size_t i = 0; i < plain->n_tensors; i++) {
        const struct mt_tensor *from = plain->tensors[i];
        if (mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), from->dtype, from->rank,
                         from->shape, &x) != MT_OK ||
            mt_arena_strndup(&t->ctx, &m->arena, from->name, strlen(from->name), &x->name) != MT_OK)
            t_fail(t, __FILE__, __LINE__, "cannot copy records");
    }
    mt_model_free(plain);
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (mt_json_read(&t->ctx, path, 1 << 20, &m->config) != MT_OK ||
        mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_F32, 1, shape, &x) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    else
        x->name = name;
    return m;
}

T_TEST(tensors_nobody_knows_are_carried)
{
    static const char *const names[] = {
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.3.mlp.up_proj.weight", /* behind the last layer: next-token predictor */
        "model.layers.3.eh_proj.weight",
        "something.else",
    };
    const char *dir = tiny_write(t, "m", &(struct tiny){.layers = 3});

    for (size_t i = 0; i < 4; i++) {
        struct mt_model *m = bound_with(t, dir, names[i]), *plan;
        const struct mt_tensor *x;

        T_CHECK(t, m != NULL);
        T_OK(t, mt_model_bind(&t->ctx, m));
        x = named(m, names[i]);
        T_CHECK(t, x != NULL && x->role.kind == MT_ROLE_OTHER);
        /* It keeps its name when all others change. */
        T_OK(t, mt_model_plan(&t->ctx, m, &plan));
        T_OK(t, mt_model_rename(&t->ctx, plan, mt_family_find("mistral")));
        T_CHECK(t, named(plan, names[i]) != NULL && plan->n_tensors == m->n_tensors);
        T_CHECK(t, plan->family == mt_family_find("mistral") && m->family->moe == false);
        mt_model_free(plan);
        mt_model_free(m);
    }
}

T_TEST(renaming_gives_every_record_its_new_name)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "qwen3_moe", .no_renorm = true});
    struct mt_model *m = tiny_open(t, dir), *plan;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    for (int l = 0; l < 2; l++) {
        mt_model_remove(plan, mt_model_find(plan, mt_role(MT_ROLE_Q_NORM, l, -1)));
        mt_model_remove(plan, mt_model_find(plan, mt_role(MT_ROLE_K_NORM, l, -1)));
    }
    T_OK(t, mt_model_rename(&t->ctx, plan, mt_family_find("mixtral")));
    T_CHECK(t, named(plan, "model.layers.1.block_sparse_moe.experts.3.w3.weight")->role.kind ==
                   MT_ROLE_FFN_UP);
    T_CHECK(t, named(m, "model.layers.1.mlp.experts.3.up_proj.weight") != NULL);
    T_FAILS(t, mt_model_rename(&t->ctx, plan, mt_family_find("llama")), MT_E_UNSUPPORTED,
            "llama has no name for");
    mt_model_free(plan);
    mt_model_free(m);
}

static void bind_text(struct t *t, const char *config, struct mt_model **out)
{
    T_OK(t, mt_model_create(&t->ctx, out));
    T_OK(t, mt_json_parse(&t->ctx, config, strlen(config), "config.json", &(*out)->config));
    (*out)->path = "somewhere";
}

T_TEST(unknown_families_stay_open)
{
    struct mt_model *m;

    bind_text(t, "{\"model_type\": \"mamba9\", \"num_hidden_layers\": \"many\"}", &m);
    T_OK(t, mt_model_bind(&t->ctx, m));
    T_CHECK(t, m->family == NULL);
    T_EQ_STR(t, m->model_type, "mamba9");
    mt_model_free(m);
    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_model_bind(&t->ctx, m)); /* no config at all */
    T_CHECK(t, m->family == NULL);
    mt_model_free(m);
}

T_TEST(a_class_name_alone_tells_the_family)
{
    struct mt_model *m;

    bind_text(t, "{\"architectures\": [\"MixtralForCausalLM\"]}", &m);
    T_FAILS(t, mt_model_bind(&t->ctx, m), MT_E_FORMAT, "somewhere: config of mixtral: ");
    T_CHECK(t, m->family == mt_family_find("mixtral"));
    mt_model_free(m);
}

T_TEST(quantized_checkpoints_are_told_from_broken_ones)
{
    const char *dir = tiny_write(
        t, "m", &(struct tiny){.config = "\"quantization_config\": {\"quant_method\": \"gptq\"}"});
    struct mt_model *m = bound_with(t, dir, "model.layers.0.mlp.up_proj.weight_packed");

    T_CHECK(t, m != NULL);
    m->path = "here";
    mt_model_remove(m, (struct mt_tensor *)named(m, "model.layers.0.mlp.up_proj.weight"));
    T_FAILS(t, mt_model_bind(&t->ctx, m), MT_E_UNSUPPORTED, "here: quantized checkpoint (gptq)");
    mt_model_free(m);
}

/* The same weights stacked: every expert is found, and found equal. */
T_TEST(stacked_experts_are_cut)
{
    struct mt_model *m = tiny_open(t, "tests/golden/mixtral");
    struct mt_model *f = tiny_open(t, "tests/golden/mixtral-fused");

    if (m == NULL || f == NULL)
        T_FAIL(t, "%s", mt_error(&t->ctx));
    T_CHECK(t, m->n_tensors == f->n_tensors);
    for (size_t i = 0; i < m->n_tensors; i++) {
        struct mt_tensor *a = m->tensors[i], *b = mt_model_find(f, a->role);
        float *x, *y;

        T_CHECK(t, b != NULL && mt_tensor_count(a) == mt_tensor_count(b));
        T_CHECK(t, a->role.kind == MT_ROLE_ROUTER || strcmp(a->name, b->name) == 0);
        T_OK(t, mt_tensor_load_f32(&t->ctx, a, &x));
        T_OK(t, mt_tensor_load_f32(&t->ctx, b, &y));
        T_CHECK(t, same_bits(x, y, (size_t)mt_tensor_count(a) * sizeof *x));
        mt_free(x);
        mt_free(y);
    }
    mt_model_free(m);
    mt_model_free(f);
}

/* A stack that does not fit the config is carried as it is, so that verify names what is missing.
 */
T_TEST(stacks_of_other_shapes_are_not_cut)
{
    static const struct {
        int rank;
        int64_t shape[3];
    } odd[] = {{3, {5, 48, 32}}, {3, {4, 47, 32}}, {2, {4, 48, 0}}, {3, {0, 48, 32}}};
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "qwen3_moe"});
    unsigned char bytes[8] = {0};
    struct mt_map map = {bytes, sizeof bytes, "memory"};

    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        struct mt_model *m = bound_with(t, dir, "model.layers.0.mlp.experts.gate_up_proj");
        struct mt_tensor *x;

        T_CHECK(t, m != NULL);
        x = m->tensors[m->n_tensors - 1];
        x->rank = odd[i].rank;
        memcpy(x->shape, odd[i].shape, sizeof odd[i].shape);
        x->src.kind = MT_SRC_SLICE;
        x->src.slice.map = &map;
        mt_model_remove(
            m, (struct mt_tensor *)named(m, "model.layers.0.mlp.experts.2.up_proj.weight"));
        T_FAILS(t, mt_model_bind(&t->ctx, m), MT_E_FORMAT, "layers.0.experts.2.up_proj is missing");
        T_CHECK(t, x->role.kind == MT_ROLE_OTHER);
        mt_model_free(m);
    }
}
