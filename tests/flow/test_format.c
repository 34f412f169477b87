#include "lib/flow/format.h"

#include "tests/st_fixture.h"

static bool sees_all(const char *path)
{
    (void)path;
    return true;
}

static bool sees_none(const char *path)
{
    (void)path;
    return false;
}

static mt_status opens(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    (void)path;
    return mt_model_create(ctx, out);
}

static const struct mt_format blind = {.name = "blind", .summary = "nothing", .probe = sees_none};
static const struct mt_format taker = {
    .name = "taker", .summary = "anything", .probe = sees_all, .open = opens};
static const struct mt_format *const all[] = {&blind, &taker, NULL}, *const none[] = {&blind, NULL};

static mt_status open_try(struct t *t, const char *path)
{
    struct mt_model *m;
    mt_status st = mt_model_open(&t->ctx, all, path, &m);

    if (st == MT_OK)
        mt_model_free(m);
    return st;
}

T_TEST(the_first_format_that_knows_the_path_opens_it)
{
    struct mt_model *m;

    T_OK(t, open_try(t, t->dir));
    T_FAILS(t, mt_model_open(&t->ctx, none, t->dir, &m), MT_E_FORMAT, "looked for: nothing");
    T_FAILS(t, mt_model_open(&t->ctx, none, t_path(t, "gone"), &m), MT_E_ABSENT,
            "no such file or directory");
}

T_TEST(unfinished_outputs_are_refused)
{
    static const char want[] = "give the same command again with --resume";
    char slashed[300];
    struct mt_model *m;

    fx_text(t, "out.partial/model.safetensors", "x");
    fx_text(t, "plain/model.safetensors.partial", "x");
    fx_text(t, "journaled/moetool.journal", "x");
    fx_text(t, "journaled/model.safetensors", "x");
    T_FAILS(t, open_try(t, t_path(t, "out.partial")), MT_E_FORMAT, want);
    snprintf(slashed, sizeof slashed, "%s//", t_path(t, "out.partial"));
    T_FAILS(t, open_try(t, slashed), MT_E_FORMAT, want);
    T_FAILS(t, open_try(t, t_path(t, "out.partial/model.safetensors")), MT_E_FORMAT, want);
    T_FAILS(t, open_try(t, t_path(t, "plain/model.safetensors.partial")), MT_E_FORMAT, want);
    T_FAILS(t, open_try(t, t_path(t, "journaled")), MT_E_FORMAT, want);
    T_FAILS(t, open_try(t, t_path(t, "journaled/model.safetensors")), MT_E_FORMAT, want);
    T_OK(t, open_try(t, t_path(t, "plain")));
    /* Who writes it may look at it. */
    T_OK(t, mt_model_open_work(&t->ctx, all, t_path(t, "out.partial"), &m));
    mt_model_free(m);
}
