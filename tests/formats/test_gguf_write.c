#include "formats/gguf.h"
#include "formats/gguf_vocab.h"
#include "formats/table.h"
#include "lib/base/outdir.h"
#include "lib/base/path.h"
#include "lib/flow/walk.h"
#include "lib/text/tokenizer.h"
#include "tests/gguf_fixture.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"
#include "tests/write_kit.h"

#include <stdlib.h>

static mt_status write_model(struct t *t, const struct mt_model *src, const char *out,
                             unsigned flags)
{
    return write_format(t, src, "gguf", out, flags, 0, NULL);
}

/* ---- there and back ---- */

static void there_and_back(struct t *t, const struct tiny *o)
{
    char path[512];
    struct mt_model *src = open_model(t, tiny_write(t, "src", o)), *m;
    double d;

    T_CHECK(t, src != NULL);
    snprintf(path, sizeof path, "%s", t_path(t, "x.gguf"));
    T_OK(t, write_model(t, src, path, MT_OUT_FORCE));
    m = open_model(t, path);
    T_CHECK(t, m != NULL);
    T_EQ_STR(t, m->format, "gguf");
    T_CHECK(t, m->family != NULL);
    T_EQ_INT(t, m->n_tensors, src->n_tensors);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *x = m->tensors[i];
        bool small = x->rank == 1 || x->role.kind == MT_ROLE_ROUTER;
        T_EQ_INT(t, x->dtype, small ? MT_F32 : o->dtype == MT_BF16 ? MT_BF16 : MT_F32);
    }
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, 1e-10);
    mt_model_free(m);
    mt_model_free(src);
}

T_TEST(every_family_gives_the_same_logits)
{
    static const char *const names[] = {"llama", "mistral",   "mixtral", "qwen2",
                                        "qwen3", "qwen3_moe", "glm4_moe"};

    for (size_t i = 0; i < sizeof names / sizeof names[0] && !t->failed; i++) {
        struct tiny o = {.family = names[i], .shared = 1, .seed = 10 + i, .dtype = MT_F32};
        there_and_back(t, &o);
        o.dtype = MT_BF16;
        o.tied = true;
        there_and_back(t, &o);
    }
}

T_TEST(biases_norms_and_dense_layers_survive)
{
    there_and_back(t, &(struct tiny){.biases = true, .mlp_biases = true, .seed = 3});
    there_and_back(t, &(struct tiny){.family = "glm4_moe",
                                     .biases = true,
                                     .qk_norm = true,
                                     .shared = 2,
                                     .dense_layers = 1,
                                     .layers = 3,
                                     .no_renorm = true,
                                     .seed = 4});
    there_and_back(t, &(struct tiny){.kv_heads = 4, .head_dim = 6, .seed = 5});
}

T_TEST(scaled_positions_survive)
{
    there_and_back(t, &(struct tiny){.seed = 6,
                                     .config = "\"rope_theta\": 500000.0, \"rope_scaling\": "
                                               "{\"type\": \"linear\", \"factor\": 2.5}"});
    there_and_back(t,
                   &(struct tiny){.seed = 7,
                                  .config = "\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": "
                                            "\"yarn\", \"factor\": 4.0, "
                                            "\"original_max_position_embeddings\": 16}"});
}

T_TEST(llama3_positions_survive)
{
    there_and_back(t,
                   &(struct tiny){.seed = 8,
                                  .config = "\"rope_theta\": 500000.0, \"rope_scaling\": "
                                            "{\"rope_type\": \"llama3\", \"factor\": 32.0, "
                                            "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                                            "\"original_max_position_embeddings\": 8192}"});
    there_and_back(t,
                   &(struct tiny){.seed = 9,
                                  .config = "\"rope_theta\": 100.0, \"rope_scaling\": "
                                            "{\"rope_type\": \"llama3\", \"factor\": 3.0, "
                                            "\"low_freq_factor\": 1.5, \"high_freq_factor\": 5.0, "
                                            "\"original_max_position_embeddings\": 64}"});
}

/* ---- what cannot be written ---- */

static void refused(struct t *t, const struct tiny *o, const char *part)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", o));

    T_CHECK(t, src != NULL);
    T_FAILS(t, write_model(t, src, t_path(t, "no.gguf"), 0), MT_E_UNSUPPORTED, part);
    T_CHECK(t, fopen(t_path(t, "no.gguf"), "rb") == NULL);
    T_CHECK(t, fopen(t_path(t, "no.gguf.partial"), "rb") == NULL);
    mt_model_free(src);
}

T_TEST(what_the_architecture_would_compute_otherwise_is_refused)
{
    refused(t, &(struct tiny){.family = "qwen3_moe", .no_renorm = true}, "do not sum to one");
    refused(t, &(struct tiny){.family = "qwen3_moe", .dense_layers = 1}, "dense layers beside");
    refused(t, &(struct tiny){.family = "glm4_moe"}, "without a shared expert");
    refused(t,
            &(struct tiny){.config = "\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": "
                                     "\"dynamic\", \"factor\": 2.0}"},
            "dynamic rope scaling");
}

/* What llama.cpp makes of it is NaN. */
T_TEST(a_shared_gate_of_zeros_is_refused)
{
    struct mt_model *dense =
        open_model(t, tiny_write(t, "m", &(struct tiny){.family = "qwen2", .seed = 3}));
    struct mt_model *src;
    const char *out = t_path(t, "zero.gguf");
    struct mt_tensor *gate;

    T_CHECK(t, dense != NULL);
    T_OK(t, write_pass(&t->ctx, "convert-ffn", "arch=qwen2_moe experts=4 active=2", dense,
                       t_path(t, "moe")));
    mt_model_free(dense);
    src = open_model(t, t_path(t, "moe"));
    T_CHECK(t, src != NULL);
    T_OK(t, write_model(t, src, out, 0));
    gate = mt_model_find(src, mt_role(MT_ROLE_SHARED_GATE, src->hp.n_layers - 1, MT_EXPERT_NONE));
    T_CHECK(t, gate != NULL);
    T_OK(t, mt_recipe_fill(&t->ctx, src, gate, 0));
    T_FAILS(t, write_model(t, src, out, MT_OUT_FORCE), MT_E_UNSUPPORTED, "all zeros");
    T_OK(t, mt_recipe_fill(&t->ctx, src, gate, 1e-20F));
    T_OK(t, write_model(t, src, out, MT_OUT_FORCE));
    mt_model_free(src);
}

T_TEST(a_model_of_no_known_family_is_refused)
{
    const uint64_t ne[] = {8};
    static struct gg g;
    struct mt_model *m;

    gg_begin(&g, 1, 0);
    gg_tensor(&g, "x", 1, ne, 0, 0);
    gg_pad(&g, 32);
    gg_data(&g, 32);
    m = open_model(t, gg_file(t, &g, "in.gguf"));
    T_CHECK(t, m != NULL);
    T_FAILS(t, write_model(t, m, t_path(t, "out.gguf"), 0), MT_E_UNSUPPORTED,
            "no GGUF architecture");
    mt_model_free(m);
}

/* ---- one file, whole or not at all ---- */

T_TEST(a_write_that_fails_leaves_nothing)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &(struct tiny){.seed = 8}));
    char out[512], work[512];
    int n = 0;
    FILE *f;

    T_CHECK(t, src != NULL);
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    snprintf(work, sizeof work, "%s", t_path(t, "x.gguf.partial"));
    for (mt_status st = MT_E_IO; st != MT_OK; n++) {
        T_CHECK(t, n < 1000);
        mt_fault_write((uint64_t)n + 1);
        st = write_model(t, src, out, 0);
        mt_fault_write(0);
        f = fopen(out, "rb");
        T_CHECK(t, (f != NULL) == (st == MT_OK));
        if (f != NULL)
            fclose(f);
        T_CHECK(t, fopen(work, "rb") == NULL);
    }
    T_CHECK(t, n > 10);
    T_FAILS(t, write_model(t, src, out, 0), MT_E_IO, "exists already; use --force");
    T_OK(t, write_model(t, src, out, MT_OUT_FORCE));
    mt_model_free(src);
}

/* ---- vocabulary ---- */

static bool item_is(const struct mt_gguf_pair *p, uint64_t index, const char *want)
{
    const unsigned char *at = p->at;

    for (uint64_t i = 0; i < index; i++)
        at += 8 + mt_le64(at);
    return mt_le64(at) == strlen(want) && memcmp(at + 8, want, strlen(want)) == 0;
}

/* All of the metadata, in whatever order. */
static void same_pairs(struct t *t, const char *x, const char *y)
{
    struct mt_arena a[2];
    struct mt_gguf g[2];
    struct mt_map *map[2];

    T_OK(t, gguf_header(t, x, &a[0], &map[0], &g[0]));
    T_OK(t, gguf_header(t, y, &a[1], &map[1], &g[1]));
    T_EQ_INT(t, g[0].n_pairs, g[1].n_pairs);
    for (size_t i = 0; i < g[0].n_pairs; i++) {
        const struct mt_gguf_pair *p = &g[0].pairs[i], *q = mt_gguf_find(&g[1], p->key);
        T_CHECK(t, q != NULL && p->type == q->type && p->n == q->n && p->bytes == q->bytes);
        T_CHECK(t, memcmp(p->at, q->at, p->bytes) == 0);
    }
    for (int i = 0; i < 2; i++) {
        mt_gguf_header_free(&g[i]);
        mt_arena_free(&a[i]);
        mt_map_close(map[i]);
    }
}

T_TEST(the_tokenizer_travels_in_the_file_and_from_file_to_file)
{
    char first[512], second[512];
    const struct mt_gguf_pair *p;
    struct mt_model *src;
    struct mt_arena a;
    struct mt_gguf g;
    struct mt_map *map;
    const char *text;
    bool adds;

    src = open_model(t, tiny_write(t, "src", &(struct tiny){.tokenizer = true, .seed = 9}));
    T_CHECK(t, src != NULL);
    snprintf(first, sizeof first, "%s", t_path(t, "a.gguf"));
    snprintf(second, sizeof second, "%s", t_path(t, "b.gguf"));
    T_OK(t, write_model(t, src, first, 0));
    mt_model_free(src);
    src = open_model(t, first);
    T_CHECK(t, src != NULL);
    T_OK(t, write_model(t, src, second, 0));
    mt_model_free(src);

    T_OK(t, gguf_header(t, first, &a, &map, &g));
    T_OK(t, mt_gguf_str(&t->ctx, &g, "tokenizer.ggml.model", &a, &text));
    T_EQ_STR(t, text, "gpt2");
    p = mt_gguf_find(&g, "tokenizer.ggml.tokens");
    T_CHECK(t, p != NULL && p->n == 260);
    T_CHECK(t, item_is(p, 'A', "A") && item_is(p, 256, "<|endoftext|>"));
    T_CHECK(t, item_is(p, 259, "[PAD259]"));
    p = mt_gguf_find(&g, "tokenizer.ggml.token_type");
    T_CHECK(t, p != NULL && p->n == 260);
    T_EQ_INT(t, mt_le32(p->at + 4 * 'A'), 1);
    T_EQ_INT(t, mt_le32(p->at + 4 * 256), 3);
    T_EQ_INT(t, mt_le32(p->at + 4 * 259), 5);
    T_CHECK(t, mt_gguf_find(&g, "tokenizer.ggml.merges") != NULL);
    T_OK(t, mt_gguf_bool(&t->ctx, &g, "tokenizer.ggml.add_bos_token", true, &adds));
    T_CHECK(t, !adds);
    mt_gguf_header_free(&g);
    mt_arena_free(&a);
    mt_map_close(map);
    same_pairs(t, first, second);
}

T_TEST(sentencepiece_scores_fall_with_the_rank_of_merges)
{
    const char *dir = t_shipped("stories260K");
    const struct mt_gguf_pair *types, *scores;
    struct mt_model *src = open_model(t, dir);
    struct mt_arena a;
    struct mt_gguf g;
    struct mt_map *map;
    bool space;

    T_CHECK(t, src != NULL);
    T_OK(t, write_model(t, src, t_path(t, "s.gguf"), 0));
    mt_model_free(src);
    T_OK(t, gguf_header(t, t_path(t, "s.gguf"), &a, &map, &g));
    types = mt_gguf_find(&g, "tokenizer.ggml.token_type");
    scores = mt_gguf_find(&g, "tokenizer.ggml.scores");
    T_CHECK(t, types != NULL && scores != NULL && types->n == 512 && scores->n == 512);
    T_EQ_INT(t, mt_le32(types->at), 2);         /* <unk> */
    T_EQ_INT(t, mt_le32(types->at + 4 * 1), 3); /* <s> */
    T_EQ_INT(t, mt_le32(types->at + 4 * 3), 6); /* <0x00> */
    T_EQ_INT(t, mt_le32(types->at + 4 * 300), 1);
    T_CHECK(t, item_is(mt_gguf_find(&g, "tokenizer.ggml.tokens"), 3, "<0x00>"));
    T_OK(t, mt_gguf_bool(&t->ctx, &g, "tokenizer.ggml.add_space_prefix", false, &space));
    T_CHECK(t, space);
    T_CHECK(t, mt_gguf_find(&g, "tokenizer.ggml.merges") == NULL);
    mt_gguf_header_free(&g);
    mt_arena_free(&a);
    mt_map_close(map);
}

/* Tokenizers made from the file and from tokenizer.json give the same ids for a whole text. */
static void same_ids(struct t *t, const char *dir)
{
    char json[512], *text;
    struct mt_tokenizer *a, *b;
    struct mt_ids x = {0}, y = {0};
    struct mt_model *src;
    size_t n;

    snprintf(json, sizeof json, "%s/tokenizer.json", t_shipped(dir));
    src = open_model(t, t_shipped(dir));
    T_CHECK(t, src != NULL);
    T_OK(t, write_model(t, src, t_path(t, "v.gguf"), MT_OUT_FORCE));
    mt_model_free(src);
    T_OK(t, mt_tokenizer_open(&t->ctx, json, &a));
    T_OK(t, mt_tokenizer_open_gguf(&t->ctx, t_path(t, "v.gguf"), &b));
    text = t_read_file(t_shipped("text/stories.eval.jsonl"), &n);
    T_CHECK(t, text != NULL);
    T_OK(t, mt_tokenizer_encode(&t->ctx, a, text, n, MT_ENCODE_SPECIAL, &x));
    T_OK(t, mt_tokenizer_encode(&t->ctx, b, text, n, MT_ENCODE_SPECIAL, &y));
    T_CHECK(t, x.n > 1000);
    T_EQ_INT(t, x.n, y.n);
    T_CHECK(t, memcmp(x.v, y.v, x.n * sizeof *x.v) == 0);
    free(text);
    mt_ids_free(&x);
    mt_ids_free(&y);
    mt_tokenizer_free(a);
    mt_tokenizer_free(b);
}

T_TEST(the_written_vocabulary_tokenizes_as_the_original_does)
{
    same_ids(t, "tinymix-dense");
    same_ids(t, "stories260K");
}
