#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/scratch.h"
#include "lib/flow/emit.h"
#include "lib/flow/identity.h"
#include "lib/flow/manifest.h"
#include "lib/flow/profile.h"
#include "lib/flow/walk_state.h"
#include "lib/ir/pad.h"

#include "kernels/linalg.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Headers, config, index, manifest and card, beside tensor bytes. */
#define PLAN_TEXT_BYTES ((uint64_t)1 << 20)
#define PLAN_RECORD_BYTES 256u

void walk_passes_free(struct walk_passes *p)
{
    for (int i = 0; p != NULL && i < p->n; i++) {
        if (p->v[i].pass->destroy != NULL)
            p->v[i].pass->destroy(p->v[i].state);
    }
    mt_free(p);
}

static mt_status plan_pass(struct mt_ctx *ctx, struct mt_walk *w, struct walk_pass *p)
{
    const struct mt_pass_run run = {.format = w->o->format, .data = w->o->data != NULL};

    if (p->pass->create != NULL)
        MT_TRY(p->pass->create(ctx, p->opts, w->o->source, &p->state));
    if (p->pass->aim != NULL)
        MT_TRY(p->pass->aim(ctx, p->state, w->o->source, &run));
    unsigned needs = p->pass->needs != NULL ? p->pass->needs(p->state) : 0;
    if (w->o->data == NULL && (needs & MT_NEED_DATA) != 0)
        return mt_fail(ctx, MT_E_OPTION, "it looks at activations: give it texts with --data");
    if (w->o->data != NULL && p->pass->observe != NULL)
        p->needs = needs;
    p->rounds = p->needs == 0 ? 0 : p->pass->rounds != NULL ? p->pass->rounds(p->state) : 1;
    w->forward |= p->rounds > 0;
    if (p->pass->plan != NULL)
        MT_TRY(p->pass->plan(ctx, p->state, w->plan));
    return mt_model_verify(ctx, w->plan);
}

static mt_status plan_passes(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_walk_opts *o = w->o;
    size_t bytes = sizeof *w->passes + (size_t)o->n_passes * sizeof w->passes->v[0];

    MT_TRY(mt_alloc0(ctx, 1, bytes, "passes", &w->passes));
    for (int i = 0; i < o->n_passes; i++) {
        struct walk_pass *p = &w->passes->v[i];
        p->pass = o->passes[i].pass;
        p->opts = o->passes[i].opts;
        w->passes->n = i + 1;
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_wrap(ctx, plan_pass(ctx, w, p), "%s", p->pass->name));
    }
    return MT_OK;
}

static bool plan_same_ffn(const struct mt_model *a, const struct mt_model *b)
{
    for (int l = 0; l < a->hp.n_layers && a->ffn != NULL && b->ffn != NULL; l++) {
        const struct mt_ffn *x = &a->ffn[l], *y = &b->ffn[l];
        if (x->moe != y->moe || x->width != y->width || x->n_experts != y->n_experts ||
            x->k != y->k || x->shared_width != y->shared_width)
            return false;
    }
    return a->hp.n_layers == b->hp.n_layers;
}

/* What will be written, of what the plan has become. */
static mt_status plan_stored(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_format *fmt = w->o->format;

    if (fmt != NULL && fmt->prepare != NULL) {
        MT_TRY(fmt->prepare(ctx, w->plan, &w->stored_owned, &w->n_stored));
    } else if (fmt != NULL && w->plan->family != NULL && w->plan->family->can_hold == NULL) {
        MT_TRY(mt_model_restack(ctx, w->plan));
        MT_TRY(mt_model_stored(ctx, w->plan, &w->stored_owned, &w->n_stored));
    }
    w->stored = w->stored_owned;
    if (w->stored != NULL)
        return MT_OK;
    w->stored = w->plan->tensors;
    w->n_stored = w->plan->n_tensors;
    return MT_OK;
}

/* What the plan has become must be something its family's code computes, under that family's
 * names. A family that cannot be written may still be copied, as long as its shape stays. */
static mt_status plan_family(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_model *src = w->o->source;
    struct mt_model *m = w->plan;

    if (m->family == NULL)
        return MT_OK;
    if (m->family->can_hold == NULL) {
        if (m->family == src->family && plan_same_ffn(m, src))
            return MT_OK;
        if (w->o->format == NULL) /* it is only measured */
            return mt_model_verify(ctx, m);
        return mt_fail(
            ctx, MT_E_UNSUPPORTED,
            "models of family %s can be read but not written; choose another with --arch",
            m->family->name);
    }
    if (mt_model_uneven(m) && m->family->can_hold(ctx, m) != MT_OK) {
        MT_TRY(mt_model_pad_experts(ctx, m, 0));
        mt_log(ctx, MT_LOG_INFO, "layers are filled up to %d experts each with some that never act",
               mt_model_first_moe(m)->n_experts);
    }
    if (w->passes->n > 0)
        MT_TRY(m->family->can_hold(ctx, m));
    if (w->o->format != NULL && w->o->format->holds != NULL)
        MT_TRY(w->o->format->holds(ctx, m));
    MT_TRY(mt_model_rename(ctx, m, m->family));
    return mt_model_verify(ctx, m);
}

static int plan_unit_of(const struct mt_walk *w, const struct mt_tensor *t)
{
    int l = t->role.layer;

    return l >= 0 && l < w->n_layers ? l + 1 : 0;
}

static void plan_type_bytes(struct mt_walk *w)
{
    if (w->o->format != NULL && w->o->format->tensor_bytes != NULL)
        w->o->format->tensor_bytes(w->plan, w->stored, w->n_stored, w->type_bytes);
    else
        for (size_t i = 0; i < w->n_stored; i++)
            w->type_bytes[w->stored[i]->dtype] += mt_tensor_bytes(w->stored[i]);
    for (int d = 0; d < MT_DTYPE_COUNT; d++)
        w->bytes_out += w->type_bytes[d];
}

static mt_status plan_units(struct mt_ctx *ctx, struct mt_walk *w)
{
    size_t *at;

    w->n_layers = w->plan->hp.n_layers > 0 ? w->plan->hp.n_layers : 0;
    w->n_units = w->n_layers + 1;
    size_t n = (size_t)w->n_units;
    MT_TRY(mt_alloc0(ctx, n + 2, sizeof *w->unit_first, "list of records", &w->unit_first));
    MT_TRY(mt_alloc0(ctx, n, sizeof *w->unit_bytes, "list of records", &w->unit_bytes));
    MT_TRY(mt_alloc0(ctx, n, sizeof(struct mt_json *), "list of records", &w->facts));
    MT_TRY(mt_alloc(ctx, w->n_stored, sizeof(struct mt_tensor *), "list of records", &w->records));
    /* Counted one place further on, then used as cursors that end where the next unit begins. */
    at = w->unit_first + 1;
    for (size_t i = 0; i < w->n_stored; i++)
        at[plan_unit_of(w, w->stored[i]) + 1]++;
    for (size_t u = 1; u <= n; u++)
        at[u] += at[u - 1];
    for (size_t i = 0; i < w->n_stored; i++) {
        int u = plan_unit_of(w, w->stored[i]);
        w->records[at[u]++] = w->stored[i];
        w->unit_bytes[u] += mt_tensor_bytes(w->stored[i]);
        w->record_bytes += mt_tensor_bytes(w->stored[i]);
    }
    plan_type_bytes(w);
    return MT_OK;
}

/* Loaders of plain weights under this key would try to dequantize them. */
static void plan_drop_quantization(struct mt_ctx *ctx, struct mt_walk *w)
{
    static const char key[] = "quantization_config";
    const struct mt_model *src = w->o->source;
    bool plain = w->plan->family != NULL;

    if (mt_json_get(w->config, key) == NULL)
        return;
    for (size_t i = 0; plain && i < w->n_stored; i++)
        plain = mt_dtype_is_plain_float(w->stored[i]->dtype);
    if (!plain && !src->unblocked)
        return;
    mt_json_remove(w->config, key);
    mt_log(ctx, MT_LOG_INFO, "%s is left out of config.json: the weights are plain numbers", key);
}

/* What the result's config starts from: the source's, or that of the family inside a native one. */
static const struct mt_json *plan_config_from(const struct mt_walk *w)
{
    const struct mt_model *src = w->o->source;
    const struct mt_json *base = mt_json_get(mt_json_get(src->config, "moetool"), "base");

    return src->family != NULL && src->family->wraps && w->plan->family != src->family
               ? base
               : src->config;
}

static mt_status plan_config(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_model *src = w->o->source, *m = w->plan;

    if (src->config != NULL)
        MT_TRY(mt_json_copy(ctx, plan_config_from(w), &w->config));
    else if ((w->config = mt_json_new_object()) == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for config.json");
    plan_drop_quantization(ctx, w);
    /* A plain copy keeps its config as it is, down to the keys nobody here knows. */
    if (m->family == NULL || (w->passes->n == 0 && src->config != NULL))
        return MT_OK;
    if (m->family->write_config != NULL)
        return m->family->write_config(ctx, m, w->config);
    mt_cfg_write_dtype(m, w->config);
    return MT_OK;
}

/* A refusal names what passes could be asked for instead. */
static mt_status plan_fits(struct mt_ctx *ctx, const struct mt_walk *w, uint64_t bytes,
                           const char *what)
{
    mt_status st = mt_mem_fits(ctx, bytes, what);
    char why[512];

    for (int i = 0; st != MT_OK && i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        const char *spare = p->pass->spare != NULL ? p->pass->spare(p->state) : NULL;
        if (spare == NULL)
            continue;
        snprintf(why, sizeof why, "%s", mt_error(ctx));
        return mt_fail(ctx, st, "%s, or take %s, which needs less", why, spare);
    }
    return st;
}

static mt_status plan_memory(struct mt_ctx *ctx, struct mt_walk *w)
{
    uint64_t forward = 0, streams = 0, passes = 0, emit = 0;
    char what[160], a[24], b[24], c[24];

    if (w->forward)
        MT_TRY(walk_streams_plan(ctx, w, &forward, &streams));
    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        if (p->pass->memory != NULL)
            passes += p->pass->memory(p->state, w->plan);
    }
    if (w->o->format != NULL)
        emit = mt_emit_bytes(ctx, w->stored, w->n_stored) + PLAN_TEXT_BYTES +
               PLAN_RECORD_BYTES * w->n_stored;
    /* Nothing is written while activations are computed, but batch buffers stay. */
    w->work_bytes = forward + passes + emit;
    w->memory_bytes = mt_mem_used(ctx) + w->work_bytes + streams;
    snprintf(what, sizeof what, "this work (forward pass %s, passes %s, writing %s)",
             mt_format_bytes(forward + streams, a, sizeof a), mt_format_bytes(passes, b, sizeof b),
             mt_format_bytes(emit, c, sizeof c));
    return plan_fits(ctx, w, w->work_bytes + streams, what);
}

/* With a memory limit hidden states may have to be spilled, at worst as large as they are. */
static uint64_t plan_stream_bytes(struct mt_ctx *ctx, const struct mt_walk *w)
{
    if (!w->forward || w->o->hidden != NULL || mt_mem_limit(ctx) == UINT64_MAX)
        return 0;
    return (uint64_t)w->s.n_tokens * (uint64_t)w->s.hidden * sizeof(float) *
           (w->s.edited != NULL ? 2u : 1u);
}

static void plan_scratch(struct mt_ctx *ctx, const struct mt_walk *w, struct mt_pass_scratch *out)
{
    *out = (struct mt_pass_scratch){0};
    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        if (p->pass->scratch != NULL)
            p->pass->scratch(p->state, w->plan, w->forward ? w->s.n_tokens : 0, out);
    }
    /* Beside the output, where there is one. */
    if (w->o->format == NULL)
        out->passing += plan_stream_bytes(ctx, w);
}

/* What `finish` computes comes after the streams went, but a pass may have kept something, and the
 * result is opened beside the plan. */
static mt_status plan_finish(struct mt_ctx *ctx, struct mt_walk *w)
{
    uint64_t bytes = 0, scratch = 0, all;
    struct mt_pass_scratch own;

    plan_scratch(ctx, w, &own);
    w->scratch_bytes = own.kept + own.passing;
    if (w->o->format == NULL || w->o->finish_bytes == NULL)
        return MT_OK;
    MT_TRY(w->o->finish_bytes(ctx, w->o->finish_arg, w->plan, &bytes, &scratch));
    if (own.kept + scratch > w->scratch_bytes)
        w->scratch_bytes = own.kept + scratch;
    bytes += PLAN_TEXT_BYTES + 4 * PLAN_RECORD_BYTES * w->n_stored;
    all = mt_mem_used(ctx) + bytes;
    if (all > w->memory_bytes)
        w->memory_bytes = all;
    return mt_mem_fits(ctx, bytes, "validation, after this work,");
}

static uint64_t plan_file_bytes(const char *path, bool blocks)
{
    struct stat sb;

    if (stat(path, &sb) != 0)
        return 0;
    return blocks ? (uint64_t)sb.st_blocks * 512 : (uint64_t)sb.st_size;
}

/* Bytes that an unfinished output already takes; a resumed run needs that much less. */
static mt_status plan_partial_bytes(struct mt_ctx *ctx, const struct mt_walk *w, uint64_t *bytes)
{
    char work[4096], **names;
    size_t n;

    *bytes = 0;
    if ((w->o->out_flags & MT_OUT_RESUME) == 0)
        return MT_OK;
    snprintf(work, sizeof work, "%s.partial", w->o->out_path);
    if (!mt_path_is_dir(work))
        return MT_OK;
    MT_TRY(mt_path_list(ctx, work, &names, &n));
    for (size_t i = 0; i < n; i++) {
        char *path;
        mt_status st = mt_path_join(ctx, work, names[i], &path);
        if (st != MT_OK) {
            mt_free(names);
            return st;
        }
        *bytes += plan_file_bytes(path, true);
        mt_free(path);
    }
    mt_free(names);
    return MT_OK;
}

/* `left`: what the output leaves free on its file system. A resumed walk does not make again what
 * stands, so that nobody knows what it needs before. */
static mt_status plan_scratch_disk(struct mt_ctx *ctx, const struct mt_walk *w, uint64_t left)
{
    const char *dir = mt_scratch_dir();
    bool same = mt_path_same_disk(dir, w->o->out_path);
    uint64_t room = left;
    char a[24], b[24];

    if (w->scratch_bytes == 0 || (w->o->out_flags & MT_OUT_RESUME) != 0)
        return MT_OK;
    if (!same)
        MT_TRY(mt_path_free_bytes(ctx, dir, &room));
    if (w->scratch_bytes <= room)
        return MT_OK;
    return mt_fail(ctx, MT_E_LIMIT,
                   "%s: scratch files need %s, but its file system has %s free%s; free some space "
                   "or let TMPDIR name a roomier place",
                   dir, mt_format_bytes(w->scratch_bytes, a, sizeof a),
                   mt_format_bytes(room, b, sizeof b), same ? " beside the output" : "");
}

static mt_status plan_disk(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_model *src = w->o->source;
    uint64_t room, have;
    char a[24], b[24];

    w->disk_bytes = w->bytes_out + PLAN_TEXT_BYTES + PLAN_RECORD_BYTES * w->n_stored;
    for (size_t i = 0; i < src->n_sidecars; i++)
        w->disk_bytes += plan_file_bytes(src->sidecars[i].path, false);
    w->disk_bytes += plan_stream_bytes(ctx, w);
    MT_TRY(plan_partial_bytes(ctx, w, &have));
    MT_TRY(mt_path_free_bytes(ctx, w->o->out_path, &room));
    if (w->disk_bytes > room + have)
        return mt_fail(ctx, MT_E_LIMIT,
                       "%s needs %s, but its file system has %s free; free some space or choose "
                       "another place",
                       w->o->out_path, mt_format_bytes(w->disk_bytes - have, a, sizeof a),
                       mt_format_bytes(room, b, sizeof b));
    return plan_scratch_disk(ctx, w, room + have - w->disk_bytes);
}

static mt_status plan_key_passes(struct mt_ctx *ctx, struct mt_walk *w)
{
    char name[160], value[512];

    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        snprintf(name, sizeof name, "pass %d", i + 1);
        MT_TRY(mt_journal_key_add(ctx, &w->key, name, p->pass->name));
        for (const struct mt_opt *row = p->pass->opts; row != NULL && row->name != NULL; row++) {
            mt_opt_print(row, p->opts, value, sizeof value);
            if (w->passes->n > 1)
                snprintf(name, sizeof name, "pass %d --%s", i + 1, row->name);
            else
                snprintf(name, sizeof name, "--%s", row->name);
            MT_TRY(mt_journal_key_add(ctx, &w->key, name, value));
        }
    }
    return MT_OK;
}

/* The identity samples a model's bytes; half an output of one and half of its neighbour is what a
 * changed file must not give. `what`: whose files, for the key. */
static mt_status plan_key_files(struct mt_ctx *ctx, struct mt_walk *w, const struct mt_model *m,
                                const char *what)
{
    struct mt_sha256 s;
    uint64_t total = 0;
    char text[160], hex[65];

    mt_sha256_begin(&s);
    for (size_t i = 0; i < m->n_maps; i++) {
        struct {
            uint64_t bytes;
            int64_t ns;
        } at = {0, 0};
        mt_path_changed(m->maps[i]->path, &at.bytes, &at.ns);
        mt_sha256_add(&s, &at, sizeof at);
        total += at.bytes;
    }
    mt_sha256_hex(&s, hex);
    snprintf(text, sizeof text, "%zu of %" PRIu64 " bytes, dates %.8s", m->n_maps, total, hex);
    return mt_journal_key_add(ctx, &w->key, what, text);
}

/* Everything the bytes of the output depend on. */
static mt_status plan_key(struct mt_ctx *ctx, struct mt_walk *w)
{
    char hex[65], num[32], files[96];

    MT_TRY(mt_journal_key_add(ctx, &w->key, "moetool", MT_VERSION));
    MT_TRY(mt_journal_key_add(ctx, &w->key, "source model", w->identity));
    MT_TRY(plan_key_files(ctx, w, w->o->source, "source files"));
    for (int i = 0; i < w->o->source->n_siblings; i++) {
        const struct mt_sibling *s = &w->o->source->siblings[i];
        MT_TRY(mt_model_identity(ctx, s->m, hex));
        MT_TRY(mt_journal_key_add(ctx, &w->key, s->name, hex));
        snprintf(files, sizeof files, "files of %s", s->name);
        MT_TRY(plan_key_files(ctx, w, s->m, files));
    }
    MT_TRY(plan_key_passes(ctx, w));
    if (w->o->source->profile != NULL) {
        mt_profile_identity(w->o->source->profile, hex);
        MT_TRY(mt_journal_key_add(ctx, &w->key, "--profile", hex));
    }
    snprintf(num, sizeof num, "%" PRIu64, mt_ctx_seed(ctx));
    MT_TRY(mt_journal_key_add(ctx, &w->key, "--seed", num));
    if (w->forward) {
        snprintf(num, sizeof num, "%zu x %d", w->o->data->n_windows,
                 (int)w->o->data->window_len_max);
        MT_TRY(mt_journal_key_add(ctx, &w->key, w->o->hidden != NULL ? "--hidden" : "--data",
                                  w->o->data->sha256));
        MT_TRY(mt_journal_key_add(ctx, &w->key, "windows", num));
        MT_TRY(mt_journal_key_add(ctx, &w->key, "--device", w->o->dev->name));
        MT_TRY(mt_journal_key_add(ctx, &w->key, "BLAS core", mt_blas_core()));
    }
    MT_TRY(mt_journal_key_add(ctx, &w->key, "--format", w->o->format->name));
    snprintf(num, sizeof num, "%" PRIu64, w->o->write.shard_bytes_max);
    MT_TRY(mt_journal_key_add(ctx, &w->key, "--max-shard-size", num));
    if (w->o->write.stack_experts)
        MT_TRY(mt_journal_key_add(ctx, &w->key, "--experts", "stacked"));
    mt_model_layout(w->stored, w->n_stored, hex);
    return mt_journal_key_add(ctx, &w->key, "layout", hex);
}

/* The output must not replace what it is made from: --force would remove the only original. */
static mt_status plan_not_model(struct mt_ctx *ctx, const struct mt_walk_opts *o,
                                const struct mt_model *m)
{
    for (size_t i = 0; i < m->n_maps; i++) {
        const char *path = m->maps[i]->path;
        size_t n = (size_t)(mt_path_base(path) - path);
        char *dir;
        MT_TRY(mt_alloc(ctx, n + 3, 1, "a path", &dir));
        memcpy(dir, n > 0 ? path : "./", n > 0 ? n : 2);
        dir[n > 0 ? n : 2] = '\0';
        bool same = mt_path_same(dir, o->out_path);
        mt_free(dir);
        if (same)
            return mt_fail(ctx, MT_E_OPTION,
                           "%s is the model that is read; write to another directory", o->out_path);
    }
    return MT_OK;
}

static mt_status plan_not_source(struct mt_ctx *ctx, const struct mt_walk_opts *o)
{
    MT_TRY(plan_not_model(ctx, o, o->source));
    for (int i = 0; i < o->source->n_siblings; i++)
        MT_TRY(plan_not_model(ctx, o, o->source->siblings[i].m));
    return MT_OK;
}

mt_status walk_plan(struct mt_ctx *ctx, struct mt_walk *w)
{
    const struct mt_walk_opts *o = w->o;

    if (o->format != NULL) {
        MT_TRY(plan_not_source(ctx, o));
        MT_TRY(mt_outdir_probe(ctx, o->out_path,
                               o->out_flags | (o->format->one_file ? MT_OUT_FILE : 0u)));
    }
    MT_TRY(mt_model_plan(ctx, o->source, &w->plan));
    MT_TRY(plan_passes(ctx, w));
    MT_TRY(plan_family(ctx, w));
    MT_TRY(plan_stored(ctx, w));
    MT_TRY(plan_units(ctx, w));
    MT_TRY(plan_config(ctx, w));
    MT_TRY(plan_memory(ctx, w));
    MT_TRY(plan_finish(ctx, w));
    if (o->format != NULL) {
        if (o->format->plan == NULL)
            return mt_fail(ctx, MT_E_UNSUPPORTED, "%s can be read but not written",
                           o->format->name);
        MT_TRY(plan_disk(ctx, w));
    }
    MT_TRY(mt_model_identity(ctx, o->source, w->identity));
    if (o->format != NULL)
        MT_TRY(plan_key(ctx, w));
    struct mt_manifest_in in = {o, w->plan, w->identity, w->forward};
    return mt_manifest_new(ctx, &in, &w->manifest);
}

void walk_plan_free(struct mt_walk *w)
{
    for (int u = 0; w->facts != NULL && u < w->n_units; u++)
        mt_json_free(w->facts[u]);
    mt_free(w->facts);
    mt_free(w->records);
    mt_free(w->stored_owned);
    mt_free(w->unit_first);
    mt_free(w->unit_bytes);
    mt_journal_key_free(&w->key);
    mt_json_free(w->config);
}
