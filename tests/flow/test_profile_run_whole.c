/* Parts of a text add up to the whole, bit for bit; and what a run takes, refuses and leaves. */
#include "tests/profile_kit.h"

#include "tests/toy.h"

#include <stdlib.h>

/* ---- halves ---- */

static bool same_doubles(const double *a, const double *b, size_t n)
{
    size_t i = 0;

    while (i < n && a[i] == b[i])
        i++;
    return i == n;
}

/* Exactly equal: every value and every exact sum. gram: those too. */
static void check_same(struct t *t, const struct mt_profile *a, const struct mt_profile *b,
                       bool gram)
{
    T_EQ_INT(t, mt_profile_n_domains(a), mt_profile_n_domains(b));
    for (int l = 0; l < mt_profile_info(a)->n_layers; l++) {
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat s = (enum mt_stat)i;
            int64_t rows, cols;
            T_EQ_INT(t, mt_profile_has(a, l, s), mt_profile_has(b, l, s));
            for (int d = 0; mt_profile_has(a, l, s) && d < mt_profile_n_domains(a); d++) {
                struct mt_profile_part x = mt_profile_part(a, l, s, d),
                                       y = mt_profile_part(b, l, s, d);
                mt_profile_shape(a, l, s, &rows, &cols);
                size_t n = (size_t)(rows * cols);
                bool close = mt_stat_row(s)->kind == MT_STAT_GRAM && !gram;
                T_CHECK(t, close || same_doubles(x.v, y.v, n));
                T_CHECK(t, x.exact == NULL || memcmp(x.exact, y.exact, n * sizeof *x.exact) == 0);
                for (size_t k = 0; close && k < n; k++)
                    T_NEAR(t, x.v[k], y.v[k], 1e-15 * fabs(x.v[k]) + 1e-13);
            }
        }
    }
}

static mt_status merge_all(struct mt_ctx *ctx, const struct mt_profile *const *in, int n,
                           struct mt_profile **out)
{
    MT_TRY(mt_profile_merge_plan(ctx, in, n, out));
    for (int l = 0; l < mt_profile_info(*out)->n_layers; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++)
            for (int d = 0;
                 mt_profile_has(*out, l, (enum mt_stat)i) && d < mt_profile_n_domains(*out); d++)
                MT_TRY(mt_profile_merge_part(ctx, in, n, *out, l, (enum mt_stat)i, d));
    return MT_OK;
}

/* Windows [0, cut) and [cut, PROFILE_KIT_WINDOWS) of one text, in domains of those names. */
static void check_halves(struct t *t, const struct mt_model *m, int cut, const char *first,
                         const char *second)
{
    struct profile_kit_text a, b;
    struct mt_profile *pa, *pb, *whole, *sum;
    struct mt_dataset sets[2];

    profile_kit_text(&a, first, 0, cut);
    profile_kit_text(&b, second, cut, PROFILE_KIT_WINDOWS - cut);
    sets[0] = a.set;
    sets[1] = b.set;
    T_OK(t, profile_kit_measure(&t->ctx, m, "cpu", &sets[0], 1, true, &pa));
    T_OK(t, profile_kit_measure(&t->ctx, m, "cpu", &sets[1], 1, true, &pb));
    T_OK(t, profile_kit_measure(&t->ctx, m, "cpu", sets, 2, true, &whole));
    for (int order = 0; order < 2; order++) {
        const struct mt_profile *in[2] = {order == 0 ? pa : pb, order == 0 ? pb : pa};
        T_OK(t, merge_all(&t->ctx, in, 2, &sum));
        check_same(t, whole, sum, strcmp(first, second) != 0);
        T_EQ_INT(t, mt_profile_n_sources(sum), 2);
        mt_profile_free(sum);
    }
    mt_profile_free(pa);
    mt_profile_free(pb);
    mt_profile_free(whole);
}

T_TEST(halves_add_up_to_the_bits_of_the_whole)
{
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 9, .hidden = 48, .width = 80}, &m));
    for (int cut = 1; cut < PROFILE_KIT_WINDOWS && !t->failed; cut++) {
        check_halves(t, m, cut, "web", "code");
        check_halves(t, m, cut, "web", "web");
    }
    mt_model_free(m);
    T_OK(t, toy_model(&t->ctx, &(struct toy){.experts = 8, .k = 2, .shared_width = 16, .seed = 10},
                      &m));
    for (int cut = 1; cut < PROFILE_KIT_WINDOWS && !t->failed; cut += 2) {
        check_halves(t, m, cut, "web", "code");
        check_halves(t, m, cut, "web", "web");
    }
    mt_model_free(m);
}

/* The total over domains is the one-domain profile of the same windows. */
T_TEST(the_total_does_not_depend_on_how_domains_are_cut)
{
    struct profile_kit_text a, b, all;
    struct mt_profile *split, *one;
    struct mt_dataset sets[2];
    struct mt_model *m;
    double x[32], y[32];

    profile_kit_text(&a, "web", 0, 2);
    profile_kit_text(&b, "code", 2, PROFILE_KIT_WINDOWS - 2);
    profile_kit_text(&all, "all", 0, PROFILE_KIT_WINDOWS);
    sets[0] = a.set;
    sets[1] = b.set;
    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 11}, &m));
    T_OK(t, profile_kit_measure(&t->ctx, m, "cpu", sets, 2, false, &split));
    T_OK(t, profile_kit_measure(&t->ctx, m, "cpu", &all.set, 1, false, &one));
    for (int l = 0; l < 2; l++) {
        T_OK(t, mt_profile_get(&t->ctx, split, l, MT_STAT_Y_SUM, NULL, x, 32));
        T_OK(t, mt_profile_get(&t->ctx, one, l, MT_STAT_Y_SUM, NULL, y, 32));
        T_CHECK(t, same_doubles(x, y, 32));
        T_OK(t, mt_profile_get(&t->ctx, split, l, MT_STAT_Y_SUM, "web", y, 32));
        T_CHECK(t, !same_doubles(x, y, 32));
    }
    mt_profile_free(split);
    mt_profile_free(one);
    mt_model_free(m);
}

/* ---- threads, memory ---- */

static mt_status measure_with(struct mt_model *m, const struct mt_dataset *d, int threads,
                              uint64_t memory, struct mt_ctx *ctx, struct mt_profile **out,
                              uint64_t *peak)
{
    MT_TRY(
        mt_ctx_open(ctx, &(struct mt_ctx_opts){.n_threads = threads, .memory_bytes_max = memory}));
    mt_status st = profile_kit_measure(ctx, m, "cpu", d, 1, true, out);
    *peak = mt_mem_peak(ctx);
    return st;
}

T_TEST(threads_and_memory_change_no_bit)
{
    struct mt_profile *one, *four, *tight;
    struct mt_ctx c1, c4, small;
    struct mt_model *m;
    struct profile_kit_text x;
    uint64_t peak, least;

    profile_kit_text(&x, "web", 0, PROFILE_KIT_WINDOWS);
    T_OK(t, toy_model(&t->ctx, &(struct toy){.experts = 8, .k = 2, .seed = 12}, &m));
    T_OK(t, measure_with(m, &x.set, 1, 0, &c1, &one, &least));
    T_OK(t, measure_with(m, &x.set, 4, 0, &c4, &four, &peak));
    check_same(t, one, four, true);
    T_OK(t, measure_with(m, &x.set, 1, least + (64 << 10), &small, &tight, &peak));
    T_CHECK(t, peak <= least + (64 << 10));
    check_same(t, one, tight, true);
    mt_profile_free(one);
    mt_profile_free(four);
    mt_profile_free(tight);
    mt_ctx_close(&c1);
    mt_ctx_close(&c4);
    mt_ctx_close(&small);
    mt_model_free(m);
}

T_TEST(a_budget_that_cannot_do_is_refused_beforehand)
{
    struct mt_profile *p = NULL;
    struct mt_ctx small;
    struct mt_model *m;
    struct profile_kit_text x;

    profile_kit_text(&x, "web", 0, PROFILE_KIT_WINDOWS);
    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 12, .hidden = 64, .width = 256}, &m));
    T_OK(t,
         mt_ctx_open(&small, &(struct mt_ctx_opts){.n_threads = 1, .memory_bytes_max = 600 << 10}));
    T_EQ_INT(t, profile_kit_measure(&small, m, "cpu", &x.set, 1, true, &p), MT_E_LIMIT);
    T_CHECK(t, strstr(mt_error(&small), "--memory") != NULL);
    T_CHECK(t, p == NULL);
    mt_ctx_close(&small);
    mt_model_free(m);
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    struct mt_profile *p = NULL;
    struct mt_model *m;
    struct profile_kit_text x;
    mt_status st = MT_E_NOMEM;
    uint64_t n, before;

    profile_kit_text(&x, "web", 0, 2);
    T_OK(t, toy_model(&t->ctx, &(struct toy){.experts = 4, .k = 2, .layers = 1, .seed = 14}, &m));
    before = mt_mem_used(&t->ctx);
    for (n = 1; st == MT_E_NOMEM && n < 10000; n++) {
        mt_fault_alloc(n);
        st = profile_kit_measure(&t->ctx, m, "cpu", &x.set, 1, true, &p);
        mt_fault_alloc(0);
        T_CHECK(t, st == MT_OK || p == NULL);
        T_CHECK(t, st == MT_OK || mt_mem_used(&t->ctx) == before);
    }
    T_OK(t, st);
    T_CHECK(t, n > 50);
    mt_profile_free(p);
    mt_model_free(m);
}

T_TEST(activations_that_are_no_numbers_name_layer_and_statistic)
{
    struct mt_profile *p = NULL;
    struct mt_tensor *down;
    struct mt_model *m;
    struct profile_kit_text x;
    float *w;

    profile_kit_text(&x, "web", 0, 1);
    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 13}, &m));
    T_OK(t, mt_model_need(&t->ctx, m, mt_role(MT_ROLE_FFN_DOWN, 0, MT_EXPERT_NONE), &down));
    T_OK(t, mt_tensor_load_f32(&t->ctx, down, &w));
    w[5] = NAN;
    T_OK(t, mt_source_floats(&t->ctx, m, down, w));
    mt_free(w);
    T_FAILS(t, profile_kit_measure(&t->ctx, m, "cpu", &x.set, 1, false, &p), MT_E_NUMERIC,
            "layers.0.ffn.y_sum");
    mt_model_free(m);
}

/* ---- texts ---- */

T_TEST(samples_are_shared_between_texts_and_spread_over_each)
{
    struct mt_profile_text text;
    struct mt_dataset sets[2];
    struct profile_kit_text a, b;

    profile_kit_text(&a, "web", 0, 1);
    profile_kit_text(&b, "code", 1, 5);
    sets[0] = a.set;
    sets[1] = b.set;
    T_OK(t, mt_profile_text_make(&t->ctx, sets, 2, 4, &text));
    T_EQ_INT(t, text.windows.n_windows, 4); /* 1 of web, which has no more, and 3 of code */
    T_EQ_INT(t, text.windows.n_domains, 2);
    T_EQ_STR(t, text.windows.domains[0], "code");
    T_EQ_INT(t, text.windows.windows[0].domain, 1);
    T_EQ_INT(t, text.windows.windows[1].domain, 0);
    T_CHECK(t, text.windows.windows[1].ids == b.w[0].ids);
    T_CHECK(t, text.windows.windows[2].ids == b.w[2].ids);
    T_CHECK(t, text.windows.windows[3].ids == b.w[4].ids);
    T_EQ_INT(t, text.n_sources, 2);
    T_EQ_INT(t, text.sources[1].windows, 3);
    T_EQ_INT(t, text.sources[1].tokens, b.w[0].n + b.w[2].n + b.w[4].n);
    T_CHECK(t, strcmp(text.sources[0].ids_sha256, text.sources[1].ids_sha256) != 0);
    mt_profile_text_free(&text);
}
