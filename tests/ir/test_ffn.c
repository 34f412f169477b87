#include "lib/ir/ffn.h"
#include "tests/t.h"

T_TEST(widths)
{
    const struct mt_ffn dense = {.gated = true, .width = 100};
    const struct mt_ffn moe = {
        .moe = true, .gated = true, .width = 48, .n_experts = 8, .k = 2, .shared_width = 96};
    const struct mt_ffn large = {
        .moe = true, .width = (int64_t)1 << 31, .n_experts = 65536, .k = 8};

    T_EQ_INT(t, mt_ffn_active_width(&dense), 100);
    T_EQ_INT(t, mt_ffn_total_width(&dense), 100);
    T_EQ_INT(t, mt_ffn_active_width(&moe), 2 * 48 + 96);
    T_EQ_INT(t, mt_ffn_total_width(&moe), 8 * 48 + 96);
    T_EQ_INT(t, mt_ffn_total_width(&large), (int64_t)1 << 47);
}
