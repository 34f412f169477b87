/* The oracle: fp64 elements, the textbook's formula in the textbook's order. Nothing here is
 * clever; only the matrix product goes through BLAS, tile by tile. */
#include "kernels/device.h"
#include "kernels/kernels.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <string.h>

struct mt_weight {
    enum mt_dtype t;
    int64_t rows, cols;
    const char *bytes;
};

/* Elements [first, first + n) of a weight in fp64; *given*. */
static mt_status ref_values(struct mt_ctx *ctx, const struct mt_weight *w, int64_t first, int64_t n,
                            double **out)
{
    const char *p = w->bytes + (size_t)first * (mt_dtype_bits(w->t) / 8);
    float *f;

    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof **out, "a weight in fp64", out));
    if (w->t == MT_F64) {
        if (n > 0)
            memcpy(*out, p, (size_t)n * sizeof **out);
        return MT_OK;
    }
    mt_status st = mt_alloc(ctx, (size_t)n, sizeof *f, "a weight in fp32", &f);
    if (st != MT_OK) {
        mt_free(*out);
        return st;
    }
    mt_kernels_named("ref")->to_f32(w->t, p, f, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = (double)f[i];
    mt_free(f);
    return MT_OK;
}

static void ref_close(struct mt_device *dev)
{
    mt_free(dev);
}

static mt_status ref_alloc(struct mt_ctx *ctx, struct mt_device *dev, size_t n, mt_buf *out)
{
    (void)dev;
    return mt_alloc(ctx, n, sizeof(double), "activations", out);
}

static void ref_release(struct mt_device *dev, mt_buf buf)
{
    (void)dev;
    mt_free(buf);
}

static mt_status ref_upload(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, const float *src,
                            size_t n)
{
    double *d = dst;

    (void)ctx, (void)dev;
    for (size_t i = 0; i < n; i++)
        d[i] = (double)src[i];
    return MT_OK;
}

static mt_status ref_download(struct mt_ctx *ctx, struct mt_device *dev, float *dst, mt_buf src,
                              size_t n)
{
    const double *s = src;

    (void)ctx, (void)dev;
    for (size_t i = 0; i < n; i++)
        dst[i] = (float)s[i];
    return MT_OK;
}

static mt_status ref_download_f64(struct mt_ctx *ctx, struct mt_device *dev, double *dst,
                                  mt_buf src, size_t n)
{
    (void)ctx, (void)dev;
    if (n > 0)
        memcpy(dst, src, n * sizeof *dst);
    return MT_OK;
}

static mt_status ref_upload_f64(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                                const double *src, size_t n)
{
    (void)ctx, (void)dev;
    if (n > 0)
        memcpy(dst, src, n * sizeof *src);
    return MT_OK;
}

static mt_status ref_copy(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, mt_buf src,
                          size_t n)
{
    (void)ctx, (void)dev;
    if (n > 0)
        memmove(dst, src, n * sizeof(double));
    return MT_OK;
}

static mt_status ref_zero(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, size_t n)
{
    (void)ctx, (void)dev;
    if (n > 0)
        memset(dst, 0, n * sizeof(double));
    return MT_OK;
}

static mt_status ref_weight_load(struct mt_ctx *ctx, struct mt_device *dev, enum mt_dtype t,
                                 int64_t rows, int64_t cols, const void *bytes,
                                 struct mt_weight **out)
{
    (void)dev;
    *out = NULL;
    if (!mt_dtype_is_plain_float(t))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "the device computes with F64, F32, F16 and BF16, "
                       "not %s; dequantize first",
                       mt_dtype_name(t));
    MT_TRY(mt_alloc(ctx, 1, sizeof **out, "a weight", out));
    **out = (struct mt_weight){t, rows, cols, bytes};
    return MT_OK;
}

static void ref_weight_free(struct mt_device *dev, struct mt_weight *w)
{
    (void)dev;
    mt_free(w);
}

enum { REF_TILE = 64 };

struct ref_gemm {
    double *y;
    const double *x;
    int64_t m;
    const struct mt_weight *w;
    bool accumulate;
};

static mt_status ref_gemm_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct ref_gemm *g = arg;
    int64_t n = g->w->rows, k = g->w->cols, j0 = i * REF_TILE;
    int64_t rows = n - j0 < REF_TILE ? n - j0 : REF_TILE;
    double *tile;

    MT_TRY(ref_values(ctx, g->w, j0 * k, rows * k, &tile));
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)g->m, (int)rows, (int)k, 1.0, g->x,
                (int)k, tile, (int)k, g->accumulate ? 1.0 : 0.0, g->y + j0, (int)n);
    mt_free(tile);
    return MT_OK;
}

static mt_status ref_gemm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                          const struct mt_weight *w, bool accumulate)
{
    struct ref_gemm g = {.y = y, .x = x, .m = m, .w = w, .accumulate = accumulate};

    (void)dev;
    if (m == 0)
        return MT_OK;
    mt_assert(m <= INT_MAX && w->rows <= INT_MAX && w->cols <= INT_MAX);
    return mt_pool_run(ctx, (w->rows + REF_TILE - 1) / REF_TILE, ref_gemm_job, &g);
}

static mt_status ref_gemm_grouped(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                                  int n_groups, const int64_t *offset,
                                  const struct mt_weight *const *w)
{
    double *yd = y, *xd = x;

    for (int e = 0; e < n_groups; e++) {
        if (offset[e + 1] == offset[e])
            continue;
        MT_TRY(ref_gemm(ctx, dev, yd + offset[e] * w[e]->rows, xd + offset[e] * w[e]->cols,
                        offset[e + 1] - offset[e], w[e], false));
    }
    return MT_OK;
}

static mt_status ref_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n)
{
    double *yd = y, *xd = x;

    (void)ctx, (void)dev;
    for (size_t i = 0; i < n; i++)
        yd[i] += xd[i];
    return MT_OK;
}

static mt_status ref_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n)
{
    double *yd = y;

    (void)ctx, (void)dev;
    for (size_t i = 0; i < n; i++)
        yd[i] *= s;
    return MT_OK;
}

static mt_status ref_clamp(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double lo,
                           double hi, size_t n)
{
    double *yd = y;

    (void)ctx, (void)dev;
    for (size_t i = 0; i < n; i++)
        yd[i] = yd[i] < lo ? lo : yd[i] > hi ? hi : yd[i];
    return MT_OK;
}

static mt_status ref_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                              const struct mt_weight *b)
{
    int64_t n = b->rows * b->cols;
    double *yd = y, *bd;

    (void)dev;
    MT_TRY(ref_values(ctx, b, 0, n, &bd));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            yd[i * n + j] += bd[j];
    mt_free(bd);
    return MT_OK;
}

static mt_status ref_scale_cols(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                                const struct mt_weight *w)
{
    int64_t n = w->rows * w->cols;
    double *yd = y, *wd;

    (void)dev;
    MT_TRY(ref_values(ctx, w, 0, n, &wd));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            yd[i * n + j] *= wd[j];
    mt_free(wd);
    return MT_OK;
}

static mt_status ref_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                                int64_t n, const double *s)
{
    double *yd = y;

    (void)ctx, (void)dev;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            yd[i * n + j] *= s[i];
    return MT_OK;
}

static mt_status ref_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                             int64_t m, const struct mt_weight *w, double offset, double eps)
{
    int64_t d = w->rows * w->cols;
    double *wd;

    (void)dev;
    MT_TRY(ref_values(ctx, w, 0, d, &wd));
    for (int64_t i = 0; i < m; i++) {
        double *yi = (double *)y + i * d, *xi = (double *)x + i * d, sum = 0;
        for (int64_t j = 0; j < d; j++)
            sum += xi[j] * xi[j];
        double norm = sqrt(sum / (double)d + eps);
        for (int64_t j = 0; j < d; j++)
            yi[j] = xi[j] / norm * (wd[j] + offset);
    }
    mt_free(wd);
    return MT_OK;
}

static mt_status ref_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                               int64_t m, const struct mt_weight *w, const struct mt_weight *b,
                               double eps)
{
    int64_t d = w->rows * w->cols;
    double *wd, *bd = NULL;

    (void)dev;
    MT_TRY(ref_values(ctx, w, 0, d, &wd));
    mt_status st = b != NULL ? ref_values(ctx, b, 0, d, &bd) : MT_OK;
    for (int64_t i = 0; st == MT_OK && i < m; i++) {
        double *yi = (double *)y + i * d, *xi = (double *)x + i * d, mean = 0, var = 0;
        for (int64_t j = 0; j < d; j++)
            mean += xi[j] / (double)d;
        for (int64_t j = 0; j < d; j++)
            var += (xi[j] - mean) * (xi[j] - mean) / (double)d;
        for (int64_t j = 0; j < d; j++)
            yi[j] = (xi[j] - mean) / sqrt(var + eps) * wd[j] + (bd != NULL ? bd[j] : 0.0);
    }
    if (st == MT_OK)
        mt_free(bd);
    mt_free(wd);
    return st;
}

static mt_status ref_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m,
                          int n_heads, int head_dim, const int32_t *pos, const struct mt_rope *r)
{
    int half = r->rot_dim / 2;

    (void)ctx, (void)dev;
    for (int64_t i = 0; i < m * n_heads; i++) {
        double *h = (double *)x + i * head_dim;
        int64_t token = i / n_heads;
        for (int j = 0; j < half; j++) {
            double angle = (double)pos[token] * r->inv_freq[j];
            double c = cos(angle) * r->amplitude, s = sin(angle) * r->amplitude;
            double *a = r->half_split ? h + j : h + 2 * j;
            double *b = r->half_split ? h + j + half : h + 2 * j + 1;
            double a0 = *a, b0 = *b;
            *a = a0 * c - b0 * s;
            *b = b0 * c + a0 * s;
        }
    }
    return MT_OK;
}

struct ref_attention {
    double *out;
    const double *q, *k, *v;
    const struct mt_attn *a;
};

/* One query of one head: the weights of the keys it sees, then their average value. */
static mt_status ref_attention_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct ref_attention *r = arg;
    const struct mt_attn *a = r->a;
    int d = a->head_dim, head = (int)(i % a->n_heads), kv = head / (a->n_heads / a->n_kv_heads);
    int at = a->n_k - a->n_q + (int)(i / a->n_heads);
    int from = a->window > 0 && at + 1 > a->window ? at + 1 - a->window : 0;
    int last = a->both_ways ? a->n_k - 1 : at;
    const double *q = r->q + i * d;
    double *out = r->out + i * d, *p, max = -INFINITY, sum = 0;

    MT_TRY(mt_alloc(ctx, (size_t)a->n_k, sizeof *p, "attention weights", &p));
    for (int j = from; j <= last; j++) {
        const double *k = r->k + ((int64_t)j * a->n_kv_heads + kv) * d;
        double s = 0;
        for (int e = 0; e < d; e++)
            s += q[e] * k[e];
        s *= a->scale;
        p[j] = a->softcap > 0.0 ? a->softcap * tanh(s / a->softcap) : s;
        max = p[j] > max ? p[j] : max;
    }
    if (a->sinks != NULL) {
        max = a->sinks[head] > max ? a->sinks[head] : max;
        sum = exp(a->sinks[head] - max);
    }
    for (int j = from; j <= last; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
    }
    for (int e = 0; e < d; e++)
        out[e] = 0;
    for (int j = from; j <= last; j++)
        for (int e = 0; e < d; e++)
            out[e] += p[j] / sum * r->v[((int64_t)j * a->n_kv_heads + kv) * d + e];
    mt_free(p);
    return MT_OK;
}

static mt_status ref_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q,
                               mt_buf k, mt_buf v, const struct mt_attn *a)
{
    struct ref_attention r = {.out = out, .q = q, .k = k, .v = v, .a = a};

    (void)dev;
    return mt_pool_run(ctx, (int64_t)a->n_q * a->n_heads, ref_attention_job, &r);
}

static mt_status ref_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                             mt_buf u, size_t n)
{
    double *hd = h, *gd = g, *ud = u;

    (void)ctx, (void)dev;
    for (size_t i = 0; i < n; i++)
        hd[i] = mt_act_f64((enum mt_act)act, gd[i]) * (ud != NULL ? ud[i] : 1.0);
    return MT_OK;
}

static mt_status ref_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                                 int64_t n, int64_t d, const int32_t *idx)
{
    double *yd = y, *xd = x;

    (void)ctx, (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < d; j++)
            yd[i * d + j] = xd[idx[i] * d + j];
    return MT_OK;
}

static mt_status ref_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                                  int64_t m, int k, int64_t d, const int32_t *row, const double *w)
{
    double *yd = y, *xd = x;

    (void)ctx, (void)dev;
    for (int64_t t = 0; t < m; t++)
        for (int s = 0; s < k; s++)
            for (int64_t j = 0; row[t * k + s] >= 0 && j < d; j++)
                yd[t * d + j] += w[t * k + s] * xd[row[t * k + s] * d + j];
    return MT_OK;
}

static const struct mt_device_ops ref_ops = {
    .close = ref_close,
    .alloc = ref_alloc,
    .release = ref_release,
    .upload = ref_upload,
    .download = ref_download,
    .download_f64 = ref_download_f64,
    .upload_f64 = ref_upload_f64,
    .copy = ref_copy,
    .zero = ref_zero,
    .weight_load = ref_weight_load,
    .weight_free = ref_weight_free,
    .gemm = ref_gemm,
    .gemm_grouped = ref_gemm_grouped,
    .add = ref_add,
    .scale = ref_scale,
    .clamp = ref_clamp,
    .add_bias = ref_add_bias,
    .scale_rows = ref_scale_rows,
    .scale_cols = ref_scale_cols,
    .rmsnorm = ref_rmsnorm,
    .layernorm = ref_layernorm,
    .rope = ref_rope,
    .attention = ref_attention,
    .act_mul = ref_act_mul,
    .gather_rows = ref_gather_rows,
    .combine_rows = ref_combine_rows,
};

mt_status mt_device_ref_open(struct mt_ctx *ctx, struct mt_device **out)
{
    MT_TRY(mt_alloc(ctx, 1, sizeof **out, "a device", out));
    **out = (struct mt_device){&ref_ops, "ref", sizeof(double), NULL};
    return MT_OK;
}
