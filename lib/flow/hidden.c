#include "lib/flow/hidden.h"

#include "lib/flow/walk.h"
#include "lib/run/runner.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HIDDEN_HELD 5    /* one token in so many is held out */
#define HIDDEN_ROWS 1024 /* tokens at a time */

/* Names with numbers as people sort them. */
static int hidden_natural(const char *a, const char *b)
{
    while (*a != 0 && *b != 0) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            size_t na, nb;
            int c;
            for (; *a == '0' && isdigit((unsigned char)a[1]); a++)
                ;
            for (; *b == '0' && isdigit((unsigned char)b[1]); b++)
                ;
            na = strspn(a, "0123456789");
            nb = strspn(b, "0123456789");
            c = na != nb ? (na < nb ? -1 : 1) : memcmp(a, b, na);
            if (c != 0)
                return c;
            a += na;
            b += nb;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return (*a != 0) - (*b != 0);
}

static int hidden_by_name(const void *a, const void *b)
{
    const struct mt_tensor *const *x = a, *const *y = b;

    return hidden_natural((*x)->name, (*y)->name);
}

static bool hidden_is_matrix(const struct mt_tensor *t)
{
    return t->rank == 2 && mt_dtype_is_plain_float(t->dtype) && mt_tensor_count(t) > 0;
}

int64_t mt_hidden_size(const struct mt_model *file)
{
    int64_t best = 0;
    size_t votes = 0;

    for (size_t i = 0; i < file->n_tensors; i++) {
        size_t n = 0;
        if (!hidden_is_matrix(file->tensors[i]))
            continue;
        for (size_t j = 0; j < file->n_tensors; j++)
            n += hidden_is_matrix(file->tensors[j]) &&
                 file->tensors[j]->shape[1] == file->tensors[i]->shape[1];
        if (n > votes) {
            votes = n;
            best = file->tensors[i]->shape[1];
        }
    }
    return best;
}

static mt_status hidden_list(struct mt_ctx *ctx, struct mt_hidden *h)
{
    size_t n = 0, cap = h->file->n_tensors + 1;

    MT_TRY(mt_alloc0(ctx, cap, sizeof(struct mt_tensor *), "hidden states", &h->layer));
    for (size_t i = 0; i < h->file->n_tensors; i++) {
        const struct mt_tensor *t = h->file->tensors[i];
        if (hidden_is_matrix(t) && t->shape[1] == h->hidden)
            h->layer[n++] = t;
    }
    qsort(h->layer, n, sizeof(struct mt_tensor *), hidden_by_name);
    if (n != (size_t)h->n_layers)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: %zu matrices of %lld columns for %d layers; expected one for each "
                       "layer, [tokens, %lld]",
                       h->file->path, n, (long long)h->hidden, h->n_layers, (long long)h->hidden);
    for (int l = 0; l < h->n_layers; l++) {
        int64_t tokens = h->layer[l]->shape[0];
        if (tokens < 2 * HIDDEN_HELD)
            return mt_fail(ctx, MT_E_FORMAT, "%s: %s holds %lld tokens, at least %d are needed",
                           h->file->path, h->layer[l]->name, (long long)tokens, 2 * HIDDEN_HELD);
        h->n_fit[l] = tokens - tokens / HIDDEN_HELD;
    }
    return MT_OK;
}

/* What walks and manifests tell of any data: numbers and a name. */
static mt_status hidden_about(struct mt_ctx *ctx, struct mt_hidden *h, const char *name)
{
    struct mt_dataset *d = &h->about;
    char *copy;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(char *) + strlen(name) + 1, "hidden states", &d->domains));
    copy = (char *)(d->domains + 1);
    memcpy(copy, name, strlen(name) + 1);
    d->domains[0] = copy;
    d->n_domains = 1;
    d->n_windows = 1;
    for (int l = 0; l < h->n_layers; l++)
        if ((size_t)h->n_fit[l] > d->n_tokens)
            d->n_tokens = (size_t)h->n_fit[l];
    d->window_len_max = (int32_t)(d->n_tokens < INT32_MAX ? d->n_tokens : INT32_MAX);
    return mt_model_identity(ctx, h->file, d->sha256);
}

mt_status mt_hidden_open(struct mt_ctx *ctx, struct mt_model *file, const char *name, int n_layers,
                         int64_t hidden, struct mt_hidden *out)
{
    mt_status st;

    *out = (struct mt_hidden){.file = file, .n_layers = n_layers, .hidden = hidden};
    st = mt_alloc0(ctx, (size_t)n_layers, sizeof *out->n_fit, "hidden states", &out->n_fit);
    if (st == MT_OK)
        st = hidden_list(ctx, out);
    if (st == MT_OK)
        st = hidden_about(ctx, out, name);
    if (st != MT_OK)
        mt_hidden_free(out);
    return st;
}

void mt_hidden_free(struct mt_hidden *h)
{
    mt_dataset_free(&h->about);
    mt_free(h->layer);
    mt_free(h->n_fit);
    mt_model_free(h->file);
    *h = (struct mt_hidden){0};
}

mt_status mt_hidden_rows(struct mt_ctx *ctx, const struct mt_hidden *h, int l, int64_t row,
                         int64_t m, float *x)
{
    MT_TRY(mt_tensor_fetch_f32(ctx, h->layer[l], row, m, x));
    for (int64_t i = 0; i < m * h->hidden; i++)
        if (!isfinite(x[i]))
            return mt_fail(ctx, MT_E_NUMERIC, "%s: %s is NaN or infinite at token %lld",
                           h->file->path, h->layer[l]->name, (long long)row + i / h->hidden);
    return MT_OK;
}

/* ---- errors ---- */

struct hidden_side {
    struct mt_runner *r;
    struct mt_run_layer *l;
    mt_buf y;
    float *host;
};

struct hidden_work {
    const struct mt_hidden *h;
    struct mt_device *dev;
    struct hidden_side side[2]; /* reference, candidate */
    mt_buf x;
    float *host_x;
};

static mt_status hidden_run(struct mt_ctx *ctx, struct hidden_work *w, struct hidden_side *s,
                            int64_t m)
{
    MT_TRY(mt_run_ffn(ctx, s->l, w->x, m, s->y, NULL));
    return w->dev->ops->download(ctx, w->dev, s->host, s->y, (size_t)(m * w->h->hidden));
}

static mt_status hidden_layer_error(struct mt_ctx *ctx, struct hidden_work *w, int l, double *off,
                                    double *all)
{
    const struct mt_hidden *h = w->h;
    int64_t tokens = h->layer[l]->shape[0], m;

    *off = *all = 0;
    for (int64_t row = h->n_fit[l]; row < tokens; row += m) {
        m = tokens - row < HIDDEN_ROWS ? tokens - row : HIDDEN_ROWS;
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_hidden_rows(ctx, h, l, row, m, w->host_x));
        MT_TRY(w->dev->ops->upload(ctx, w->dev, w->x, w->host_x, (size_t)(m * h->hidden)));
        for (int s = 0; s < 2; s++)
            MT_TRY(hidden_run(ctx, w, &w->side[s], m));
        for (int64_t i = 0; i < m * h->hidden; i++) {
            double y = (double)w->side[0].host[i], d = (double)w->side[1].host[i] - y;
            *off += d * d;
            *all += y * y;
        }
    }
    return MT_OK;
}

static mt_status hidden_layers(struct mt_ctx *ctx, struct hidden_work *w, double *error)
{
    double squares = 0;

    for (int l = 0; l < w->h->n_layers; l++) {
        double off = 0, all = 0;
        mt_status st = mt_run_layer_open(ctx, w->side[0].r, l, &w->side[0].l);
        if (st == MT_OK) {
            st = mt_run_layer_open(ctx, w->side[1].r, l, &w->side[1].l);
            if (st == MT_OK) {
                st = hidden_layer_error(ctx, w, l, &off, &all);
                mt_run_layer_close(w->side[1].l);
            }
            mt_run_layer_close(w->side[0].l);
        }
        MT_TRY(mt_wrap(ctx, st, "layer %d", l));
        /* A block that gives nothing is met exactly or not at all. */
        error[l] = all > 0 ? sqrt(off / all) : off > 0 ? INFINITY : 0;
        squares += error[l] * error[l];
    }
    error[w->h->n_layers] = sqrt(squares / w->h->n_layers);
    return MT_OK;
}

uint64_t mt_hidden_error_bytes(const struct mt_hidden *h)
{
    return (uint64_t)HIDDEN_ROWS * (uint64_t)h->hidden * 6 * sizeof(float);
}

mt_status mt_hidden_errors(struct mt_ctx *ctx, const struct mt_hidden *h,
                           const struct mt_model *ref, const struct mt_model *cand,
                           struct mt_device *dev, double *error)
{
    struct hidden_work w = {.h = h, .dev = dev};
    size_t n = (size_t)HIDDEN_ROWS * (size_t)h->hidden;
    mt_status st = mt_runner_open_blocks(ctx, ref, dev, &w.side[0].r);

    if (st == MT_OK)
        st = mt_runner_open_blocks(ctx, cand, dev, &w.side[1].r);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, n, &w.x);
    if (st == MT_OK)
        st = mt_alloc(ctx, n, sizeof(float), "hidden states", &w.host_x);
    for (int s = 0; s < 2 && st == MT_OK; s++) {
        st = dev->ops->alloc(ctx, dev, n, &w.side[s].y);
        if (st == MT_OK)
            st = mt_alloc(ctx, n, sizeof(float), "hidden states", &w.side[s].host);
    }
    if (st == MT_OK)
        st = hidden_layers(ctx, &w, error);
    for (int s = 0; s < 2; s++) {
        dev->ops->release(dev, w.side[s].y);
        mt_free(w.side[s].host);
        mt_runner_close(w.side[s].r);
    }
    dev->ops->release(dev, w.x);
    mt_free(w.host_x);
    return st;
}
