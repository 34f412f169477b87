/* Importance matrices of llama.cpp, there and back. The fixtures were made with the gguf package
 * (scripts/refs/make_imatrix_fixture.py), whose formula stands here too. */
#include "formats/stats.h"

#include "formats/table.h"
#include "lib/flow/format.h"
#include "lib/flow/profile_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <stdlib.h>

static double formula(int layer, int kind, int64_t row, int64_t col)
{
    return (double)(float)(1 + layer + 10 * kind + 0.25 * (double)row + (double)col / 64);
}

static struct mt_model *open_golden(struct t *t, const char *name)
{
    struct mt_model *m = NULL;
    char path[256];

    snprintf(path, sizeof path, "tests/golden/%s", name);
    if (mt_model_open(&t->ctx, mt_formats, path, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

/* A statistic of `kind` of the formula; row 1 of several got nothing. */
static void check_stat(struct t *t, const struct mt_profile *p, int layer, enum mt_stat s, int kind,
                       double per)
{
    int64_t rows, cols;

    T_CHECK(t, mt_profile_has(p, layer, s));
    mt_profile_shape(p, layer, s, &rows, &cols);
    double *v = malloc((size_t)(rows * cols) * sizeof *v);
    mt_status st = mt_profile_get(&t->ctx, p, layer, s, NULL, v, (size_t)(rows * cols));
    for (int64_t r = 0; st == MT_OK && r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double want = rows > 1 && r == 1 ? 0 : formula(layer, kind, r, c);
            if (v[r * cols + c] != want * per)
                t_fail(t, __FILE__, __LINE__, "%s.%s of layer %d [%d, %d]: %g, wanted %g",
                       mt_stat_row(s)->role, mt_stat_row(s)->name, layer, (int)r, (int)c,
                       v[r * cols + c], want * per);
        }
    free(v);
    T_OK(t, st);
}

static void check_moe(struct t *t, const struct mt_profile *p)
{
    double n[8], tokens;

    for (int l = 0; l < 3; l++) {
        check_stat(t, p, l, MT_STAT_ATTN_X_SQ, 0, 1);
        check_stat(t, p, l, MT_STAT_ATTN_O_SQ, 1, 1);
        check_stat(t, p, l, MT_STAT_X_SQ, 2, 1);
        T_OK(t, mt_profile_get(&t->ctx, p, l, MT_STAT_TOKENS, NULL, &tokens, 1));
        T_NEAR(t, tokens, 1536, 0);
        T_CHECK(t, mt_profile_has(p, l, MT_STAT_EXPERT_N) == (l != 1));
        if (l == 1) {
            check_stat(t, p, l, MT_STAT_H_SQ, 5, 1);
            continue;
        }
        check_stat(t, p, l, MT_STAT_EXPERT_X_SQ, 3, 1);
        check_stat(t, p, l, MT_STAT_EXPERT_H_SQ, 4, 1);
        T_OK(t, mt_profile_get(&t->ctx, p, l, MT_STAT_EXPERT_N, NULL, n, 8));
        for (int e = 0; e < 8; e++)
            T_NEAR(t, n[e], e == 1 ? 0 : 100 + e, 0);
    }
}

T_TEST(what_the_gguf_package_wrote_is_read)
{
    struct mt_model *m = open_golden(t, "qwen3_moe");
    struct mt_profile *p;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_stats_import(&t->ctx, t_shipped("stats/qwen3_moe.gguf"), m, &p));
    T_EQ_STR(t, mt_profile_info(p)->origin, "imatrix");
    check_moe(t, p);
    mt_profile_free(p);
    mt_model_free(m);
}

T_TEST(the_older_form_is_read)
{
    struct mt_model *m = open_golden(t, "llama");
    struct mt_profile *p;
    double n;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_stats_import(&t->ctx, t_shipped("stats/llama.dat"), m, &p));
    for (int l = 0; l < 2; l++) {
        check_stat(t, p, l, MT_STAT_ATTN_X_SQ, 0, 1);
        check_stat(t, p, l, MT_STAT_ATTN_O_SQ, 1, 1);
        check_stat(t, p, l, MT_STAT_X_SQ, 2, 1);
        check_stat(t, p, l, MT_STAT_H_SQ, 3, 1);
        T_OK(t, mt_profile_get(&t->ctx, p, l, MT_STAT_TOKENS, NULL, &n, 1));
        T_NEAR(t, n, 7, 0); /* calls: value / calls is the mean square */
    }
    mt_profile_free(p);
    mt_model_free(m);
}

T_TEST(what_is_written_is_read_back)
{
    struct mt_model *m = open_golden(t, "qwen3_moe");
    const char *path = t_path(t, "out.gguf");
    struct mt_profile *p, *q;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_stats_import(&t->ctx, t_shipped("stats/qwen3_moe.gguf"), m, &p));
    T_OK(t, mt_stats_export_imatrix(&t->ctx, path, false, p, m));
    T_OK(t, mt_stats_import(&t->ctx, path, m, &q));
    check_moe(t, q);
    T_FAILS(t, mt_stats_export_imatrix(&t->ctx, path, false, p, m), MT_E_IO, "--force");
    T_OK(t, mt_stats_export_imatrix(&t->ctx, path, true, p, m));
    mt_profile_free(p);
    mt_profile_free(q);
    mt_model_free(m);
}

T_TEST(an_imatrix_of_another_model_is_refused_by_name)
{
    struct mt_model *llama = open_golden(t, "llama"), *moe = open_golden(t, "qwen3_moe"), *small;
    const char *dir =
        tiny_write(t, "small", &(struct tiny){.family = "qwen3_moe", .experts = 4, .layers = 3});
    struct mt_profile *p;

    T_CHECK(t, llama != NULL && moe != NULL);
    T_FAILS(t, mt_stats_import(&t->ctx, t_shipped("stats/llama.dat"), moe, &p), MT_E_FORMAT,
            "blk.0.attn_output.weight: 1 matrices of 48 columns");
    T_FAILS(t, mt_stats_import(&t->ctx, t_shipped("stats/qwen3_moe.gguf"), llama, &p), MT_E_FORMAT,
            "blk.0.attn_output.weight: 1 matrices of 32 columns");
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &small));
    T_FAILS(t, mt_stats_import(&t->ctx, t_shipped("stats/qwen3_moe.gguf"), small, &p), MT_E_FORMAT,
            "ffn_gate_exps.weight: 8 matrices of 32 columns");
    mt_model_free(small);
    mt_model_free(llama);
    mt_model_free(moe);
}

/* Measures one window of 24 ids. */
static mt_status measure(struct mt_ctx *ctx, const struct mt_model *m, struct mt_profile **out)
{
    int32_t ids[24];
    struct mt_window w = {ids, 24, 0};
    char name[] = "noise", *domains[1] = {name};
    struct mt_dataset set = {.windows = &w,
                             .n_windows = 1,
                             .n_tokens = 24,
                             .window_len_max = 24,
                             .domains = domains,
                             .n_domains = 1};
    struct mt_profile_opts o = {.model = m, .seq_len = 24};
    struct mt_profile_text text;

    for (int i = 0; i < 24; i++)
        ids[i] = (i * 7 + 3) % 60;
    memset(set.sha256, 'a', 64);
    MT_TRY(mt_profile_text_make(ctx, &set, 1, 0, &text));
    o.text = &text;
    mt_status st = mt_device_open(ctx, "cpu", &o.dev);
    if (st == MT_OK)
        st = mt_profile_plan(ctx, &o, out);
    if (st == MT_OK)
        st = mt_profile_run(ctx, &o, *out, NULL, NULL);
    mt_device_close(o.dev);
    mt_profile_text_free(&text);
    return st;
}

/* What came back is what went, rounded to F32. */
static void check_rounded(struct t *t, const struct mt_profile *p, const struct mt_profile *q)
{
    int seen = 0;

    for (int l = 0; l < mt_profile_info(q)->n_layers; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            int64_t rows, cols;
            if (!mt_profile_has(q, l, (enum mt_stat)i))
                continue;
            T_CHECK(t, mt_profile_has(p, l, (enum mt_stat)i));
            mt_profile_shape(q, l, (enum mt_stat)i, &rows, &cols);
            struct mt_profile_part a = mt_profile_part(p, l, (enum mt_stat)i, 0),
                                   b = mt_profile_part(q, l, (enum mt_stat)i, 0);
            for (int64_t k = 0; k < rows * cols; k++)
                T_CHECK(t, (double)(float)a.v[k] == b.v[k]);
            seen++;
        }
    T_CHECK(t, seen >= 4 * mt_profile_info(q)->n_layers);
}

/* Families that keep several matrices in one tensor, latent attention, stacks, shared experts. */
T_TEST(every_kind_of_family_goes_there_and_back)
{
    static const char *const names[] = {"deepseek_v2", "deepseek_v3", "phi3",   "gpt2",
                                        "gpt_oss",     "qwen2_moe",   "gemma2", "glm4_moe",
                                        "mixtral",     "granitemoe"};
    const char *path = t_path(t, "x.gguf");
    int done = 0;

    for (size_t i = 0; i < sizeof names / sizeof names[0] && !t->failed; i++) {
        struct mt_model *m = open_golden(t, names[i]);
        struct mt_profile *p, *q;
        T_CHECK(t, m != NULL);
        T_OK(t, measure(&t->ctx, m, &p));
        mt_status st = mt_stats_export_imatrix(&t->ctx, path, true, p, m);
        if (st == MT_OK) {
            T_OK(t, mt_stats_import(&t->ctx, path, m, &q));
            check_rounded(t, p, q);
            mt_profile_free(q);
            done++;
        }
        T_CHECK(t, st == MT_OK || st == MT_E_UNSUPPORTED);
        if (t->failed)
            printf("    with %s\n", names[i]);
        mt_profile_free(p);
        mt_model_free(m);
    }
    T_CHECK(t, done >= 5);
}

/* Every beginning of both files, and every byte of the older one's first entries changed: a
 * sentence or a profile, never a crash. */
T_TEST(cut_and_damaged_files_are_survived)
{
    const char *names[2] = {"stats/llama.dat", "stats/qwen3_moe.gguf"};
    struct mt_model *m[2] = {open_golden(t, "llama"), open_golden(t, "qwen3_moe")};
    const char *path = t_path(t, "cut");

    T_CHECK(t, m[0] != NULL && m[1] != NULL);
    for (int f = 0; f < 2; f++) {
        size_t n;
        char *whole = t_read_file(t_shipped(names[f]), &n);
        T_CHECK(t, whole != NULL);
        for (size_t cut = 0; cut < n; cut += cut < 300 ? 1 : 97) {
            struct mt_profile *p;
            t_write_file(t, path, whole, cut);
            mt_status st = mt_stats_import(&t->ctx, path, m[f], &p);
            mt_profile_free(p);
            T_CHECK(t, st != MT_OK || (f == 0 && cut > 4)); /* its end holds only the text's name */
        }
        for (size_t at = 0; at < 200; at++) {
            struct mt_profile *p;
            whole[at] = (char)(whole[at] ^ 0x81);
            t_write_file(t, path, whole, n);
            if (mt_stats_import(&t->ctx, path, m[f], &p) == MT_OK)
                mt_profile_free(p);
            whole[at] = (char)(whole[at] ^ 0x81);
        }
        free(whole);
    }
    mt_model_free(m[0]);
    mt_model_free(m[1]);
}
