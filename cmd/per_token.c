#include "cmd/per_token.h"

#include "lib/base/mem.h"
#include "lib/base/outdir.h"

#include <stdio.h>
#include <string.h>

#define PER_TOKEN_NUMBER_MAX 32 /* "-1.23456789e-123" or an index, and what separates */

struct per_token {
    const struct cmd_report_row *rows;
    int n;
    const struct mt_dataset *data;
    struct mt_outfile *file;
    uint64_t at;
    char *text; /* of one window */
    size_t len, cap;
};

static void per_token_name(struct per_token *p, const char *name)
{
    for (; *name != '\0'; name++)
        p->text[p->len++] = strchr("\t\r\n", *name) != NULL ? ' ' : *name;
}

static mt_status per_token_flush(struct mt_ctx *ctx, struct per_token *p)
{
    mt_assert(p->len <= p->cap);
    MT_TRY(mt_outfile_write(ctx, p->file, p->at, p->text, p->len));
    p->at += p->len;
    p->len = 0;
    return MT_OK;
}

/* Room for the longest of what is flushed at a time. */
static size_t per_token_room(const struct per_token *p)
{
    size_t names = 0, domain = 0, row, window;

    for (int i = 1; i < p->n; i++)
        names += strlen(p->rows[i].name) + 1;
    for (int d = 0; d < p->data->n_domains; d++)
        domain = strlen(p->data->domains[d]) > domain ? strlen(p->data->domains[d]) : domain;
    row = domain + (size_t)(p->n + 3) * PER_TOKEN_NUMBER_MAX;
    window = (size_t)p->data->window_len_max * row;
    return names + row > window ? names + row : window;
}

static mt_status per_token_head(struct mt_ctx *ctx, struct per_token *p)
{
    p->len = (size_t)snprintf(p->text, p->cap, "window\tdomain\ttoken");
    for (int i = 1; i < p->n; i++) {
        p->text[p->len++] = '\t';
        per_token_name(p, p->rows[i].name);
    }
    p->text[p->len++] = '\n';
    return per_token_flush(ctx, p);
}

static mt_status per_token_window(struct mt_ctx *ctx, struct per_token *p, size_t w, size_t first)
{
    const struct mt_window *win = &p->data->windows[w];

    for (int32_t t = 1; t < win->n; t++) {
        size_t at = first + (size_t)t - 1;
        p->len += (size_t)snprintf(p->text + p->len, PER_TOKEN_NUMBER_MAX, "%zu\t", w);
        per_token_name(p, p->data->domains[win->domain]);
        p->len += (size_t)snprintf(p->text + p->len, PER_TOKEN_NUMBER_MAX, "\t%d", (int)t);
        for (int i = 1; i < p->n; i++)
            p->len += (size_t)snprintf(p->text + p->len, PER_TOKEN_NUMBER_MAX, "\t%.9g",
                                       (double)p->rows[i].r->kl[at]);
        p->text[p->len++] = '\n';
    }
    return per_token_flush(ctx, p);
}

static mt_status per_token_all(struct mt_ctx *ctx, struct per_token *p)
{
    size_t first = 0;

    p->cap = per_token_room(p);
    MT_TRY(mt_alloc(ctx, p->cap, 1, "rows of a window", &p->text));
    MT_TRY(per_token_head(ctx, p));
    for (size_t w = 0; w < p->data->n_windows; w++) {
        MT_TRY(per_token_window(ctx, p, w, first));
        first += (size_t)p->data->windows[w].n - 1;
    }
    return MT_OK;
}

mt_status cmd_per_token_write(struct mt_ctx *ctx, const char *path, bool force,
                              const struct cmd_report_row *rows, int n,
                              const struct mt_dataset *data)
{
    struct per_token p = {.rows = rows, .n = n, .data = data};
    struct mt_outdir *dir;
    mt_status st;

    MT_TRY(mt_outdir_open(ctx, path, MT_OUT_FILE | (force ? (unsigned)MT_OUT_FORCE : 0u), &dir));
    st = mt_outdir_file(ctx, dir, mt_outdir_name(dir), 0, &p.file);
    if (st == MT_OK)
        st = per_token_all(ctx, &p);
    if (st == MT_OK)
        st = mt_outdir_settle(ctx, dir);
    if (st == MT_OK)
        st = mt_outdir_commit(ctx, dir);
    mt_outdir_close(dir, false);
    mt_free(p.text);
    return st;
}
