/* Blocks of small numbers against their definitions, decoded another way. */
#include "tests/tiny.h"

#include <stdlib.h>
#include <sys/stat.h>

/* The value of an E4M3 byte by its definition, from the sign down. */
static double e4m3(unsigned v)
{
    int exponent = (int)(v >> 3 & 15);
    double x = (double)(v & 7) / 8;

    x = exponent == 0 ? x * pow(2, -6) : (1 + x) * pow(2, exponent - 7);
    return v >> 7 ? -x : x;
}

T_TEST(fp8_blocks_are_bytes_times_scales)
{
    struct mt_model *m = tiny_open(t, "tests/golden/deepseek_v3-fp8");
    struct mt_tensor *up;
    unsigned char *bytes;
    float *got, *scale;
    int distinct = 0;

    T_CHECK(t, m != NULL && m->unblocked);
    for (size_t i = 0; i < m->n_tensors; i++)
        T_CHECK(t, m->tensors[i]->role.kind != MT_ROLE_OTHER);
    up = mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 0, MT_EXPERT_NONE));
    T_CHECK(t, up != NULL && up->dtype == MT_BF16 && up->src.kind == MT_SRC_RECIPE);
    const struct mt_tensor *stored = up->src.recipe.in[0], *scales = up->src.recipe.in[1];
    int64_t rows = up->shape[0], cols = up->shape[1];
    T_CHECK(t, stored->dtype == MT_F8_E4M3 && scales->shape[0] == rows / 8 &&
                   scales->shape[1] == cols / 16);
    bytes = malloc((size_t)(rows * cols));
    T_OK(t, mt_tensor_fetch(&t->ctx, stored, 0, rows, bytes));
    T_OK(t, mt_tensor_load_f32(&t->ctx, scales, &scale));
    T_OK(t, mt_tensor_load_f32(&t->ctx, up, &got));
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t r = i / cols, c = i % cols;
        double want = e4m3(bytes[i]) * (double)scale[r / 8 * scales->shape[1] + c / 16];
        T_NEAR(t, got[i], want, fabs(want) / 256 + 1e-30);
        distinct += bytes[i] != bytes[0];
    }
    T_CHECK(t, distinct > 100);
    free(bytes);
    mt_free(scale);
    mt_free(got);
    mt_model_free(m);
}

T_TEST(mxfp4_blocks_are_halves_of_bytes_times_powers)
{
    static const double value[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    struct mt_model *m = tiny_open(t, "tests/golden/gpt_oss-mxfp4");
    const int e = 3;
    struct mt_tensor *up;
    float *got;

    T_CHECK(t, m != NULL && !m->unblocked);
    up = mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 0, e));
    T_CHECK(t, up != NULL && up->shape[0] == 32 && up->shape[1] == 64);
    const struct mt_tensor *blocks = up->src.recipe.in[0], *scales = up->src.recipe.in[1];
    unsigned char b[4 * 64 * 2 * 16], s[4 * 64 * 2];
    T_CHECK(t, mt_tensor_count(blocks) == sizeof b && mt_tensor_count(scales) == sizeof s);
    T_OK(t, mt_tensor_fetch(&t->ctx, blocks, 0, mt_tensor_rows(blocks), b));
    T_OK(t, mt_tensor_fetch(&t->ctx, scales, 0, mt_tensor_rows(scales), s));
    T_OK(t, mt_tensor_load_f32(&t->ctx, up, &got));
    for (int r = 0; r < 32; r++)
        for (int c = 0; c < 64; c++) {
            /* Rows of gate and up take turns; 64 columns are two groups of 32. */
            int group = (e * 64 + 2 * r + 1) * 2 + c / 32;
            unsigned half = (unsigned)b[group * 16 + c % 32 / 2] >> (c % 2 ? 4 : 0) & 15u;
            double want = value[half & 7] * pow(2, s[group] - 127);
            T_NEAR(t, got[r * 64 + c], half & 8 ? -want : want, 0);
        }
    mt_free(got);
    mt_model_free(m);
}

/* The golden model with another block size in its config. */
static const char *with_blocks(struct t *t, const char *name, char rows)
{
    static const char dir[] = "tests/golden/deepseek_v3-fp8";
    char from[256], *text, *at;
    const char *to = t_path(t, name);
    size_t n;

    mkdir(to, 0755);
    snprintf(from, sizeof from, "%s/model.safetensors", dir);
    text = t_read_file(from, &n);
    snprintf(from, sizeof from, "%s/model.safetensors", to);
    t_write_file(t, from, text, n);
    free(text);
    snprintf(from, sizeof from, "%s/config.json", dir);
    text = t_read_file(from, &n);
    /* The first size is one digit in a line of its own. */
    at = strstr(text, "weight_block_size");
    at = at != NULL ? strchr(at, '8') : NULL;
    if (at != NULL)
        *at = rows;
    snprintf(from, sizeof from, "%s/config.json", to);
    t_write_file(t, from, text, n);
    free(text);
    return to;
}

T_TEST(scales_that_do_not_fit_are_named)
{
    T_CHECK(t, tiny_open(t, with_blocks(t, "half", '4')) == NULL);
    T_CHECK(t, strstr(mt_error(&t->ctx), "in blocks of 4 x 16") != NULL);
    T_CHECK(t, tiny_open(t, with_blocks(t, "none", '0')) == NULL);
    T_CHECK(t, strstr(mt_error(&t->ctx), "weight_block_size") != NULL);
}
