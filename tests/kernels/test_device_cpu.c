#define DEVICE_UNDER_TEST "cpu"
#include "tests/kernels/device_cases.h"

/* Every operation that cuts work into jobs, once, with this many threads. */
static float *with_threads(struct t *t, int n_threads, size_t *n)
{
    enum { M = 140, D = 96, F = 1100, HEADS = 6, HEAD = 16 };
    struct mt_ctx_opts o = {.n_threads = n_threads};
    struct mt_ctx ctx;
    struct dc c = {.t = t, .ctx = &ctx};
    struct mt_rope rope = {
        .rot_dim = 8, .half_split = true, .inv_freq = (double[]){1, .1, .01, .001}};
    struct mt_attn attn = {M, M, HEADS, 3, HEAD, 0.25, 0, 50, NULL, false};
    int64_t offset[] = {0, 3, 3, 50, M};
    int32_t pos[M], idx[M];
    double factor[M];
    float *out = malloc(M * (D + F) * sizeof *out);

    rope.amplitude = 1;
    if (mt_ctx_open(&ctx, &o) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "no context");
    DC_OK(&c, mt_device_open(&ctx, "cpu", &c.dev));
    DC_OK(&c, mt_device_open(&ctx, "ref", &c.ref));
    mt_rng_seed(&c.rng, 3, 0);
    for (int i = 0; i < M; i++) {
        pos[i] = i;
        idx[i] = (i * 37) % M;
        factor[i] = 0.1 * i;
    }
    struct dc_buf x = dc_new(&c, M * D, 1), y = dc_new(&c, M * F, 1), z = dc_new(&c, M * D, 1);
    struct dc_buf k = dc_new(&c, M * D / 2, 1);
    struct dc_weight up = dc_weight(&c, MT_BF16, F, D, 1), down = dc_weight(&c, MT_F16, D, F, 0);
    struct dc_weight norm = dc_weight(&c, MT_F32, 1, D, 0);
    const struct mt_weight *w[4] = {up.d, NULL, up.d, up.d};
    const struct mt_device_ops *ops = c.dev->ops;
    DC_OK(&c, ops->rmsnorm(&ctx, c.dev, x.d, x.d, M, norm.d, 1, 1e-6));
    DC_OK(&c, ops->rope(&ctx, c.dev, x.d, M, HEADS, HEAD, pos, &rope));
    DC_OK(&c, ops->attention(&ctx, c.dev, z.d, x.d, k.d, k.d, &attn));
    DC_OK(&c, ops->gemm(&ctx, c.dev, y.d, z.d, M, up.d, true));
    DC_OK(&c, ops->act_mul(&ctx, c.dev, MT_ACT_SILU, y.d, y.d, NULL, M * F));
    DC_OK(&c, ops->gemm(&ctx, c.dev, x.d, y.d, M, down.d, false));
    DC_OK(&c, ops->combine_rows(&ctx, c.dev, x.d, z.d, M, 1, D, idx, factor));
    DC_OK(&c, ops->gemm_grouped(&ctx, c.dev, y.d, x.d, 4, offset, w));
    DC_OK(&c, ops->layernorm(&ctx, c.dev, x.d, x.d, M, norm.d, norm.d, 1e-6));
    DC_OK(&c, ops->download(&ctx, c.dev, out, x.d, M * D));
    DC_OK(&c, ops->download(&ctx, c.dev, out + M * D, y.d, M * F));
    dc_weight_end(&c, &up);
    dc_weight_end(&c, &down);
    dc_weight_end(&c, &norm);
    dc_end(&c, &x);
    dc_end(&c, &y);
    dc_end(&c, &z);
    dc_end(&c, &k);
    mt_device_close(c.dev);
    mt_device_close(c.ref);
    mt_ctx_close(&ctx);
    *n = M * (D + F) * sizeof *out;
    return out;
}

T_TEST(threads_change_no_bit)
{
    size_t n;
    float *one = with_threads(t, 1, &n), *two = with_threads(t, 2, &n),
          *four = with_threads(t, 4, &n);

    T_CHECK(t, memcmp(one, two, n) == 0);
    T_CHECK(t, memcmp(one, four, n) == 0);
    for (size_t i = 0; i < n / sizeof *one; i++)
        T_CHECK(t, isfinite(one[i]));
    free(one);
    free(two);
    free(four);
}

/* Each allocation fails in turn: the operation says so, and nothing is left behind. */
T_TEST(every_failed_allocation_is_survived)
{
    float x[20 * 64] = {0}, w[64 * 64] = {0};
    double freq[4] = {1, 0.5, 0.2, 0.1};
    struct mt_rope rope = {.rot_dim = 8, .half_split = true, .inv_freq = freq, .amplitude = 1};
    struct mt_attn attn = {20, 20, 8, 4, 8, 0.3, 0, 0, NULL, false};
    int32_t pos[20] = {0};
    mt_status st = MT_E_NOMEM;

    for (int i = 0; i < 20; i++)
        pos[i] = i;
    for (uint64_t n = 1; st != MT_OK && n < 100; n++) {
        struct mt_device *dev = NULL;
        struct mt_weight *h = NULL, *v = NULL;
        mt_buf b = NULL, q = NULL;
        mt_fault_alloc(n);
        st = mt_device_open(&t->ctx, "cpu", &dev);
        if (st == MT_OK)
            st = dev->ops->alloc(&t->ctx, dev, 20 * 64, &b);
        if (st == MT_OK)
            st = dev->ops->alloc(&t->ctx, dev, 20 * 64, &q);
        if (st == MT_OK)
            st = dev->ops->upload(&t->ctx, dev, b, x, 20 * 64);
        if (st == MT_OK)
            st = dev->ops->weight_load(&t->ctx, dev, MT_BF16, 64, 64, w, &h);
        if (st == MT_OK)
            st = dev->ops->weight_load(&t->ctx, dev, MT_F16, 1, 64, w, &v);
        if (st == MT_OK)
            st = dev->ops->gemm(&t->ctx, dev, q, b, 20, h, false);
        if (st == MT_OK)
            st = dev->ops->rope(&t->ctx, dev, q, 20, 8, 8, pos, &rope);
        if (st == MT_OK)
            st = dev->ops->attention(&t->ctx, dev, q, b, b, b, &attn);
        mt_fault_alloc(0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        T_CHECK(t, (n == 1) <= (st == MT_E_NOMEM));
        if (dev != NULL) {
            dev->ops->weight_free(dev, h);
            dev->ops->weight_free(dev, v);
            dev->ops->release(dev, b);
            dev->ops->release(dev, q);
        }
        mt_device_close(dev);
        T_CHECK(t, mt_mem_used(&t->ctx) == 0);
    }
    T_CHECK(t, st == MT_OK);
}

T_TEST(an_unknown_device_is_refused_by_name)
{
    struct mt_device *dev;

    T_CHECK(t, mt_device_open(&t->ctx, "tpu", &dev) == MT_E_OPTION);
    T_CHECK(t, dev == NULL && strstr(mt_error(&t->ctx), "\"tpu\"") != NULL);
    mt_device_close(NULL);
}
