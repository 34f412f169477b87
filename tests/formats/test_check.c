#include "formats/table.h"
#include "lib/flow/walk.h"
#include "tests/check_kit.h"
#include "tests/tiny.h"

#include <unistd.h>

static const char *model(struct t *t, const char *name, bool tokenizer)
{
    return tiny_write(t, name,
                      &(struct tiny){.family = "glm4_moe", .shared = 1, .tokenizer = tokenizer});
}

static void edit_config(struct t *t, const char *dir, const char *from, const char *to)
{
    char path[600];

    snprintf(path, sizeof path, "%s/config.json", dir);
    ck_edit(t, path, from, to);
}

T_TEST(every_rule_is_whole)
{
    for (size_t i = 0; mt_check_tables[i] != NULL; i++)
        for (const struct mt_check_rule *r = mt_check_tables[i]; r->name != NULL; r++) {
            T_CHECK(t, r->summary[0] != '\0' && r->remedy[0] != '\0' && r->run != NULL);
            T_CHECK(t, r->engines != 0 && (r->engines & ~MT_FOR_ALL) == 0);
            T_CHECK(t, r->severity > MT_SEVERITY_NONE);
        }
}

T_TEST(engines_are_those_that_take_the_format)
{
    struct mt_check *c;

    T_OK(t, mt_check_path(&t->ctx, model(t, "m", true), 0, &c));
    T_EQ_INT(t, c->engines, MT_FOR_HF | MT_FOR_MOETOOL);
    T_EQ_INT(t, c->n, 0);
    for (int e = 0; e < MT_ENGINE_COUNT; e++)
        T_EQ_INT(t, mt_check_worst(c, (enum mt_engine)e), MT_SEVERITY_NONE);
    mt_check_free(c);
    ck_only(t, model(t, "m", true), MT_ENGINE_LLAMA_CPP, MT_SEVERITY_REFUSED, "format");
}

T_TEST(what_is_not_there_is_no_finding)
{
    struct mt_check *c;

    T_FAILS(t, mt_check_path(&t->ctx, t_path(t, "none"), 0, &c), MT_E_ABSENT, "none");
    T_CHECK(t, c == NULL);
}

T_TEST(a_verdict_is_the_worst_finding)
{
    const char *dir = model(t, "m", false);
    struct mt_check *c;

    edit_config(t, dir, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    T_OK(t, mt_check_path(&t->ctx, dir, 0, &c));
    T_EQ_INT(t, mt_check_worst(c, MT_ENGINE_TRANSFORMERS), MT_SEVERITY_WRONG);
    T_EQ_INT(t, mt_check_worst(c, MT_ENGINE_VLLM), MT_SEVERITY_REFUSED);
    T_EQ_INT(t, mt_check_worst(c, MT_ENGINE_LLAMA_CPP), MT_SEVERITY_NONE);
    mt_check_free(c);
}

/* ---- at the end of a write ---- */

static mt_status written(struct t *t, const char *dir)
{
    struct mt_model *m;
    mt_status st = mt_model_open_lenient(&t->ctx, mt_formats, dir, &m);

    if (st == MT_OK)
        st = mt_check_written(&t->ctx, m);
    mt_model_free(m);
    return st;
}

T_TEST(a_good_result_passes_and_remarks_are_logged)
{
    T_OK(t, written(t, model(t, "m", true)));
    T_EQ_STR(t, t->log, "");
    T_OK(t, written(t, model(t, "n", false)));
    T_CHECK(t, strstr(t->log, "transformers, vllm: tokenizer.json: no tokenizer") != NULL);
}

T_TEST(a_result_that_an_engine_would_refuse_fails)
{
    const char *dir = model(t, "m", true);

    edit_config(t, dir, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    T_FAILS(t, written(t, dir), MT_E_FORMAT, "layers.2.attn_norm is missing; compare config.json");
    dir = model(t, "n", true);
    edit_config(t, dir, "\"rope_theta\"", "\"pad_token_id\": 4096, \"rope_theta\"");
    T_FAILS(t, written(t, dir), MT_E_FORMAT,
            "transformers would not load the result: pad_token_id: 4096 lies outside the "
            "vocabulary of 260: the embedding cannot be made; remove it or name a token");
}

T_TEST(engines_that_do_not_know_the_model_have_no_say)
{
    const char *dir = model(t, "m", true);

    edit_config(t, dir, "\"glm4_moe\"", "\"abacus\"");
    edit_config(t, dir, "Glm4Moe", "Abacus");
    edit_config(t, dir, "\"rope_theta\"", "\"pad_token_id\": 4096, \"rope_theta\"");
    T_OK(t, written(t, dir));
}

static mt_status refuse(struct mt_ctx *ctx, const struct mt_model *result)
{
    return mt_fail(ctx, MT_E_FORMAT, "an engine would not load the %zu tensors", result->n_tensors);
}

T_TEST(a_write_that_is_refused_leaves_nothing)
{
    struct mt_format f = *mt_format_writer("safetensors");
    struct mt_walk_opts o = {.format = &f, .formats = mt_formats, .keep_on_failure = false};
    struct mt_walk_result r;
    struct mt_model *src;
    char out[512], part[560];

    snprintf(out, sizeof out, "%s", t_path(t, "out"));
    snprintf(part, sizeof part, "%s.partial", out);
    f.check = refuse;
    o.out_path = out;
    T_OK(t, mt_model_open(&t->ctx, mt_formats, model(t, "m", true), &src));
    o.source = src;
    T_FAILS(t, mt_walk_run(&t->ctx, &o, &r), MT_E_FORMAT,
            "an engine would not load the 49 tensors");
    T_CHECK(t, access(out, F_OK) != 0 && access(part, F_OK) != 0);
    f.check = mt_format_writer("safetensors")->check;
    T_OK(t, mt_walk_run(&t->ctx, &o, &r));
    T_CHECK(t, access(out, F_OK) == 0);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* Layers that were undeclared in the source are so in a copy: a warning. */
T_TEST(what_the_source_lacks_does_not_stop_a_copy)
{
    const char *dir = model(t, "m", true);

    edit_config(t, dir, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    T_OK(t, written(t, dir));
    T_CHECK(t, strstr(t->log, "vllm: num_nextn_predict_layers: 0, but there are tensors") != NULL);
}

T_TEST(every_allocation_may_fail)
{
    const char *dir = model(t, "m", true);
    uint64_t before = mt_mem_used(&t->ctx);
    mt_status st = MT_E_NOMEM;

    edit_config(t, dir, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    for (uint64_t n = 1; st != MT_OK; n++) {
        struct mt_check *c;
        T_CHECK(t, n < 3000);
        mt_fault_alloc(n);
        st = mt_check_path(&t->ctx, dir, 0, &c);
        mt_fault_alloc(0);
        if (st != MT_OK)
            T_EQ_INT(t, st, MT_E_NOMEM);
        mt_check_free(c);
        T_EQ_INT(t, mt_mem_used(&t->ctx), before);
    }
}
