#include "formats/torch_zip.h"

#include "lib/base/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TREE_DEPTH_MAX 64
#define TREE_VISITS_MAX ((size_t)1 << 24)
#define TREE_NAME_MAX 1024u
#define TREE_TENSORS_MAX ((size_t)1 << 20)
#define TREE_NAMES_BYTES_MAX ((size_t)100000000)

struct tree {
    struct mt_ctx *ctx;
    struct mt_arena *arena;
    const char *what;
    struct mt_torch_tree *out;
    const struct mt_pickle *picked; /* its tensors are read, under names that begin there */
    size_t n_visits, names_bytes;
    char name[TREE_NAME_MAX]; /* of the value being visited, from the outermost */
    size_t picked_at;         /* where names of tensors begin; SIZE_MAX outside of `picked` */
};

static bool tree_is(const struct mt_pickle *v, const char *word)
{
    return v->kind == MT_PICKLE_STR && v->text.n == strlen(word) &&
           memcmp(v->text.s, word, v->text.n) == 0;
}

static bool tree_is_container(const struct mt_pickle *v)
{
    return v->kind == MT_PICKLE_DICT || v->kind == MT_PICKLE_LIST || v->kind == MT_PICKLE_TUPLE;
}

/* Pickles may share containers and close circles, so what is small can be endless to walk. */
static mt_status tree_visit(struct tree *t, int depth)
{
    if (depth > TREE_DEPTH_MAX)
        return mt_fail(t->ctx, MT_E_LIMIT, "%s: containers nest deeper than %d", t->what,
                       TREE_DEPTH_MAX);
    if (++t->n_visits > TREE_VISITS_MAX)
        return mt_fail(t->ctx, MT_E_LIMIT,
                       "%s: more than %zu objects once shared ones are told "
                       "apart",
                       t->what, TREE_VISITS_MAX);
    return MT_OK;
}

static mt_status tree_holds_tensors(struct tree *t, const struct mt_pickle *v, int depth, bool *yes)
{
    size_t step = v->kind == MT_PICKLE_DICT ? 2 : 1;

    MT_TRY(tree_visit(t, depth));
    *yes |= v->kind == MT_PICKLE_TENSOR;
    if (!tree_is_container(v))
        return MT_OK;
    for (size_t i = step - 1; !*yes && i < v->list.n; i += step)
        MT_TRY(tree_holds_tensors(t, v->list.v[i], depth + 1, yes));
    return MT_OK;
}

/* ---- which dictionary ---- */

static const struct mt_pickle *tree_member(const struct mt_pickle *dict, const char *key)
{
    for (size_t i = 0; i + 1 < dict->list.n; i += 2) {
        if (tree_is(dict->list.v[i], key))
            return dict->list.v[i + 1];
    }
    return NULL;
}

static bool tree_has_tensors(const struct mt_pickle *dict)
{
    for (size_t i = 1; i < dict->list.n; i += 2) {
        if (dict->list.v[i]->kind == MT_PICKLE_TENSOR)
            return true;
    }
    return false;
}

/* The customary places, the most telling first. */
static mt_status tree_descend(struct tree *t, const struct mt_pickle *dict, const char **key,
                              const struct mt_pickle **found)
{
    static const char *const keys[] = {"state_dict", "model_state_dict", "model_state", "model",
                                       "module",     "weights",          "params",      "net"};

    *found = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const struct mt_pickle *v = tree_member(dict, keys[i]);
        bool yes = false;
        if (v == NULL || v->kind != MT_PICKLE_DICT)
            continue;
        MT_TRY(tree_holds_tensors(t, v, 0, &yes));
        if (!yes)
            continue;
        *key = keys[i];
        *found = v;
        return MT_OK;
    }
    return MT_OK;
}

static mt_status tree_pick(struct tree *t, const struct mt_pickle *root)
{
    t->picked = root;
    for (int depth = 0; t->picked->kind == MT_PICKLE_DICT && !tree_has_tensors(t->picked);
         depth++) {
        const struct mt_pickle *next;
        const char *key = NULL, *under = t->out->under;
        MT_TRY(tree_visit(t, depth));
        MT_TRY(tree_descend(t, t->picked, &key, &next));
        if (next == NULL)
            return MT_OK;
        MT_TRY(mt_arena_printf(t->ctx, t->arena, &t->out->under, "%s%s%s",
                               under != NULL ? under : "", under != NULL ? "." : "", key));
        t->picked = next;
    }
    return MT_OK;
}

/* ---- names and notes ---- */

static mt_status tree_add_tensor(struct tree *t, const struct mt_pickle *v)
{
    struct mt_torch_tree *out = t->out;
    const char *name = t->picked_at == SIZE_MAX ? t->name : t->name + t->picked_at;
    struct mt_torch_found f = {.tensor = v->tensor};

    if (t->picked_at == SIZE_MAX) {
        if (out->n_elsewhere++ == 0)
            MT_TRY(mt_arena_strndup(t->ctx, t->arena, name, strlen(name), &out->elsewhere));
        return MT_OK;
    }
    if (v == t->picked) /* the file is one tensor */
        name = "tensor";
    t->names_bytes += strlen(name) + 1;
    if (out->n >= TREE_TENSORS_MAX || t->names_bytes > TREE_NAMES_BYTES_MAX)
        return mt_fail(t->ctx, MT_E_LIMIT,
                       "%s: more tensors than a checkpoint has, or longer names", t->what);
    MT_TRY(mt_arena_strndup(t->ctx, t->arena, name, strlen(name), &f.name));
    MT_TRY(mt_grow(t->ctx, out->n, &out->cap, sizeof f, "names of tensors", &out->v));
    out->v[out->n++] = f;
    return MT_OK;
}

static mt_status tree_add_note(struct tree *t, const struct mt_pickle *v)
{
    struct mt_torch_tree *out = t->out;
    struct mt_note note = {0};
    char text[MT_SHOW_BYTES + 16];

    if (out->n_notes >= MT_TORCH_NOTES_MAX) {
        out->n_untold++;
        return MT_OK;
    }
    mt_pickle_show(v, text, sizeof text);
    MT_TRY(mt_arena_strndup(t->ctx, t->arena, t->name, strlen(t->name), &note.name));
    MT_TRY(mt_arena_strndup(t->ctx, t->arena, text, strlen(text), &note.text));
    MT_TRY(mt_grow(t->ctx, out->n_notes, &out->cap_notes, sizeof note, "notes", &out->notes));
    out->notes[out->n_notes++] = note;
    return MT_OK;
}

/* Appends ".KEY" to the name of the value being visited. */
static mt_status tree_enter(struct tree *t, const struct mt_pickle *key, size_t index)
{
    size_t at = strlen(t->name), n;
    char number[32];
    const char *s = number;

    if (key != NULL && key->kind == MT_PICKLE_STR) {
        s = key->text.s;
        n = key->text.n;
        if (memchr(s, '\0', n) != NULL)
            return mt_fail(t->ctx, MT_E_FORMAT, "%s: a name with a NUL character", t->what);
    } else {
        if (key != NULL)
            mt_pickle_show(key, number, sizeof number);
        else
            snprintf(number, sizeof number, "%zu", index);
        n = strlen(number);
    }
    if (at + n + 2 > sizeof t->name)
        return mt_fail(t->ctx, MT_E_LIMIT, "%s: a name of more than %u bytes", t->what,
                       TREE_NAME_MAX);
    if (at > 0)
        t->name[at++] = '.';
    memcpy(t->name + at, s, n);
    t->name[at + n] = '\0';
    return MT_OK;
}

/* ---- the walk ---- */

static mt_status tree_walk(struct tree *t, const struct mt_pickle *v, int depth);

static mt_status tree_children(struct tree *t, const struct mt_pickle *v, int depth)
{
    bool dict = v->kind == MT_PICKLE_DICT;
    size_t n = dict ? v->list.n / 2 : v->list.n, at = strlen(t->name);

    for (size_t i = 0; i < n; i++) {
        MT_TRY(tree_enter(t, dict ? v->list.v[2 * i] : NULL, i));
        MT_TRY(tree_walk(t, v->list.v[dict ? 2 * i + 1 : i], depth + 1));
        t->name[at] = '\0';
    }
    return MT_OK;
}

static mt_status tree_walk(struct tree *t, const struct mt_pickle *v, int depth)
{
    size_t outer = t->picked_at, at = strlen(t->name);
    bool here = v == t->picked && outer == SIZE_MAX, holds = v->kind == MT_PICKLE_DICT;
    mt_status st = MT_OK;

    MT_TRY(tree_visit(t, depth));
    if (here)
        t->picked_at = at > 0 ? at + 1 : 0;
    if (v->kind == MT_PICKLE_LIST || v->kind == MT_PICKLE_TUPLE)
        st = tree_holds_tensors(t, v, depth, &holds);
    if (st == MT_OK) {
        if (v->kind == MT_PICKLE_TENSOR)
            st = tree_add_tensor(t, v);
        else if (holds)
            st = tree_children(t, v, depth);
        else
            st = tree_add_note(t, v);
    }
    t->picked_at = outer;
    return st;
}

/* ---- afterwards ---- */

/* How wrappers of modules name what is inside. */
static void tree_take_prefix_off(struct mt_torch_tree *out)
{
    static const char *const prefixes[] = {"module.", "_orig_mod."};

    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t n = strlen(prefixes[i]);
        bool all = out->n > 0;
        for (size_t k = 0; all && k < out->n; k++)
            all = strncmp(out->v[k].name, prefixes[i], n) == 0 && out->v[k].name[n] != '\0';
        if (!all)
            continue;
        for (size_t k = 0; k < out->n; k++)
            out->v[k].name += n;
        out->prefix_off = prefixes[i];
        return;
    }
}

static int tree_by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mt_status tree_check_twice(struct tree *t)
{
    const struct mt_torch_tree *out = t->out;
    char show[MT_SHOW_BYTES];
    mt_status st = MT_OK;
    const char **v;

    if (out->n < 2)
        return MT_OK;
    MT_TRY(mt_alloc(t->ctx, out->n, sizeof *v, "names of tensors", &v));
    for (size_t i = 0; i < out->n; i++)
        v[i] = out->v[i].name;
    qsort(v, out->n, sizeof *v, tree_by_name);
    for (size_t i = 1; st == MT_OK && i < out->n; i++) {
        if (strcmp(v[i - 1], v[i]) == 0)
            st = mt_fail(t->ctx, MT_E_FORMAT, "%s: two tensors are called \"%s\"", t->what,
                         mt_show_name(v[i], show));
    }
    mt_free(v);
    return st;
}

void mt_torch_tree_free(struct mt_torch_tree *tree)
{
    mt_free(tree->v);
    mt_free(tree->notes);
    *tree = (struct mt_torch_tree){0};
}

mt_status mt_torch_tree_read(struct mt_ctx *ctx, const struct mt_pickle *root, const char *what,
                             struct mt_arena *arena, struct mt_torch_tree *out)
{
    struct tree t = {.ctx = ctx, .arena = arena, .what = what, .out = out, .picked_at = SIZE_MAX};

    *out = (struct mt_torch_tree){0};
    MT_TRY(tree_pick(&t, root));
    MT_TRY(tree_walk(&t, root, 0));
    tree_take_prefix_off(out);
    return tree_check_twice(&t);
}
