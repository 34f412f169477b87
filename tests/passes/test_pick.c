#include "lib/base/rng.h"
#include "passes/lib/pick.h"
#include "passes/lib/router_fit.h"
#include "passes/lib/targets.h"
#include "tests/t.h"

#define N 11
#define D 5
#define K 4
#define TOKENS 200

T_TEST(the_k_best_logits_are_picked_as_an_engine_would)
{
    static float x[TOKENS * D];
    static unsigned char picked[TOKENS * N];
    static const char *const targets[] = {"glm4_moe", "mixtral", "olmoe"};
    float w[N * D], bias[N];
    struct mt_rng r;

    mt_rng_seed(&r, 3, 0);
    for (int i = 0; i < TOKENS * D; i++)
        x[i] = (float)mt_rng_normal(&r);
    for (int i = 0; i < N * D; i++)
        w[i] = 0.1f * (float)mt_rng_normal(&r);
    for (int e = 0; e < N; e++)
        bias[e] = 0.05f * (float)mt_rng_normal(&r);
    for (int c = 0; c < 4; c++) {
        const struct mt_pick p = {.rule = &mt_target_find(targets[c % 3])->rule,
                                  .n = N,
                                  .k = K,
                                  .bias = c == 3 ? bias : NULL};
        T_OK(t, mt_pick_linear(&t->ctx, &p, D, w, TOKENS, x, picked));
        for (int k = 0; k < TOKENS; k++) {
            float score[N];
            int32_t want[K];
            int n = 0;
            for (int e = 0; e < N; e++) {
                double z = 0;
                for (int i = 0; i < D; i++)
                    z += (double)w[e * D + i] * (double)x[k * D + i];
                score[e] = (float)(c == 3 ? 1 / (1 + exp(-z)) + (double)bias[e] : z);
                n += picked[k * N + e];
            }
            mt_top_k(score, N, K, want);
            T_EQ_INT(t, n, K);
            for (int i = 0; i < K; i++)
                T_EQ_INT(t, picked[k * N + want[i]], 1);
        }
    }
}
