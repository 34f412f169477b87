#include "lib/base/json_node.h"
#include "lib/base/json_scan.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct json_parse {
    struct mt_scan s;
    struct json_root *root;
};

static mt_status json_nomem(struct mt_scan *s)
{
    return mt_fail(s->ctx, MT_E_NOMEM, "%s: out of memory", s->what);
}

/* What malloc takes for n bytes, about. */
static mt_status json_charge(struct json_parse *p, size_t n)
{
    uint64_t bytes = (n + 8 + 15) / 16 * 16;

    MT_TRY(mt_mem_charge(p->s.ctx, bytes, p->s.what));
    p->root->bytes += bytes;
    return MT_OK;
}

/* *out is malloc'ed. */
static mt_status json_dup(struct json_parse *p, struct mt_scan_text text, char **out)
{
    *out = NULL;
    MT_TRY(json_charge(p, text.n + 1));
    *out = json_malloc(text.n + 1);
    if (*out == NULL)
        return json_nomem(&p->s);
    memcpy(*out, text.s, text.n);
    (*out)[text.n] = '\0';
    return MT_OK;
}

/* raw is well-formed; NaN and Infinity are what strtod calls them, too. */
static mt_status json_number(struct mt_scan *s, struct mt_scan_text raw, struct mt_json *j)
{
    char buf[400];

    if (raw.n >= sizeof buf)
        return mt_scan_fail(s, raw.s, "a number of more than 400 characters");
    memcpy(buf, raw.s, raw.n);
    buf[raw.n] = '\0';
    j->kind = MT_JSON_NUMBER;
    j->whole = raw.n <= 18 && strspn(buf, "-0123456789") == raw.n;
    if (j->whole)
        j->integer = strtoll(buf, NULL, 10);
    else
        j->num = strtod(buf, NULL);
    return MT_OK;
}

static mt_status json_scalar(struct json_parse *p, struct mt_json *j)
{
    struct mt_scan *s = &p->s;
    struct mt_scan_text text;

    if (mt_scan_peek(s) == '"') {
        char *copy;
        MT_TRY(mt_scan_string(s, &text));
        MT_TRY(json_dup(p, text, &copy));
        j->kind = MT_JSON_STRING;
        j->text = copy;
        return MT_OK;
    }
    MT_TRY(mt_scan_skip(s, &text));
    switch (text.s[0]) {
    case 'n':
        return MT_OK; /* as the node was made */
    case 't':
    case 'f':
        j->kind = MT_JSON_BOOL;
        j->truth = text.s[0] == 't';
        return MT_OK;
    default:
        return json_number(s, text, j);
    }
}

static int json_by_key(const void *a, const void *b)
{
    return strcmp((*(struct mt_json *const *)a)->key, (*(struct mt_json *const *)b)->key);
}

/* Sorting keeps a hostile object of a million keys at n log n. */
static mt_status json_check_keys(struct mt_scan *s, const struct mt_json *obj)
{
    struct mt_json **v, *few[16];
    mt_status st = MT_OK;
    size_t n = 0;

    v = obj->count <= 16 ? few : json_malloc(obj->count * sizeof(struct mt_json *));
    if (v == NULL)
        return json_nomem(s);
    for (struct mt_json *c = obj->first; c != NULL; c = c->next)
        v[n++] = c;
    qsort(v, n, sizeof(struct mt_json *), json_by_key);
    for (size_t i = 1; st == MT_OK && i < n; i++) {
        if (strcmp(v[i - 1]->key, v[i]->key) == 0)
            st = mt_fail(s->ctx, MT_E_FORMAT, "%s: the key \"%.100s\" occurs twice in one object",
                         s->what, v[i]->key);
    }
    if (v != few)
        free(v);
    return st;
}

static mt_status json_value(struct json_parse *p, struct mt_json *j);

/* One member of an array or object, appended to it. */
static mt_status json_member(struct json_parse *p, struct mt_json *parent)
{
    struct mt_json *c;

    MT_TRY(json_charge(p, sizeof *c));
    c = mt_json_node_new(MT_JSON_NULL);
    if (c == NULL)
        return json_nomem(&p->s);
    mt_json_node_append(parent, c);
    if (parent->kind == MT_JSON_OBJECT) {
        struct mt_scan_text key;
        MT_TRY(mt_scan_key(&p->s, &key));
        MT_TRY(json_dup(p, key, &c->key));
    }
    return json_value(p, c);
}

/* Recursion is bounded: the scanner refuses deep nesting. */
static mt_status json_value(struct json_parse *p, struct mt_json *j)
{
    char open = mt_scan_peek(&p->s), close = open == '{' ? '}' : ']';
    bool more;

    if (open != '{' && open != '[')
        return json_scalar(p, j);
    MT_TRY(mt_scan_enter(&p->s, open));
    j->kind = open == '{' ? MT_JSON_OBJECT : MT_JSON_ARRAY;
    for (;;) {
        MT_TRY(mt_scan_next(&p->s, close, &more));
        if (!more)
            return open == '{' ? json_check_keys(&p->s, j) : MT_OK;
        MT_TRY(json_member(p, j));
    }
}

static mt_status json_tree(struct json_parse *p)
{
    struct json_root *r = json_malloc(sizeof *r);

    if (r == NULL)
        return json_nomem(&p->s);
    *r = (struct json_root){.j = {.kind = MT_JSON_NULL, .root = true},
                            .budget = mt_ctx_budget(p->s.ctx)};
    p->root = r;
    MT_TRY(json_charge(p, sizeof *r));
    MT_TRY(json_value(p, &r->j));
    return mt_scan_end(&p->s);
}

mt_status mt_json_parse(struct mt_ctx *ctx, const char *text, size_t n, const char *what,
                        struct mt_json **out)
{
    struct json_parse p = {.root = NULL};
    mt_status st = mt_scan_open(ctx, &p.s, text, n, what, MT_SCAN_LINES | MT_SCAN_NONFINITE);

    *out = NULL;
    if (st != MT_OK)
        return st;
    st = json_tree(&p);
    mt_scan_close(&p.s);
    if (st != MT_OK)
        mt_json_free(p.root != NULL ? &p.root->j : NULL);
    else
        *out = &p.root->j;
    return st;
}

mt_status mt_json_read(struct mt_ctx *ctx, const char *path, size_t max_bytes, struct mt_json **out)
{
    mt_status st;
    char *text;
    size_t n;

    *out = NULL;
    MT_TRY(mt_read_file(ctx, path, max_bytes, &text, &n));
    st = mt_json_parse(ctx, text, n, path, out);
    mt_free(text);
    return st;
}
