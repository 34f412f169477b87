#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/ir/family.h"
#include "lib/run/trace.h"

/* Of text that is gathered before it is written. */
#define TRACE_BUFFER_BYTES ((size_t)256 << 10)

struct mt_trace_writer {
    struct mt_outdir *out;
    struct mt_outfile *file;
    uint64_t at;
    struct mt_str text;
};

static mt_status trace_flush(struct mt_ctx *ctx, struct mt_trace_writer *w)
{
    MT_TRY(w->text.st);
    MT_TRY(mt_outfile_write(ctx, w->file, w->at, w->text.p, w->text.n));
    w->at += w->text.n;
    w->text.n = 0;
    return MT_OK;
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
    mt_str_begin(ctx, &w->text, "trace");
    st = mt_outdir_open(ctx, path, out_flags | MT_OUT_FILE, &w->out);
    if (st == MT_OK)
        st = mt_outdir_file(ctx, w->out, mt_outdir_name(w->out), 0, &w->file);
    mt_str_addf(&w->text, "{\"moetool_trace\":1,\"n_experts\":%d}\n", moe->n_experts);
    if (st != MT_OK) {
        mt_trace_close(w);
        return st;
    }
    *out = w;
    return MT_OK;
}

/* One token's experts, without those that stand for none. */
static void trace_put(struct mt_str *text, const int32_t *e, int k)
{
    const char *between = "";

    mt_str_add(text, "[", 1);
    for (int i = 0; i < k; i++) {
        if (e[i] < 0)
            continue;
        mt_str_addf(text, "%s%d", between, (int)e[i]);
        between = ",";
    }
    mt_str_add(text, "]", 1);
}

mt_status mt_trace_add(struct mt_ctx *ctx, struct mt_trace_writer *w, int layer,
                       const struct mt_batch *b, const struct mt_routing *r)
{
    const int32_t *e = r->expert;

    mt_assert(r->m == b->tokens);
    for (size_t i = 0; i < b->n; i++) {
        mt_str_addf(&w->text, "{\"seq\":%zu,\"layer\":%d,\"experts\":[", b->first + i, layer);
        for (int32_t t = 0; t < b->seqs.len[i]; t++, e += r->k) {
            if (t > 0)
                mt_str_add(&w->text, ",", 1);
            trace_put(&w->text, e, r->k);
            if (w->text.n >= TRACE_BUFFER_BYTES)
                MT_TRY(trace_flush(ctx, w));
        }
        mt_str_add(&w->text, "]}\n", 3);
    }
    return w->text.st;
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
    mt_str_free(&w->text);
    mt_free(w);
}
