#include "lib/run/runner.h"

#include "tests/t.h"
#include "tests/toy.h"

T_TEST(an_unknown_family_is_refused_by_name)
{
    const struct toy spec = {.seed = 1};
    struct mt_runner *r;
    struct mt_device *dev;
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    m->family = NULL;
    m->model_type = "gpt_oss";
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_FAILS(t, mt_runner_open(&t->ctx, m, dev, &r), MT_E_UNSUPPORTED,
            "no forward pass for model_type \"gpt_oss\"");
    T_CHECK(t, r == NULL);
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(what_cannot_be_routed_is_refused)
{
    const struct toy spec = {.seed = 1, .experts = 6, .k = 2};
    struct mt_runner *r;
    struct mt_device *dev;
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    m->ffn[1].rule.n_group = 4;
    T_FAILS(t, mt_runner_open(&t->ctx, m, dev, &r), MT_E_UNSUPPORTED, "layer 1: 2 of 6 experts");
    m->ffn[1].rule.n_group = 1;
    m->hp.n_kv_heads = 3;
    T_FAILS(t, mt_runner_open(&t->ctx, m, dev, &r), MT_E_FORMAT, "4 attention heads");
    mt_device_close(dev);
    mt_model_free(m);
}

/* Embedding rows times embed_scale; logits of a planted state are rows of lm_head. */
T_TEST(embedding_and_head)
{
    const struct toy spec = {.seed = 2, .tied = true};
    const int32_t ids[3] = {60, 0, 17};
    struct mt_runner *r;
    struct mt_device *dev;
    struct mt_model *m;
    double x[3 * 32], logits[3 * 61];
    float *e, *w;
    mt_buf b;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    m->hp.embed_scale = 0.5;
    m->hp.logit_scale = 3;
    T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
    T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, 3 * 32, &b));
    T_OK(t, mt_run_embed(&t->ctx, r, ids, 3, b));
    T_OK(t, dev->ops->download_f64(&t->ctx, dev, x, b, 3 * 32));
    T_OK(t, mt_tensor_load_f32(&t->ctx,
                               mt_model_find(m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE)), &e));
    T_OK(t, mt_tensor_load_f32(
                &t->ctx, mt_model_find(m, mt_role(MT_ROLE_FINAL_NORM, -1, MT_EXPERT_NONE)), &w));
    T_OK(t, mt_run_head_f64(&t->ctx, r, b, 3, logits));
    for (int i = 0; i < 3; i++) {
        double ms = 0;
        for (int c = 0; c < 32; c++) {
            T_NEAR(t, x[i * 32 + c], 0.5 * (double)e[ids[i] * 32 + c], 0);
            ms += x[i * 32 + c] * x[i * 32 + c] / 32;
        }
        for (int v = 0; v < 61; v++) {
            double want = 0;
            for (int c = 0; c < 32; c++)
                want += 3 * x[i * 32 + c] / sqrt(ms + 1e-5) * (double)w[c] * (double)e[v * 32 + c];
            T_NEAR(t, logits[i * 61 + v], want, 1e-11);
        }
    }
    mt_free(e);
    mt_free(w);
    dev->ops->release(dev, b);
    mt_runner_close(r);
    mt_device_close(dev);
    mt_model_free(m);
}

/* A plan that changes nothing computes the same bits. */
T_TEST(a_plan_runs_as_its_source)
{
    const struct toy spec = {.seed = 3, .experts = 4, .k = 2, .tied = true};
    struct mt_model *m, *plan;
    struct mt_device *dev;
    int32_t ids[30];
    double a[30 * 61], b[30 * 61];

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    toy_ids(1, 61, ids, 30);
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_run_logits(&t->ctx, m, dev, ids, 30, a));
    T_OK(t, mt_run_logits(&t->ctx, plan, dev, ids, 30, b));
    for (int i = 0; i < 30 * 61; i++)
        T_CHECK(t, a[i] == b[i]);
    mt_device_close(dev);
    mt_model_free(plan);
    mt_model_free(m);
}

T_TEST(batches_depend_on_shapes_only)
{
    const struct toy spec = {.seed = 4};
    struct mt_runner *r, *s;
    struct mt_device *dev;
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
    T_OK(t, mt_runner_open_with(&t->ctx, m, r, &s));
    T_EQ_INT(t, mt_runner_batch_tokens(r), 2048);
    T_CHECK(t, mt_runner_batch_bytes(r, 100) >= 100 * (32 + 48 + 48) * dev->elem_bytes);
    T_EQ_INT(t, mt_runner_layer_bytes(r, 0), 0); /* everything is borrowed */
    T_CHECK(t, mt_runner_model(s) == m && mt_runner_device(s) == dev);
    m->ffn[0].width = 1 << 20;
    T_EQ_INT(t, mt_runner_batch_tokens(r), 256);
    mt_runner_close(s);
    mt_runner_close(r);
    mt_device_close(dev);
    mt_model_free(m);
}
