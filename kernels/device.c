#include "kernels/device.h"

#include <string.h>

mt_status mt_device_open(struct mt_ctx *ctx, const char *name, struct mt_device **out)
{
    *out = NULL;
    if (strcmp(name, "cpu") == 0)
        return mt_device_cpu_open(ctx, out);
    if (strcmp(name, "ref") == 0)
        return mt_device_ref_open(ctx, out);
    if (strcmp(name, "cuda") == 0)
        return mt_device_cuda_open(ctx, out);
    return mt_fail(ctx, MT_E_OPTION, "there is no device \"%s\"; use cpu, cuda or ref", name);
}

void mt_device_close(struct mt_device *dev)
{
    if (dev != NULL)
        dev->ops->close(dev);
}
