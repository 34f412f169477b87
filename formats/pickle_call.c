#include "formats/pickle_impl.h"

#include "lib/base/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TORCH_DTYPE(name, dtype)                                                                   \
    {                                                                                              \
        "torch", name, PICKLE_DTYPE, dtype                                                         \
    }
#define TORCH_STORAGE(name, dtype)                                                                 \
    {                                                                                              \
        "torch", name, PICKLE_STORAGE, dtype                                                       \
    }

static const struct mt_pickle_name pickle_names[] = {
    {"collections", "OrderedDict", PICKLE_DICT, MT_U8},
    {"torch", "Size", PICKLE_SIZE, MT_U8},
    {"torch._utils", "_rebuild_tensor_v2", PICKLE_TENSOR_V2, MT_U8},
    {"torch._utils", "_rebuild_tensor_v3", PICKLE_TENSOR_V3, MT_U8},
    {"torch._utils", "_rebuild_parameter", PICKLE_PARAMETER, MT_U8},
    {"torch._utils", "_rebuild_parameter_with_state", PICKLE_PARAMETER, MT_U8},
    {"_codecs", "encode", PICKLE_ENCODE, MT_U8},
    TORCH_STORAGE("FloatStorage", MT_F32),
    TORCH_STORAGE("HalfStorage", MT_F16),
    TORCH_STORAGE("BFloat16Storage", MT_BF16),
    TORCH_STORAGE("DoubleStorage", MT_F64),
    TORCH_STORAGE("LongStorage", MT_I64),
    TORCH_STORAGE("IntStorage", MT_I32),
    TORCH_STORAGE("ShortStorage", MT_I16),
    TORCH_STORAGE("CharStorage", MT_I8),
    TORCH_STORAGE("ByteStorage", MT_U8),
    TORCH_STORAGE("BoolStorage", MT_BOOL),
    TORCH_STORAGE("ComplexFloatStorage", MT_C64),
    {"torch.storage", "UntypedStorage", PICKLE_UNTYPED, MT_U8},
    {"torch", "UntypedStorage", PICKLE_UNTYPED, MT_U8},
    TORCH_DTYPE("float32", MT_F32),
    TORCH_DTYPE("float16", MT_F16),
    TORCH_DTYPE("bfloat16", MT_BF16),
    TORCH_DTYPE("float64", MT_F64),
    TORCH_DTYPE("int64", MT_I64),
    TORCH_DTYPE("int32", MT_I32),
    TORCH_DTYPE("int16", MT_I16),
    TORCH_DTYPE("int8", MT_I8),
    TORCH_DTYPE("uint8", MT_U8),
    TORCH_DTYPE("uint16", MT_U16),
    TORCH_DTYPE("uint32", MT_U32),
    TORCH_DTYPE("uint64", MT_U64),
    TORCH_DTYPE("bool", MT_BOOL),
    TORCH_DTYPE("complex64", MT_C64),
    TORCH_DTYPE("float8_e4m3fn", MT_F8_E4M3),
    TORCH_DTYPE("float8_e5m2", MT_F8_E5M2),
    TORCH_DTYPE("float8_e4m3fnuz", MT_F8_E4M3FNUZ),
    TORCH_DTYPE("float8_e5m2fnuz", MT_F8_E5M2FNUZ),
    TORCH_DTYPE("float8_e8m0fnu", MT_F8_E8M0),
};

static bool pickle_is(struct mt_pickle_text t, const char *word)
{
    return t.n == strlen(word) && memcmp(t.s, word, t.n) == 0;
}

mt_status pickle_look_up(struct pickle_in *in, struct mt_pickle_text module,
                         struct mt_pickle_text name, struct mt_pickle **out)
{
    char a[MT_SHOW_BYTES], b[MT_SHOW_BYTES];

    for (size_t i = 0; i < sizeof pickle_names / sizeof pickle_names[0]; i++) {
        if (!pickle_is(name, pickle_names[i].name) || !pickle_is(module, pickle_names[i].module))
            continue;
        MT_TRY(pickle_new(in, MT_PICKLE_NAME, out));
        (*out)->name = &pickle_names[i];
        return MT_OK;
    }
    return mt_fail(in->ctx, MT_E_UNSUPPORTED,
                   "%s: asks for %s.%s, which is not among what makes tensors here; nothing of it "
                   "was run. Where you trust the file, load it with torch and save its "
                   "state_dict() alone",
                   in->what, mt_show_text(module.s, module.n, a), mt_show_text(name.s, name.n, b));
}

/* ---- arguments ---- */

static const struct mt_pickle *call_arg(const struct mt_pickle *args, size_t i,
                                        enum mt_pickle_kind kind)
{
    return i < args->list.n && args->list.v[i]->kind == kind ? args->list.v[i] : NULL;
}

static mt_status call_bad(const struct pickle_in *in, const struct mt_pickle_name *f,
                          const char *why)
{
    return pickle_fail(in, MT_E_FORMAT, "%s.%s: %s", f->module, f->name, why);
}

/* A tuple of counts. */
static mt_status call_counts(const struct pickle_in *in, const struct mt_pickle_name *f,
                             const struct mt_pickle *tuple, const char *what, int *n,
                             int64_t v[MT_RANK_MAX])
{
    char show[64];

    if (tuple->list.n > MT_RANK_MAX)
        return pickle_fail(in, MT_E_UNSUPPORTED, "%s.%s: a tensor of rank %zu; at most %d here",
                           f->module, f->name, tuple->list.n, MT_RANK_MAX);
    *n = (int)tuple->list.n;
    for (int i = 0; i < *n; i++) {
        const struct mt_pickle *x = tuple->list.v[i];
        if (x->kind != MT_PICKLE_INT || x->integer < 0)
            return pickle_fail(in, MT_E_FORMAT, "%s.%s: %s is %s", f->module, f->name, what,
                               mt_pickle_show(x, show, sizeof show));
        v[i] = x->integer;
    }
    return MT_OK;
}

/* ---- the names that are called ---- */

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]);
 * _v3 has the dtype before the metadata. Metadata marks views that are conjugated or negated when
 * they are read. */
static mt_status call_tensor(struct pickle_in *in, const struct mt_pickle_name *f,
                             const struct mt_pickle *args, struct mt_pickle **out)
{
    const struct mt_pickle *storage = call_arg(args, 0, MT_PICKLE_STORAGE);
    const struct mt_pickle *offset = call_arg(args, 1, MT_PICKLE_INT);
    const struct mt_pickle *size = call_arg(args, 2, MT_PICKLE_TUPLE);
    const struct mt_pickle *stride = call_arg(args, 3, MT_PICKLE_TUPLE);
    const struct mt_pickle *dtype = call_arg(args, 6, MT_PICKLE_NAME);
    bool v3 = f->does == PICKLE_TENSOR_V3;
    size_t fixed = v3 ? 7 : 6;
    struct mt_pickle_tensor *t;
    int n_stride = 0;

    if (args->list.n < fixed || args->list.n > fixed + 1 || storage == NULL || offset == NULL ||
        offset->integer < 0 || size == NULL || stride == NULL ||
        (v3 && (dtype == NULL || dtype->name->does != PICKLE_DTYPE)))
        return call_bad(in, f, "arguments that make no tensor");
    if (args->list.n > fixed && args->list.v[fixed]->kind != MT_PICKLE_NONE &&
        !(args->list.v[fixed]->kind == MT_PICKLE_DICT && args->list.v[fixed]->list.n == 0))
        return call_bad(in, f,
                        "a tensor that is negated or conjugated when read; save it resolved");
    if (!v3 && storage->storage->untyped)
        return call_bad(in, f, "a storage without a type");
    MT_TRY(pickle_charge(in, sizeof *t / 32));
    MT_TRY(mt_arena_alloc(in->ctx, in->arena, 1, sizeof *t, &t));
    t->storage = storage->storage;
    t->dtype = v3 ? dtype->name->dtype : storage->storage->dtype;
    t->offset = offset->integer;
    MT_TRY(call_counts(in, f, size, "a size", &t->rank, t->shape));
    MT_TRY(call_counts(in, f, stride, "a stride", &n_stride, t->stride));
    if (n_stride != t->rank)
        return call_bad(in, f, "sizes and strides differ in number");
    MT_TRY(pickle_new(in, MT_PICKLE_TENSOR, out));
    (*out)->tensor = t;
    return MT_OK;
}

/* OrderedDict() or OrderedDict([[key, value], ...]), as old versions of Python write it. */
static mt_status call_dict(struct pickle_in *in, const struct mt_pickle_name *f,
                           const struct mt_pickle *args, struct mt_pickle **out)
{
    const struct mt_pickle *pairs = call_arg(args, 0, MT_PICKLE_LIST);

    if (args->list.n > 1 || (args->list.n == 1 && pairs == NULL))
        return call_bad(in, f, "arguments that are no list of pairs");
    MT_TRY(pickle_new(in, MT_PICKLE_DICT, out));
    for (size_t i = 0; pairs != NULL && i < pairs->list.n; i++) {
        const struct mt_pickle *pair = pairs->list.v[i];
        if ((pair->kind != MT_PICKLE_LIST && pair->kind != MT_PICKLE_TUPLE) || pair->list.n != 2)
            return call_bad(in, f, "arguments that are no list of pairs");
        MT_TRY(pickle_append(in, *out, pair->list.v, 2));
    }
    return MT_OK;
}

/* _codecs.encode("text", "latin1"): how protocol 2 spells bytes. */
static mt_status call_encode(struct pickle_in *in, const struct mt_pickle_name *f,
                             const struct mt_pickle *args, struct mt_pickle **out)
{
    const struct mt_pickle *text = call_arg(args, 0, MT_PICKLE_STR);
    const struct mt_pickle *how = call_arg(args, 1, MT_PICKLE_STR);

    if (args->list.n != 2 || text == NULL || how == NULL || !pickle_is(how->text, "latin1"))
        return call_bad(in, f, "arguments that make no bytes");
    MT_TRY(pickle_new(in, MT_PICKLE_BYTES, out));
    (*out)->text = text->text;
    return MT_OK;
}

mt_status pickle_call(struct pickle_in *in, const struct mt_pickle *what,
                      const struct mt_pickle *args, struct mt_pickle **out)
{
    const struct mt_pickle_name *f;
    char show[64];

    if (what->kind != MT_PICKLE_NAME || args->kind != MT_PICKLE_TUPLE)
        return pickle_fail(in, MT_E_FORMAT, "calls %s", mt_pickle_show(what, show, sizeof show));
    f = what->name;
    switch (f->does) {
    case PICKLE_DICT:
        return call_dict(in, f, args, out);
    case PICKLE_TENSOR_V2:
    case PICKLE_TENSOR_V3:
        return call_tensor(in, f, args, out);
    case PICKLE_ENCODE:
        return call_encode(in, f, args, out);
    case PICKLE_SIZE:
        if (args->list.n != 1 || call_arg(args, 0, MT_PICKLE_TUPLE) == NULL)
            return call_bad(in, f, "arguments that are no size");
        *out = args->list.v[0];
        return MT_OK;
    case PICKLE_PARAMETER:
        if (args->list.n < 3 || call_arg(args, 0, MT_PICKLE_TENSOR) == NULL)
            return call_bad(in, f, "arguments that make no parameter");
        *out = args->list.v[0];
        return MT_OK;
    case PICKLE_STORAGE:
    case PICKLE_UNTYPED:
    case PICKLE_DTYPE:
        break;
    }
    return call_bad(in, f, "is called, which makes no tensor");
}

mt_status pickle_persistent(struct pickle_in *in, const struct mt_pickle *id,
                            struct mt_pickle **out)
{
    const struct mt_pickle *tag, *type, *key, *count;
    struct mt_pickle_storage *s;

    if (id->kind != MT_PICKLE_TUPLE || id->list.n != 5)
        return pickle_fail(in, MT_E_FORMAT, "a reference that is no storage of torch");
    tag = call_arg(id, 0, MT_PICKLE_STR);
    type = call_arg(id, 1, MT_PICKLE_NAME);
    key = call_arg(id, 2, MT_PICKLE_STR);
    count = call_arg(id, 4, MT_PICKLE_INT);
    if (tag == NULL || !pickle_is(tag->text, "storage") || type == NULL ||
        (type->name->does != PICKLE_STORAGE && type->name->does != PICKLE_UNTYPED) || key == NULL ||
        count == NULL || count->integer < 0)
        return pickle_fail(in, MT_E_FORMAT, "a reference that is no storage of torch");
    MT_TRY(pickle_charge(in, 2));
    MT_TRY(mt_arena_alloc(in->ctx, in->arena, 1, sizeof *s, &s));
    s->key = key->text;
    s->count = (uint64_t)count->integer;
    s->dtype = type->name->dtype;
    s->untyped = type->name->does == PICKLE_UNTYPED;
    MT_TRY(pickle_new(in, MT_PICKLE_STORAGE, out));
    (*out)->storage = s;
    return MT_OK;
}

/* ---- for people ---- */

const char *mt_pickle_kind_name(enum mt_pickle_kind kind)
{
    static const char *const names[] = {
        "None",    "a truth value", "a number", "a number", "a number",  "a string", "bytes",
        "a tuple", "a list",        "a dict",   "a name",   "a storage", "a tensor"};

    return names[kind];
}

/* With as few digits as give the same number back. */
static void show_float(double v, char *buf, size_t n)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buf, n, "%.*g", digits, v);
        if (strtod(buf, NULL) == v)
            return;
    }
}

const char *mt_pickle_show(const struct mt_pickle *v, char *buf, size_t n)
{
    char show[MT_SHOW_BYTES];

    switch (v->kind) {
    case MT_PICKLE_BOOL:
        snprintf(buf, n, "%s", v->truth ? "True" : "False");
        break;
    case MT_PICKLE_INT:
        snprintf(buf, n, "%" PRId64, v->integer);
        break;
    case MT_PICKLE_BIG:
        snprintf(buf, n, "an integer beyond 64 bits");
        break;
    case MT_PICKLE_FLOAT:
        show_float(v->num, buf, n);
        break;
    case MT_PICKLE_STR:
        snprintf(buf, n, "'%s'", mt_show_text(v->text.s, v->text.n, show));
        break;
    case MT_PICKLE_BYTES:
        snprintf(buf, n, "%zu bytes", v->text.n);
        break;
    case MT_PICKLE_TUPLE:
    case MT_PICKLE_LIST:
    case MT_PICKLE_DICT:
        snprintf(buf, n, "%s of %zu", mt_pickle_kind_name(v->kind),
                 v->kind == MT_PICKLE_DICT ? v->list.n / 2 : v->list.n);
        break;
    case MT_PICKLE_NAME:
        snprintf(buf, n, "%s.%s", v->name->module, v->name->name);
        break;
    case MT_PICKLE_NONE:
    case MT_PICKLE_STORAGE:
    case MT_PICKLE_TENSOR:
        snprintf(buf, n, "%s", mt_pickle_kind_name(v->kind));
        break;
    }
    return buf;
}
