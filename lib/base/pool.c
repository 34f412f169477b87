#include "lib/base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* One region of work at a time. Workers sleep between regions; the caller works too. */
struct mt_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pthread_t *threads;
    int n_workers; /* beside the caller */
    int running;   /* workers inside the present region */
    uint64_t region;
    bool stop;

    mt_job_fn fn;
    void *arg;
    struct mt_ctx *parent;
    int64_t n;
    _Atomic int64_t next;
    _Atomic int64_t failed_at; /* lowest failed index; INT64_MAX: none */
    pthread_mutex_t fail_lock;
    struct mt_ctx failed; /* text of the failure at failed_at */
};

struct pool_worker {
    struct mt_pool *pool;
    int number;
};

static _Thread_local int pool_number;
static _Thread_local bool pool_inside;

int mt_pool_worker(void)
{
    return pool_number;
}

static void pool_note_failure(struct mt_pool *p, int64_t i, const struct mt_ctx *child)
{
    pthread_mutex_lock(&p->fail_lock);
    if (i < atomic_load(&p->failed_at)) {
        atomic_store(&p->failed_at, i);
        p->failed = *child;
    }
    pthread_mutex_unlock(&p->fail_lock);
}

static void pool_work(struct mt_pool *p)
{
    struct mt_ctx child;
    int64_t i;

    pool_inside = true;
    while ((i = atomic_fetch_add(&p->next, 1)) < p->n) {
        if (i > atomic_load(&p->failed_at))
            continue;
        mt_ctx_child(&child, p->parent);
        if (p->fn(&child, i, p->arg) != MT_OK)
            pool_note_failure(p, i, &child);
    }
    pool_inside = false;
}

static void *pool_main(void *arg)
{
    struct pool_worker *w = arg;
    struct mt_pool *p = w->pool;
    uint64_t seen = 0;

    pool_number = w->number;
    free(w);
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->region == seen)
            pthread_cond_wait(&p->wake, &p->lock);
        if (p->stop)
            break;
        seen = p->region;
        pthread_mutex_unlock(&p->lock);
        pool_work(p);
        pthread_mutex_lock(&p->lock);
        if (--p->running == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

mt_status mt_pool_create(struct mt_ctx *ctx, int n_threads, struct mt_pool **out)
{
    struct mt_pool *p = calloc(1, sizeof *p);

    *out = p;
    if (p == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for threads");
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->fail_lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = calloc((size_t)n_threads, sizeof *p->threads);
    for (int i = 1; p->threads != NULL && i < n_threads; i++) {
        struct pool_worker *w = malloc(sizeof *w);
        if (w == NULL)
            break;
        *w = (struct pool_worker){p, i};
        if (pthread_create(&p->threads[p->n_workers], NULL, pool_main, w) != 0) {
            free(w);
            break;
        }
        p->n_workers++;
    }
    if (p->n_workers != n_threads - 1)
        return mt_fail(ctx, MT_E_NOMEM, "cannot start %d threads; use a smaller -j", n_threads);
    return MT_OK;
}

void mt_pool_free(struct mt_pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_workers; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->fail_lock);
    free(p->threads);
    free(p);
}

static mt_status pool_run_alone(struct mt_ctx *ctx, int64_t n, mt_job_fn fn, void *arg)
{
    struct mt_ctx child;

    for (int64_t i = 0; i < n; i++) {
        mt_ctx_child(&child, ctx);
        mt_status st = fn(&child, i, arg);
        if (st != MT_OK) {
            memcpy(ctx->error, child.error, sizeof ctx->error);
            ctx->error_status = st;
            return st;
        }
    }
    return MT_OK;
}

mt_status mt_pool_run(struct mt_ctx *ctx, int64_t n, mt_job_fn fn, void *arg)
{
    struct mt_pool *p = mt_ctx_pool(ctx);

    if (pool_inside || n <= 1 || p->n_workers == 0)
        return pool_run_alone(ctx, n, fn, arg);
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->parent = ctx;
    p->n = n;
    atomic_store(&p->next, 0);
    atomic_store(&p->failed_at, INT64_MAX);
    p->running = p->n_workers;
    p->region++;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);

    pool_work(p);

    pthread_mutex_lock(&p->lock);
    while (p->running != 0)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (atomic_load(&p->failed_at) != INT64_MAX) {
        memcpy(ctx->error, p->failed.error, sizeof ctx->error);
        ctx->error_status = p->failed.error_status;
        return ctx->error_status;
    }
    return MT_OK;
}
