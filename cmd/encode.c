#include "cmd/cmd.h"

#include "cmd/table.h"
#include "formats/safetensors.h"
#include "lib/base/outdir.h"
#include "lib/base/path.h"
#include "lib/ir/family.h"
#include "lib/run/encode.h"

#include <stdio.h>
#include <string.h>

#define ENCODE_MASK "attention_mask"

struct encode_opts {
    const char *out, *embeddings;
    struct mt_strlist text;
    bool force;
};

static const struct mt_opt encode_opt_table[] = {
    MT_OPT_STR(struct encode_opts, out, "out", 'o', "OUT", NULL,
               "safetensors file to write; required"),
    MT_OPT_STR(struct encode_opts, embeddings, "embeddings", 0, "FILE", NULL,
               "safetensors with what the embedding layer gives: matrices [tokens, hidden], or "
               "[sequences, tokens, hidden] with " ENCODE_MASK " [sequences, tokens] beside them"),
    MT_OPT_LIST(struct encode_opts, text, "text", 0, "TEXT", "a text, for models with a tokenizer"),
    MT_OPT_BOOL(struct encode_opts, force, "force", 0, "replace an existing OUT"),
    MT_OPT_END,
};

/* One tensor of the output: sequences of one length, some of whose tokens may be padding. */
struct encode_item {
    const char *name;
    const struct mt_tensor *given; /* NULL: ids */
    struct mt_ids ids;
    int64_t n_seq, n_tok; /* sequences, tokens of each */
    int64_t used;         /* tokens that are no padding, over all */
    uint64_t offset;      /* in the data of OUT */
    char label[32];
};

struct encode {
    const struct encode_opts *o;
    struct mt_model *m, *file; /* file: the embeddings */
    struct mt_device *dev;
    struct mt_runner *r;
    struct encode_item *items;
    size_t n, cap;
    bool *mask; /* [mask_seq * mask_tok]; NULL: none */
    int64_t mask_seq, mask_tok;
    uint64_t bytes;
    struct mt_outdir *dir;
    struct mt_outfile *out;
    uint64_t data_at; /* where tensors begin in OUT */
};

/* ---- input ---- */

static mt_status encode_add(struct mt_ctx *ctx, struct encode *e, struct encode_item **out)
{
    MT_TRY(mt_grow(ctx, e->n, &e->cap, sizeof *e->items, "list of texts", &e->items));
    *out = &e->items[e->n++];
    **out = (struct encode_item){.n_seq = 1};
    return MT_OK;
}

/* Whatever type it has: an element of zero bytes is padding. */
static mt_status encode_read_mask(struct mt_ctx *ctx, struct encode *e, const struct mt_tensor *t)
{
    size_t n = (size_t)mt_tensor_count(t), width = mt_dtype_bits(t->dtype) / 8;
    unsigned char *raw;
    mt_status st;

    if (t->rank != 2 || n == 0 || !mt_dtype_pickable(t->dtype))
        return mt_fail(ctx, MT_E_FORMAT, "%s: " ENCODE_MASK " is no matrix [sequences, tokens]",
                       e->file->path);
    e->mask_seq = t->shape[0];
    e->mask_tok = t->shape[1];
    MT_TRY(mt_alloc0(ctx, n, sizeof *e->mask, "padding mask", &e->mask));
    MT_TRY(mt_alloc(ctx, n, width, "padding mask", &raw));
    st = mt_tensor_fetch(ctx, t, 0, t->shape[0], raw);
    for (size_t i = 0; st == MT_OK && i < n * width; i++)
        e->mask[i / width] |= raw[i] != 0;
    mt_free(raw);
    return st;
}

static mt_status encode_read_given(struct mt_ctx *ctx, struct encode *e, const struct mt_tensor *t)
{
    struct encode_item *item;

    if (t->rank < 2 || t->rank > 3 || t->shape[t->rank - 1] != e->m->hp.hidden ||
        !mt_dtype_is_plain_float(t->dtype) || mt_tensor_count(t) == 0)
        return mt_fail(
            ctx, MT_E_FORMAT, "%s: %s is neither [tokens, %lld] nor [sequences, tokens, %lld]",
            e->file->path, t->name, (long long)e->m->hp.hidden, (long long)e->m->hp.hidden);
    MT_TRY(encode_add(ctx, e, &item));
    item->name = t->name;
    item->given = t;
    item->n_seq = t->rank == 3 ? t->shape[0] : 1;
    item->n_tok = t->shape[t->rank - 2];
    item->used = item->n_seq * item->n_tok;
    if (e->mask == NULL)
        return MT_OK;
    if (item->n_seq != e->mask_seq || item->n_tok != e->mask_tok)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: %s holds %lld x %lld tokens, " ENCODE_MASK " %lld x %lld",
                       e->file->path, t->name, (long long)item->n_seq, (long long)item->n_tok,
                       (long long)e->mask_seq, (long long)e->mask_tok);
    for (int64_t i = 0; i < item->n_seq * item->n_tok; i++)
        item->used -= !e->mask[i];
    return MT_OK;
}

static mt_status encode_open_embeddings(struct mt_ctx *ctx, struct encode *e)
{
    const char *path = e->o->embeddings;

    MT_TRY(mt_model_create(ctx, &e->file));
    MT_TRY(mt_arena_strndup(ctx, &e->file->arena, path, strlen(path), &e->file->path));
    MT_TRY(mt_wrap(ctx, mt_st_add_file(ctx, e->file, path), "--embeddings"));
    for (size_t i = 0; i < e->file->n_tensors; i++)
        if (strcmp(e->file->tensors[i]->name, ENCODE_MASK) == 0)
            MT_TRY(encode_read_mask(ctx, e, e->file->tensors[i]));
    for (size_t i = 0; i < e->file->n_tensors; i++)
        if (strcmp(e->file->tensors[i]->name, ENCODE_MASK) != 0)
            MT_TRY(encode_read_given(ctx, e, e->file->tensors[i]));
    if (e->n == 0)
        return mt_fail(ctx, MT_E_FORMAT, "%s: no tensors", path);
    return MT_OK;
}

static mt_status encode_open_texts(struct mt_ctx *ctx, struct encode *e)
{
    struct encode_item *item;
    struct mt_tokenizer *tok;
    mt_status st;

    if (e->m->hp.given_input)
        return mt_fail(ctx, MT_E_OPTION, "%s models take no text: give --embeddings",
                       e->m->family->name);
    MT_TRY(cmd_open_tokenizer(ctx, e->m, &tok));
    st = MT_OK;
    for (int i = 0; i < e->o->text.n && st == MT_OK; i++) {
        const char *s = e->o->text.v[i];
        st = encode_add(ctx, e, &item);
        if (st == MT_OK)
            st = mt_tokenizer_encode(ctx, tok, s, strlen(s), MT_ENCODE_SPECIAL, &item->ids);
        if (st != MT_OK)
            break;
        item->n_tok = item->used = (int64_t)item->ids.n;
        snprintf(item->label, sizeof item->label, "text.%d", i);
        if (item->ids.n == 0)
            st = mt_fail(ctx, MT_E_OPTION, "--text: text %d is empty", i);
    }
    mt_tokenizer_free(tok);
    return st;
}

/* ---- output ---- */

/* Header of OUT, padded so that data begin at a multiple of 8; *given*. */
static mt_status encode_header(struct mt_ctx *ctx, struct encode *e, char **text, size_t *n)
{
    struct mt_json *root = mt_json_new_object(), *o, *list;
    char *printed;
    mt_status st;

    mt_json_set_str(mt_json_set_object(root, "__metadata__"), "format", "pt");
    for (size_t i = 0; i < e->n; i++) {
        struct encode_item *item = &e->items[i];
        uint64_t bytes = (uint64_t)(item->n_seq * item->n_tok * e->m->hp.hidden) * sizeof(float);
        item->offset = e->bytes;
        e->bytes += bytes;
        o = mt_json_set_object(root, item->name != NULL ? item->name : item->label);
        mt_json_set_str(o, "dtype", "F32");
        list = mt_json_set_array(o, "shape");
        if (item->given != NULL && item->given->rank == 3)
            mt_json_add_int(list, item->n_seq);
        mt_json_add_int(list, item->n_tok);
        mt_json_add_int(list, e->m->hp.hidden);
        list = mt_json_set_array(o, "data_offsets");
        mt_json_add_int(list, (int64_t)item->offset);
        mt_json_add_int(list, (int64_t)e->bytes);
    }
    st = mt_json_print(ctx, root, &printed, n);
    mt_json_free(root);
    MT_TRY(st);
    size_t padded = (*n + 7) / 8 * 8;
    st = mt_alloc(ctx, 8 + padded, 1, "header", text);
    if (st == MT_OK) {
        for (int b = 0; b < 8; b++)
            (*text)[b] = (char)(padded >> 8 * b & 255);
        memcpy(*text + 8, printed, *n);
        memset(*text + 8 + *n, ' ', padded - *n);
        *n = 8 + padded;
    }
    mt_free(printed);
    return st;
}

static mt_status encode_open_out(struct mt_ctx *ctx, struct encode *e)
{
    unsigned flags = MT_OUT_FILE | (e->o->force ? (unsigned)MT_OUT_FORCE : 0u);
    char *header;
    size_t n;
    mt_status st;

    MT_TRY(encode_header(ctx, e, &header, &n));
    st = mt_outdir_open(ctx, e->o->out, flags, &e->dir);
    if (st == MT_OK)
        st = mt_outdir_file(ctx, e->dir, mt_outdir_name(e->dir), n + e->bytes, &e->out);
    if (st == MT_OK)
        st = mt_outfile_write(ctx, e->out, 0, header, n);
    e->data_at = n;
    mt_free(header);
    return st;
}

/* ---- work ---- */

/* Rows of padding leave x, and come back as zeros in y; lengths count what is left. */
static mt_status encode_run(struct mt_ctx *ctx, struct encode *e, struct encode_item *item,
                            float *x, int32_t *len)
{
    struct mt_encode_in in = {.seqs = {0, len}, .ids = item->ids.v};
    size_t hidden = (size_t)e->m->hp.hidden, at = 0;
    const bool *mask = item->given != NULL ? e->mask : NULL;

    for (int64_t s = 0; s < item->n_seq; s++) {
        int32_t n = 0;
        for (int64_t i = s * item->n_tok; i < (s + 1) * item->n_tok; i++) {
            if (mask != NULL && !mask[i])
                continue;
            if (item->given != NULL && at != (size_t)i)
                memmove(x + at * hidden, x + (size_t)i * hidden, hidden * sizeof *x);
            at++;
            n++;
        }
        if (n > 0)
            len[in.seqs.n++] = n;
    }
    in.x = item->given != NULL ? x : NULL;
    if (in.seqs.n > 0)
        MT_TRY(mt_encode(ctx, e->r, &in, x));
    for (int64_t i = item->n_seq * item->n_tok - 1; i >= 0 && mask != NULL; i--) {
        if (mask[i])
            memmove(x + (size_t)i * hidden, x + --at * hidden, hidden * sizeof *x);
        else
            memset(x + (size_t)i * hidden, 0, hidden * sizeof *x);
    }
    return MT_OK;
}

static mt_status encode_one(struct mt_ctx *ctx, struct encode *e, struct encode_item *item)
{
    size_t n = (size_t)(item->n_seq * item->n_tok) * (size_t)e->m->hp.hidden;
    int32_t *len = NULL;
    float *x = NULL;
    mt_status st;

    if (item->n_tok > INT32_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "a sequence of %lld tokens is too long",
                       (long long)item->n_tok);
    st = item->given != NULL ? mt_tensor_load_f32(ctx, item->given, &x)
                             : mt_alloc(ctx, n, sizeof *x, "hidden states", &x);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)item->n_seq, sizeof *len, "lengths", &len);
    if (st == MT_OK)
        st = encode_run(ctx, e, item, x, len);
    if (st == MT_OK)
        st = mt_outfile_write(ctx, e->out, e->data_at + item->offset, x, n * sizeof *x);
    mt_free(len);
    mt_free(x);
    return mt_wrap(ctx, st, "%s", item->name != NULL ? item->name : item->label);
}

static mt_status encode_all(struct mt_ctx *ctx, struct encode *e)
{
    uint64_t tokens = 0;
    mt_status st = MT_OK;

    for (size_t i = 0; i < e->n; i++)
        tokens += (uint64_t)e->items[i].used;
    MT_TRY(encode_open_out(ctx, e));
    mt_progress_begin(ctx, "encoding", "tokens", tokens);
    for (size_t i = 0; i < e->n && st == MT_OK; i++)
        st = encode_one(ctx, e, &e->items[i]);
    mt_progress_end(ctx);
    return st == MT_OK ? mt_outdir_commit(ctx, e->dir) : st;
}

static mt_status encode_print(struct mt_ctx *ctx, const struct cmd_args *a, const struct encode *e)
{
    struct mt_json *root, *list, *o;
    struct cmd_table t;
    mt_status st;

    if (a->common->json) {
        root = mt_json_new_object();
        mt_json_set_str(root, "out", e->o->out);
        list = mt_json_set_array(root, "tensors");
        for (size_t i = 0; i < e->n; i++) {
            o = mt_json_add_object(list);
            mt_json_set_str(o, "name",
                            e->items[i].name != NULL ? e->items[i].name : e->items[i].label);
            mt_json_set_int(o, "sequences", e->items[i].n_seq);
            mt_json_set_int(o, "tokens", e->items[i].used);
        }
        return cmd_print_json(ctx, root);
    }
    cmd_table_begin(&t, "lrr");
    cmd_table_cell(ctx, &t, "tensor");
    cmd_table_cell(ctx, &t, "sequences");
    cmd_table_cell(ctx, &t, "tokens");
    for (size_t i = 0; i < e->n; i++) {
        cmd_table_cell(ctx, &t, "%s",
                       e->items[i].name != NULL ? e->items[i].name : e->items[i].label);
        cmd_table_cell(ctx, &t, "%lld", (long long)e->items[i].n_seq);
        cmd_table_cell(ctx, &t, "%lld", (long long)e->items[i].used);
    }
    st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    printf("\nlast hidden states written to %s\n", e->o->out);
    return st;
}

static mt_status encode_go(struct mt_ctx *ctx, const struct cmd_args *a, struct encode *e)
{
    MT_TRY(cmd_open_model(ctx, a->pos->v[0], &e->m));
    if (e->m->family != NULL && !e->m->hp.both_ways)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: %s is no encoder; moetool eval and generate run it", e->m->path,
                       e->m->family->name);
    MT_TRY(cmd_open_device(ctx, a, &e->dev));
    MT_TRY(mt_runner_open(ctx, e->m, e->dev, &e->r));
    MT_TRY(e->o->embeddings != NULL ? encode_open_embeddings(ctx, e) : encode_open_texts(ctx, e));
    MT_TRY(encode_all(ctx, e));
    return encode_print(ctx, a, e);
}

static mt_status encode_run_command(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct encode e = {.o = a->opts};
    mt_status st;

    if (e.o->out == NULL)
        return mt_fail(ctx, MT_E_OPTION, "-o OUT is missing: the safetensors file to write");
    if ((e.o->embeddings != NULL) == (e.o->text.n > 0))
        return mt_fail(ctx, MT_E_OPTION, "give --embeddings FILE or --text TEXT, one of them");
    st = encode_go(ctx, a, &e);
    if (e.dir != NULL)
        mt_outdir_close(e.dir, false);
    for (size_t i = 0; i < e.n; i++)
        mt_ids_free(&e.items[i].ids);
    mt_free(e.items);
    mt_free(e.mask);
    mt_runner_close(e.r);
    if (e.dev != NULL)
        mt_device_close(e.dev);
    mt_model_free(e.file);
    mt_model_free(e.m);
    return st;
}

static const struct cmd_example encode_examples[] = {
    {"encode vit -o last.safetensors --embeddings patches.safetensors",
     "what a ViT makes of embedded patches"},
    {"encode bert -o last.safetensors --text \"Hello there.\" --text \"And you?\"",
     "tensors text.0 and text.1, one row for each token"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_encode = {
    .name = "encode",
    .summary = "last hidden states of an encoder (BERT, ViT, DINOv2)",
    .synopsis = "MODEL -o OUT (--embeddings FILE | --text TEXT...)",
    .help = "Runs an encoder and writes its last hidden states as F32, under the names of the "
            "inputs. Images are given as what the embedding layer makes of them; so can texts be. "
            "Sequences see all of themselves and nothing else; tokens that attention_mask marks "
            "with 0 are left out and come back as zeros.",
    .examples = encode_examples,
    .opts = encode_opt_table,
    .opts_size = sizeof(struct encode_opts),
    .args_min = 1,
    .args_max = 1,
    .run = encode_run_command,
};
