/* The oracle itself, against arithmetic done by hand. */
#include "kernels/device.h"
#include "tests/t.h"

/* [2, 3] x [2, 3]^T by hand, and added to. */
T_TEST(products_by_hand)
{
    const double x[6] = {1, 2, 3, 4, 5, 6};
    const float w[6] = {1, 0, -1, 2, 1, 0.5f};
    double y[4];
    struct mt_device *dev;
    struct mt_weight *h;
    mt_buf bx, by;

    T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, 6, &bx));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, 4, &by));
    T_OK(t, dev->ops->weight_load(&t->ctx, dev, MT_F32, 2, 3, w, &h));
    T_OK(t, dev->ops->upload_f64(&t->ctx, dev, bx, x, 6));
    T_OK(t, dev->ops->gemm(&t->ctx, dev, by, bx, 2, h, false));
    T_OK(t, dev->ops->gemm(&t->ctx, dev, by, bx, 1, h, true));
    T_OK(t, dev->ops->download_f64(&t->ctx, dev, y, by, 4));
    T_NEAR(t, y[0], 2 * (1 - 3), 0);
    T_NEAR(t, y[1], 2 * (2 + 2 + 1.5), 0);
    T_NEAR(t, y[2], 4 - 6, 0);
    T_NEAR(t, y[3], 8 + 5 + 3, 0);
    dev->ops->weight_free(dev, h);
    dev->ops->release(dev, bx);
    dev->ops->release(dev, by);
    mt_device_close(dev);
}

/* Runs `op` on two rows of four doubles and returns them. */
static void on_rows(struct t *t, double v[8],
                    mt_status (*op)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf b))
{
    struct mt_device *dev;
    mt_buf b;

    T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, 8, &b));
    T_OK(t, dev->ops->upload_f64(&t->ctx, dev, b, v, 8));
    T_OK(t, op(&t->ctx, dev, b));
    T_OK(t, dev->ops->download_f64(&t->ctx, dev, v, b, 8));
    dev->ops->release(dev, b);
    mt_device_close(dev);
}

static mt_status quarter_turn(struct mt_ctx *ctx, struct mt_device *dev, mt_buf b)
{
    struct mt_rope r = {.rot_dim = 2,
                        .half_split = true,
                        .inv_freq = (double[]){1.57079632679489661923},
                        .amplitude = 2};

    return dev->ops->rope(ctx, dev, b, 2, 1, 4, (int32_t[]){0, 1}, &r);
}

/* Position 1 turns (5, 6) by 90 degrees to (-6, 5); the amplitude doubles; features 2, 3 stay. */
T_TEST(a_quarter_turn_by_hand)
{
    double v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const double want[8] = {2, 4, 3, 4, -12, 10, 7, 8};

    on_rows(t, v, quarter_turn);
    for (int i = 0; i < 8; i++)
        T_NEAR(t, v[i], want[i], 1e-14);
}

static mt_status interleaved_turn(struct mt_ctx *ctx, struct mt_device *dev, mt_buf b)
{
    struct mt_rope r = {
        .rot_dim = 4, .inv_freq = (double[]){1.57079632679489661923, 0}, .amplitude = 1};

    return dev->ops->rope(ctx, dev, b, 2, 1, 4, (int32_t[]){2, 1}, &r);
}

T_TEST(interleaved_pairs_by_hand)
{
    double v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const double want[8] = {-1, -2, 3, 4, -6, 5, 7, 8};

    on_rows(t, v, interleaved_turn);
    for (int i = 0; i < 8; i++)
        T_NEAR(t, v[i], want[i], 1e-14);
}

/* Two queries of one head of width 4 over themselves: the first sees one key. */
static mt_status self_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf b)
{
    struct mt_attn a = {
        .n_q = 2, .n_k = 2, .n_heads = 1, .n_kv_heads = 1, .head_dim = 4, .scale = 1};
    mt_buf out;

    MT_TRY(dev->ops->alloc(ctx, dev, 8, &out));
    mt_status st = dev->ops->attention(ctx, dev, out, b, b, b, &a);
    if (st == MT_OK)
        st = dev->ops->copy(ctx, dev, b, out, 8);
    dev->ops->release(dev, out);
    return st;
}

T_TEST(attention_by_hand)
{
    double v[8] = {1, 0, 0, 0, 0, 0, 0, 2};
    double p = exp(4) / (exp(4) + 1); /* scores of the second query: 0 and 4 */

    on_rows(t, v, self_attention);
    T_NEAR(t, v[0], 1, 0);
    T_NEAR(t, v[3], 0, 0);
    T_NEAR(t, v[4], 1 - p, 1e-15);
    T_NEAR(t, v[7], 2 * p, 1e-15);
}

static mt_status normed(struct mt_ctx *ctx, struct mt_device *dev, mt_buf b)
{
    const float w[4] = {1, 1, 2, 0};
    struct mt_weight *h;

    MT_TRY(dev->ops->weight_load(ctx, dev, MT_F32, 1, 4, w, &h));
    mt_status st = dev->ops->rmsnorm(ctx, dev, b, b, 1, h, 0, 0);
    if (st == MT_OK)
        st = dev->ops->layernorm(ctx, dev, mt_dev_at(dev, b, 4), mt_dev_at(dev, b, 4), 1, h, h, 0);
    dev->ops->weight_free(dev, h);
    return st;
}

T_TEST(norms_by_hand)
{
    double v[8] = {1, -1, 1, 1, 3, 5, 3, 5}; /* root mean square 1; mean 4, deviation 1 */
    const double want[8] = {1, -1, 2, 0, 0, 2, 0, 0};

    on_rows(t, v, normed);
    for (int i = 0; i < 8; i++)
        T_NEAR(t, v[i], want[i], 1e-14);
}

/* A combined row takes its slots in order and skips negative ones; factors reach only their row. */
static mt_status combined(struct mt_ctx *ctx, struct mt_device *dev, mt_buf b)
{
    const int32_t row[4] = {1, -1, 0, 1};
    const double w[4] = {10, 99, 1, 100};
    mt_buf x;

    MT_TRY(dev->ops->alloc(ctx, dev, 8, &x));
    mt_status st = dev->ops->gather_rows(ctx, dev, x, b, 2, 4, (int32_t[]){1, 0});
    if (st == MT_OK)
        st = dev->ops->zero(ctx, dev, b, 4);
    if (st == MT_OK)
        st = dev->ops->combine_rows(ctx, dev, b, x, 2, 2, 4, row, w);
    dev->ops->release(dev, x);
    return st;
}

T_TEST(combining_by_hand)
{
    double v[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const double want[8] = {10, 20, 30, 40, 5 + 5 + 100, 6 + 6 + 200, 7 + 7 + 300, 8 + 8 + 400};

    on_rows(t, v, combined);
    for (int i = 0; i < 8; i++)
        T_NEAR(t, v[i], want[i], 0);
}
