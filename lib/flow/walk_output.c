#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/pool.h"
#include "lib/flow/walk_state.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static mt_status output_open_dir(struct mt_ctx *ctx, struct mt_walk *w, bool *resume)
{
    unsigned flags = w->o->out_flags | (w->o->format->one_file ? MT_OUT_FILE : 0u);

    MT_TRY(mt_outdir_open(ctx, w->o->out_path, flags, &w->out));
    /* A sequential pass needs to read back what stands, record by record. */
    w->resumable =
        w->s.student.rounds == 0 || (w->o->format->reread != NULL && w->stored_owned == NULL);
    *resume = false;
    if ((flags & MT_OUT_RESUME) != 0 && w->resumable) {
        w->keep_partial = true; /* until it is known what it is */
        MT_TRY(mt_journal_there(ctx, mt_outdir_work_path(w->out), resume));
        w->keep_partial = false;
    }
    if (*resume || (flags & MT_OUT_RESUME) == 0)
        return MT_OK;
    /* Nothing to continue: what lies there is of unknown origin. */
    mt_outdir_close(w->out, false);
    w->out = NULL;
    return mt_outdir_open(ctx, w->o->out_path, flags & ~(unsigned)MT_OUT_RESUME, &w->out);
}

/* The writer finds the records that are written in the plan's list. */
static mt_status output_plan(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_format *fmt = w->o->format;
    struct mt_tensor **by_role = w->plan->tensors;
    struct mt_write_opts write = w->o->write;
    size_t n = w->plan->n_tensors;

    write.config = w->config;
    w->plan->tensors = w->stored;
    w->plan->n_tensors = w->n_stored;
    mt_status st = fmt->plan(ctx, w->out, w->plan, &write, &w->w);
    w->plan->tensors = by_role;
    w->plan->n_tensors = n;
    return st;
}

/* ---- what stands from an earlier run ---- */

struct output_check {
    struct mt_walk *w;
    size_t first; /* records of the unit begin here */
    _Atomic uint64_t sum;
};

static mt_status output_sum_record(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct output_check *c = arg;
    const struct mt_outfile *file = NULL;
    uint64_t offset = 0, bytes = 0, sum;

    c->w->o->format->place(c->w->w, c->w->records[c->first + (size_t)job], &file, &offset, &bytes);
    if (bytes == 0)
        return MT_OK;
    MT_TRY(mt_outfile_sum(ctx, file, offset, bytes, &sum));
    mt_progress_add(ctx, bytes);
    atomic_fetch_add(&c->sum, sum);
    return MT_OK;
}

static mt_status output_check_unit(struct mt_ctx *ctx, struct mt_walk *w, int unit)
{
    struct output_check c = {.w = w, .first = w->unit_first[unit]};
    char what[32] = "what lies outside of layers";

    MT_TRY(mt_pool_run(ctx, (int64_t)(w->unit_first[unit + 1] - c.first), output_sum_record, &c));
    if (atomic_load(&c.sum) == mt_journal_sum(w->journal, unit))
        return MT_OK;
    if (unit > 0)
        snprintf(what, sizeof what, "layer %d", unit - 1);
    return mt_fail(ctx, MT_E_FORMAT,
                   "%s: %s is not as it was written: the disk or someone changed it; start over "
                   "with --force",
                   mt_outdir_work_path(w->out), what);
}

/* The journal says that units stand; this sees that they do. */
static mt_status output_check_units(struct mt_ctx *ctx, struct mt_walk *w)
{
    mt_status st = MT_OK;
    uint64_t bytes = 0;

    if (w->o->format->place == NULL)
        return MT_OK;
    for (int u = 0; u < w->n_units; u++)
        bytes += mt_journal_has(w->journal, u) ? w->unit_bytes[u] : 0;
    if (bytes == 0)
        return MT_OK;
    mt_progress_begin(ctx, "checking what stands", "B", bytes);
    for (int u = 0; st == MT_OK && u < w->n_units; u++) {
        if (mt_journal_has(w->journal, u))
            st = output_check_unit(ctx, w, u);
    }
    mt_progress_end(ctx);
    return st;
}

mt_status walk_output_open(struct mt_ctx *ctx, struct mt_walk *w)
{
    bool resume;
    mt_status st;

    MT_TRY(output_open_dir(ctx, w, &resume));
    st =
        mt_journal_open(ctx, mt_outdir_work_path(w->out), &w->key, w->n_units, resume, &w->journal);
    if (st != MT_OK) {
        w->keep_partial = resume;
        return st;
    }
    while (w->first_open < w->n_layers && mt_journal_has(w->journal, w->first_open + 1))
        w->first_open++;
    if (resume)
        mt_log(ctx, MT_LOG_INFO, "resuming: %d of %d layers stand", w->first_open, w->n_layers);
    mt_outdir_expect(w->out, w->first_open > 0);
    st = output_plan(ctx, w);
    mt_outdir_expect(w->out, false);
    if (st == MT_OK && resume)
        st = output_check_units(ctx, w);
    w->keep_partial = st != MT_OK && resume;
    return st;
}

/* ---- the manifest's end ---- */

static mt_status output_copy_facts(struct mt_ctx *ctx, struct mt_json *to,
                                   const struct mt_json *facts)
{
    struct mt_json *copy;

    for (struct mt_json *f = mt_json_first(facts); f != NULL; f = mt_json_next(f)) {
        MT_TRY(mt_json_copy(ctx, f, &copy));
        mt_json_set(to, mt_json_key(f), copy);
    }
    return MT_OK;
}

mt_status walk_manifest_end(struct mt_ctx *ctx, struct mt_walk *w)
{
    struct mt_json *one = mt_json_first(mt_json_get(w->manifest, "passes")), *layers = NULL;

    for (int i = 0; i < w->passes->n; i++, one = mt_json_next(one)) {
        const struct walk_pass *p = &w->passes->v[i];
        if (p->pass->report != NULL)
            MT_TRY(mt_wrap(ctx, p->pass->report(ctx, p->state, mt_json_set_object(one, "report")),
                           "%s", p->pass->name));
    }
    for (int l = 0; l < w->n_layers; l++) {
        const struct mt_json *facts =
            w->journal != NULL ? mt_journal_facts(w->journal, l + 1) : w->facts[l + 1];
        if (mt_json_kind(facts) != MT_JSON_OBJECT)
            continue;
        if (layers == NULL)
            layers = mt_json_set_array(w->manifest, "layers");
        one = mt_json_add_object(layers);
        mt_json_set_int(one, "layer", l);
        MT_TRY(output_copy_facts(ctx, one, facts));
    }
    return MT_OK;
}

static mt_status output_write_manifest(struct mt_ctx *ctx, struct mt_walk *w)
{
    char *text;
    size_t n;

    MT_TRY(walk_manifest_end(ctx, w));
    MT_TRY(mt_json_print(ctx, w->manifest, &text, &n));
    mt_status st = mt_outdir_text(ctx, w->out, MT_MANIFEST_NAME, text, n);
    mt_free(text);
    return st;
}

/* ---- what travels along ---- */

/* Files that the walk or the writer makes itself. */
static bool output_own_file(const char *name)
{
    return strcmp(name, MT_MANIFEST_NAME) == 0 || strcmp(name, MT_JOURNAL_NAME) == 0 ||
           strcmp(name, "config.json") == 0;
}

static mt_status output_copy_sidecars(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_model *src = w->o->source;

    for (size_t i = 0; i < src->n_sidecars; i++) {
        const struct mt_sidecar *s = &src->sidecars[i];
        MT_TRY(mt_check_cancel(ctx));
        if (!output_own_file(s->name))
            MT_TRY(mt_outdir_copy(ctx, w->out, s->name, s->path));
    }
    return MT_OK;
}

/* A vocabulary that is not known here is no reason to lose the weights. */
static mt_status output_make(struct mt_ctx *ctx, struct mt_walk *w, const struct mt_made *made)
{
    char *text = NULL;
    size_t n = 0;
    mt_status st = made->make(ctx, w->o->source->path, &text, &n);

    if (st == MT_OK)
        st = mt_outdir_text(ctx, w->out, made->name, text, n);
    else if (st == MT_E_ABSENT || st == MT_E_FORMAT || st == MT_E_UNSUPPORTED) {
        mt_log(ctx, MT_LOG_WARN, "no %s is written: %s", made->name, mt_error(ctx));
        st = MT_OK;
    }
    mt_free(text);
    return st;
}

static mt_status output_make_all(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_model *src = w->o->source;

    for (size_t i = 0; i < src->n_made; i++)
        MT_TRY(output_make(ctx, w, &src->made[i]));
    return MT_OK;
}

/* The result as a loader will see it, from the files alone. */
static mt_status output_show(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_walk_opts *o = w->o;
    struct mt_model *result;
    mt_status st;

    if (o->formats == NULL)
        return MT_OK;
    MT_TRY(mt_wrap(ctx, mt_model_open_work(ctx, o->formats, mt_outdir_result_path(w->out), &result),
                   "reading the result back"));
    st = o->format->check != NULL ? o->format->check(ctx, result) : MT_OK;
    if (st == MT_OK)
        st = o->finish != NULL ? o->finish(ctx, o->finish_arg, result, w->manifest, w->out) : MT_OK;
    mt_model_free(result);
    return st;
}

mt_status walk_output_finish(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_format *fmt = w->o->format;

    if (fmt->end != NULL)
        MT_TRY(fmt->end(ctx, w->w, w->config));
    if (fmt->one_file) {
        MT_TRY(walk_manifest_end(ctx, w));
    } else {
        MT_TRY(output_copy_sidecars(ctx, w));
        MT_TRY(output_make_all(ctx, w));
        MT_TRY(output_write_manifest(ctx, w));
    }
    MT_TRY(mt_outdir_settle(ctx, w->out));
    MT_TRY(output_show(ctx, w));
    MT_TRY(mt_check_cancel(ctx));
    MT_TRY(mt_outdir_target(ctx, w->out, &w->written));
    return mt_outdir_commit(ctx, w->out);
}

void walk_output_close(struct mt_ctx *ctx, struct mt_walk *w, mt_status st)
{
    int layers = w->journal != NULL ? w->first_open : 0;
    bool keep = w->keep_partial;

    while (w->journal != NULL && layers < w->n_layers && mt_journal_has(w->journal, layers + 1))
        layers++;
    if (st != MT_OK && w->o->keep_on_failure && layers > 0 && w->resumable) {
        keep = true;
        /* Numbers fail again in the same way. */
        mt_log(ctx, MT_LOG_WARN,
               "%d of %d layers stand in %s; the same command with %s continues "
               "there",
               layers, w->n_layers, mt_outdir_work_path(w->out),
               st == MT_E_NUMERIC ? "--allow-nan --resume" : "--resume");
    }
    if (w->w != NULL && w->o->format->free != NULL)
        w->o->format->free(w->w);
    mt_journal_close(w->journal);
    mt_outdir_close(w->out, keep);
    w->w = NULL;
    w->journal = NULL;
    w->out = NULL;
}
