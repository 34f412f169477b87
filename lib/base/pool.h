/* pool.h: the program's own threads.
 *
 * mt_pool_run is a parallel for: fn(child, i, arg) for i in [0, n). It returns when all jobs have
 * run. If jobs fail, the failure of the lowest index wins, whatever the thread count, and its
 * text is copied into the caller's context; jobs not yet started are skipped after a failure of a
 * lower index. A job that calls mt_pool_run itself runs the inner loop alone, in order.
 *
 * Results must not depend on the thread count: a job writes only what belongs to its index, and
 * sums across jobs are made afterwards in index order. BLAS is pinned to one thread per worker.
 */
#ifndef MT_BASE_POOL_H
#define MT_BASE_POOL_H

#include "lib/base/ctx.h"

typedef mt_status (*mt_job_fn)(struct mt_ctx *ctx, int64_t i, void *arg);

MT_NODISCARD mt_status mt_pool_run(struct mt_ctx *ctx, int64_t n, mt_job_fn fn, void *arg);

/* Number of the calling worker in [0, mt_ctx_threads); 0 outside the pool. For scratch space. */
int mt_pool_worker(void);

/* Used by ctx.c alone. */
MT_NODISCARD mt_status mt_pool_create(struct mt_ctx *ctx, int n_threads, struct mt_pool **out);
void mt_pool_free(struct mt_pool *pool);

#endif
