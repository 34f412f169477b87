/* ctx_env.h: the inside of the shared environment, for ctx.c, mem.c and pool.c alone. */
#ifndef MT_BASE_CTX_ENV_H
#define MT_BASE_CTX_ENV_H

#include "lib/base/ctx.h"

#include <pthread.h>
#include <stdatomic.h>

struct mt_budget {
    _Atomic uint64_t used, peak;
    uint64_t limit; /* UINT64_MAX: none */
};

struct mt_env {
    struct mt_budget budget;
    struct mt_pool *pool;
    int n_threads;
    uint64_t seed;
    bool allow_nan;
    struct mt_sink sink;
    volatile sig_atomic_t *cancel;
    pthread_mutex_t sink_lock;
    struct mt_progress_event progress;
};
#endif
