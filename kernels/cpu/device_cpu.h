/* device_cpu.h: the inside of the cpu device, for the files of kernels/cpu.
 *
 * Work is cut by shape alone. Each worker has one block of scratch that grows to the largest need
 * and lives as long as the device: fresh pages cost more than the arithmetic they serve.
 */
#ifndef MT_KERNELS_CPU_DEVICE_CPU_H
#define MT_KERNELS_CPU_DEVICE_CPU_H

#include "kernels/device.h"
#include "kernels/kernels.h"

struct mt_weight {
    enum mt_dtype t;
    int64_t rows, cols;
    size_t row_bytes;
    const char *bytes;   /* borrowed */
    const float *direct; /* the elements as floats where no conversion is needed; else NULL */
    float *vector;       /* converted copy of a single row that needed one; else NULL */
};

struct cpu_scratch {
    float *p;
    size_t n;
};

/* cos and sin of a block of positions; q, k and all layers ask for the same ones. */
struct cpu_angles {
    int n, rot_dim, n_max, rot_dim_max;
    double amplitude;
    int32_t *pos;
    double *inv_freq;
    float *cos, *sin; /* [n, rot_dim/2] */
};

struct cpu_device {
    const struct mt_kernels *k;
    int n_threads;
    struct cpu_scratch *scratch; /* [n_threads] */
    struct cpu_angles angles;
};

static inline struct cpu_device *cpu_self(const struct mt_device *dev)
{
    return dev->self;
}

static inline int64_t cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t cpu_tiles(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

/* n floats of the calling worker's scratch; the contents are of no one. */
mt_status mt_cpu_scratch(struct mt_ctx *ctx, struct cpu_device *cpu, size_t n, float **out);

/* device_gemm.c, device_rows.c and device_attention.c hold the operations of these names. */
mt_status mt_cpu_gemm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                      const struct mt_weight *w, bool accumulate);
mt_status mt_cpu_gemm_grouped(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                              int n_groups, const int64_t *offset,
                              const struct mt_weight *const *w);
mt_status mt_cpu_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n);
mt_status mt_cpu_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n);
mt_status mt_cpu_clamp(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double lo, double hi,
                       size_t n);
mt_status mt_cpu_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                          const struct mt_weight *b);
mt_status mt_cpu_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                            int64_t n, const double *s);
mt_status mt_cpu_scale_cols(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                            const struct mt_weight *w);
mt_status mt_cpu_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, double offset, double eps);
mt_status mt_cpu_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                           const struct mt_weight *w, const struct mt_weight *b, double eps);
mt_status mt_cpu_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                      int head_dim, const int32_t *pos, const struct mt_rope *r);
void mt_cpu_angles_free(struct cpu_angles *a);
mt_status mt_cpu_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q,
                           mt_buf k, mt_buf v, const struct mt_attn *a);
mt_status mt_cpu_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                         mt_buf u, size_t n);
mt_status mt_cpu_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                             int64_t n, int64_t d, const int32_t *idx);
mt_status mt_cpu_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                              int64_t m, int k, int64_t d, const int32_t *row, const double *w);

#endif
