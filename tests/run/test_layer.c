#include "lib/run/runner.h"
#include "tests/t.h"
#include "tests/toy.h"

#define N_MAX 64

#define VOCAB 61

/* Room for logits of N_MAX tokens; one of the last eight. */
static double *logits_room(void)
{
    static double room[8][N_MAX * VOCAB];
    static int turn;

    return room[turn++ % 8];
}

/* Logits of one sequence on a device. */
static double *logits_of(struct t *t, const struct mt_model *m, const char *device,
                         const int32_t *ids, int n)
{
    double *out = logits_room();
    struct mt_device *dev;

    if (mt_device_open(&t->ctx, device, &dev) != MT_OK ||
        mt_run_logits(&t->ctx, m, dev, ids, n, out) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    mt_device_close(dev);
    return out;
}

static double rel(const struct mt_model *m, const double *a, const double *b, int n)
{
    return t_rel_l2_f64(a, b, (size_t)n * (size_t)m->hp.vocab);
}

static const struct toy toy_kinds[] = {
    {.seed = 1},
    {.seed = 2, .qkv_bias = true, .o_bias = true, .in_bias = true, .out_bias = true, .tied = true},
    {.seed = 3, .qk_norm = MT_QK_NORM_HEAD, .heads = 6, .kv_heads = 3, .head_dim = 10},
    {.seed = 4, .qk_norm = MT_QK_NORM_FULL, .heads = 4, .kv_heads = 1},
    {.seed = 5, .ungated = true, .in_bias = true, .out_bias = true},
    {.seed = 6, .experts = 8, .k = 2, .rule = {.score = MT_SCORE_SOFTMAX, .renorm = true}},
    {.seed = 7,
     .experts = 8,
     .k = 3,
     .shared_width = 20,
     .first_dense = 1,
     .rule = {.score = MT_SCORE_SIGMOID,
              .has_bias = true,
              .renorm = true,
              .renorm_eps = 1e-20,
              .scale = 1.5,
              .n_group = 4,
              .topk_group = 2}},
    {.seed = 8,
     .experts = 5,
     .k = 5,
     .shared_width = 7,
     .shared_gated = true,
     .in_bias = true,
     .out_bias = true,
     .rule = {.score = MT_SCORE_SOFTMAX_TOPK}},
};
#define N_KINDS ((int)(sizeof toy_kinds / sizeof toy_kinds[0]))

static void agrees_with_reference(struct t *t, const char *device, double tol)
{
    for (int i = 0; i < N_KINDS; i++) {
        struct mt_model *m;
        int32_t ids[33];
        double *a, *b, d;
        T_OK(t, toy_model(&t->ctx, &toy_kinds[i], &m));
        toy_ids(1, m->hp.vocab, ids, 33);
        a = logits_of(t, m, device, ids, 33);
        b = logits_of(t, m, "ref", ids, 33);
        d = rel(m, a, b, 33);
        mt_model_free(m);
        T_NEAR(t, d, 0, tol);
        T_CHECK(t, d > 0); /* two computations, not one */
    }
}

T_TEST(cpu_agrees_with_the_fp64_reference)
{
    agrees_with_reference(t, "cpu", 3e-6);
}

T_TEST(cuda_agrees_with_the_fp64_reference)
{
    struct mt_device *dev;

    if (mt_device_open(&t->ctx, "cuda", &dev) != MT_OK)
        T_SKIP(t, mt_error(&t->ctx));
    mt_device_close(dev);
    agrees_with_reference(t, "cuda", 1e-5);
}

/* Attention of one layer written again, plainly: the oracle for projections, grouping of heads,
 * causality, window, scale and residual, on the states of one sequence. */
static void plain_attention(const struct mt_hparams *hp, const double *q, const double *k,
                            const double *v, int n, double *out)
{
    int hd = hp->head_dim, group = hp->n_heads / hp->n_kv_heads;
    double scale = hp->attn_scale != 0 ? hp->attn_scale : 1 / sqrt((double)hd);

    for (int i = 0; i < n; i++) {
        for (int h = 0; h < hp->n_heads; h++) {
            double s[N_MAX], sum = 0, *o = out + (i * hp->n_heads + h) * hd;
            int first = hp->sliding_window > 0 && i + 1 > hp->sliding_window
                            ? i + 1 - (int)hp->sliding_window
                            : 0;
            for (int j = first; j <= i; j++) {
                s[j] = 0;
                for (int d = 0; d < hd; d++)
                    s[j] += q[(i * hp->n_heads + h) * hd + d] *
                            k[(j * hp->n_kv_heads + h / group) * hd + d];
                sum += s[j] = exp(s[j] * scale);
            }
            for (int d = 0; d < hd; d++) {
                o[d] = 0;
                for (int j = first; j <= i; j++)
                    o[d] += s[j] / sum * v[(j * hp->n_kv_heads + h / group) * hd + d];
            }
        }
    }
}

static void plain_matmul(struct t *t, const struct mt_model *m, struct mt_role role,
                         const double *x, int n, double *y)
{
    struct mt_tensor *w = mt_model_find(m, role), *b;
    int64_t out = mt_tensor_rows(w), in = mt_tensor_cols(w);
    float *wf, *bf = NULL;

    role.part = MT_PART_BIAS;
    b = mt_model_find(m, role);
    T_OK(t, mt_tensor_load_f32(&t->ctx, w, &wf));
    if (b != NULL)
        T_OK(t, mt_tensor_load_f32(&t->ctx, b, &bf));
    for (int i = 0; i < n; i++) {
        for (int64_t o = 0; o < out; o++) {
            double s = bf != NULL ? (double)bf[o] : 0;
            for (int64_t c = 0; c < in; c++)
                s += x[i * in + c] * (double)wf[o * in + c];
            y[i * out + o] = s;
        }
    }
    mt_free(wf);
    mt_free(bf);
}

static void plain_rmsnorm(struct t *t, const struct mt_model *m, struct mt_role role, double *x,
                          int rows)
{
    struct mt_tensor *w = mt_model_find(m, role);
    int64_t d = mt_tensor_count(w);
    float *wf;

    T_OK(t, mt_tensor_load_f32(&t->ctx, w, &wf));
    for (int i = 0; i < rows; i++) {
        double s = 0;
        for (int64_t c = 0; c < d; c++)
            s += x[i * d + c] * x[i * d + c];
        s = 1 / sqrt(s / (double)d + m->hp.norm_eps);
        for (int64_t c = 0; c < d; c++)
            x[i * d + c] *= s * ((double)wf[c] + m->hp.norm_offset);
    }
    mt_free(wf);
}

static void plain_rope(const struct mt_hparams *hp, double *x, int n, int n_heads)
{
    int hd = hp->head_dim, half = (int)(hd * hp->rope.partial) / 2;

    for (int i = 0; i < n; i++) {
        for (int h = 0; h < n_heads; h++) {
            double *p = x + (i * n_heads + h) * hd;
            for (int f = 0; f < half; f++) {
                double angle = i * pow(hp->rope.theta, -(double)f / half);
                double a = p[f], b = p[f + half];
                p[f] = a * cos(angle) - b * sin(angle);
                p[f + half] = b * cos(angle) + a * sin(angle);
            }
        }
    }
}

/* x += residual_scale * attention(norm(x)) of layer 0, written plainly. */
static void plain_layer(struct t *t, const struct mt_model *m, double *x, int n)
{
    static double nx[N_MAX * 64], q[N_MAX * 64], k[N_MAX * 64], v[N_MAX * 64], o[N_MAX * 64];
    const struct mt_hparams *hp = &m->hp;
    int64_t h = hp->hidden;
    bool head = hp->qk_norm == MT_QK_NORM_HEAD;

    memcpy(nx, x, (size_t)n * (size_t)h * sizeof *x);
    plain_rmsnorm(t, m, mt_role(MT_ROLE_ATTN_NORM, 0, MT_EXPERT_NONE), nx, n);
    plain_matmul(t, m, mt_role(MT_ROLE_ATTN_Q, 0, MT_EXPERT_NONE), nx, n, q);
    plain_matmul(t, m, mt_role(MT_ROLE_ATTN_K, 0, MT_EXPERT_NONE), nx, n, k);
    plain_matmul(t, m, mt_role(MT_ROLE_ATTN_V, 0, MT_EXPERT_NONE), nx, n, v);
    if (hp->qk_norm != MT_QK_NORM_NONE) {
        plain_rmsnorm(t, m, mt_role(MT_ROLE_Q_NORM, 0, MT_EXPERT_NONE), q,
                      head ? n * hp->n_heads : n);
        plain_rmsnorm(t, m, mt_role(MT_ROLE_K_NORM, 0, MT_EXPERT_NONE), k,
                      head ? n * hp->n_kv_heads : n);
    }
    plain_rope(hp, q, n, hp->n_heads);
    plain_rope(hp, k, n, hp->n_kv_heads);
    plain_attention(hp, q, k, v, n, o);
    plain_matmul(t, m, mt_role(MT_ROLE_ATTN_O, 0, MT_EXPERT_NONE), o, n, nx);
    for (int64_t i = 0; i < n * h; i++)
        x[i] += hp->residual_scale * nx[i];
}

/* mt_run_attn of layer 0 on the reference device; x in and out. */
static mt_status run_layer(struct t *t, const struct mt_model *m, double *x, int32_t n)
{
    size_t elems = (size_t)n * (size_t)m->hp.hidden;
    struct mt_seqs seqs = {1, &n};
    struct mt_run_layer *l;
    struct mt_device *dev;
    struct mt_runner *r;
    mt_buf b;

    MT_TRY(mt_device_open(&t->ctx, "ref", &dev));
    MT_TRY(mt_runner_open(&t->ctx, m, dev, &r));
    MT_TRY(mt_run_layer_open(&t->ctx, r, 0, &l));
    MT_TRY(dev->ops->alloc(&t->ctx, dev, elems, &b));
    MT_TRY(dev->ops->upload_f64(&t->ctx, dev, b, x, elems));
    MT_TRY(mt_run_attn(&t->ctx, l, b, &seqs, NULL));
    MT_TRY(dev->ops->download_f64(&t->ctx, dev, x, b, elems));
    dev->ops->release(dev, b);
    mt_run_layer_close(l);
    mt_runner_close(r);
    mt_device_close(dev);
    return MT_OK;
}

T_TEST(attention_is_what_the_formulas_say)
{
    static const struct {
        struct toy spec;
        int64_t window;
        double scale, residual, partial, offset;
    } cases[] = {
        {{.seed = 11, .layers = 1}, 0, 0, 1, 1, 0},
        {{.seed = 12, .layers = 1, .qkv_bias = true, .o_bias = true}, 5, 0, 1, 1, 0},
        {{.seed = 13, .layers = 1, .qk_norm = MT_QK_NORM_HEAD}, 1, 0.2, 1, 0.5, 1},
        {{.seed = 14, .layers = 1, .qk_norm = MT_QK_NORM_FULL, .o_bias = true}, 0, 0, 0.22, 1, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_model *m;
        double x[17 * 32], want[17 * 32];
        T_OK(t, toy_model(&t->ctx, &cases[i].spec, &m));
        m->hp.sliding_window = cases[i].window;
        m->hp.attn_scale = cases[i].scale;
        m->hp.residual_scale = cases[i].residual;
        m->hp.rope.partial = cases[i].partial;
        m->hp.norm_offset = cases[i].offset;
        for (int j = 0; j < 17 * 32; j++)
            x[j] = want[j] = sin(0.7 * j) + 0.1 * (j % 13);
        T_OK(t, run_layer(t, m, x, 17));
        plain_layer(t, m, want, 17);
        T_NEAR(t, t_rel_l2_f64(x, want, 17 * 32), 0, 1e-13);
        mt_model_free(m);
    }
}

/* Two sequences in one batch, each as alone. */
T_TEST(sequences_of_a_batch_do_not_see_each_other)
{
    for (int i = 0; i < N_KINDS; i++) {
        const int32_t len[3] = {7, 1, 12};
        struct mt_model *m;
        struct mt_device *dev;
        struct mt_runner *r;
        struct mt_seqs seqs = {3, len};
        int32_t ids[20];
        double *together, *alone;
        mt_buf x, n, y;
        T_OK(t, toy_model(&t->ctx, &toy_kinds[i], &m));
        size_t elems = 20 * (size_t)m->hp.hidden, vocab = (size_t)m->hp.vocab;
        toy_ids(5, m->hp.vocab, ids, 20);
        together = logits_room();
        T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
        T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
        T_OK(t, dev->ops->alloc(&t->ctx, dev, elems, &x));
        T_OK(t, dev->ops->alloc(&t->ctx, dev, elems, &n));
        T_OK(t, dev->ops->alloc(&t->ctx, dev, elems, &y));
        T_OK(t, mt_run_embed(&t->ctx, r, ids, 20, x));
        for (int l = 0; l < m->hp.n_layers; l++) {
            struct mt_run_layer *layer;
            T_OK(t, mt_run_layer_open(&t->ctx, r, l, &layer));
            T_OK(t, mt_run_attn(&t->ctx, layer, x, &seqs, NULL));
            T_OK(t, mt_run_ffn_norm(&t->ctx, layer, x, 20, n));
            T_OK(t, mt_run_ffn(&t->ctx, layer, n, 20, y, NULL));
            T_OK(t, mt_run_add(&t->ctx, r, x, y, 20));
            mt_run_layer_close(layer);
        }
        T_OK(t, mt_run_head_f64(&t->ctx, r, x, 20, together));
        dev->ops->release(dev, x);
        dev->ops->release(dev, n);
        dev->ops->release(dev, y);
        mt_runner_close(r);
        mt_device_close(dev);
        for (int s = 0, at = 0; s < 3; at += len[s++]) {
            alone = logits_of(t, m, "ref", ids + at, len[s]);
            T_NEAR(t, rel(m, together + (size_t)at * vocab, alone, len[s]), 0, 1e-14);
        }
        mt_model_free(m);
    }
}

/* Positions one by one, or in pieces, through a cache: as the whole sequence at once. */
static mt_status cached_logits(struct t *t, const struct mt_model *m, const int32_t *ids, int n,
                               int piece, double *out)
{
    struct mt_device *dev;
    struct mt_runner *r;
    struct mt_kv_cache *kv;
    mt_buf x, nn, y;

    MT_TRY(mt_device_open(&t->ctx, "ref", &dev));
    MT_TRY(mt_runner_open(&t->ctx, m, dev, &r));
    MT_TRY(mt_kv_create(&t->ctx, r, n, &kv));
    size_t elems = (size_t)n * (size_t)m->hp.hidden;
    MT_TRY(dev->ops->alloc(&t->ctx, dev, elems, &x));
    MT_TRY(dev->ops->alloc(&t->ctx, dev, elems, &nn));
    MT_TRY(dev->ops->alloc(&t->ctx, dev, elems, &y));
    for (int at = 0; at < n; at += piece) {
        int32_t len = n - at < piece ? n - at : piece;
        struct mt_seqs seqs = {1, &len};
        MT_TRY(mt_run_embed(&t->ctx, r, ids + at, len, x));
        for (int l = 0; l < m->hp.n_layers; l++) {
            struct mt_run_layer *layer;
            MT_TRY(mt_run_layer_open(&t->ctx, r, l, &layer));
            MT_TRY(mt_run_attn(&t->ctx, layer, x, &seqs, kv));
            MT_TRY(mt_run_ffn_norm(&t->ctx, layer, x, len, nn));
            MT_TRY(mt_run_ffn(&t->ctx, layer, nn, len, y, NULL));
            MT_TRY(mt_run_add(&t->ctx, r, x, y, len));
            mt_run_layer_close(layer);
        }
        MT_TRY(mt_run_head_f64(&t->ctx, r, x, len, out + (size_t)at * (size_t)m->hp.vocab));
    }
    dev->ops->release(dev, x);
    dev->ops->release(dev, nn);
    dev->ops->release(dev, y);
    mt_kv_free(kv);
    mt_runner_close(r);
    mt_device_close(dev);
    return MT_OK;
}

T_TEST(a_cache_gives_what_the_whole_sequence_gives)
{
    for (int i = 0; i < N_KINDS; i++) {
        struct mt_model *m;
        int32_t ids[23];
        double *whole, *part;
        T_OK(t, toy_model(&t->ctx, &toy_kinds[i], &m));
        m->hp.sliding_window = i % 2 == 0 ? 6 : 0;
        toy_ids(3, m->hp.vocab, ids, 23);
        whole = logits_of(t, m, "ref", ids, 23);
        part = logits_room();
        for (int piece = 1; piece < 20; piece += 8) {
            T_OK(t, cached_logits(t, m, ids, 23, piece, part));
            T_NEAR(t, rel(m, part, whole, 23), 0, 1e-13);
        }
        mt_model_free(m);
    }
}

T_TEST(a_full_cache_is_refused)
{
    struct mt_model *m;
    struct mt_device *dev;
    struct mt_runner *r;
    struct mt_kv_cache *kv;
    struct mt_run_layer *l;
    const int32_t len = 5;
    struct mt_seqs seqs = {1, &len};
    mt_buf x;

    T_OK(t, toy_model(&t->ctx, &toy_kinds[0], &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
    T_OK(t, mt_kv_create(&t->ctx, r, 8, &kv));
    T_OK(t, mt_run_layer_open(&t->ctx, r, 0, &l));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, 5 * (size_t)m->hp.hidden, &x));
    T_OK(t, dev->ops->zero(&t->ctx, dev, x, 5 * (size_t)m->hp.hidden));
    T_OK(t, mt_run_attn(&t->ctx, l, x, &seqs, kv));
    T_FAILS(t, mt_run_attn(&t->ctx, l, x, &seqs, kv), MT_E_LIMIT,
            "10 tokens do not fit a context of 8");
    dev->ops->release(dev, x);
    mt_run_layer_close(l);
    mt_kv_free(kv);
    mt_runner_close(r);
    mt_device_close(dev);
    mt_model_free(m);
}

/* Keys outside the window must not matter: changing a token far back changes nothing. */
T_TEST(a_window_forgets)
{
    struct toy spec = {.seed = 21, .layers = 1};
    struct mt_model *m;
    int32_t ids[20];
    double *a, *b;
    size_t last;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    last = 19 * (size_t)m->hp.vocab;
    toy_ids(4, m->hp.vocab, ids, 20);
    for (int window = 0; window <= 10; window += 10) {
        m->hp.sliding_window = window;
        ids[9] = 1; /* position 19 sees 10..19 with a window of 10 */
        a = logits_of(t, m, "cpu", ids, 20);
        ids[9] = 2;
        b = logits_of(t, m, "cpu", ids, 20);
        double d = t_rel_l2_f64(a + last, b + last, (size_t)m->hp.vocab);
        T_CHECK(t, window == 0 ? d > 1e-4 : d == 0);
    }
    mt_model_free(m);
}

T_TEST(the_same_bits_for_any_thread_count)
{
    struct mt_ctx_opts o = {.seed = 1};

    for (int i = 0; i < N_KINDS; i++) {
        struct mt_model *m;
        int32_t ids[50];
        double *first = NULL;
        T_OK(t, toy_model(&t->ctx, &toy_kinds[i], &m));
        size_t n = 50 * (size_t)m->hp.vocab;
        toy_ids(6, m->hp.vocab, ids, 50);
        for (o.n_threads = 1; o.n_threads <= 4; o.n_threads *= 2) {
            struct mt_ctx ctx;
            struct mt_device *dev;
            double *out = logits_room();
            T_OK(t, mt_ctx_open(&ctx, &o));
            T_CHECK(t, mt_device_open(&ctx, "cpu", &dev) == MT_OK);
            T_CHECK(t, mt_run_logits(&ctx, m, dev, ids, 50, out) == MT_OK);
            mt_device_close(dev);
            mt_ctx_close(&ctx);
            if (first == NULL) {
                first = out;
                continue;
            }
            for (size_t j = 0; j < n; j++)
                T_CHECK(t, first[j] == out[j]);
        }
        mt_model_free(m);
    }
}

T_TEST(a_shape_that_the_config_does_not_give_is_refused)
{
    struct mt_model *m;
    struct mt_device *dev;
    struct mt_runner *r;
    struct mt_run_layer *l;

    T_OK(t, toy_model(&t->ctx, &toy_kinds[0], &m));
    m->hp.n_kv_heads = 4; /* k_proj has the rows of two */
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
    T_FAILS(t, mt_run_layer_open(&t->ctx, r, 0, &l), MT_E_FORMAT, "k_proj is 16 x 32");
    T_CHECK(t, l == NULL);
    mt_runner_close(r);
    mt_device_close(dev);
    mt_model_free(m);
}
