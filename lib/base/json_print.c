#include "lib/base/json_node.h"

#include "lib/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json_out {
    struct mt_ctx *ctx;
    char *text;
    size_t n, cap;
};

static mt_status json_put(struct json_out *o, const char *s, size_t n)
{
    if (o->cap - o->n < n + 1) {
        size_t cap = 2 * o->cap + n + 256;
        MT_TRY(mt_realloc(o->ctx, cap, 1, "JSON text", &o->text));
        o->cap = cap;
    }
    memcpy(o->text + o->n, s, n);
    o->n += n;
    o->text[o->n] = '\0';
    return MT_OK;
}

static mt_status json_put_str(struct json_out *o, const char *s)
{
    return json_put(o, s, strlen(s));
}

static mt_status json_put_line(struct json_out *o, int depth)
{
    MT_TRY(json_put(o, "\n", 1));
    for (int i = 0; i < depth; i++)
        MT_TRY(json_put(o, "  ", 2));
    return MT_OK;
}

static mt_status json_put_quoted(struct json_out *o, const char *s)
{
    static const char plain[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    char esc[8];

    MT_TRY(json_put(o, "\"", 1));
    while (*s != '\0') {
        size_t run = 0;
        while ((unsigned char)s[run] >= 0x20 && s[run] != '"' && s[run] != '\\')
            run++;
        MT_TRY(json_put(o, s, run));
        s += run;
        if (*s == '\0')
            break;
        const char *hit = strchr(plain, *s);
        if (hit != NULL)
            snprintf(esc, sizeof esc, "\\%c", letters[hit - plain]);
        else
            snprintf(esc, sizeof esc, "\\u%04x", (unsigned)(unsigned char)*s);
        MT_TRY(json_put_str(o, esc));
        s++;
    }
    return json_put(o, "\"", 1);
}

/* A fraction keeps a point or exponent, so that readers that tell 1 from 1.0 see what was there. */
static mt_status json_put_num(struct json_out *o, double v)
{
    char buf[40];

    if (isnan(v))
        return json_put_str(o, "NaN");
    if (isinf(v))
        return json_put_str(o, v > 0 ? "Infinity" : "-Infinity");
    if (fabs(v) < 1e16 && floor(v) >= v) {
        snprintf(buf, sizeof buf, "%.1f", v);
        return json_put_str(o, buf);
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, v);
        double back = strtod(buf, NULL);
        if (!(back < v || back > v))
            break;
    }
    return json_put_str(o, buf);
}

static mt_status json_put_value(struct json_out *o, const struct mt_json *j, int depth);

static mt_status json_put_members(struct json_out *o, const struct mt_json *j, int depth)
{
    bool object = j->kind == MT_JSON_OBJECT, flat = !object;

    /* An array of nothing but numbers stays on one line. */
    for (const struct mt_json *c = j->first; c != NULL && flat; c = c->next)
        flat = c->kind == MT_JSON_NUMBER;
    MT_TRY(json_put_str(o, object ? "{" : "["));
    for (const struct mt_json *c = j->first; c != NULL; c = c->next) {
        if (c != j->first)
            MT_TRY(json_put_str(o, flat ? ", " : ","));
        if (!flat)
            MT_TRY(json_put_line(o, depth + 1));
        if (object) {
            MT_TRY(json_put_quoted(o, c->key));
            MT_TRY(json_put_str(o, ": "));
        }
        MT_TRY(json_put_value(o, c, depth + 1));
    }
    if (!flat && j->first != NULL)
        MT_TRY(json_put_line(o, depth));
    return json_put_str(o, object ? "}" : "]");
}

static mt_status json_put_value(struct json_out *o, const struct mt_json *j, int depth)
{
    char buf[32];

    if (j->broken)
        return mt_fail(o->ctx, MT_E_NOMEM, "out of memory while building JSON");
    switch (j->kind) {
    case MT_JSON_ARRAY:
    case MT_JSON_OBJECT:
        return json_put_members(o, j, depth);
    case MT_JSON_STRING:
        return json_put_quoted(o, j->text);
    case MT_JSON_BOOL:
        return json_put_str(o, j->truth ? "true" : "false");
    case MT_JSON_NUMBER:
        if (!j->whole)
            return json_put_num(o, j->num);
        snprintf(buf, sizeof buf, "%" PRId64, j->integer);
        return json_put_str(o, buf);
    case MT_JSON_ABSENT:
    case MT_JSON_NULL:
        break;
    }
    return json_put_str(o, "null");
}

mt_status mt_json_print(struct mt_ctx *ctx, const struct mt_json *j, char **text, size_t *n)
{
    struct json_out o = {.ctx = ctx};
    mt_status st;

    *text = NULL;
    *n = 0;
    if (j == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory while building JSON");
    st = json_put_value(&o, j, 0);
    if (st == MT_OK)
        st = json_put(&o, "\n", 1);
    if (st != MT_OK) {
        mt_free(o.text);
        return st;
    }
    *text = o.text;
    *n = o.n;
    return MT_OK;
}

static struct mt_json *json_copy_node(const struct mt_json *j)
{
    struct mt_json *c = mt_json_node_new(j->kind);
    const char *const texts[2] = {j->key, j->kind == MT_JSON_STRING ? j->text : NULL};
    char *copies[2] = {NULL, NULL};

    for (int i = 0; c != NULL && i < 2; i++) {
        size_t n = texts[i] == NULL ? 0 : strlen(texts[i]) + 1;
        if (n > 0 && (copies[i] = malloc(n)) == NULL) {
            free(copies[0]);
            free(c);
            return NULL;
        }
        if (n > 0)
            memcpy(copies[i], texts[i], n);
    }
    if (c == NULL)
        return NULL;
    c->key = copies[0];
    c->whole = j->whole;
    c->broken = j->broken;
    if (j->kind == MT_JSON_STRING)
        c->text = copies[1];
    else if (j->kind == MT_JSON_NUMBER && j->whole)
        c->integer = j->integer;
    else if (j->kind == MT_JSON_NUMBER)
        c->num = j->num;
    else if (j->kind == MT_JSON_BOOL)
        c->truth = j->truth;
    for (const struct mt_json *m = mt_json_first(j); m != NULL; m = m->next) {
        struct mt_json *child = json_copy_node(m);
        if (child == NULL) {
            mt_json_free(c);
            return NULL;
        }
        mt_json_node_append(c, child);
    }
    return c;
}

mt_status mt_json_copy(struct mt_ctx *ctx, const struct mt_json *j, struct mt_json **out)
{
    *out = j == NULL ? NULL : json_copy_node(j);
    if (*out == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory while copying JSON");
    free((*out)->key); /* a copy of a member is a root of its own */
    (*out)->key = NULL;
    return MT_OK;
}
