#include "formats/safetensors.h"
#include "lib/base/path.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define HUB_REF_BYTES_MAX 4096u

/* "Org/Name" or "Name" as the hub allows them: letters, digits, '.', '-' and '_'. */
static bool hub_is_name(const char *name)
{
    size_t n = 0;
    int slashes = 0;

    for (const char *p = name; *p != '\0'; p++) {
        if (*p == '/') {
            if (n == 0 || slashes++ > 0)
                return false;
            n = 0;
        } else if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_' && (*p != '.' || n == 0)) {
            return false;
        } else {
            n++;
        }
    }
    return n > 0;
}

/* Where the cache is: HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or the same below
 * ~/.cache. */
static mt_status hub_cache(struct mt_ctx *ctx, struct mt_arena *a, const char **out)
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME");
    const char *xdg = getenv("XDG_CACHE_HOME"), *user = getenv("HOME");

    if (hub != NULL && hub[0] != '\0')
        return mt_arena_printf(ctx, a, out, "%s", hub);
    if (home != NULL && home[0] != '\0')
        return mt_arena_printf(ctx, a, out, "%s/hub", home);
    if (xdg != NULL && xdg[0] != '\0')
        return mt_arena_printf(ctx, a, out, "%s/huggingface/hub", xdg);
    return mt_arena_printf(ctx, a, out, "%s/.cache/huggingface/hub", user != NULL ? user : "");
}

/* refs/main holds the name of the snapshot that the last download was asked for. */
static mt_status hub_revision(struct mt_ctx *ctx, struct mt_arena *a, const char *repo,
                              const char **rev)
{
    const char *path;
    mt_status st;
    char *text;
    size_t n;

    MT_TRY(mt_arena_printf(ctx, a, &path, "%s/refs/main", repo));
    if (!mt_path_exists(path))
        return mt_fail(ctx, MT_E_ABSENT,
                       "%s: no branch main in the cache; name a directory below %s/snapshots", path,
                       repo);
    MT_TRY(mt_read_file(ctx, path, HUB_REF_BYTES_MAX, &text, &n));
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    if (!mt_path_plain_name(text, n))
        st = mt_fail(ctx, MT_E_FORMAT, "%s: does not name a snapshot", path);
    else
        st = mt_arena_strndup(ctx, a, text, n, rev);
    mt_free(text);
    return st;
}

static mt_status hub_find(struct mt_ctx *ctx, struct mt_arena *a, const char *name,
                          const char **dir)
{
    const char *cache, *repo, *rev = NULL, *slash = strchr(name, '/');
    int org = slash != NULL ? (int)(slash - name) : 0;

    MT_TRY(hub_cache(ctx, a, &cache));
    MT_TRY(mt_arena_printf(ctx, a, &repo, "%s/models--%.*s%s%s", cache, org, name,
                           slash != NULL ? "--" : "", slash != NULL ? slash + 1 : name));
    if (!mt_path_is_dir(repo))
        return mt_fail(ctx, MT_E_ABSENT,
                       "%s: no such file or directory, nor is it in the Hugging Face cache %s; "
                       "moetool downloads nothing, fetch it with the hub's own tool",
                       name, cache);
    MT_TRY(hub_revision(ctx, a, repo, &rev));
    MT_TRY(mt_arena_printf(ctx, a, dir, "%s/snapshots/%s", repo, rev));
    if (!mt_path_is_dir(*dir))
        return mt_fail(ctx, MT_E_ABSENT, "%s: the cache has no such snapshot of %s; fetch it again",
                       *dir, name);
    return MT_OK;
}

static bool hub_probe(const char *path)
{
    return hub_is_name(path) && !mt_path_exists(path);
}

static mt_status hub_open_as(struct mt_ctx *ctx, const char *path, bool lenient,
                             struct mt_model **out)
{
    struct mt_arena a;
    const char *dir = NULL;
    mt_status st;

    *out = NULL;
    mt_arena_init(&a);
    st = hub_find(ctx, &a, path, &dir);
    if (st == MT_OK)
        st = mt_wrap(ctx, mt_hf_dir_open_as(ctx, dir, lenient, out), "%s", path);
    mt_arena_free(&a);
    return st;
}

static mt_status hub_open(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    return hub_open_as(ctx, path, false, out);
}

static mt_status hub_open_lenient(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    return hub_open_as(ctx, path, true, out);
}

const struct mt_format mt_format_hub = {
    .name = "hub",
    .summary = "Org/Name in the local Hugging Face cache",
    .probe = hub_probe,
    .open = hub_open,
    .open_lenient = hub_open_lenient,
};
