#include "lib/run/generate.h"

#include "formats/table.h"
#include "tests/t.h"
#include "tests/toy.h"

#include <stdlib.h>

/* Ids of a prompt. */
static mt_status prompt(struct mt_ctx *ctx, const int32_t *v, size_t n, struct mt_ids *ids)
{
    *ids = (struct mt_ids){0};
    for (size_t i = 0; i < n; i++)
        MT_TRY(mt_ids_push(ctx, ids, v[i]));
    return MT_OK;
}

static mt_status generate(struct mt_ctx *ctx, const struct mt_model *m, const char *device,
                          const struct mt_generate_opts *o, struct mt_ids *ids,
                          struct mt_generate_stats *stats)
{
    struct mt_device *dev;
    mt_status st;

    MT_TRY(mt_device_open(ctx, device, &dev));
    st = mt_generate(ctx, m, dev, o, ids, NULL, NULL, stats);
    mt_device_close(dev);
    return st;
}

/* Greedy text by running the whole sequence again for every token. */
static mt_status greedy_the_long_way(struct mt_ctx *ctx, const struct mt_model *m,
                                     struct mt_ids *ids, int n)
{
    size_t vocab = (size_t)m->hp.vocab;
    struct mt_device *dev;

    MT_TRY(mt_device_open(ctx, "ref", &dev));
    for (int i = 0; i < n; i++) {
        double *logits = calloc(ids->n * vocab, sizeof *logits), *last;
        int32_t best = 0;
        MT_TRY(mt_run_logits(ctx, m, dev, ids->v, (int)ids->n, logits));
        last = logits + (ids->n - 1) * vocab;
        for (int32_t v = 1; v < (int32_t)vocab; v++)
            best = last[v] > last[best] ? v : best;
        MT_TRY(mt_ids_push(ctx, ids, best));
        free(logits);
    }
    mt_device_close(dev);
    return MT_OK;
}

T_TEST(greedy_is_the_argmax_of_the_whole_sequence)
{
    const struct toy specs[] = {{.seed = 1}, {.seed = 2, .experts = 4, .k = 2}};
    const int32_t p[3] = {5, 9, 11};

    for (int i = 0; i < 2; i++) {
        struct mt_generate_opts o = {.max_tokens = 20, .top_p = 1, .eos_id = -1};
        struct mt_generate_stats stats;
        struct mt_ids a, b;
        struct mt_model *m;
        T_OK(t, toy_model(&t->ctx, &specs[i], &m));
        T_OK(t, prompt(&t->ctx, p, 3, &a));
        T_OK(t, prompt(&t->ctx, p, 3, &b));
        T_OK(t, generate(&t->ctx, m, "ref", &o, &a, &stats));
        T_OK(t, greedy_the_long_way(&t->ctx, m, &b, 20));
        T_EQ_INT(t, a.n, 23);
        T_EQ_INT(t, stats.prompt_tokens, 3);
        T_EQ_INT(t, stats.new_tokens, 20);
        T_CHECK(t, memcmp(a.v, b.v, 23 * sizeof *a.v) == 0);
        mt_ids_free(&a);
        mt_ids_free(&b);
        mt_model_free(m);
    }
}

T_TEST(temperature_is_reproducible_by_seed)
{
    const struct toy spec = {.seed = 3};
    const int32_t p[1] = {7};
    struct mt_ids v[3];
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    for (int i = 0; i < 3; i++) {
        struct mt_generate_opts o = {
            .max_tokens = 40, .temperature = 1, .top_p = 0.95, .seed = i < 2 ? 5 : 6, .eos_id = -1};
        struct mt_generate_stats stats;
        T_OK(t, prompt(&t->ctx, p, 1, &v[i]));
        T_OK(t, generate(&t->ctx, m, "cpu", &o, &v[i], &stats));
        T_EQ_INT(t, v[i].n, 41);
    }
    T_CHECK(t, memcmp(v[0].v, v[1].v, 41 * sizeof *v[0].v) == 0);
    T_CHECK(t, memcmp(v[0].v, v[2].v, 41 * sizeof *v[0].v) != 0);
    for (int i = 0; i < 3; i++)
        mt_ids_free(&v[i]);
    mt_model_free(m);
}

/* First tokens drawn with many seeds follow softmax(logits / T), cut by top-p. */
T_TEST(draws_follow_the_distribution)
{
    const struct toy spec = {.seed = 4, .layers = 1, .vocab = 6};
    const double top_p[2] = {1, 0.7};
    const int32_t p[2] = {1, 3};
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    for (int c = 0; c < 2; c++) {
        double logits[2 * 6], want[6] = {0}, seen[6] = {0}, sum = 0, kept = 0, chi = 0;
        struct mt_device *dev;
        T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
        T_OK(t, mt_run_logits(&t->ctx, m, dev, p, 2, logits));
        mt_device_close(dev);
        for (int i = 0; i < 6; i++)
            sum += want[i] = exp(logits[6 + i] / 0.8);
        for (int round = 0; round < 6 && kept < top_p[c] * sum; round++) {
            int best = -1;
            for (int i = 0; i < 6; i++)
                if (want[i] > 0 && (best < 0 || want[i] > want[best]))
                    best = i;
            kept += want[best];
            want[best] = -want[best]; /* negative: in the nucleus */
        }
        for (int seed = 0; seed < 2000; seed++) {
            struct mt_generate_opts o = {.max_tokens = 1,
                                         .temperature = 0.8,
                                         .top_p = top_p[c],
                                         .seed = (uint64_t)seed,
                                         .eos_id = -1};
            struct mt_generate_stats stats;
            struct mt_ids ids;
            T_OK(t, prompt(&t->ctx, p, 2, &ids));
            T_OK(t, generate(&t->ctx, m, "ref", &o, &ids, &stats));
            seen[ids.v[2]]++;
            mt_ids_free(&ids);
        }
        for (int i = 0; i < 6; i++) {
            double e = want[i] < 0 ? -want[i] / kept * 2000 : 0;
            T_CHECK(t, e > 0 || seen[i] == 0);
            chi += e > 0 ? (seen[i] - e) * (seen[i] - e) / e : 0;
        }
        T_CHECK(t, chi < 20.5); /* 5 degrees of freedom: one in a thousand */
    }
    mt_model_free(m);
}

static mt_status stop_at_third(struct mt_ctx *ctx, void *arg, int32_t id)
{
    int *n = arg;

    (void)id;
    return ++*n == 3 ? mt_fail(ctx, MT_E_CANCELLED, "enough") : MT_OK;
}

T_TEST(generation_ends_where_it_should)
{
    const struct toy spec = {.seed = 5};
    const int32_t p[2] = {3, 4};
    struct mt_generate_opts o = {.max_tokens = 30, .top_p = 1, .eos_id = -1};
    struct mt_generate_stats stats;
    struct mt_device *dev;
    struct mt_model *m;
    struct mt_ids ids;
    int n = 0;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    /* the context */
    m->hp.max_pos = 12;
    T_OK(t, prompt(&t->ctx, p, 2, &ids));
    T_OK(t, mt_generate(&t->ctx, m, dev, &o, &ids, NULL, NULL, &stats));
    T_EQ_INT(t, ids.n, 12);
    /* eos, which is not appended: take the fifth token of the text as eos */
    o.eos_id = ids.v[6];
    size_t first = 2;
    while (ids.v[first] != o.eos_id)
        first++;
    mt_ids_free(&ids);
    T_OK(t, prompt(&t->ctx, p, 2, &ids));
    T_OK(t, mt_generate(&t->ctx, m, dev, &o, &ids, NULL, NULL, &stats));
    T_EQ_INT(t, ids.n, first);
    mt_ids_free(&ids);
    /* the callback */
    o.eos_id = -1;
    T_OK(t, prompt(&t->ctx, p, 2, &ids));
    T_FAILS(t, mt_generate(&t->ctx, m, dev, &o, &ids, stop_at_third, &n, &stats), MT_E_CANCELLED,
            "enough");
    T_EQ_INT(t, ids.n, 5);
    mt_ids_free(&ids);
    /* nothing, or too much, to begin with */
    ids = (struct mt_ids){0};
    T_FAILS(t, mt_generate(&t->ctx, m, dev, &o, &ids, NULL, NULL, &stats), MT_E_OPTION,
            "no tokens");
    m->hp.max_pos = 1;
    T_OK(t, prompt(&t->ctx, p, 2, &ids));
    T_FAILS(t, mt_generate(&t->ctx, m, dev, &o, &ids, NULL, NULL, &stats), MT_E_OPTION,
            "context is 1");
    ids.v[1] = 61;
    m->hp.max_pos = 100;
    T_FAILS(t, mt_generate(&t->ctx, m, dev, &o, &ids, NULL, NULL, &stats), MT_E_FORMAT,
            "outside the vocabulary");
    mt_ids_free(&ids);
    mt_device_close(dev);
    mt_model_free(m);
}

/* Weights that are recipes do not fit beside each other: layers are opened anew, same text. */
T_TEST(layers_that_do_not_fit_are_reopened)
{
    const struct toy spec = {.seed = 6, .layers = 4, .width = 1024, .hidden = 64, .dtype = MT_BF16};
    struct mt_generate_opts o = {.max_tokens = 10, .top_p = 1, .eos_id = -1};
    struct mt_generate_stats stats;
    const int32_t p[2] = {3, 4};
    struct mt_model *m, *plan;
    struct mt_ids ids[2];

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    for (size_t i = 0; i < plan->n_tensors; i++) {
        struct mt_tensor *w = plan->tensors[i];
        if (w->role.layer >= 0 && w->rank == 2) {
            w->dtype = MT_F32;
            T_OK(t, mt_recipe_cast(&t->ctx, plan, w, m->tensors[i]));
        }
    }
    for (int i = 0; i < 2; i++) {
        /* a layer is 3 * 1024 * 64 * 4 = 0.8 MB, four of them 3.1 */
        struct mt_ctx_opts c = {.n_threads = 1, .memory_bytes_max = i == 0 ? 0 : 2u << 20};
        struct mt_ctx ctx;
        T_OK(t, mt_ctx_open(&ctx, &c));
        T_OK(t, prompt(&t->ctx, p, 2, &ids[i]));
        struct mt_device *dev;
        T_CHECK(t, mt_device_open(&ctx, "cpu", &dev) == MT_OK);
        struct mt_ids work;
        T_CHECK(t, prompt(&ctx, p, 2, &work) == MT_OK);
        if (mt_generate(&ctx, plan, dev, &o, &work, NULL, NULL, &stats) != MT_OK)
            T_FAIL(t, "%s", mt_error(&ctx));
        for (size_t j = 2; j < work.n; j++)
            T_OK(t, mt_ids_push(&t->ctx, &ids[i], work.v[j]));
        mt_ids_free(&work);
        mt_device_close(dev);
        T_EQ_INT(t, mt_mem_used(&ctx), 0);
        mt_ctx_close(&ctx);
    }
    T_CHECK(t, ids[0].n == 12 && memcmp(ids[0].v, ids[1].v, 12 * sizeof *ids[0].v) == 0);
    mt_ids_free(&ids[0]);
    mt_ids_free(&ids[1]);
    mt_model_free(plan);
    mt_model_free(m);
}

/* A model trained on stories tells one: words of its opening are known from the original
 * program's own output. */
T_TEST(stories260k_tells_a_story)
{
    struct mt_generate_opts o = {.max_tokens = 60, .top_p = 1, .eos_id = 2};
    struct mt_generate_stats stats;
    struct mt_tokenizer *tok;
    struct mt_ids ids = {0};
    struct mt_model *m;
    char path[300], *text;
    size_t n;

    snprintf(path, sizeof path, "%s/tokenizer.json", t_shipped("stories260K"));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped("stories260K"), &m));
    T_OK(t, mt_tokenizer_open(&t->ctx, path, &tok));
    T_OK(t, mt_tokenizer_encode(&t->ctx, tok, "Once upon a time", 16, MT_ENCODE_SPECIAL, &ids));
    T_OK(t, generate(&t->ctx, m, "cpu", &o, &ids, &stats));
    T_OK(t, mt_tokenizer_decode(&t->ctx, tok, ids.v, ids.n, true, &text, &n));
    printf("    %s\n", text);
    T_CHECK(t, strstr(text, "Once upon a time, there was a little girl named Lily") != NULL);
    mt_free(text);
    mt_ids_free(&ids);
    mt_tokenizer_free(tok);
    mt_model_free(m);
}
