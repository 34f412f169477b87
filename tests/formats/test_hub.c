#include "formats/table.h"

#include "tests/st_fixture.h"

#include <stdlib.h>
#include <unistd.h>

static mt_status open_try(struct t *t, const char *name)
{
    struct mt_model *m;
    mt_status st = mt_model_open(&t->ctx, mt_formats, name, &m);

    if (st == MT_OK)
        mt_model_free(m);
    return st;
}

/* A cache as the hub's client leaves it: refs/main, a snapshot of symlinks, blobs. */
static void cache(struct t *t, const char *root, const char *repo)
{
    char name[256], target[1024];

    snprintf(name, sizeof name, "%s/%s/blobs/b1", root, repo);
    fx_st(t, name, "{\"a\":" FX_ENTRY("U8", "2", 0, 2) "}", 2);
    snprintf(name, sizeof name, "%s/%s/refs/main", root, repo);
    fx_text(t, name, "0123abc");
    snprintf(name, sizeof name, "%s/%s/snapshots/0123abc", root, repo);
    fx_mkdir(t, name);
    snprintf(target, sizeof target, "%s/model.safetensors", t_path(t, name));
    if (symlink("../../blobs/b1", target) != 0)
        t_fail(t, __FILE__, __LINE__, "cannot link");
}

static void env_clear(struct t *t)
{
    unsetenv("HF_HUB_CACHE");
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", t_path(t, "nowhere"), 1);
}

T_TEST(a_name_is_found_in_every_place_of_the_cache)
{
    env_clear(t);
    cache(t, "home/.cache/huggingface/hub", "models--Org--In-Home_1.5");
    cache(t, "xdg/huggingface/hub", "models--Org--InXdg");
    cache(t, "hf/hub", "models--Org--InHfHome");
    cache(t, "direct", "models--Org--InCache");
    setenv("HOME", t_path(t, "home"), 1);
    T_OK(t, open_try(t, "Org/In-Home_1.5"));
    setenv("XDG_CACHE_HOME", t_path(t, "xdg"), 1);
    T_OK(t, open_try(t, "Org/InXdg"));
    setenv("HF_HOME", t_path(t, "hf"), 1);
    T_OK(t, open_try(t, "Org/InHfHome"));
    setenv("HF_HUB_CACHE", t_path(t, "direct"), 1);
    T_OK(t, open_try(t, "Org/InCache"));
    /* The first place decides. */
    T_FAILS(t, open_try(t, "Org/InHfHome"), MT_E_ABSENT, "nor is it in the Hugging Face cache");
    env_clear(t);
}

T_TEST(a_name_without_an_organisation_works_too)
{
    env_clear(t);
    cache(t, "direct", "models--gpt2");
    setenv("HF_HUB_CACHE", t_path(t, "direct"), 1);
    T_OK(t, open_try(t, "gpt2"));
    env_clear(t);
}

T_TEST(absence_is_said_clearly)
{
    env_clear(t);
    setenv("HF_HUB_CACHE", t_path(t, "direct"), 1);
    T_FAILS(t, open_try(t, "Org/Model"), MT_E_ABSENT,
            "Org/Model: no such file or directory, nor is it in the Hugging Face cache");
    T_FAILS(t, open_try(t, "Org/Model"), MT_E_ABSENT, "downloads nothing");
    cache(t, "direct", "models--Org--Model");
    T_OK(t, open_try(t, "Org/Model"));
    fx_text(t, "direct/models--Org--Model/refs/main", "feedbeef\n");
    T_FAILS(t, open_try(t, "Org/Model"), MT_E_ABSENT, "no such snapshot of Org/Model");
    unlink(t_path(t, "direct/models--Org--Model/refs/main"));
    T_FAILS(t, open_try(t, "Org/Model"), MT_E_ABSENT, "no branch main");
    env_clear(t);
}

T_TEST(a_reference_cannot_lead_out_of_the_cache)
{
    env_clear(t);
    cache(t, "direct", "models--Org--Model");
    setenv("HF_HUB_CACHE", t_path(t, "direct"), 1);
    fx_text(t, "direct/models--Org--Model/refs/main", "../../..");
    T_FAILS(t, open_try(t, "Org/Model"), MT_E_FORMAT, "does not name a snapshot");
    fx_text(t, "direct/models--Org--Model/refs/main", "");
    T_FAILS(t, open_try(t, "Org/Model"), MT_E_FORMAT, "does not name a snapshot");
    T_FAILS(t, open_try(t, "../Model"), MT_E_ABSENT, "../Model: no such file or directory");
    T_FAILS(t, open_try(t, "a/b/c"), MT_E_ABSENT, "a/b/c: no such file or directory");
    T_FAILS(t, open_try(t, "a//c"), MT_E_ABSENT, "a//c: no such file or directory");
    env_clear(t);
}
