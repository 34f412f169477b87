#include "lib/run/runner.h"
#include "tests/t.h"
#include "tests/toy.h"

#define ROWS 9
#define WIDTH 48

/* What one block gave for given normed inputs. */
struct block {
    double y[40 * 128];
    double hidden[ROWS * WIDTH];
    int64_t m; /* tokens routed */
    int32_t expert[40 * 8];
    double weight[40 * 8];
};

static mt_status run_block(struct mt_ctx *ctx, const struct mt_model *m, int layer,
                           const char *device, const double *n, int64_t rows, struct block *out)
{
    size_t elems = (size_t)rows * (size_t)m->hp.hidden;
    size_t inner = (size_t)rows * (size_t)m->ffn[layer].width;
    const struct mt_routing *ro;
    struct mt_run_layer *l;
    struct mt_device *dev;
    struct mt_runner *r;
    mt_buf x, y, h = NULL;

    memset(out, 0, sizeof *out);
    MT_TRY(mt_device_open(ctx, device, &dev));
    MT_TRY(mt_runner_open(ctx, m, dev, &r));
    MT_TRY(mt_run_layer_open(ctx, r, layer, &l));
    MT_TRY(dev->ops->alloc(ctx, dev, elems, &x));
    MT_TRY(dev->ops->alloc(ctx, dev, elems, &y));
    if (!m->ffn[layer].moe)
        MT_TRY(dev->ops->alloc(ctx, dev, inner, &h));
    MT_TRY(dev->ops->upload_f64(ctx, dev, x, n, elems));
    for (int twice = 0; twice < 2; twice++) /* the second call finds experts loaded */
        MT_TRY(mt_run_ffn(ctx, l, x, rows, y, h));
    MT_TRY(dev->ops->download_f64(ctx, dev, out->y, y, elems));
    if (h != NULL)
        MT_TRY(dev->ops->download_f64(ctx, dev, out->hidden, h, inner));
    ro = mt_run_routing(l);
    out->m = ro->m;
    for (int64_t i = 0; i < ro->m * ro->k; i++) {
        out->expert[i] = ro->expert[i];
        out->weight[i] = ro->weight[i];
    }
    dev->ops->release(dev, x);
    dev->ops->release(dev, y);
    dev->ops->release(dev, h);
    mt_run_layer_close(l);
    mt_runner_close(r);
    mt_device_close(dev);
    return MT_OK;
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static float *load(struct t *t, const struct mt_model *m, enum mt_role_kind kind, int expert,
                   enum mt_part part)
{
    struct mt_role role = mt_role(kind, 0, expert);
    struct mt_tensor *w;
    float *v = NULL;

    role.part = part;
    w = mt_model_find(m, role);
    if (w != NULL && mt_tensor_load_f32(&t->ctx, w, &v) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return v;
}

/* y[hidden] += scale * block(x) for one token of layer 0, written plainly; hidden may be NULL. */
static void plain_block(struct t *t, const struct mt_model *m, int expert, int64_t width,
                        const double *x, double scale, double *y, double *hidden)
{
    const struct mt_ffn *f = &m->ffn[0];
    int64_t d = m->hp.hidden;
    float *g = load(t, m, MT_ROLE_FFN_GATE, expert, MT_PART_WEIGHT);
    float *gb = load(t, m, MT_ROLE_FFN_GATE, expert, MT_PART_BIAS);
    float *u = load(t, m, MT_ROLE_FFN_UP, expert, MT_PART_WEIGHT);
    float *ub = load(t, m, MT_ROLE_FFN_UP, expert, MT_PART_BIAS);
    float *v = load(t, m, MT_ROLE_FFN_DOWN, expert, MT_PART_WEIGHT);
    float *vb = load(t, m, MT_ROLE_FFN_DOWN, expert, MT_PART_BIAS);

    for (int64_t i = 0; i < width; i++) {
        double a = gb ? (double)gb[i] : 0, b = ub ? (double)ub[i] : 0, h;
        for (int64_t c = 0; c < d; c++) {
            a += g ? (double)g[i * d + c] * x[c] : 0;
            b += (double)u[i * d + c] * x[c];
        }
        h = f->gated ? silu(a) * b : silu(b);
        if (hidden != NULL)
            hidden[i] = h;
        for (int64_t c = 0; c < d; c++)
            y[c] += scale * h * (double)v[c * width + i];
    }
    for (int64_t c = 0; vb != NULL && c < d; c++)
        y[c] += scale * (double)vb[c];
    mt_free(g);
    mt_free(gb);
    mt_free(u);
    mt_free(ub);
    mt_free(v);
    mt_free(vb);
}

static void inputs(double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = cos(1.3 * (double)i) + 0.2 * sin(0.01 * (double)(i * i));
}

T_TEST(dense_blocks_are_what_the_formulas_say)
{
    static const struct toy specs[] = {{.seed = 1, .layers = 1},
                                       {.seed = 2, .layers = 1, .in_bias = true, .out_bias = true},
                                       {.seed = 3, .layers = 1, .ungated = true, .in_bias = true}};

    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        double x[ROWS * 32], want[ROWS * 32] = {0}, hidden[ROWS * 48];
        struct mt_model *m;
        static struct block b;
        T_OK(t, toy_model(&t->ctx, &specs[i], &m));
        inputs(x, ROWS * 32);
        T_OK(t, run_block(&t->ctx, m, 0, "ref", x, ROWS, &b));
        for (int r = 0; r < ROWS; r++)
            plain_block(t, m, MT_EXPERT_NONE, 48, x + r * 32, 1, want + r * 32, hidden + r * 48);
        T_NEAR(t, t_rel_l2_f64(b.y, want, ROWS * 32), 0, 1e-13);
        T_NEAR(t, t_rel_l2_f64(b.hidden, hidden, ROWS * 48), 0, 1e-13);
        T_EQ_INT(t, b.m, 0);
        mt_model_free(m);
    }
}

T_TEST(experts_are_what_the_formulas_say)
{
    static const struct toy specs[] = {
        {.seed = 4, .layers = 1, .experts = 6, .k = 2, .rule = {.renorm = true}},
        {.seed = 5, .layers = 1, .experts = 6, .k = 6, .in_bias = true, .out_bias = true},
        {.seed = 6,
         .layers = 1,
         .experts = 8,
         .k = 3,
         .shared_width = 20,
         .shared_gated = true,
         .rule = {.score = MT_SCORE_SIGMOID, .has_bias = true, .scale = 2}},
        {.seed = 7, .layers = 1, .experts = 3, .k = 1, .shared_width = 5, .ungated = true},
    };

    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        double x[ROWS * 32], want[ROWS * 32] = {0};
        struct mt_model *m;
        static struct block b;
        float *sg;
        T_OK(t, toy_model(&t->ctx, &specs[i], &m));
        inputs(x, ROWS * 32);
        T_OK(t, run_block(&t->ctx, m, 0, "ref", x, ROWS, &b));
        T_EQ_INT(t, b.m, ROWS);
        sg = load(t, m, MT_ROLE_SHARED_GATE, MT_EXPERT_NONE, MT_PART_WEIGHT);
        float *ro = load(t, m, MT_ROLE_ROUTER, MT_EXPERT_NONE, MT_PART_WEIGHT);
        float *sb = load(t, m, MT_ROLE_ROUTER_BIAS, MT_EXPERT_NONE, MT_PART_WEIGHT);
        for (int r = 0; r < ROWS; r++) {
            int n = specs[i].experts, k = specs[i].k;
            double logits[8], bias[8], w[8], s = 0;
            int32_t e[8];
            for (int j = 0; j < n; j++) {
                logits[j] = 0;
                bias[j] = sb != NULL ? (double)sb[j] : 0;
                for (int c = 0; c < 32; c++)
                    logits[j] += (double)ro[j * 32 + c] * x[r * 32 + c];
            }
            mt_router_apply(&m->ffn[0].rule, logits, bias, n, k, e, w);
            for (int j = 0; j < k; j++) {
                T_EQ_INT(t, b.expert[r * k + j], e[j]);
                T_NEAR(t, b.weight[r * k + j], w[j], 1e-12);
                plain_block(t, m, e[j], 48, x + r * 32, w[j], want + r * 32, NULL);
            }
            for (int c = 0; sg != NULL && c < 32; c++)
                s += (double)sg[c] * x[r * 32 + c];
            if (specs[i].shared_width > 0)
                plain_block(t, m, MT_EXPERT_SHARED, specs[i].shared_width, x + r * 32,
                            sg != NULL ? 1 / (1 + exp(-s)) : 1, want + r * 32, NULL);
        }
        T_NEAR(t, t_rel_l2_f64(b.y, want, ROWS * 32), 0, 1e-12);
        mt_free(sg);
        mt_free(ro);
        mt_free(sb);
        mt_model_free(m);
    }
}

/* One expert, always chosen, weight 1: the dense block with the same weights. */
T_TEST(one_expert_is_the_dense_block)
{
    struct toy spec = {.seed = 8, .layers = 1, .experts = 1, .k = 1, .rule = {.renorm = true}};
    double x[ROWS * 32];
    struct mt_model *m;
    static struct block moe, dense;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    inputs(x, ROWS * 32);
    T_OK(t, run_block(&t->ctx, m, 0, "cpu", x, ROWS, &moe));
    for (size_t i = 0; i < m->n_tensors; i++) {
        struct mt_tensor *w = m->tensors[i];
        if (w->role.expert == 0) {
            struct mt_tensor *c;
            T_OK(t, mt_model_add(&t->ctx, m, mt_role(w->role.kind, 0, MT_EXPERT_NONE), w->dtype,
                                 w->rank, w->shape, &c));
            c->src.kind = MT_SRC_ALIAS;
            c->src.alias = w;
        }
    }
    m->ffn[0].moe = false;
    T_OK(t, run_block(&t->ctx, m, 0, "cpu", x, ROWS, &dense));
    T_NEAR(t, t_rel_l2_f64(moe.y, dense.y, ROWS * 32), 0, 1e-6);
    mt_model_free(m);
}

/* Experts that are recipes need counted memory. When the budget is short they are loaded in turn,
 * and the result has the same bits. */
T_TEST(short_memory_changes_no_bit)
{
    struct toy spec = {.seed = 9,
                       .layers = 1,
                       .experts = 16,
                       .k = 4,
                       .width = 512,
                       .hidden = 128,
                       .dtype = MT_BF16};
    struct mt_model *m, *plan;
    static double x[40 * 128];
    struct mt_ctx tight;
    struct mt_ctx_opts o = {.n_threads = 2};
    static struct block a, b;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    for (size_t i = 0; i < plan->n_tensors; i++) {
        struct mt_tensor *w = plan->tensors[i];
        if (w->role.expert >= 0 && w->rank == 2) {
            w->dtype = MT_F32;
            T_OK(t, mt_recipe_cast(&t->ctx, plan, w, m->tensors[i]));
        }
    }
    inputs(x, 40 * 128);
    T_OK(t, run_block(&t->ctx, plan, 0, "cpu", x, 40, &a));
    /* 16 experts of 3 * 512 * 128 * 4 bytes are 12 MiB, one is 0.75; the buffers of 160 rows of
     * experts are 0.8, other buffers less. */
    o.memory_bytes_max = 5u << 20;
    T_OK(t, mt_ctx_open(&tight, &o));
    mt_status st = run_block(&tight, plan, 0, "cpu", x, 40, &b);
    if (st != MT_OK)
        T_FAIL(t, "%s", mt_error(&tight));
    T_CHECK(t, mt_mem_peak(&tight) <= o.memory_bytes_max);
    T_CHECK(t, mt_mem_used(&tight) == 0);
    mt_ctx_close(&tight);
    for (int i = 0; i < 40 * 128; i++)
        T_CHECK(t, a.y[i] == b.y[i]);
    mt_model_free(plan);
    mt_model_free(m);
}

T_TEST(a_missing_expert_is_named)
{
    struct toy spec = {.seed = 10, .layers = 1, .experts = 4, .k = 4};
    double x[ROWS * 32];
    struct mt_model *m;
    struct mt_run_layer *l;
    struct mt_device *dev;
    struct mt_runner *r;
    mt_buf n, y;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    mt_model_remove(m, mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 0, 2)));
    inputs(x, ROWS * 32);
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
    T_OK(t, mt_run_layer_open(&t->ctx, r, 0, &l));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, ROWS * 32, &n));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, ROWS * 32, &y));
    T_OK(t, dev->ops->upload_f64(&t->ctx, dev, n, x, ROWS * 32));
    T_FAILS(t, mt_run_ffn(&t->ctx, l, n, ROWS, y, NULL), MT_E_ABSENT, "experts.2.up_proj");
    dev->ops->release(dev, n);
    dev->ops->release(dev, y);
    mt_run_layer_close(l);
    mt_runner_close(r);
    mt_device_close(dev);
    mt_model_free(m);
}
