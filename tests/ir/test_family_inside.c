/* Text models inside others: which config counts, which names, and what is not one after all. */
#include "formats/table.h"
#include "lib/ir/family.h"
#include "tests/t.h"

#include <stdlib.h>

static const char *const inside_dirs[] = {"gemma3", "llava"};

static struct mt_model *inside_open(struct t *t, const char *dir)
{
    char path[300];
    struct mt_model *m;

    snprintf(path, sizeof path, "tests/golden/%s", dir);
    return mt_model_open(&t->ctx, mt_formats, path, &m) == MT_OK ? m : NULL;
}

T_TEST(the_text_model_is_bound_and_the_rest_travels)
{
    for (size_t i = 0; i < 2; i++) {
        struct mt_model *m = inside_open(t, inside_dirs[i]);
        int other = 0, text = 0;
        T_CHECK(t, m != NULL && m->family != NULL && m->family->inside);
        T_EQ_STR(t, m->family->name, i == 0 ? "gemma3_text" : "llama");
        T_EQ_STR(t, m->model_type, inside_dirs[i]);
        T_CHECK(t, mt_json_get(m->config, "vision_config") != NULL);
        for (size_t k = 0; k < m->n_tensors; k++) {
            const struct mt_tensor *x = m->tensors[k];
            bool vision = strstr(x->name, "vision_tower") != NULL ||
                          strstr(x->name, "multi_modal_projector") != NULL;
            T_CHECK(t, (x->role.kind == MT_ROLE_OTHER) == vision);
            other += vision;
            text += !vision;
        }
        T_CHECK(t, other > 10 && text > 10);
        mt_model_free(m);
    }
}

/* All names of transformers' two spellings, and plain ones, mean the same roles. */
T_TEST(prefixes_of_both_spellings)
{
    static const char config[] =
        "{\"model_type\": \"two-parts\", \"text_config\": {\"model_type\": \"llama\","
        "\"num_hidden_layers\": 1, \"hidden_size\": 4, \"vocab_size\": 8, "
        "\"num_attention_heads\": 1, \"intermediate_size\": 6, \"tie_word_embeddings\": %s}}";
    static const struct {
        const char *model, *head;
    } spellings[] = {{"language_model.model.", "language_model.lm_head.weight"},
                     {"model.language_model.", "lm_head.weight"},
                     {"language_model.", "language_model.lm_head.weight"},
                     {"model.", "lm_head.weight"}};
    static const struct {
        const char *name;
        int rank;
        int64_t rows, cols;
    } parts[] = {
        {"embed_tokens", 2, 8, 4},
        {"norm", 1, 4, 0},
        {"layers.0.input_layernorm", 1, 4, 0},
        {"layers.0.post_attention_layernorm", 1, 4, 0},
        {"layers.0.self_attn.q_proj", 2, 4, 4},
        {"layers.0.self_attn.k_proj", 2, 4, 4},
        {"layers.0.self_attn.v_proj", 2, 4, 4},
        {"layers.0.self_attn.o_proj", 2, 4, 4},
        {"layers.0.mlp.gate_proj", 2, 6, 4},
        {"layers.0.mlp.up_proj", 2, 6, 4},
        {"layers.0.mlp.down_proj", 2, 4, 6},
    };
    const size_t n = sizeof parts / sizeof parts[0];

    for (size_t s = 0; s < 4; s++)
        for (int broken = 0; broken < 2; broken++) {
            const int64_t head[2] = {8, 4};
            struct mt_tensor *x;
            struct mt_model *m;
            char text[400];
            int len = snprintf(text, sizeof text, config, s % 2 == 0 ? "false" : "true");
            T_OK(t, mt_model_create(&t->ctx, &m));
            T_OK(t, mt_json_parse(&t->ctx, text, (size_t)len, "config", &m->config));
            m->path = "somewhere";
            for (size_t i = 0; i < n - (size_t)broken; i++) {
                const int64_t shape[2] = {parts[i].rows, parts[i].cols};
                T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE), MT_F32,
                                     parts[i].rank, shape, &x));
                T_OK(t, mt_arena_printf(&t->ctx, &m->arena, &x->name, "%s%s.weight",
                                        spellings[s].model, parts[i].name));
            }
            T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE), MT_F32, 2,
                                 head, &x));
            x->name = spellings[s].head;
            T_OK(t, mt_model_bind(&t->ctx, m));
            if (broken) { /* a part is missing: unknown, as without looking inside */
                T_CHECK(t, m->family == NULL && m->hp.n_layers == 0);
                T_CHECK(t, strstr(t->log, "down_proj is missing") != NULL);
                T_CHECK(t, m->tensors[0]->role.kind == MT_ROLE_OTHER);
            } else {
                T_CHECK(t, m->family != NULL && m->family->inside);
                for (size_t i = 0; i < m->n_tensors; i++)
                    T_CHECK(t, m->tensors[i]->role.kind != MT_ROLE_OTHER);
            }
            mt_model_free(m);
        }
}

T_TEST(a_config_that_cannot_be_read_leaves_the_model_unknown)
{
    static const char text[] = "{\"model_type\": \"llava\", \"text_config\": {\"model_type\": "
                               "\"llama\", \"vocab_size\": 32064}}";
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_json_parse(&t->ctx, text, sizeof text - 1, "config", &m->config));
    T_OK(t, mt_model_bind(&t->ctx, m));
    T_CHECK(t, m->family == NULL);
    T_EQ_STR(t, m->model_type, "llava");
    T_CHECK(t, strstr(t->log, "num_hidden_layers is missing") != NULL);
    mt_model_free(m);
}

/* What the published checkpoints of Gemma 3 leave out of their text_config. */
T_TEST(gemma3_leaves_defaults_out)
{
    static const char text[] = "{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": "
                               "\"gemma3_text\", \"hidden_size\": 2560, \"intermediate_size\": "
                               "10240, \"num_hidden_layers\": 34, \"rope_scaling\": {\"factor\": "
                               "8.0, \"rope_type\": \"linear\"}, \"sliding_window\": 1024}}";
    struct mt_json *config;
    struct mt_family *f;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_json_parse(&t->ctx, text, sizeof text - 1, "config", &config));
    T_OK(t, mt_arena_alloc(&t->ctx, &m->arena, 1, sizeof *f, &f));
    *f = *mt_family_find("gemma3_text");
    f->inside = true;
    m->family = f;
    m->config = mt_json_get(config, "text_config");
    T_OK(t, f->read_config(&t->ctx, m));
    T_EQ_INT(t, m->hp.vocab, 262208);
    T_EQ_INT(t, m->hp.n_heads, 8);
    T_EQ_INT(t, m->hp.n_kv_heads, 4);
    T_EQ_INT(t, m->hp.head_dim, 256);
    T_EQ_INT(t, m->hp.max_pos, 131072);
    T_EQ_INT(t, m->hp.n_layers, 34);
    m->config = config;
    mt_model_free(m);
}

T_TEST(only_the_native_layout_takes_such_a_model)
{
    struct mt_model *m = inside_open(t, "llava");
    const struct mt_family *f = mt_family_find("llama");

    T_CHECK(t, m != NULL && m->family->can_hold == NULL);
    T_FAILS(t, f->can_hold(&t->ctx, m), MT_E_UNSUPPORTED, "inside another (text_config)");
    T_OK(t, mt_family_find("moetool")->can_hold(&t->ctx, m));
    mt_model_free(m);
}
