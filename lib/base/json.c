#include "lib/base/json_node.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JSON_WHOLE_MAX 9007199254740992.0 /* 2^53 */

void *json_malloc(size_t n)
{
    return mt_fault_alloc_now() ? NULL : calloc(1, n);
}

struct mt_json *mt_json_node_new(enum mt_json_kind kind)
{
    struct mt_json *j = json_malloc(sizeof *j);

    if (j != NULL)
        *j = (struct mt_json){.kind = kind};
    return j;
}

static bool json_holds(const struct mt_json *j)
{
    return j != NULL && (j->kind == MT_JSON_ARRAY || j->kind == MT_JSON_OBJECT);
}

void mt_json_node_append(struct mt_json *parent, struct mt_json *child)
{
    if (parent->last != NULL)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->count++;
}

/* Iterative, because depth is limited for parsed trees only. */
void mt_json_free(struct mt_json *root)
{
    struct mt_json *j = root;

    while (j != NULL) {
        struct mt_json *next = j->next;
        if (json_holds(j) && j->first != NULL) {
            j->last->next = next;
            next = j->first;
        }
        free(j->key);
        if (j->kind == MT_JSON_STRING)
            free(j->text);
        if (j->root)
            mt_mem_refund(((struct json_root *)j)->budget, ((struct json_root *)j)->bytes);
        free(j);
        j = next;
    }
}

enum mt_json_kind mt_json_kind(const struct mt_json *j)
{
    return j == NULL ? MT_JSON_ABSENT : j->kind;
}

struct mt_json *mt_json_get(const struct mt_json *obj, const char *key)
{
    if (mt_json_kind(obj) != MT_JSON_OBJECT)
        return NULL;
    for (struct mt_json *c = obj->first; c != NULL; c = c->next) {
        if (strcmp(c->key, key) == 0)
            return c;
    }
    return NULL;
}

struct mt_json *mt_json_first(const struct mt_json *j)
{
    return json_holds(j) ? j->first : NULL;
}

struct mt_json *mt_json_next(const struct mt_json *j)
{
    return j == NULL ? NULL : j->next;
}

const char *mt_json_key(const struct mt_json *j)
{
    return j == NULL ? NULL : j->key;
}

size_t mt_json_count(const struct mt_json *j)
{
    return json_holds(j) ? j->count : 0;
}

const char *mt_json_text(const struct mt_json *j)
{
    return mt_json_kind(j) == MT_JSON_STRING ? j->text : NULL;
}

bool mt_json_number(const struct mt_json *j, double *out)
{
    double v;

    if (mt_json_kind(j) != MT_JSON_NUMBER)
        return false;
    v = j->whole ? (double)j->integer : j->num;
    if (!isfinite(v))
        return false;
    *out = v;
    return true;
}

bool mt_json_integer(const struct mt_json *j, int64_t *out)
{
    double v;

    if (!mt_json_number(j, &v) || fabs(v) > JSON_WHOLE_MAX || floor(v) < v)
        return false;
    *out = j->whole ? j->integer : (int64_t)v;
    return *out <= (int64_t)JSON_WHOLE_MAX && *out >= -(int64_t)JSON_WHOLE_MAX;
}

bool mt_json_truth(const struct mt_json *j, bool *out)
{
    if (mt_json_kind(j) != MT_JSON_BOOL)
        return false;
    *out = j->truth;
    return true;
}

static mt_status json_wrong(struct mt_ctx *ctx, const struct mt_json *j, const char *want)
{
    static const char *const kinds[] = {"absent",   "null",     "true or false", "a number",
                                        "a string", "an array", "an object"};
    double v;

    if (j->kind == MT_JSON_STRING)
        return mt_fail(ctx, MT_E_FORMAT, "\"%s\" is \"%.40s\", expected %s", j->key, j->text, want);
    if (mt_json_number(j, &v))
        return mt_fail(ctx, MT_E_FORMAT, "\"%s\" is %.17g, expected %s", j->key, v, want);
    return mt_fail(ctx, MT_E_FORMAT, "\"%s\" is %s, expected %s", j->key, kinds[j->kind], want);
}

/* The member to read, or NULL when the default applies. */
static const struct mt_json *json_given(const struct mt_json *obj, const char *key)
{
    const struct mt_json *j = mt_json_get(obj, key);

    return mt_json_kind(j) == MT_JSON_NULL ? NULL : j;
}

mt_status mt_json_get_int(struct mt_ctx *ctx, const struct mt_json *obj, const char *key,
                          int64_t dflt, int64_t *out)
{
    const struct mt_json *j = json_given(obj, key);

    *out = dflt;
    if (j != NULL && !mt_json_integer(j, out))
        return json_wrong(ctx, j, "a whole number");
    return MT_OK;
}

mt_status mt_json_get_num(struct mt_ctx *ctx, const struct mt_json *obj, const char *key,
                          double dflt, double *out)
{
    const struct mt_json *j = json_given(obj, key);

    *out = dflt;
    if (j != NULL && !mt_json_number(j, out))
        return json_wrong(ctx, j, "a finite number");
    return MT_OK;
}

mt_status mt_json_get_bool(struct mt_ctx *ctx, const struct mt_json *obj, const char *key,
                           bool dflt, bool *out)
{
    const struct mt_json *j = json_given(obj, key);

    *out = dflt;
    if (j != NULL && !mt_json_truth(j, out))
        return json_wrong(ctx, j, "true or false");
    return MT_OK;
}

mt_status mt_json_get_str(struct mt_ctx *ctx, const struct mt_json *obj, const char *key,
                          const char *dflt, const char **out)
{
    const struct mt_json *j = json_given(obj, key);

    *out = dflt;
    if (j == NULL)
        return MT_OK;
    if (j->kind != MT_JSON_STRING)
        return json_wrong(ctx, j, "a string");
    *out = j->text;
    return MT_OK;
}

/* ---- writing: every setter accepts what an earlier failure left (NULL) ---- */

static char *json_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = json_malloc(n);

    if (copy != NULL)
        memcpy(copy, s, n);
    return copy;
}

static struct mt_json *json_new_text(const char *v)
{
    struct mt_json *j = mt_json_node_new(MT_JSON_STRING);

    if (j != NULL && (j->text = json_strdup(v)) == NULL) {
        free(j);
        j = NULL;
    }
    return j;
}

static struct mt_json *json_new_int(int64_t v)
{
    struct mt_json *j = mt_json_node_new(MT_JSON_NUMBER);

    if (j != NULL) {
        j->whole = true;
        j->integer = v;
    }
    return j;
}

static struct mt_json *json_new_num(double v)
{
    struct mt_json *j = mt_json_node_new(isfinite(v) ? MT_JSON_NUMBER : MT_JSON_NULL);

    if (j != NULL)
        j->num = v;
    return j;
}

struct mt_json *mt_json_new_object(void)
{
    return mt_json_node_new(MT_JSON_OBJECT);
}

struct mt_json *mt_json_new_array(void)
{
    return mt_json_node_new(MT_JSON_ARRAY);
}

/* Puts `value` where `old` stood; ends `old`. */
static void json_swap(struct mt_json *obj, struct mt_json *old, struct mt_json *value)
{
    struct mt_json **link = &obj->first;

    while (*link != old)
        link = &(*link)->next;
    *link = value;
    value->next = old->next;
    if (obj->last == old)
        obj->last = value;
    old->next = NULL;
    mt_json_free(old);
}

void mt_json_set(struct mt_json *obj, const char *key, struct mt_json *value)
{
    struct mt_json *old = mt_json_get(obj, key);
    char *name = json_strdup(key);

    if (obj == NULL || value == NULL || name == NULL) {
        if (obj != NULL)
            obj->broken = true;
        mt_json_free(value);
        free(name);
        return;
    }
    mt_assert(obj->kind == MT_JSON_OBJECT && value->next == NULL && value->key == NULL);
    value->key = name;
    if (old != NULL)
        json_swap(obj, old, value);
    else
        mt_json_node_append(obj, value);
}

void mt_json_set_int(struct mt_json *obj, const char *key, int64_t v)
{
    mt_json_set(obj, key, json_new_int(v));
}

void mt_json_set_num(struct mt_json *obj, const char *key, double v)
{
    mt_json_set(obj, key, json_new_num(v));
}

void mt_json_set_bool(struct mt_json *obj, const char *key, bool v)
{
    struct mt_json *j = mt_json_node_new(MT_JSON_BOOL);

    if (j != NULL)
        j->truth = v;
    mt_json_set(obj, key, j);
}

void mt_json_set_str(struct mt_json *obj, const char *key, const char *v)
{
    mt_json_set(obj, key, v == NULL ? mt_json_node_new(MT_JSON_NULL) : json_new_text(v));
}

void mt_json_set_null(struct mt_json *obj, const char *key)
{
    mt_json_set(obj, key, mt_json_node_new(MT_JSON_NULL));
}

void mt_json_remove(struct mt_json *obj, const char *key)
{
    struct mt_json *j = mt_json_get(obj, key), *before = NULL;

    if (j == NULL)
        return;
    for (struct mt_json *c = obj->first; c != j; c = c->next)
        before = c;
    if (before != NULL)
        before->next = j->next;
    else
        obj->first = j->next;
    if (obj->last == j)
        obj->last = before;
    obj->count--;
    j->next = NULL;
    mt_json_free(j);
}

struct mt_json *mt_json_set_object(struct mt_json *obj, const char *key)
{
    mt_json_set(obj, key, mt_json_new_object());
    return mt_json_get(obj, key);
}

struct mt_json *mt_json_set_array(struct mt_json *obj, const char *key)
{
    mt_json_set(obj, key, mt_json_new_array());
    return mt_json_get(obj, key);
}

void mt_json_add(struct mt_json *arr, struct mt_json *value)
{
    if (arr == NULL || value == NULL) {
        if (arr != NULL)
            arr->broken = true;
        mt_json_free(value);
        return;
    }
    mt_assert(arr->kind == MT_JSON_ARRAY && value->next == NULL && value->key == NULL);
    mt_json_node_append(arr, value);
}

void mt_json_add_int(struct mt_json *arr, int64_t v)
{
    mt_json_add(arr, json_new_int(v));
}

void mt_json_add_num(struct mt_json *arr, double v)
{
    mt_json_add(arr, json_new_num(v));
}

void mt_json_add_str(struct mt_json *arr, const char *v)
{
    mt_json_add(arr, json_new_text(v));
}

struct mt_json *mt_json_add_object(struct mt_json *arr)
{
    struct mt_json *j = mt_json_new_object();

    mt_json_add(arr, j);
    return arr == NULL ? NULL : j;
}
