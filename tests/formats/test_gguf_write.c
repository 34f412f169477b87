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

#include <stdlib.h>

static mt_status write_model(struct t *t, const struct mt_model *src, const char *out,
                             unsigned flags)
{
    const struct mt_walk_opts o = {.source = src,
                                   .format = mt_format_writer("gguf"),
                                   .formats = mt_formats,
                                   .out_path = out,
                                   .out_flags = flags};
    struct mt_walk_result r;
    mt_status st = mt_walk_run(&t->ctx, &o, &r);

    if (st == MT_OK)
        mt_walk_result_free(&r);
    return st;
}

static struct mt_model *open_model(struct t *t, const char *path)
{
    struct mt_model *m;

    if (mt_model_open(&t->ctx, mt_formats, path, &m) == MT_OK)
        return m;
    t_fail(t, __FILE__, __LINE__, "%s: %s", path, mt_error(&t->ctx));
    return NULL;
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

/* ---- several files ---- */

static mt_status header_of(struct t *t, const char *path, struct mt_arena *a, struct mt_map **map,
                           struct mt_gguf *g)
{
    mt_arena_init(a);
    MT_TRY(mt_map_open(&t->ctx, path, map));
    return mt_gguf_header_read(&t->ctx, *map, a, g);
}

static mt_status write_parts(struct t *t, const struct mt_model *src, const char *out,
                             unsigned flags, uint64_t max, char **written)
{
    const struct mt_walk_opts o = {.source = src,
                                   .format = mt_format_writer("gguf"),
                                   .formats = mt_formats,
                                   .out_path = out,
                                   .out_flags = flags,
                                   .write = {.shard_bytes_max = max}};
    struct mt_walk_result r;
    mt_status st = mt_walk_run(&t->ctx, &o, &r);

    *written = NULL;
    if (st == MT_OK) {
        *written = r.written;
        r.written = NULL;
        mt_walk_result_free(&r);
    }
    return st;
}

static bool there(const char *path)
{
    FILE *f = fopen(path, "rb");

    if (f != NULL)
        fclose(f);
    return f != NULL;
}

/* Files beside `out`; `count` of its parts are there. */
static int parts_there(const char *dir, int count)
{
    char path[600];
    int n = 0;

    for (int i = 1; i <= count; i++) {
        snprintf(path, sizeof path, "%s/x-%05d-of-%05d.gguf", dir, i, count);
        n += there(path);
    }
    return n;
}

static const struct tiny parts_model = {.family = "glm4_moe", .shared = 1, .seed = 21};

static int count_of(const char *written)
{
    const char *of = strstr(written, "-00001-of-");

    return of == NULL ? 0 : (int)strtol(of + strlen("-00001-of-"), NULL, 10);
}

T_TEST(parts_hold_the_same_model_and_keep_their_limit)
{
    const uint64_t max = 12000;
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model)), *m;
    char out[512], path[600], *written, *again;
    struct mt_arena a;
    struct mt_gguf g;
    struct mt_map *map;
    int64_t total = 0, all, no;
    double d;

    T_CHECK(t, src != NULL);
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    T_OK(t, write_parts(t, src, out, 0, max, &written));
    int n = count_of(written);
    T_CHECK(t, n > 3);
    T_CHECK(t, !there(out));
    T_EQ_INT(t, parts_there(t_path(t, ""), n), n);
    m = open_model(t, written);
    T_CHECK(t, m != NULL);
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, 1e-10);
    mt_model_free(m);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/x-%05d-of-%05d.gguf", t_path(t, ""), i + 1, n);
        T_OK(t, header_of(t, path, &a, &map, &g));
        T_CHECK(t, map->bytes <= max || g.n == 1);
        T_OK(t, mt_gguf_int(&t->ctx, &g, "split.no", -1, &no));
        T_OK(t, mt_gguf_int(&t->ctx, &g, "split.tensors.count", -1, &all));
        T_EQ_INT(t, no, i);
        T_EQ_INT(t, mt_gguf_find(&g, "split.no")->type, MT_GGUF_U16);
        T_EQ_INT(t, mt_gguf_find(&g, "split.tensors.count")->type, MT_GGUF_I32);
        T_CHECK(t, (mt_gguf_find(&g, "general.architecture") != NULL) == (i == 0));
        total += (int64_t)g.n;
        mt_gguf_header_free(&g);
        mt_arena_free(&a);
        mt_map_close(map);
    }
    T_EQ_INT(t, total, all);
    T_FAILS(t, write_parts(t, src, out, 0, max, &again), MT_E_IO, "-00001-of-");
    mt_free(written);
    mt_model_free(src);
}

T_TEST(a_model_below_the_limit_is_one_file)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model));
    char *written;

    T_CHECK(t, src != NULL);
    T_OK(t, write_parts(t, src, t_path(t, "x.gguf"), 0, 1 << 24, &written));
    T_EQ_STR(t, written, t_path(t, "x.gguf"));
    T_CHECK(t, there(written));
    mt_free(written);
    mt_model_free(src);
}

T_TEST(parts_appear_whole_or_not_at_all_and_replace_what_was_there)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model));
    char out[512], work[512], dir[512], *written = NULL;
    int n = 0, count = 0;

    T_CHECK(t, src != NULL);
    snprintf(dir, sizeof dir, "%s", t_path(t, ""));
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    snprintf(work, sizeof work, "%s", t_path(t, "x.gguf.partial"));
    for (mt_status st = MT_E_IO; st != MT_OK; n++) {
        T_CHECK(t, n < 1000);
        mt_fault_write((uint64_t)n + 1);
        st = write_parts(t, src, out, 0, 12000, &written);
        mt_fault_write(0);
        if (st == MT_OK)
            count = count_of(written);
        else
            for (int c = 2; c < 12; c++)
                T_EQ_INT(t, parts_there(dir, c), 0);
        T_CHECK(t, !there(work));
    }
    T_EQ_INT(t, parts_there(dir, count), count);
    mt_free(written);
    /* One file, then parts in its place, then other parts beside. */
    T_OK(t, write_parts(t, src, out, MT_OUT_FORCE, 0, &written));
    T_CHECK(t, there(out));
    mt_free(written);
    T_OK(t, write_parts(t, src, out, MT_OUT_FORCE, 12000, &written));
    T_CHECK(t, !there(out));
    T_EQ_INT(t, parts_there(dir, count), count);
    T_CHECK(t, !there(work));
    mt_free(written);
    mt_model_free(src);
}

static bool same_parts(const char *a, const char *b, int count)
{
    char path[600];

    for (int i = 1; i <= count; i++) {
        size_t n, m;
        snprintf(path, sizeof path, "%s/x-%05d-of-%05d.gguf", a, i, count);
        char *p = t_read_file(path, &n);
        snprintf(path, sizeof path, "%s/y-%05d-of-%05d.gguf", b, i, count);
        char *q = t_read_file(path, &m);
        bool same = p != NULL && q != NULL && n == m && memcmp(p, q, n) == 0;
        free(p);
        free(q);
        if (!same)
            return false;
    }
    return true;
}

T_TEST(an_interrupted_run_goes_on_in_its_parts)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model));
    char dir[512], *written;
    int resumed = 0;

    T_CHECK(t, src != NULL);
    snprintf(dir, sizeof dir, "%s", t_path(t, ""));
    T_OK(t, write_parts(t, src, t_path(t, "x.gguf"), 0, 12000, &written));
    int count = count_of(written);
    mt_free(written);
    for (uint64_t n = 1; n < 400; n += 7) {
        struct mt_walk_opts o = {.source = src,
                                 .format = mt_format_writer("gguf"),
                                 .formats = mt_formats,
                                 .out_path = t_path(t, "y.gguf"),
                                 .out_flags = MT_OUT_FORCE,
                                 .write = {.shard_bytes_max = 12000},
                                 .keep_on_failure = true};
        struct mt_walk_result r;
        char out[512];
        snprintf(out, sizeof out, "%s", o.out_path);
        o.out_path = out;
        mt_fault_write(n);
        mt_status st = mt_walk_run(&t->ctx, &o, &r);
        mt_fault_write(0);
        if (st != MT_OK && mt_path_is_dir(t_path(t, "y.gguf.partial"))) {
            o.out_flags |= MT_OUT_RESUME;
            st = mt_walk_run(&t->ctx, &o, &r);
            resumed++;
        }
        if (st != MT_OK)
            continue;
        mt_walk_result_free(&r);
        T_CHECK(t, same_parts(dir, dir, count));
    }
    T_CHECK(t, resumed > 3);
    mt_model_free(src);
}

T_TEST(a_forced_run_does_not_replace_the_parts_it_reads)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model)), *m;
    char out[512], *written, *again;

    T_CHECK(t, src != NULL);
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    T_OK(t, write_parts(t, src, out, 0, 12000, &written));
    m = open_model(t, written);
    T_CHECK(t, m != NULL);
    T_FAILS(t, write_parts(t, m, out, MT_OUT_FORCE, 12000, &again), MT_E_OPTION,
            "part of the model that is read");
    mt_model_free(m);
    mt_free(written);
    mt_model_free(src);
}

static void break_parts(struct t *t, const char *dir, int n, int which, int as, const char *part)
{
    char from[600], to[600];
    struct mt_model *m;

    snprintf(from, sizeof from, "%s/x-%05d-of-%05d.gguf", dir, which, n);
    snprintf(to, sizeof to, "%s/x-%05d-of-%05d.gguf", dir, as, n);
    if (as > 0) {
        size_t bytes;
        char *text = t_read_file(from, &bytes);
        FILE *f = fopen(to, "wb");
        T_CHECK(t, text != NULL && f != NULL);
        T_EQ_INT(t, fwrite(text, 1, bytes, f), bytes);
        fclose(f);
        free(text);
    } else {
        T_EQ_INT(t, remove(from), 0);
    }
    snprintf(from, sizeof from, "%s/x-00001-of-%05d.gguf", dir, n);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, from, &m),
            part[0] == 'i' ? MT_E_ABSENT : MT_E_FORMAT, part);
}

T_TEST(sets_that_are_not_whole_are_refused)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model)), *m;
    char dir[512], path[600], *written;

    T_CHECK(t, src != NULL);
    snprintf(dir, sizeof dir, "%s", t_path(t, ""));
    T_OK(t, write_parts(t, src, t_path(t, "x.gguf"), 0, 12000, &written));
    int n = count_of(written);
    snprintf(path, sizeof path, "%s/x-00002-of-%05d.gguf", dir, n);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, path, &m), MT_E_FORMAT, "name its first part");
    break_parts(t, dir, n, 2, 3, "says it is part 1 of");
    break_parts(t, dir, n, 3, 0, "is missing");
    mt_free(written);
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

    T_OK(t, header_of(t, first, &a, &map, &g));
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

    size_t n, m;
    char *x = t_read_file(first, &n), *y = t_read_file(second, &m);
    T_EQ_INT(t, n, m);
    free(x);
    free(y);
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
    T_OK(t, header_of(t, t_path(t, "s.gguf"), &a, &map, &g));
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
