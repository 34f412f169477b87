#include "lib/base/mem.h"
#include "lib/ir/family.h"
#include "lib/run/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TRACE_BUFFER_BYTES ((size_t)256 << 10)

struct mt_trace_writer {
    struct mt_outdir *out;
    struct mt_outfile *file;
    uint64_t at;
    size_t n;
    char text[TRACE_BUFFER_BYTES];
};

static mt_status trace_flush(struct mt_ctx *ctx, struct mt_trace_writer *w)
{
    MT_TRY(mt_outfile_write(ctx, w->file, w->at, w->text, w->n));
    w->at += w->n;
    w->n = 0;
    return MT_OK;
}

static mt_status trace_text(struct mt_ctx *ctx, struct mt_trace_writer *w, const char *text,
                            size_t n)
{
    while (n > 0) {
        size_t room = sizeof w->text - w->n, part = n < room ? n : room;
        memcpy(w->text + w->n, text, part);
        w->n += part;
        text += part;
        n -= part;
        if (w->n == sizeof w->text)
            MT_TRY(trace_flush(ctx, w));
    }
    return MT_OK;
}

static mt_status trace_printf(struct mt_ctx *ctx, struct mt_trace_writer *w, const char *fmt, ...)
    MT_PRINTF(3, 4);
static mt_status trace_printf(struct mt_ctx *ctx, struct mt_trace_writer *w, const char *fmt, ...)
{
    char buf[128];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    mt_assert(n >= 0 && (size_t)n < sizeof buf);
    return trace_text(ctx, w, buf, (size_t)n);
}

mt_status mt_trace_create(struct mt_ctx *ctx, const char *path, unsigned out_flags,
                          const struct mt_model *m, struct mt_trace_writer **out)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    struct mt_trace_writer *w;
    mt_status st;

    *out = NULL;
    if (moe == NULL)
        return mt_fail(ctx, MT_E_OPTION, "%s: has no routers to trace", m->path);
    MT_TRY(mt_alloc0(ctx, 1, sizeof *w, "trace", &w));
    st = mt_outdir_open(ctx, path, out_flags | MT_OUT_FILE, &w->out);
    if (st == MT_OK)
        st = mt_outdir_file(ctx, w->out, mt_outdir_name(w->out), 0, &w->file);
    if (st == MT_OK)
        st = trace_printf(ctx, w, "{\"moetool_trace\":1,\"n_experts\":%d}\n", moe->n_experts);
    if (st != MT_OK) {
        mt_trace_close(w);
        return st;
    }
    *out = w;
    return MT_OK;
}

/* One token's experts, without those that stand for none. */
static mt_status trace_put(struct mt_ctx *ctx, struct mt_trace_writer *w, const int32_t *e, int k)
{
    const char *between = "";

    MT_TRY(trace_text(ctx, w, "[", 1));
    for (int i = 0; i < k; i++) {
        if (e[i] < 0)
            continue;
        MT_TRY(trace_printf(ctx, w, "%s%d", between, (int)e[i]));
        between = ",";
    }
    return trace_text(ctx, w, "]", 1);
}

mt_status mt_trace_add(struct mt_ctx *ctx, struct mt_trace_writer *w, int layer,
                       const struct mt_batch *b, const struct mt_routing *r)
{
    const int32_t *e = r->expert;

    mt_assert(r->m == b->tokens);
    for (size_t i = 0; i < b->n; i++) {
        MT_TRY(
            trace_printf(ctx, w, "{\"seq\":%zu,\"layer\":%d,\"experts\":[", b->first + i, layer));
        for (int32_t t = 0; t < b->seqs.len[i]; t++, e += r->k) {
            if (t > 0)
                MT_TRY(trace_text(ctx, w, ",", 1));
            MT_TRY(trace_put(ctx, w, e, r->k));
        }
        MT_TRY(trace_text(ctx, w, "]}\n", 3));
    }
    return MT_OK;
}

mt_status mt_trace_commit(struct mt_ctx *ctx, struct mt_trace_writer *w)
{
    MT_TRY(trace_flush(ctx, w));
    MT_TRY(mt_outdir_settle(ctx, w->out));
    return mt_outdir_commit(ctx, w->out);
}

void mt_trace_close(struct mt_trace_writer *w)
{
    if (w == NULL)
        return;
    mt_outdir_close(w->out, false);
    mt_free(w);
}
