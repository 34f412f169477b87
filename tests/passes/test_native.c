/* Every model of tests/golden in the native layout, written and read back: the same logits, bit for
 * bit, because no number and no order of summation changes. */
#include "formats/table.h"
#include "lib/ir/family.h"
#include "lib/run/runner.h"
#include "tests/pass_run.h"
#include "tests/t.h"

#include <dirent.h>

#define TOKENS 10
#define VOCAB_MAX 512

static mt_status logits_of(struct t *t, const struct mt_model *m, double *out)
{
    struct mt_device *dev;
    int32_t ids[TOKENS];

    for (int i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)(i * 17 % m->hp.vocab);
    MT_TRY(mt_device_open(&t->ctx, "ref", &dev));
    mt_status st = mt_run_logits(&t->ctx, m, dev, ids, TOKENS, out);
    mt_device_close(dev);
    return st;
}

static void same_after(struct t *t, const char *name)
{
    struct mt_model *src, *m;
    char dir[300], out[512];

    snprintf(dir, sizeof dir, "tests/golden/%s", name);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &src));
    snprintf(out, sizeof out, "%s", t_path(t, name));
    T_OK(t, write_pass(&t->ctx, "native", "", src, out));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &m));
    T_EQ_STR(t, m->family->name, "moetool");
    T_EQ_STR(t, m->base->name, src->base->name);
    for (int l = 0; l < src->hp.n_layers; l++)
        T_CHECK(t, m->ffn[l].moe == src->ffn[l].moe && m->ffn[l].k == src->ffn[l].k &&
                       m->ffn[l].act == src->ffn[l].act &&
                       m->ffn[l].rule.score == src->ffn[l].rule.score);
    if (src->hp.vocab > 0 && !src->hp.both_ways) {
        static double a[TOKENS * VOCAB_MAX], b[TOKENS * VOCAB_MAX];
        T_CHECK(t, src->hp.vocab <= VOCAB_MAX);
        T_OK(t, logits_of(t, src, a));
        T_OK(t, logits_of(t, m, b));
        T_NEAR(t, t_rel_l2_f64(b, a, TOKENS * (size_t)src->hp.vocab), 0, 0);
    }
    mt_model_free(m);
    mt_model_free(src);
}

T_TEST(every_family_is_held_without_a_change)
{
    DIR *d = opendir("tests/golden");
    struct dirent *e;
    int n = 0;

    if (d == NULL)
        T_SKIP(t, "tests/golden is not here");
    while ((e = readdir(d)) != NULL && t->failed == 0) {
        if (e->d_name[0] == '.')
            continue;
        same_after(t, e->d_name);
        if (t->failed != 0)
            printf("    %s\n", e->d_name);
        n++;
    }
    closedir(d);
    T_CHECK(t, n > 30);
}

/* Opening and running a model that uses everything, while any one allocation fails. */
T_TEST(running_out_of_memory_leaks_nothing)
{
    static double logits[TOKENS * VOCAB_MAX];
    mt_status st = MT_E_NOMEM;
    bool waits = false;
    int failures = 0;

    for (uint64_t n = 1; !waits && n < 100000; n += 1 + n / 30, failures++) {
        struct mt_model *m = NULL;
        mt_fault_alloc(n);
        st = mt_model_open(&t->ctx, mt_formats, "tests/golden/moetool", &m);
        if (st == MT_OK)
            st = logits_of(t, m, logits);
        waits = mt_fault_alloc_waits();
        mt_fault_alloc(0);
        mt_model_free(m);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
    }
    T_EQ_INT(t, st, MT_OK);
    T_CHECK(t, failures > 100);
}

T_TEST(a_model_nobody_knows_is_refused)
{
    struct mt_walk_result r;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_FAILS(t, run_pass(&t->ctx, "native", "", m, NULL, &r), MT_E_UNSUPPORTED,
            "model_type (none) is not known");
    mt_model_free(m);
}
