/* stored.cuh: one stored number as a float. */
#ifndef MT_KERNELS_CUDA_STORED_CUH
#define MT_KERNELS_CUDA_STORED_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

static __device__ inline float cuda_float(double x)
{
    return (float)x;
}

static __device__ inline float cuda_float(float x)
{
    return x;
}

static __device__ inline float cuda_float(__half x)
{
    return __half2float(x);
}

static __device__ inline float cuda_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

#endif
