/* Stands in for device_cuda.cu in a build without CUDA. */
#include "kernels/device.h"

mt_status mt_device_cuda_open(struct mt_ctx *ctx, struct mt_device **out)
{
    *out = NULL;
    return mt_fail(ctx, MT_E_DEVICE,
                   "this moetool was built without CUDA; use --device cpu, or "
                   "build it with make CUDA=1");
}
