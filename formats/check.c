#include "formats/check.h"

#include "formats/safetensors.h"
#include "formats/table.h"
#include "lib/base/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *const mt_engine_names[MT_ENGINE_COUNT + 1] = {"transformers", "vllm", "llama.cpp",
                                                          "moetool", NULL};

const struct mt_check_rule *const mt_check_tables[] = {mt_check_files, mt_check_hf, mt_check_gguf,
                                                       NULL};

const char *mt_severity_name(enum mt_severity s)
{
    static const char *const names[] = {"none", "remark", "wrong", "refused"};

    return names[s];
}

const char *mt_severity_verdict(enum mt_severity s)
{
    static const char *const verdicts[] = {"loads", "loads, with remarks",
                                           "loads, but computes something else", "does not load"};

    return verdicts[s];
}

/* ---- opening ---- */

static bool check_is(const struct mt_model *m, const char *format)
{
    return m->format != NULL && strcmp(m->format, format) == 0;
}

/* The layout of directories that transformers and vLLM read. */
static bool check_is_hf(const struct mt_model *m)
{
    return check_is(m, "safetensors") || check_is(m, "torch");
}

bool mt_check_is_native(const struct mt_model *m)
{
    return m->family != NULL && m->family->wraps;
}

unsigned mt_check_engines_of(const struct mt_model *m)
{
    if (check_is(m, "gguf"))
        return MT_FOR_LLAMA_CPP | MT_FOR_MOETOOL;
    /* A file by itself is no model to engines, unless it bears the one name. */
    if (!check_is_hf(m) || mt_check_is_native(m) ||
        (check_is(m, "safetensors") && !mt_path_is_dir(m->path) && m->n_maps == 1 &&
         strcmp(mt_path_base(m->maps[0]->path), MT_ST_SINGLE) != 0))
        return MT_FOR_MOETOOL;
    return MT_FOR_HF | MT_FOR_MOETOOL;
}

/* The headers as they lie in the files: binding a model evens out what engines stumble over. */
static mt_status check_read_headers(struct mt_ctx *ctx, struct mt_check *c)
{
    const struct mt_model *m = c->m;

    if (check_is(m, "safetensors")) {
        MT_TRY(mt_arena_alloc(ctx, &c->arena, m->n_maps, sizeof *c->st, &c->st));
        for (size_t i = 0; i < m->n_maps; i++) {
            c->n_st++; /* a header that failed has something to free, too */
            MT_TRY(mt_st_header_read(ctx, m->maps[i], &c->arena, &c->st[i]));
        }
    } else if (check_is(m, "gguf")) {
        MT_TRY(mt_arena_alloc(ctx, &c->arena, m->n_maps, sizeof *c->gguf, &c->gguf));
        for (size_t i = 0; i < m->n_maps; i++) {
            c->n_gguf++;
            MT_TRY(mt_gguf_header_read(ctx, m->maps[i], &c->arena, &c->gguf[i]));
        }
    }
    return MT_OK;
}

void mt_check_free(struct mt_check *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n_st; i++)
        mt_st_header_free(&c->st[i]);
    for (size_t i = 0; i < c->n_gguf; i++)
        mt_gguf_header_free(&c->gguf[i]);
    mt_model_free(c->owned);
    mt_arena_free(&c->arena);
    mt_free(c->v);
    mt_free(c);
}

/* ---- running ---- */

mt_status mt_check_found(struct mt_ctx *ctx, struct mt_check *c, const char *subject,
                         const char *fmt, ...)
{
    char text[512];
    struct mt_check_finding f = {.rule = c->rule};
    va_list ap;

    c->n_hits++;
    if (c->n_hits > MT_CHECK_LISTED_MAX) {
        c->v[c->n - 1].more++;
        return MT_OK;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    MT_TRY(mt_arena_strndup(ctx, &c->arena, text, strlen(text), &f.what));
    MT_TRY(mt_arena_strndup(ctx, &c->arena, subject, strlen(subject), &f.subject));
    MT_TRY(mt_grow(ctx, c->n, &c->cap, sizeof f, "findings", &c->v));
    c->v[c->n++] = f;
    return MT_OK;
}

static bool check_applies(const struct mt_check *c, const struct mt_check_rule *r)
{
    if ((r->engines & c->engines) == 0)
        return false;
    if (r->formats == NULL)
        return true;
    if (c->m == NULL || mt_check_is_native(c->m))
        return false;
    return strcmp(r->formats, "hf") == 0 ? check_is_hf(c->m) : check_is(c->m, r->formats);
}

static mt_status check_run(struct mt_ctx *ctx, struct mt_check *c)
{
    for (size_t t = 0; mt_check_tables[t] != NULL; t++) {
        for (const struct mt_check_rule *r = mt_check_tables[t]; r->name != NULL; r++) {
            if (!check_applies(c, r))
                continue;
            c->rule = r;
            c->n_hits = 0;
            MT_TRY(mt_wrap(ctx, r->run(ctx, c), "rule %s", r->name));
        }
    }
    return MT_OK;
}

static mt_status check_all(struct mt_ctx *ctx, struct mt_check *c, unsigned engines)
{
    c->engines = engines != 0 ? engines : c->m != NULL ? mt_check_engines_of(c->m) : MT_FOR_ALL;
    if (c->m != NULL) {
        c->flaw = c->m->flaw;
        MT_TRY(check_read_headers(ctx, c));
    }
    return check_run(ctx, c);
}

static mt_status check_create(struct mt_ctx *ctx, const char *path, struct mt_check **out)
{
    MT_TRY(mt_alloc0(ctx, 1, sizeof **out, "check", out));
    mt_arena_init(&(*out)->arena);
    (*out)->path = path;
    return MT_OK;
}

static mt_status check_end(struct mt_check **out, mt_status st)
{
    if (st != MT_OK) {
        mt_check_free(*out);
        *out = NULL;
    }
    return st;
}

mt_status mt_check_model(struct mt_ctx *ctx, const struct mt_model *m, unsigned engines,
                         struct mt_check **out)
{
    *out = NULL;
    MT_TRY(check_create(ctx, m->path, out));
    (*out)->m = m;
    return check_end(out, check_all(ctx, *out, engines));
}

static mt_status check_open(struct mt_ctx *ctx, struct mt_check *c)
{
    mt_status st = mt_model_open_lenient(ctx, mt_formats, c->path, &c->owned);

    c->m = c->owned;
    if (st == MT_E_ABSENT && !mt_path_exists(c->path))
        return st;
    if (st != MT_E_FORMAT && st != MT_E_UNSUPPORTED && st != MT_E_LIMIT && st != MT_E_ABSENT)
        return st;
    return mt_arena_strndup(ctx, &c->arena, mt_error(ctx), strlen(mt_error(ctx)), &c->flaw);
}

mt_status mt_check_path(struct mt_ctx *ctx, const char *path, unsigned engines,
                        struct mt_check **out)
{
    mt_status st;

    *out = NULL;
    MT_TRY(check_create(ctx, path, out));
    st = check_open(ctx, *out);
    if (st == MT_OK)
        st = check_all(ctx, *out, engines);
    return check_end(out, st);
}

enum mt_severity mt_check_worst(const struct mt_check *c, enum mt_engine e)
{
    enum mt_severity worst = MT_SEVERITY_NONE;

    for (size_t i = 0; i < c->n; i++) {
        const struct mt_check_rule *r = c->v[i].rule;
        if ((r->engines >> e & 1) != 0 && r->severity > worst)
            worst = r->severity;
    }
    return worst;
}

const char *mt_check_architecture(const struct mt_check *c)
{
    return c->m != NULL ? mt_json_text(mt_json_first(mt_json_get(c->m->config, "architectures")))
                        : NULL;
}

/* ---- at the end of a write ---- */

/* Engines that have code for what was written. */
static unsigned check_meant_for(const struct mt_check *c)
{
    unsigned engines = mt_check_engines_of(c->m);
    const char *arch = mt_check_architecture(c);

    if (c->m->family == NULL || c->m->family->wraps)
        engines &= ~MT_FOR_TRANSFORMERS;
    if (arch == NULL || !mt_check_vllm_knows(arch))
        engines &= ~MT_FOR_VLLM;
    return engines;
}

static void check_log(struct mt_ctx *ctx, const struct mt_check *c, unsigned engines)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct mt_check_finding *f = &c->v[i];
        enum mt_log_level level =
            f->rule->severity == MT_SEVERITY_REMARK ? MT_LOG_DEBUG : MT_LOG_WARN;
        char names[64] = "";

        for (int e = 0; e < MT_ENGINE_COUNT; e++) {
            size_t n = strlen(names);
            if ((f->rule->engines & engines) >> e & 1)
                snprintf(names + n, sizeof names - n, "%s%s", n > 0 ? ", " : "",
                         mt_engine_names[e]);
        }
        if (names[0] != '\0')
            mt_log(ctx, level, "%s: %s: %s", names, f->subject, f->what);
    }
}

static mt_status check_judge(struct mt_ctx *ctx, const struct mt_check *c)
{
    unsigned engines = check_meant_for(c);

    check_log(ctx, c, engines);
    for (size_t i = 0; i < c->n; i++) {
        const struct mt_check_finding *f = &c->v[i];
        for (int e = 0; e < MT_ENGINE_COUNT; e++)
            if (f->rule->severity == MT_SEVERITY_REFUSED && !f->rule->source &&
                ((f->rule->engines & engines) >> e & 1) != 0)
                return mt_fail(ctx, MT_E_FORMAT, "%s would not load the result: %s: %s; %s",
                               mt_engine_names[e], f->subject, f->what, f->rule->remedy);
    }
    return MT_OK;
}

mt_status mt_check_written(struct mt_ctx *ctx, const struct mt_model *result)
{
    struct mt_check *c;
    mt_status st;

    MT_TRY(mt_check_model(ctx, result, 0, &c));
    st = check_judge(ctx, c);
    mt_check_free(c);
    return st;
}
