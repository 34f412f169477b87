#include "passes/lib/spill.h"
#include "tests/t.h"

#include <dirent.h>
#include <stdlib.h>

T_TEST(what_is_put_aside_comes_back_rounded_to_its_type)
{
    const float values[] = {1, 2.0f / 3, -3, 99, 4, 5, 6e-3f, 99};
    const int64_t shape[2] = {2, 3}, one[1] = {3};
    const enum mt_dtype types[] = {MT_F32, MT_BF16, MT_F32};
    struct mt_spill *s;
    struct mt_model *m;
    struct mt_tensor *r[3];
    float back[6];

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_spill_begin(&t->ctx, &s));
    for (int i = 0; i < 3; i++) {
        struct mt_role role = mt_role(MT_ROLE_FFN_DOWN, i, MT_EXPERT_NONE);
        T_OK(t,
             mt_model_add(&t->ctx, m, role, types[i], i < 2 ? 2 : 1, i < 2 ? shape : one, &r[i]));
        T_OK(t, mt_spill_put(&t->ctx, s, r[i], values, 4, i == 0 ? 1 : 2));
    }
    T_OK(t, mt_spill_end(&t->ctx, s, m));
    for (int i = 0; i < 3; i++) {
        int64_t rows = i < 2 ? 2 : 1;
        T_OK(t, mt_tensor_fetch_f32(&t->ctx, r[i], 0, rows, back));
        for (int k = 0; k < 3 * rows; k++) {
            float want = values[k / 3 * 4 + k % 3] * (i == 0 ? 1 : 2);
            T_NEAR(t, back[k], want, i == 1 ? 4e-3 * fabs((double)want) : 0);
        }
        if (i == 1)
            T_CHECK(t, back[1] != values[1] * 2); /* BF16 */
    }
    mt_model_free(m);
}

/* However the process ends, nothing is left where scratch files go. */
T_TEST(the_file_never_has_a_name_for_long)
{
    const char *was = getenv("TMPDIR");
    char kept[4096] = "";
    struct mt_spill *s;
    struct dirent *e;
    int names = 0;

    if (was != NULL)
        snprintf(kept, sizeof kept, "%s", was);
    setenv("TMPDIR", t->dir, 1);
    T_OK(t, mt_spill_begin(&t->ctx, &s));
    DIR *d = opendir(t->dir);
    while ((e = readdir(d)) != NULL)
        names += e->d_name[0] != '.';
    closedir(d);
    T_EQ_INT(t, names, 0);
    mt_spill_free(s);
    setenv("TMPDIR", t_path(t, "absent"), 1);
    T_FAILS(t, mt_spill_begin(&t->ctx, &s), MT_E_IO,
            "absent: cannot create a scratch file for fitted weights; TMPDIR may name another");
    if (was != NULL)
        setenv("TMPDIR", kept, 1);
    else
        unsetenv("TMPDIR");
}

T_TEST(nothing_put_aside_is_nothing)
{
    struct mt_spill *s;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_spill_begin(&t->ctx, &s));
    T_OK(t, mt_spill_end(&t->ctx, s, m));
    T_EQ_INT(t, m->n_maps, 0);
    T_OK(t, mt_spill_begin(&t->ctx, &s));
    mt_spill_free(s);
    mt_model_free(m);
}
