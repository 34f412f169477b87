#include "lib/ir/ffn.h"

int64_t mt_ffn_active_width(const struct mt_ffn *f)
{
    return f->moe ? f->k * f->width + f->shared_width : f->width;
}

int64_t mt_ffn_total_width(const struct mt_ffn *f)
{
    return f->moe ? f->n_experts * f->width + f->shared_width : f->width;
}
