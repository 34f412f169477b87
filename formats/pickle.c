#include "formats/pickle.h"

#include "formats/pickle_impl.h"
#include "lib/base/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PICKLE_UNITS_MAX ((size_t)1 << 24)
#define PICKLE_STACK_MAX ((size_t)1 << 20)
#define PICKLE_MARKS_MAX 4096u
#define PICKLE_PROTOCOL_MAX 5

mt_status pickle_fail(const struct pickle_in *in, mt_status st, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return mt_fail(in->ctx, st, "%s: byte %td: %s", in->what, in->op - in->begin, text);
}

mt_status pickle_charge(struct pickle_in *in, size_t units)
{
    if (units > PICKLE_UNITS_MAX - in->n_units)
        return pickle_fail(in, MT_E_LIMIT, "makes more objects than a checkpoint has");
    in->n_units += units;
    return MT_OK;
}

mt_status pickle_new(struct pickle_in *in, enum mt_pickle_kind kind, struct mt_pickle **out)
{
    MT_TRY(pickle_charge(in, 1));
    MT_TRY(mt_arena_alloc(in->ctx, in->arena, 1, sizeof **out, out));
    (*out)->kind = kind;
    return MT_OK;
}

mt_status pickle_append(struct pickle_in *in, struct mt_pickle *list, struct mt_pickle *const *v,
                        size_t n)
{
    struct mt_pickle_list *l = &list->list;

    if (n == 0)
        return MT_OK;
    MT_TRY(pickle_charge(in, n));
    if (n > l->cap - l->n) {
        size_t cap = l->cap * 2 > l->n + n ? l->cap * 2 : l->n + n;
        struct mt_pickle **more;
        MT_TRY(mt_arena_alloc(in->ctx, in->arena, cap, sizeof(struct mt_pickle *), &more));
        if (l->n > 0)
            memcpy(more, l->v, l->n * sizeof(struct mt_pickle *));
        l->v = more;
        l->cap = cap;
    }
    memcpy(l->v + l->n, v, n * sizeof(struct mt_pickle *));
    l->n += n;
    return MT_OK;
}

/* ---- the text ---- */

static mt_status pickle_take(struct pickle_in *in, uint64_t n, const unsigned char **p)
{
    *p = in->p;
    if (n > (uint64_t)(in->end - in->p))
        return pickle_fail(in, MT_E_FORMAT, "the text ends inside an instruction");
    in->p += n;
    return MT_OK;
}

/* A little-endian number of 1, 2, 4 or 8 bytes. */
static mt_status pickle_number(struct pickle_in *in, unsigned bytes, uint64_t *v)
{
    const unsigned char *p;

    *v = 0;
    MT_TRY(pickle_take(in, bytes, &p));
    for (unsigned i = 0; i < bytes; i++)
        *v |= (uint64_t)p[i] << (8 * i);
    return MT_OK;
}

/* Up to the end of the line. */
static mt_status pickle_line(struct pickle_in *in, struct mt_pickle_text *t)
{
    const unsigned char *end = memchr(in->p, '\n', (size_t)(in->end - in->p));

    *t = (struct mt_pickle_text){0};
    if (end == NULL)
        return pickle_fail(in, MT_E_FORMAT, "the text ends inside an instruction");
    *t = (struct mt_pickle_text){(const char *)in->p, (size_t)(end - in->p)};
    in->p = end + 1;
    return MT_OK;
}

/* ---- stack and memo ---- */

static mt_status pickle_push(struct pickle_in *in, struct mt_pickle *v)
{
    if (in->n_stack >= PICKLE_STACK_MAX)
        return pickle_fail(in, MT_E_LIMIT, "piles up more objects than a checkpoint does");
    MT_TRY(mt_grow(in->ctx, in->n_stack, &in->cap_stack, sizeof(struct mt_pickle *),
                   "a pickle's stack", &in->stack));
    in->stack[in->n_stack++] = v;
    return MT_OK;
}

static mt_status pickle_push_new(struct pickle_in *in, enum mt_pickle_kind kind,
                                 struct mt_pickle **v)
{
    MT_TRY(pickle_new(in, kind, v));
    return pickle_push(in, *v);
}

/* Removes the top n objects, which stay readable at *v until the next push. */
static mt_status pickle_pop(struct pickle_in *in, size_t n, struct mt_pickle ***v)
{
    size_t floor = in->n_marks > 0 ? in->marks[in->n_marks - 1] : 0;

    *v = in->stack;
    if (n > in->n_stack - floor)
        return pickle_fail(in, MT_E_FORMAT, "takes an object that is not there");
    in->n_stack -= n;
    *v = in->stack + in->n_stack;
    return MT_OK;
}

/* Removes the last mark and what lies above it. */
static mt_status pickle_pop_mark(struct pickle_in *in, struct mt_pickle ***v, size_t *n)
{
    *v = in->stack;
    *n = 0;
    if (in->n_marks == 0)
        return pickle_fail(in, MT_E_FORMAT, "goes back to a mark that is not there");
    *n = in->n_stack - in->marks[--in->n_marks];
    in->n_stack -= *n;
    *v = in->stack + in->n_stack;
    return MT_OK;
}

static mt_status pickle_mark(struct pickle_in *in)
{
    if (in->n_marks >= PICKLE_MARKS_MAX)
        return pickle_fail(in, MT_E_LIMIT, "nests deeper than %u", PICKLE_MARKS_MAX);
    MT_TRY(mt_grow(in->ctx, in->n_marks, &in->cap_marks, sizeof *in->marks, "a pickle's marks",
                   &in->marks));
    in->marks[in->n_marks++] = in->n_stack;
    return MT_OK;
}

/* Picklers number what they remember without gaps, so an index never makes the table large. */
static mt_status pickle_put(struct pickle_in *in, uint64_t index)
{
    struct mt_pickle **top;

    MT_TRY(pickle_pop(in, 1, &top));
    in->n_stack++;
    if (index > in->n_memo)
        return pickle_fail(in, MT_E_FORMAT, "remembers object %" PRIu64 " of %zu", index,
                           in->n_memo);
    MT_TRY(mt_grow(in->ctx, in->n_memo, &in->cap_memo, sizeof(struct mt_pickle *),
                   "a pickle's memo", &in->memo));
    in->memo[index] = *top;
    in->n_memo += index == in->n_memo;
    return MT_OK;
}

static mt_status pickle_get(struct pickle_in *in, uint64_t index)
{
    if (index >= in->n_memo)
        return pickle_fail(in, MT_E_FORMAT, "recalls object %" PRIu64 " of %zu", index, in->n_memo);
    return pickle_push(in, in->memo[index]);
}

/* ---- scalars ---- */

static mt_status pickle_int(struct pickle_in *in, int64_t i)
{
    struct mt_pickle *v;

    MT_TRY(pickle_push_new(in, MT_PICKLE_INT, &v));
    v->integer = i;
    return MT_OK;
}

/* Two's complement, little-endian, any number of bytes. */
static mt_status pickle_long(struct pickle_in *in, uint64_t n)
{
    const unsigned char *p;
    struct mt_pickle *v;
    uint64_t x = 0;

    MT_TRY(pickle_take(in, n, &p));
    if (n > 8)
        return pickle_push_new(in, MT_PICKLE_BIG, &v);
    for (uint64_t i = 0; i < n; i++)
        x |= (uint64_t)p[i] << (8 * i);
    if (n > 0 && n < 8 && (p[n - 1] & 0x80) != 0)
        x |= UINT64_MAX << (8 * n);
    return pickle_int(in, (int64_t)x);
}

static mt_status pickle_float(struct pickle_in *in)
{
    const unsigned char *p;
    struct mt_pickle *v;
    uint64_t bits = 0;

    MT_TRY(pickle_take(in, 8, &p));
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    MT_TRY(pickle_push_new(in, MT_PICKLE_FLOAT, &v));
    memcpy(&v->num, &bits, sizeof v->num);
    return MT_OK;
}

/* A length of `bytes` bytes and that much text. */
static mt_status pickle_text(struct pickle_in *in, enum mt_pickle_kind kind, unsigned bytes)
{
    const unsigned char *p;
    struct mt_pickle *v;
    uint64_t n;

    MT_TRY(pickle_number(in, bytes, &n));
    MT_TRY(pickle_take(in, n, &p));
    if (kind == MT_PICKLE_STR && mt_utf8_valid((const char *)p, (size_t)n) != n)
        return pickle_fail(in, MT_E_FORMAT, "a string that is not UTF-8");
    MT_TRY(pickle_push_new(in, kind, &v));
    v->text = (struct mt_pickle_text){(const char *)p, (size_t)n};
    return MT_OK;
}

/* ---- containers ---- */

/* A new container of what lies above the last mark, or of the top `n` objects. */
static mt_status pickle_gather(struct pickle_in *in, enum mt_pickle_kind kind, bool marked,
                               size_t n)
{
    struct mt_pickle **items, *v;

    MT_TRY(marked ? pickle_pop_mark(in, &items, &n) : pickle_pop(in, n, &items));
    if (kind == MT_PICKLE_DICT && n % 2 != 0)
        return pickle_fail(in, MT_E_FORMAT, "a key without a value");
    MT_TRY(pickle_new(in, kind, &v));
    MT_TRY(pickle_append(in, v, items, n));
    return pickle_push(in, v);
}

/* Adds what lies above the last mark, or the top `n` objects, to the container below. */
static mt_status pickle_extend(struct pickle_in *in, enum mt_pickle_kind kind, bool marked,
                               size_t n)
{
    struct mt_pickle **items, **into;
    char show[64];

    MT_TRY(marked ? pickle_pop_mark(in, &items, &n) : pickle_pop(in, n, &items));
    if (kind == MT_PICKLE_DICT && n % 2 != 0)
        return pickle_fail(in, MT_E_FORMAT, "a key without a value");
    MT_TRY(pickle_pop(in, 1, &into));
    in->n_stack++;
    if ((*into)->kind != kind)
        return pickle_fail(in, MT_E_FORMAT, "adds to %s as if it were %s",
                           mt_pickle_show(*into, show, sizeof show), mt_pickle_kind_name(kind));
    return pickle_append(in, *into, items, n);
}

/* ---- names ---- */

static mt_status pickle_global(struct pickle_in *in)
{
    struct mt_pickle_text module, name;
    struct mt_pickle *v;

    MT_TRY(pickle_line(in, &module));
    MT_TRY(pickle_line(in, &name));
    MT_TRY(pickle_look_up(in, module, name, &v));
    return pickle_push(in, v);
}

static mt_status pickle_stack_global(struct pickle_in *in)
{
    struct mt_pickle **s, *v;

    MT_TRY(pickle_pop(in, 2, &s));
    mt_assert(s != NULL);
    if (s[0]->kind != MT_PICKLE_STR || s[1]->kind != MT_PICKLE_STR)
        return pickle_fail(in, MT_E_FORMAT, "looks up a name that is no string");
    MT_TRY(pickle_look_up(in, s[0]->text, s[1]->text, &v));
    return pickle_push(in, v);
}

static mt_status pickle_reduce(struct pickle_in *in)
{
    struct mt_pickle **s, *v;

    MT_TRY(pickle_pop(in, 2, &s));
    mt_assert(s != NULL);
    MT_TRY(pickle_call(in, s[0], s[1], &v));
    return pickle_push(in, v);
}

/* Attributes: torch puts _metadata on an OrderedDict, which says nothing about tensors. */
static mt_status pickle_build(struct pickle_in *in)
{
    struct mt_pickle **s;
    char show[64];

    MT_TRY(pickle_pop(in, 2, &s));
    mt_assert(s != NULL);
    if (s[0]->kind != MT_PICKLE_DICT || s[1]->kind != MT_PICKLE_DICT)
        return pickle_fail(in, MT_E_UNSUPPORTED, "sets the state of %s",
                           mt_pickle_show(s[0], show, sizeof show));
    in->n_stack++;
    return MT_OK;
}

static mt_status pickle_persid(struct pickle_in *in)
{
    struct mt_pickle **s, *v;

    MT_TRY(pickle_pop(in, 1, &s));
    MT_TRY(pickle_persistent(in, *s, &v));
    return pickle_push(in, v);
}

/* ---- instructions ---- */

static mt_status pickle_drop(struct pickle_in *in)
{
    struct mt_pickle **s;

    if (in->n_marks > 0 && in->marks[in->n_marks - 1] == in->n_stack) {
        in->n_marks--;
        return MT_OK;
    }
    return pickle_pop(in, 1, &s);
}

static mt_status pickle_dup(struct pickle_in *in)
{
    struct mt_pickle **s;

    MT_TRY(pickle_pop(in, 1, &s));
    in->n_stack++;
    return pickle_push(in, *s);
}

static mt_status pickle_protocol(struct pickle_in *in)
{
    uint64_t v;

    MT_TRY(pickle_number(in, 1, &v));
    if (v > PICKLE_PROTOCOL_MAX)
        return pickle_fail(in, MT_E_UNSUPPORTED, "protocol %" PRIu64 "; at most %d is known", v,
                           PICKLE_PROTOCOL_MAX);
    return MT_OK;
}

static mt_status pickle_unknown(const struct pickle_in *in)
{
    static const struct {
        unsigned char op;
        const char *name;
    } known[] = {
        {'i', "INST"},        {'o', "OBJ"},          {0x81, "NEWOBJ"},
        {0x92, "NEWOBJ_EX"},  {0x82, "EXT1"},        {0x83, "EXT2"},
        {0x84, "EXT4"},       {'P', "PERSID"},       {'I', "INT"},
        {'L', "LONG"},        {'F', "FLOAT"},        {'S', "STRING"},
        {'V', "UNICODE"},     {'g', "GET"},          {'p', "PUT"},
        {0x8f, "EMPTY_SET"},  {0x90, "ADDITEMS"},    {0x91, "FROZENSET"},
        {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].op == *in->op)
            return pickle_fail(in, MT_E_UNSUPPORTED,
                               "instruction %s, which is not needed to make tensors",
                               known[i].name);
    }
    return pickle_fail(in, MT_E_FORMAT, "0x%02x is no instruction", *in->op);
}

static mt_status pickle_step_number(struct pickle_in *in)
{
    struct mt_pickle *v;
    uint64_t n;

    switch (*in->op) {
    case 'K':
        MT_TRY(pickle_number(in, 1, &n));
        return pickle_int(in, (int64_t)n);
    case 'M':
        MT_TRY(pickle_number(in, 2, &n));
        return pickle_int(in, (int64_t)n);
    case 'J':
        MT_TRY(pickle_number(in, 4, &n));
        return pickle_int(in, (int32_t)(uint32_t)n);
    case 0x8a:
        MT_TRY(pickle_number(in, 1, &n));
        return pickle_long(in, n);
    case 0x8b:
        MT_TRY(pickle_number(in, 4, &n));
        return pickle_long(in, n);
    case 'G':
        return pickle_float(in);
    case 'N':
        return pickle_push_new(in, MT_PICKLE_NONE, &v);
    case 0x88:
    case 0x89:
        MT_TRY(pickle_push_new(in, MT_PICKLE_BOOL, &v));
        v->truth = *in->op == 0x88;
        return MT_OK;
    default:
        return pickle_unknown(in);
    }
}

static mt_status pickle_step_text(struct pickle_in *in)
{
    switch (*in->op) {
    case 0x8c:
    case 'U':
        return pickle_text(in, MT_PICKLE_STR, 1);
    case 'X':
    case 'T':
        return pickle_text(in, MT_PICKLE_STR, 4);
    case 0x8d:
        return pickle_text(in, MT_PICKLE_STR, 8);
    case 'C':
        return pickle_text(in, MT_PICKLE_BYTES, 1);
    case 'B':
        return pickle_text(in, MT_PICKLE_BYTES, 4);
    case 0x8e:
        return pickle_text(in, MT_PICKLE_BYTES, 8);
    default:
        return pickle_step_number(in);
    }
}

static mt_status pickle_step_memo(struct pickle_in *in)
{
    uint64_t n;

    switch (*in->op) {
    case 'q':
        MT_TRY(pickle_number(in, 1, &n));
        return pickle_put(in, n);
    case 'r':
        MT_TRY(pickle_number(in, 4, &n));
        return pickle_put(in, n);
    case 0x94:
        return pickle_put(in, in->n_memo);
    case 'h':
        MT_TRY(pickle_number(in, 1, &n));
        return pickle_get(in, n);
    case 'j':
        MT_TRY(pickle_number(in, 4, &n));
        return pickle_get(in, n);
    default:
        return pickle_step_text(in);
    }
}

static mt_status pickle_step_container(struct pickle_in *in)
{
    struct mt_pickle **s;
    size_t n;

    switch (*in->op) {
    case '(':
        return pickle_mark(in);
    case '1':
        return pickle_pop_mark(in, &s, &n);
    case ')':
        return pickle_gather(in, MT_PICKLE_TUPLE, false, 0);
    case 0x85:
    case 0x86:
    case 0x87:
        return pickle_gather(in, MT_PICKLE_TUPLE, false, *in->op - 0x84u);
    case 't':
        return pickle_gather(in, MT_PICKLE_TUPLE, true, 0);
    case ']':
        return pickle_gather(in, MT_PICKLE_LIST, false, 0);
    case 'l':
        return pickle_gather(in, MT_PICKLE_LIST, true, 0);
    case '}':
        return pickle_gather(in, MT_PICKLE_DICT, false, 0);
    case 'd':
        return pickle_gather(in, MT_PICKLE_DICT, true, 0);
    case 'a':
        return pickle_extend(in, MT_PICKLE_LIST, false, 1);
    case 'e':
        return pickle_extend(in, MT_PICKLE_LIST, true, 0);
    case 's':
        return pickle_extend(in, MT_PICKLE_DICT, false, 2);
    case 'u':
        return pickle_extend(in, MT_PICKLE_DICT, true, 0);
    default:
        return pickle_step_memo(in);
    }
}

static mt_status pickle_step(struct pickle_in *in)
{
    uint64_t n;

    switch (*in->op) {
    case 0x80:
        return pickle_protocol(in);
    case 0x95: /* a frame: its length helps who reads from a pipe */
        return pickle_number(in, 8, &n);
    case 'c':
        return pickle_global(in);
    case 0x93:
        return pickle_stack_global(in);
    case 'R':
        return pickle_reduce(in);
    case 'b':
        return pickle_build(in);
    case 'Q':
        return pickle_persid(in);
    case '0':
        return pickle_drop(in);
    case '2':
        return pickle_dup(in);
    default:
        return pickle_step_container(in);
    }
}

static mt_status pickle_run(struct pickle_in *in, const struct mt_pickle **root)
{
    struct mt_pickle **v;

    for (size_t steps = 0;; steps++) {
        in->op = in->p;
        if (in->p == in->end)
            return pickle_fail(in, MT_E_FORMAT, "the text ends before STOP");
        if (steps % 65536 == 65535)
            MT_TRY(mt_check_cancel(in->ctx));
        if (*in->p++ == '.')
            break;
        MT_TRY(pickle_step(in));
    }
    if (in->n_marks > 0 || in->n_stack != 1)
        return pickle_fail(in, MT_E_FORMAT, "stops with %zu objects, not with one", in->n_stack);
    if (in->p != in->end)
        return pickle_fail(in, MT_E_FORMAT, "stops before the text ends");
    MT_TRY(pickle_pop(in, 1, &v));
    *root = *v;
    return MT_OK;
}

mt_status mt_pickle_read(struct mt_ctx *ctx, const void *text, size_t n, const char *what,
                         struct mt_arena *arena, const struct mt_pickle **root)
{
    struct pickle_in in = {.ctx = ctx, .arena = arena, .what = what};
    mt_status st;

    *root = NULL;
    if (n == 0)
        return mt_fail(ctx, MT_E_FORMAT, "%s: empty", what);
    if (n > MT_PICKLE_BYTES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "%s: %zu bytes; at most %u are read", what, n,
                       MT_PICKLE_BYTES_MAX);
    in.begin = in.p = in.op = text;
    in.end = in.begin + n;
    /* Never NULL, so that a place on the stack always is one. */
    st = mt_grow(ctx, 0, &in.cap_stack, sizeof(struct mt_pickle *), "a pickle's stack", &in.stack);
    if (st == MT_OK)
        st = pickle_run(&in, root);
    mt_free(in.stack);
    mt_free(in.marks);
    mt_free(in.memo);
    return st;
}
