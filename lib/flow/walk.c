#include "lib/flow/walk.h"

#include "lib/base/mem.h"
#include "lib/base/scratch.h"
#include "lib/flow/emit.h"
#include "lib/flow/walk_state.h"

#include <stdio.h>
#include <string.h>

static size_t walk_unit_count(const struct mt_walk *w, int unit)
{
    return w->unit_first[unit + 1] - w->unit_first[unit];
}

/* ---- one layer ---- */

static mt_status walk_begin_layer(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        MT_TRY(mt_check_cancel(ctx));
        if (p->pass->begin != NULL)
            MT_TRY(mt_wrap(ctx, p->pass->begin(ctx, p->state, w->plan, layer), "%s: layer %d",
                           p->pass->name, layer));
    }
    return MT_OK;
}

/* What one pass tells of a layer, under its name; a second pass of the same name gets a number. */
static mt_status walk_report_layer(struct mt_ctx *ctx, struct mt_walk *w, int index, int layer)
{
    const struct walk_pass *p = &w->passes->v[index];
    struct mt_json **facts = &w->facts[layer + 1], *mine;
    char key[96];

    if (p->pass->layer_report == NULL)
        return MT_OK;
    if (*facts == NULL && (*facts = mt_json_new_object()) == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    walk_pass_key(w, index, key, sizeof key);
    mine = mt_json_set_object(*facts, key);
    return p->pass->layer_report(ctx, p->state, layer, mine);
}

static mt_status walk_edit_layer(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        MT_TRY(mt_check_cancel(ctx));
        if (p->pass->layer != NULL)
            MT_TRY(mt_wrap(ctx, p->pass->layer(ctx, p->state, w->plan, layer), "%s: layer %d",
                           p->pass->name, layer));
        MT_TRY(walk_report_layer(ctx, w, i, layer));
    }
    return MT_OK;
}

/* A layer that stands from an earlier run: passes take back what they said of it. */
static mt_status walk_restore_layer(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    const struct mt_json *facts = mt_journal_facts(w->journal, layer + 1);
    char key[96];

    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        if (p->pass->layer_restore == NULL)
            continue;
        walk_pass_key(w, i, key, sizeof key);
        MT_TRY(mt_wrap(ctx, p->pass->layer_restore(ctx, p->state, layer, mt_json_get(facts, key)),
                       "%s: layer %d", p->pass->name, layer));
    }
    return MT_OK;
}

/* ---- units ---- */

/* Without a forward pass one progress region spans the walk; with one, writing takes turns with
 * computing and each gets regions of its own. */
static mt_status walk_write_unit(struct mt_ctx *ctx, struct mt_walk *w, int unit)
{
    const struct mt_format *fmt = w->o->format;
    struct mt_json *facts = w->facts[unit];
    uint64_t before = mt_outdir_sum(w->out);
    mt_status st;

    if (mt_journal_has(w->journal, unit)) {
        if (!w->forward)
            mt_progress_add(ctx, w->unit_bytes[unit]);
        return MT_OK;
    }
    if (w->forward)
        mt_progress_begin(ctx, "writing", "B", w->unit_bytes[unit]);
    st = mt_emit(ctx, fmt, w->w, w->records + w->unit_first[unit], walk_unit_count(w, unit));
    if (st == MT_OK && fmt->sync != NULL)
        st = fmt->sync(ctx, w->w);
    if (w->forward)
        mt_progress_end(ctx);
    MT_TRY(st);
    w->facts[unit] = NULL;
    return mt_journal_add(ctx, w->journal, unit, mt_outdir_sum(w->out) - before, facts);
}

/* The student goes through the layer as it stands in the file, so that a resumed walk, which has
 * nothing else, computes the same. The plan gets its sources back afterwards: later layers may
 * point at them. */
static mt_status walk_advance_written(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    struct mt_tensor **records = w->records + w->unit_first[layer + 1], *saved;
    size_t n = walk_unit_count(w, layer + 1), done = 0;
    mt_status st = MT_OK;

    if (!walk_streams_want_layer(w, layer))
        return MT_OK;
    MT_TRY(mt_alloc(ctx, n, sizeof *saved, "list of records", &saved));
    for (; done < n && st == MT_OK; done++) {
        saved[done] = *records[done];
        st = w->o->format->reread(ctx, w->w, records[done]);
    }
    if (st == MT_OK)
        st = walk_streams_advance(ctx, w, layer);
    for (size_t i = 0; i < done; i++)
        *records[i] = saved[i];
    mt_free(saved);
    return st;
}

/* Both streams up to the layer's FFN, or no further than needed. */
static mt_status walk_observe(struct mt_ctx *ctx, struct mt_walk *w, int layer, bool quiet)
{
    uint64_t rounds = quiet ? 1 : (uint64_t)(w->s.teacher.rounds + w->s.student.rounds);

    snprintf(w->title, sizeof w->title, "layer %d of %d", layer + 1, w->n_layers);
    mt_progress_begin(ctx, w->title, "tokens", rounds * (uint64_t)w->s.n_tokens);
    mt_status st = walk_streams_observe(ctx, w, layer, quiet);
    mt_progress_end(ctx);
    return mt_wrap(ctx, st, "layer %d", layer);
}

static mt_status walk_layer(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    const struct mt_format *fmt = w->o->format;
    bool stands = layer < w->first_open;
    bool forward = w->forward && w->first_open < w->n_layers;
    bool reread = fmt != NULL && fmt->reread != NULL;

    MT_TRY(mt_check_cancel(ctx));
    if (!stands)
        MT_TRY(walk_begin_layer(ctx, w, layer));
    if (forward)
        MT_TRY(walk_observe(ctx, w, layer, stands || !walk_streams_asked(w, layer)));
    MT_TRY(stands ? walk_restore_layer(ctx, w, layer) : walk_edit_layer(ctx, w, layer));
    /* A format that cannot be read back while it is written: the plan is evaluated twice. */
    if (forward && !reread)
        MT_TRY(walk_streams_advance(ctx, w, layer));
    if (fmt != NULL)
        MT_TRY(walk_write_unit(ctx, w, layer + 1));
    else if (!forward)
        mt_progress_add(ctx, 1);
    return forward && reread ? walk_advance_written(ctx, w, layer) : MT_OK;
}

static bool walk_names_file(const struct mt_model *m, const char *text)
{
    for (size_t i = 0; i < m->n_maps; i++)
        if (strstr(text, m->maps[i]->path) != NULL)
            return true;
    return false;
}

/* The text of the failure names a weight of the layer that is NaN or infinite, in any source. */
static bool walk_find_nan(struct mt_ctx *ctx, const struct mt_model *src, int layer)
{
    bool found = mt_emit_blame(ctx, src->tensors, src->n_tensors, layer) != MT_OK;

    for (int i = 0; i < src->n_siblings && !found; i++) {
        const struct mt_model *m = src->siblings[i].m;
        found = mt_emit_blame(ctx, m->tensors, m->n_tensors, layer) != MT_OK;
    }
    return found;
}

/* Numbers that fail a computation mostly come from the weights: then the tensor is named too. */
static mt_status walk_blame(struct mt_ctx *ctx, const struct mt_walk *w, int layer, mt_status st)
{
    const struct mt_model *src = w->o->source;
    char why[512], tensor[512];

    if (st != MT_E_NUMERIC)
        return st;
    snprintf(why, sizeof why, "%s", mt_error(ctx));
    const char *element = strstr(why, "is NaN or infinite");
    if (element != NULL && walk_names_file(src, why))
        return st;
    if (!walk_find_nan(ctx, src, layer))
        return mt_fail(ctx, st, "%s", why);
    if (element == NULL)
        return mt_wrap(ctx, st, "%s", why);
    /* Of what was computed from it nobody knows the name. */
    snprintf(tensor, sizeof tensor, "%s", mt_error(ctx));
    return mt_fail(ctx, st, "%s%s", tensor, element + strlen("is NaN or infinite"));
}

static const char *walk_scratch_dir(const struct mt_walk *w)
{
    if (w->out != NULL)
        return mt_outdir_work_path(w->out);
    return mt_scratch_dir();
}

static mt_status walk_units(struct mt_ctx *ctx, struct mt_walk *w)
{
    mt_status st = MT_OK;

    if (!w->forward)
        mt_progress_begin(ctx, w->o->format != NULL ? "writing" : "planning",
                          w->o->format != NULL ? "B" : "layers",
                          w->o->format != NULL ? w->record_bytes : (uint64_t)w->n_layers);
    if (w->o->format != NULL)
        st = walk_write_unit(ctx, w, 0);
    if (st == MT_OK && w->forward && w->first_open < w->n_layers)
        st = walk_streams_begin(ctx, w, walk_scratch_dir(w));
    for (int l = 0; l < w->n_layers && st == MT_OK; l++) {
        if (w->forward)
            mt_progress_part(ctx, l, w->n_layers);
        st = walk_blame(ctx, w, l, walk_layer(ctx, w, l));
    }
    mt_progress_part(ctx, 0, 0);
    if (!w->forward)
        mt_progress_end(ctx);
    return st;
}

/* ---- the whole ---- */

void walk_pass_key(const struct mt_walk *w, int index, char *buf, size_t n)
{
    const char *name = w->passes->v[index].pass->name;
    int earlier = 0;

    for (int i = 0; i < index; i++)
        earlier += strcmp(w->passes->v[i].pass->name, name) == 0;
    if (earlier == 0)
        snprintf(buf, n, "%s", name);
    else
        snprintf(buf, n, "%s-%d", name, earlier + 1);
}

static mt_status walk_go(struct mt_ctx *ctx, struct mt_walk *w)
{
    MT_TRY(walk_plan(ctx, w));
    if (w->o->dry_run)
        return MT_OK;
    if (w->o->format == NULL) {
        MT_TRY(walk_units(ctx, w));
        return walk_manifest_end(ctx, w);
    }
    mt_status st = walk_output_open(ctx, w);
    if (st == MT_OK)
        st = walk_units(ctx, w);
    /* Room for what `finish` computes. */
    walk_streams_free(w);
    if (st == MT_OK)
        st = walk_output_finish(ctx, w);
    walk_output_close(ctx, w, st);
    return st;
}

mt_status mt_walk_run(struct mt_ctx *ctx, const struct mt_walk_opts *o, struct mt_walk_result *out)
{
    struct mt_walk w = {.o = o};

    memset(out, 0, sizeof *out);
    mt_assert(o->data == NULL || o->dev != NULL);
    mt_status st = walk_go(ctx, &w);
    walk_streams_free(&w);
    walk_plan_free(&w);
    out->plan = w.plan;
    out->manifest = w.manifest;
    out->states = w.passes;
    out->written = w.written;
    out->bytes_out = w.bytes_out;
    memcpy(out->type_bytes, w.type_bytes, sizeof out->type_bytes);
    out->memory_bytes = w.memory_bytes;
    out->disk_bytes = w.disk_bytes;
    out->scratch_bytes = w.scratch_bytes;
    if (st != MT_OK)
        mt_walk_result_free(out);
    return st;
}

void mt_walk_result_free(struct mt_walk_result *r)
{
    mt_model_free(r->plan);
    walk_passes_free(r->states);
    mt_json_free(r->manifest);
    mt_free(r->written);
    memset(r, 0, sizeof *r);
}
