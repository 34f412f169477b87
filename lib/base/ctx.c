#include "lib/base/ctx_env.h"
#include "lib/base/pool.h"
#include "lib/base/show.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

mt_status mt_ctx_open(struct mt_ctx *ctx, const struct mt_ctx_opts *opts)
{
    struct mt_env *env = calloc(1, sizeof *env);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    ctx->env = env;
    ctx->error_status = MT_OK;
    ctx->error[0] = '\0';
    if (env == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory at start");
    env->budget.limit = opts->memory_bytes_max != 0 ? opts->memory_bytes_max : UINT64_MAX;
    env->n_threads = opts->n_threads > 0 ? opts->n_threads : (int)(cores > 0 ? cores : 1);
    env->seed = opts->seed;
    env->allow_nan = opts->allow_nan;
    env->sink = opts->sink;
    env->cancel = opts->cancel;
    pthread_mutex_init(&env->sink_lock, NULL);
    mt_status st = mt_pool_create(ctx, env->n_threads, &env->pool);
    if (st != MT_OK)
        mt_ctx_close(ctx);
    return st;
}

void mt_ctx_close(struct mt_ctx *ctx)
{
    if (ctx->env == NULL)
        return;
    mt_pool_free(ctx->env->pool);
    pthread_mutex_destroy(&ctx->env->sink_lock);
    free(ctx->env);
    ctx->env = NULL;
}

void mt_ctx_child(struct mt_ctx *child, const struct mt_ctx *parent)
{
    child->env = parent->env;
    child->error_status = MT_OK;
    child->error[0] = '\0';
}

int mt_ctx_threads(const struct mt_ctx *ctx)
{
    return ctx->env->n_threads;
}

uint64_t mt_ctx_seed(const struct mt_ctx *ctx)
{
    return ctx->env->seed;
}

bool mt_ctx_allow_nan(const struct mt_ctx *ctx)
{
    return ctx->env->allow_nan;
}

struct mt_pool *mt_ctx_pool(const struct mt_ctx *ctx)
{
    return ctx->env->pool;
}

struct mt_budget *mt_ctx_budget(const struct mt_ctx *ctx)
{
    return &ctx->env->budget;
}

mt_status mt_check_cancel(struct mt_ctx *ctx)
{
    if (ctx->env->cancel != NULL && *ctx->env->cancel != 0)
        return mt_fail(ctx, MT_E_CANCELLED, "interrupted");
    return MT_OK;
}

void mt_log(struct mt_ctx *ctx, enum mt_log_level level, const char *fmt, ...)
{
    struct mt_env *env = ctx->env;
    char text[2048];
    va_list ap;

    if (env->sink.log == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mt_show_line(text);
    pthread_mutex_lock(&env->sink_lock);
    env->sink.log(env->sink.self, level, text);
    pthread_mutex_unlock(&env->sink_lock);
}

static void progress_send(struct mt_env *env)
{
    if (env->sink.progress != NULL)
        env->sink.progress(env->sink.self, &env->progress);
}

void mt_progress_part(struct mt_ctx *ctx, int part, int parts)
{
    struct mt_env *env = ctx->env;

    pthread_mutex_lock(&env->sink_lock);
    env->progress.part = part;
    env->progress.parts = parts;
    pthread_mutex_unlock(&env->sink_lock);
}

void mt_progress_begin(struct mt_ctx *ctx, const char *title, const char *unit, uint64_t total)
{
    struct mt_env *env = ctx->env;

    pthread_mutex_lock(&env->sink_lock);
    env->progress.what = MT_PROGRESS_BEGIN;
    env->progress.title = title;
    env->progress.unit = unit;
    env->progress.done = 0;
    env->progress.total = total;
    progress_send(env);
    pthread_mutex_unlock(&env->sink_lock);
}

void mt_progress_add(struct mt_ctx *ctx, uint64_t n)
{
    struct mt_env *env = ctx->env;

    pthread_mutex_lock(&env->sink_lock);
    env->progress.what = MT_PROGRESS_STEP;
    env->progress.done += n;
    progress_send(env);
    pthread_mutex_unlock(&env->sink_lock);
}

void mt_progress_end(struct mt_ctx *ctx)
{
    struct mt_env *env = ctx->env;

    pthread_mutex_lock(&env->sink_lock);
    env->progress.what = MT_PROGRESS_END;
    progress_send(env);
    pthread_mutex_unlock(&env->sink_lock);
}
