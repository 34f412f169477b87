/* Stored numbers to floats, floats to doubles. Exact but for F64, which is rounded to nearest. */
#include "kernels/cuda/common.cuh"

#include "kernels/cuda/stored.cuh"

template <typename T> static __global__ void convert_to_f32(const T *src, float *dst, size_t n)
{
    CUDA_EACH(i, n) dst[i] = cuda_float(src[i]);
}

static __global__ void convert_to_f64(const float *src, double *dst, size_t n)
{
    CUDA_EACH(i, n) dst[i] = (double)src[i];
}

mt_status cuda_to_f32(struct mt_ctx *ctx, struct cuda_device *cuda, enum mt_dtype t,
                      const void *src, float *dst, size_t n)
{
    if (n == 0)
        return MT_OK;
    switch (t) {
    case MT_F64:
        convert_to_f32<<<cuda_blocks(n), CUDA_THREADS, 0, cuda->stream>>>((const double *)src, dst,
                                                                          n);
        break;
    case MT_F32:
        convert_to_f32<<<cuda_blocks(n), CUDA_THREADS, 0, cuda->stream>>>((const float *)src, dst,
                                                                          n);
        break;
    case MT_F16:
        convert_to_f32<<<cuda_blocks(n), CUDA_THREADS, 0, cuda->stream>>>((const __half *)src, dst,
                                                                          n);
        break;
    default:
        convert_to_f32<<<cuda_blocks(n), CUDA_THREADS, 0, cuda->stream>>>(
            (const __nv_bfloat16 *)src, dst, n);
        break;
    }
    CUDA_LAUNCHED(ctx, "converting a weight");
    return MT_OK;
}

mt_status cuda_to_f64(struct mt_ctx *ctx, struct cuda_device *cuda, const float *src, double *dst,
                      size_t n)
{
    if (n == 0)
        return MT_OK;
    convert_to_f64<<<cuda_blocks(n), CUDA_THREADS, 0, cuda->stream>>>(src, dst, n);
    CUDA_LAUNCHED(ctx, "widening activations");
    return MT_OK;
}
