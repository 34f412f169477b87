/* Encoders against last hidden states by transformers (scripts/refs/make_encoder_goldens.py). */
#include "formats/table.h"
#include "lib/ir/family.h"
#include "lib/run/encode.h"
#include "tests/t.h"

#include <stdlib.h>

static const char *const encode_dirs[] = {"bert",         "bert-legacy", "vit",
                                          "vit-unbiased", "dinov2",      "dinov2-swiglu"};

struct encode_case {
    struct mt_model *m;
    struct mt_device *dev;
    struct mt_runner *r;
    struct mt_json *root;
};

static mt_status encode_open(struct t *t, const char *name, const char *device,
                             struct encode_case *c)
{
    char path[300];

    *c = (struct encode_case){0};
    snprintf(path, sizeof path, "tests/golden/%s/hidden.json", name);
    MT_TRY(mt_json_read(&t->ctx, path, 1 << 20, &c->root));
    snprintf(path, sizeof path, "tests/golden/%s", name);
    MT_TRY(mt_model_open(&t->ctx, mt_formats, path, &c->m));
    MT_TRY(mt_device_open(&t->ctx, device, &c->dev));
    return mt_runner_open(&t->ctx, c->m, c->dev, &c->r);
}

static void encode_close(struct encode_case *c)
{
    mt_runner_close(c->r);
    mt_device_close(c->dev);
    mt_model_free(c->m);
    mt_json_free(c->root);
}

/* [[...], ...] or [...] as one malloc'ed list. */
static double *encode_numbers(const struct mt_json *list, size_t *n)
{
    size_t cap = 0;
    double *v = NULL;

    *n = 0;
    for (const struct mt_json *a = mt_json_first(list); a != NULL; a = mt_json_next(a)) {
        const struct mt_json *b = mt_json_kind(a) == MT_JSON_ARRAY ? mt_json_first(a) : a;
        for (; b != NULL; b = b == a ? NULL : mt_json_next(b)) {
            if (*n == cap) {
                cap = 2 * cap + 64;
                v = realloc(v, cap * sizeof *v);
            }
            if (!mt_json_number(b, &v[(*n)++]))
                v[*n - 1] = NAN;
        }
    }
    return v;
}

static void encode_compare(struct t *t, struct encode_case *c, const struct mt_encode_in *in,
                           const char *key, double tol)
{
    size_t n, tokens = 0;
    double *want = encode_numbers(mt_json_get(c->root, key), &n), worst = 0;
    double *got = calloc(n + 1, sizeof *got);

    for (int s = 0; s < in->seqs.n; s++)
        tokens += (size_t)in->seqs.len[s];
    if (n != tokens * (size_t)c->m->hp.hidden)
        t_fail(t, __FILE__, __LINE__, "%s holds %zu numbers", key, n);
    else if (mt_encode_f64(&t->ctx, c->r, in, got) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    for (size_t i = 0; i < n && t->failed == 0; i++) {
        worst = fmax(worst, fabs(got[i] - want[i]));
        if (!(fabs(got[i] - want[i]) <= tol))
            t_fail(t, __FILE__, __LINE__, "%s on %s, %s[%zu]: %.12g, wanted %.12g", c->m->path,
                   c->dev->name, key, i, got[i], want[i]);
    }
    printf("    %s on %s, %s: %zu numbers, worst difference %.2g\n", c->m->path, c->dev->name, key,
           n, worst);
    free(want);
    free(got);
}

static void encode_one(struct t *t, const char *name, const char *device, double tol)
{
    struct encode_case c;
    size_t n;

    T_OK(t, encode_open(t, name, device, &c));
    double *v = encode_numbers(mt_json_get(c.root, "embeddings"), &n);
    float *x = calloc(n + 1, sizeof *x);
    const int32_t whole = (int32_t)(n / (size_t)c.m->hp.hidden);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)v[i];
    encode_compare(t, &c, &(struct mt_encode_in){{1, &whole}, NULL, x}, "last", tol);
    free(v);
    free(x);
    if (mt_json_get(c.root, "ids") != NULL) {
        size_t n_ids, n_len;
        double *ids = encode_numbers(mt_json_get(c.root, "ids"), &n_ids);
        double *len = encode_numbers(mt_json_get(c.root, "lengths"), &n_len);
        int32_t id[64], length[4];
        for (size_t i = 0; i < n_ids && i < 64; i++)
            id[i] = (int32_t)ids[i];
        for (size_t i = 0; i < n_len && i < 4; i++)
            length[i] = (int32_t)len[i];
        encode_compare(t, &c, &(struct mt_encode_in){{(int)n_len, length}, id, NULL}, "last_ids",
                       tol);
        free(ids);
        free(len);
    }
    encode_close(&c);
}

T_TEST(goldens_on_the_reference_device)
{
    for (size_t i = 0; i < sizeof encode_dirs / sizeof encode_dirs[0]; i++)
        encode_one(t, encode_dirs[i], "ref", 1e-10);
}

T_TEST(goldens_on_the_cpu)
{
    for (size_t i = 0; i < sizeof encode_dirs / sizeof encode_dirs[0]; i++)
        encode_one(t, encode_dirs[i], "cpu", 1e-4);
}

T_TEST(goldens_on_cuda)
{
    struct mt_device *dev;

    if (mt_device_open(&t->ctx, "cuda", &dev) != MT_OK)
        T_SKIP(t, mt_error(&t->ctx));
    mt_device_close(dev);
    for (size_t i = 0; i < sizeof encode_dirs / sizeof encode_dirs[0]; i++)
        encode_one(t, encode_dirs[i], "cuda", 1e-3);
}

/* More tokens than one batch holds: the batches' borders do not show. */
T_TEST(many_sequences_run_in_batches)
{
    enum { LEN = 13, SEQS = 400 };
    struct encode_case c;
    static int32_t ids[SEQS * LEN];
    int32_t len[SEQS];
    size_t row;

    T_OK(t, encode_open(t, "bert", "cpu", &c));
    row = LEN * (size_t)c.m->hp.hidden;
    float *all = malloc(SEQS * row * sizeof *all), *one = malloc(row * sizeof *one);
    for (int i = 0; i < SEQS; i++)
        len[i] = LEN;
    for (int i = 0; i < SEQS * LEN; i++)
        ids[i] = i * 7 % 39 + i / 300 % 2;
    T_CHECK(t, SEQS * LEN > 2 * mt_runner_batch_tokens(c.r));
    T_OK(t, mt_encode(&t->ctx, c.r, &(struct mt_encode_in){{SEQS, len}, ids, NULL}, all));
    for (int i = 0; i < SEQS; i += 57) {
        T_OK(t,
             mt_encode(&t->ctx, c.r, &(struct mt_encode_in){{1, len}, ids + i * LEN, NULL}, one));
        T_CHECK(t, t_rel_l2(all + (size_t)i * row, one, row) < 1e-6);
    }
    free(all);
    free(one);
    encode_close(&c);
}

T_TEST(what_no_encoder_can_do_is_refused)
{
    const int32_t len = 3, ids[3] = {1, 2, 3};
    const float x[48] = {0};
    float out[48];
    struct encode_case c;
    struct mt_model *llama;
    struct mt_runner *r;

    T_OK(t, encode_open(t, "vit", "cpu", &c));
    T_FAILS(t, mt_encode(&t->ctx, c.r, &(struct mt_encode_in){{1, &len}, ids, NULL}, out),
            MT_E_UNSUPPORTED, "no token embeddings");
    T_OK(t, mt_encode(&t->ctx, c.r, &(struct mt_encode_in){{1, &len}, NULL, x}, out));
    T_FAILS(t, mt_run_head(&t->ctx, c.r, NULL, 1, out), MT_E_UNSUPPORTED, "not logits");
    T_OK(t, mt_model_open(&t->ctx, mt_formats, "tests/golden/llama", &llama));
    T_OK(t, mt_runner_open(&t->ctx, llama, c.dev, &r));
    T_FAILS(t, mt_encode(&t->ctx, r, &(struct mt_encode_in){{1, &len}, ids, NULL}, out),
            MT_E_UNSUPPORTED, "llama is no encoder");
    mt_runner_close(r);
    mt_model_free(llama);
    encode_close(&c);
}

/* A quarter more of what the last block gives shows behind it, but less than in the block. */
T_TEST(comparing_finds_itself_equal_and_a_change)
{
    enum { LEN = 9, SEQS = 40 };
    struct mt_window windows[SEQS];
    struct mt_dataset data = {.windows = windows, .n_windows = SEQS, .n_tokens = SEQS * LEN};
    int32_t ids[SEQS * LEN];
    struct encode_case c;
    struct mt_model *plan;
    double error;

    T_OK(t, encode_open(t, "bert", "cpu", &c));
    for (int i = 0; i < SEQS * LEN; i++)
        ids[i] = i * 13 % 39 + 1;
    for (int i = 0; i < SEQS; i++)
        windows[i] = (struct mt_window){ids + i * LEN, LEN, 0};
    data.window_len_max = LEN;
    T_OK(t, mt_encode_compare(&t->ctx, c.m, c.m, c.dev, &data, &error));
    T_NEAR(t, error, 0, 0);
    T_OK(t, mt_model_plan(&t->ctx, c.m, &plan));
    struct mt_tensor *down = mt_model_find(plan, mt_role(MT_ROLE_FFN_DOWN, 1, MT_EXPERT_NONE));
    int32_t rows[16];
    for (int i = 0; i < 16; i++)
        rows[i] = i;
    T_OK(t, mt_recipe_gather_rows(&t->ctx, plan, down, down->src.alias, rows, 16, 1.25f));
    T_OK(t, mt_encode_compare(&t->ctx, c.m, plan, c.dev, &data, &error));
    T_CHECK(t, error > 1e-3 && error < 0.25);
    mt_model_free(plan);
    encode_close(&c);
}
