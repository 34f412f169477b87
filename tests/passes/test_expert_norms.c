#include "lib/base/rng.h"
#include "passes/lib/expert_norms.h"
#include "passes/lib/neurons.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <stdlib.h>

#define W 53
#define D 32
#define N 6
#define M 700 /* more than two blocks of tokens */

T_TEST(norms_are_those_of_the_experts_outputs)
{
    struct mt_model *m = tiny_open(t, tiny_write(t, "m", &(struct tiny){.width = W, .seed = 1}));
    static float h[M * W], norms[M * N];
    struct mt_expert_norms *en;
    struct mt_dense_ffn f;
    struct mt_split *s;
    struct mt_rng r;
    int32_t owner[W];
    float *v;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_dense_ffn_find(&t->ctx, m, 1, &f));
    T_OK(t, mt_split_create(&t->ctx, W, N, 1, &s));
    T_OK(t, mt_split_random(&t->ctx, s, 0, owner));
    mt_split_fill(s, owner);
    T_OK(t, mt_tensor_load_f32(&t->ctx, f.down, &v));
    mt_rng_seed(&r, 2, 0);
    for (int i = 0; i < M * W; i++)
        h[i] = (float)mt_rng_normal(&r);
    T_OK(t, mt_expert_norms_create(&t->ctx, f.down, s, &en));
    T_OK(t, mt_expert_norms_run(&t->ctx, en, M, h, norms));
    for (int token = 0; token < M; token++) {
        for (int e = 0; e < N; e++) {
            double sum = 0;
            for (int i = 0; i < D; i++) {
                double y = 0;
                for (int j = 0; j < W; j++)
                    if (owner[j] == e)
                        y += (double)v[i * W + j] * (double)h[token * W + j];
                sum += y * y;
            }
            T_NEAR(t, norms[token * N + e], sqrt(sum), 1e-5 * sqrt(sum) + 1e-7);
        }
    }
    mt_free(v);
    mt_expert_norms_free(en);
    mt_split_free(s);
    mt_model_free(m);
}
