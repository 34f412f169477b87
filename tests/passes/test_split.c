#include "tests/t.h"
#include "lib/base/rng.h"
#include "passes/lib/split.h"

T_TEST(lists_have_one_width_and_hold_every_neuron_once)
{
    for (int width = 1; width <= 40; width++) {
        for (int n = 1; n <= 7; n++) {
            for (int shared = 0; shared <= 3; shared++) {
                struct mt_split *s;
                int32_t owner[40];
                int64_t cap[7], sum = 0;
                int seen[40] = {0}, pad = 0;
                mt_status st = mt_split_create(&t->ctx, width, n, shared, &s);
                if (st != MT_OK) {
                    /* Refused only when some expert would have been empty. */
                    int64_t w = (width + n + shared - 1) / (n + shared);
                    T_EQ_INT(t, st, MT_E_OPTION);
                    T_CHECK(t, width - shared * w < n);
                    continue;
                }
                T_OK(t, mt_split_random(&t->ctx, s, 5, owner));
                mt_split_fill(s, owner);
                mt_split_capacities(s, cap);
                for (int e = 0; e < n; e++) {
                    T_CHECK(t, cap[e] >= 1 && cap[e] <= s->expert_width);
                    sum += cap[e];
                    const int32_t *idx = mt_split_expert(s, e);
                    for (int i = 0; i < s->expert_width; i++)
                        T_CHECK(t, (idx[i] >= 0) == (i < cap[e]));
                }
                T_EQ_INT(t, sum, width - mt_split_shared_width(s));
                for (int i = 0; i < (n + shared) * s->expert_width; i++) {
                    if (s->idx[i] < 0)
                        pad++;
                    else
                        seen[s->idx[i]]++;
                }
                T_EQ_INT(t, pad, mt_split_padding(s));
                for (int j = 0; j < width; j++)
                    T_EQ_INT(t, seen[j], 1);
                mt_split_free(s);
            }
        }
    }
}

T_TEST(contiguous_lists_are_slices)
{
    const int32_t want[] = {0, 1, 2, 3, 4, 5, 6, 7, -1};
    struct mt_split *s;
    int32_t owner[8];

    T_OK(t, mt_split_create(&t->ctx, 8, 2, 1, &s));
    mt_split_contiguous(s, owner);
    mt_split_fill(s, owner);
    for (int i = 0; i < 9; i++)
        T_EQ_INT(t, s->idx[i], want[i]);
    mt_split_free(s);
}

T_TEST(the_best_are_shared_and_ties_go_to_the_lowest_index)
{
    const double score[] = {1, 5, 2, 5, 5, 0, 3, 3};
    const int32_t pool_want[] = {0, 2, 4, 5, 6, 7};
    struct mt_split *s;
    int32_t owner[8], pool[8];

    T_OK(t, mt_split_create(&t->ctx, 8, 3, 1, &s));
    T_OK(t, mt_split_share_best(&t->ctx, s, score, owner, pool));
    for (int j = 0; j < 8; j++)
        T_EQ_INT(t, owner[j] == MT_SPLIT_SHARED, j == 1 || j == 3);
    for (int i = 0; i < 6; i++)
        T_EQ_INT(t, pool[i], pool_want[i]);
    mt_split_free(s);
}

T_TEST(repeated_lists_hold_every_neuron_once_a_copy)
{
    struct mt_split *one, *s;
    int32_t owner[11];

    T_OK(t, mt_split_create(&t->ctx, 11, 3, 0, &one));
    mt_split_contiguous(one, owner);
    mt_split_fill(one, owner);
    T_OK(t, mt_split_repeat(&t->ctx, one, 4, &s));
    T_EQ_INT(t, s->n_experts, 12);
    T_EQ_INT(t, mt_split_entries(s), 48);
    T_EQ_INT(t, mt_split_padding(s), 4);
    for (int e = 0; e < 12; e++)
        T_CHECK(t, memcmp(mt_split_expert(s, e), mt_split_expert(one, e % 3),
                          4 * sizeof(int32_t)) == 0);
    mt_split_free(s);
    mt_split_free(one);
}

T_TEST(the_checksum_sees_a_single_neuron)
{
    struct mt_split *s;
    int32_t owner[8];
    char a[17], b[17];

    T_OK(t, mt_split_create(&t->ctx, 8, 4, 0, &s));
    mt_split_contiguous(s, owner);
    mt_split_fill(s, owner);
    mt_split_checksum(s, a);
    owner[0] = 3;
    owner[7] = 0;
    mt_split_fill(s, owner);
    mt_split_checksum(s, b);
    T_EQ_INT(t, strlen(a), 16);
    T_CHECK(t, strcmp(a, b) != 0);
    mt_split_free(s);
}
