#include "kernels/cpu/device_cpu.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <string.h>

mt_status mt_cpu_scratch(struct mt_ctx *ctx, struct cpu_device *cpu, size_t n, float **out)
{
    int worker = mt_pool_worker();

    mt_assert(worker < cpu->n_threads);
    struct cpu_scratch *s = &cpu->scratch[worker];
    if (s->n < n) {
        mt_free(s->p);
        *s = (struct cpu_scratch){NULL, 0};
        MT_TRY(mt_alloc(ctx, n, sizeof *s->p, "scratch of a worker", &s->p));
        s->n = n;
    }
    *out = s->p;
    return MT_OK;
}

static void cpu_close(struct mt_device *dev)
{
    struct cpu_device *cpu = cpu_self(dev);

    for (int i = 0; i < cpu->n_threads; i++)
        mt_free(cpu->scratch[i].p);
    mt_free(cpu->scratch);
    mt_cpu_angles_free(&cpu->angles);
    mt_free(cpu);
    mt_free(dev);
}

static mt_status cpu_alloc(struct mt_ctx *ctx, struct mt_device *dev, size_t n, mt_buf *out)
{
    (void)dev;
    return mt_alloc(ctx, n, sizeof(float), "activations", out);
}

static void cpu_release(struct mt_device *dev, mt_buf buf)
{
    (void)dev;
    mt_free(buf);
}

static mt_status cpu_copy_floats(void *dst, const void *src, size_t n)
{
    if (n > 0)
        memmove(dst, src, n * sizeof(float));
    return MT_OK;
}

static mt_status cpu_upload(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, const float *src,
                            size_t n)
{
    (void)ctx, (void)dev;
    return cpu_copy_floats(dst, src, n);
}

static mt_status cpu_download(struct mt_ctx *ctx, struct mt_device *dev, float *dst, mt_buf src,
                              size_t n)
{
    (void)ctx, (void)dev;
    return cpu_copy_floats(dst, src, n);
}

static mt_status cpu_download_f64(struct mt_ctx *ctx, struct mt_device *dev, double *dst,
                                  mt_buf src, size_t n)
{
    (void)ctx;
    cpu_self(dev)->k->from_f32(MT_F64, src, dst, n);
    return MT_OK;
}

static mt_status cpu_upload_f64(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                                const double *src, size_t n)
{
    (void)ctx;
    cpu_self(dev)->k->to_f32(MT_F64, src, dst, n);
    return MT_OK;
}

static mt_status cpu_copy(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, mt_buf src,
                          size_t n)
{
    (void)ctx, (void)dev;
    return cpu_copy_floats(dst, src, n);
}

static mt_status cpu_zero(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, size_t n)
{
    (void)ctx, (void)dev;
    if (n > 0)
        memset(dst, 0, n * sizeof(float));
    return MT_OK;
}

/* A vector is converted once, here; a matrix tile by tile whenever it is used. */
static mt_status cpu_weight_load(struct mt_ctx *ctx, struct mt_device *dev, enum mt_dtype t,
                                 int64_t rows, int64_t cols, const void *bytes,
                                 struct mt_weight **out)
{
    struct mt_weight *w;

    *out = NULL;
    if (!mt_dtype_is_plain_float(t))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "the device computes with F64, F32, F16 and BF16, not %s; dequantize first",
                       mt_dtype_name(t));
    MT_TRY(mt_alloc(ctx, 1, sizeof *w, "a weight", &w));
    *w = (struct mt_weight){.t = t,
                            .rows = rows,
                            .cols = cols,
                            .row_bytes = (size_t)cols * (mt_dtype_bits(t) / 8),
                            .bytes = bytes};
    if (t == MT_F32 && (uintptr_t)bytes % sizeof(float) == 0) {
        w->direct = bytes;
    } else if (rows == 1) {
        mt_status st = mt_alloc(ctx, (size_t)cols, sizeof(float), "a vector", &w->vector);
        if (st != MT_OK) {
            mt_free(w);
            return st;
        }
        cpu_self(dev)->k->to_f32(t, bytes, w->vector, (size_t)cols);
        w->direct = w->vector;
    }
    *out = w;
    return MT_OK;
}

static void cpu_weight_free(struct mt_device *dev, struct mt_weight *w)
{
    (void)dev;
    if (w != NULL)
        mt_free(w->vector);
    mt_free(w);
}

static const struct mt_device_ops cpu_ops = {
    .close = cpu_close,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_upload,
    .download = cpu_download,
    .download_f64 = cpu_download_f64,
    .upload_f64 = cpu_upload_f64,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .weight_load = cpu_weight_load,
    .weight_free = cpu_weight_free,
    .gemm = mt_cpu_gemm,
    .gemm_grouped = mt_cpu_gemm_grouped,
    .add = mt_cpu_add,
    .scale = mt_cpu_scale,
    .clamp = mt_cpu_clamp,
    .add_bias = mt_cpu_add_bias,
    .scale_rows = mt_cpu_scale_rows,
    .scale_cols = mt_cpu_scale_cols,
    .rmsnorm = mt_cpu_rmsnorm,
    .layernorm = mt_cpu_layernorm,
    .rope = mt_cpu_rope,
    .attention = mt_cpu_attention,
    .act_mul = mt_cpu_act_mul,
    .gather_rows = mt_cpu_gather_rows,
    .combine_rows = mt_cpu_combine_rows,
};

mt_status mt_device_cpu_open(struct mt_ctx *ctx, struct mt_device **out)
{
    struct mt_device *dev = NULL;
    struct cpu_device *cpu = NULL;
    struct cpu_scratch *scratch = NULL;
    int n_threads = mt_ctx_threads(ctx);
    mt_status st = mt_alloc0(ctx, 1, sizeof *dev, "a device", &dev);

    *out = NULL;
    if (st == MT_OK)
        st = mt_alloc0(ctx, 1, sizeof *cpu, "a device", &cpu);
    if (st == MT_OK)
        st = mt_alloc0(ctx, (size_t)n_threads, sizeof *scratch, "a device", &scratch);
    if (st != MT_OK) {
        mt_free(cpu);
        mt_free(dev);
        return st;
    }
    *cpu = (struct cpu_device){.k = mt_kernels_get(), .n_threads = n_threads, .scratch = scratch};
    *dev = (struct mt_device){&cpu_ops, "cpu", sizeof(float), cpu};
    *out = dev;
    return MT_OK;
}
