/* ctx.h: what every fallible function is handed first.
 *
 * A context belongs to one thread. It holds the text of the last failure and points at what all
 * threads share: the memory budget, the thread pool, the sinks for log and progress, and the
 * cancel flag. The pool gives each job a child context; children share everything but the text.
 *
 * The library never writes to stdout or stderr and never exits. It reports through the sink.
 */
#ifndef MT_BASE_CTX_H
#define MT_BASE_CTX_H

#include "lib/base/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum mt_log_level { MT_LOG_ERROR, MT_LOG_WARN, MT_LOG_INFO, MT_LOG_DEBUG };

#define MT_ERROR_TEXT_MAX 1024

/* One progress event. `total` 0 means unknown. Rates and time left are the renderer's business. */
struct mt_progress_event {
    enum { MT_PROGRESS_BEGIN, MT_PROGRESS_STEP, MT_PROGRESS_END } what;
    const char *title; /* "layer", "validate"; static or living until END */
    const char *unit;  /* "B" (bytes), "tokens", "layers" */
    uint64_t done, total;
    int part, parts; /* of a larger work: this region belongs to part `part` of `parts`; 0: none */
};

/* Where log lines and progress go. Callbacks may come from any thread, one at a time (the
 * environment holds a lock around them). NULL callbacks drop the event. */
struct mt_sink {
    void *self;
    void (*log)(void *self, enum mt_log_level level, const char *text);
    void (*progress)(void *self, const struct mt_progress_event *ev);
};

struct mt_budget;
struct mt_pool;
struct mt_env; /* what contexts share; see ctx.c */

struct mt_ctx {
    struct mt_env *env;
    mt_status error_status;
    char error[MT_ERROR_TEXT_MAX];
};

struct mt_ctx_opts {
    int n_threads;             /* 0: one per online core */
    uint64_t memory_bytes_max; /* 0: no limit on what mt_alloc hands out */
    uint64_t seed;             /* of every random choice; default 0 */
    bool allow_nan;            /* --allow-nan: do not refuse NaN and Inf in weights */
    struct mt_sink sink;
    volatile sig_atomic_t *cancel; /* set to non-zero by a signal handler; may be NULL */
};

/* Creates the shared environment and the calling thread's context. Close frees both.
 * Returns MT_E_NOMEM when the machine gives no memory or threads at all. */
MT_NODISCARD mt_status mt_ctx_open(struct mt_ctx *ctx, const struct mt_ctx_opts *opts);
void mt_ctx_close(struct mt_ctx *ctx);

/* A context for another thread: same environment, text of its own. Nothing to free. */
void mt_ctx_child(struct mt_ctx *child, const struct mt_ctx *parent);

int mt_ctx_threads(const struct mt_ctx *ctx);
uint64_t mt_ctx_seed(const struct mt_ctx *ctx);
bool mt_ctx_allow_nan(const struct mt_ctx *ctx);
struct mt_pool *mt_ctx_pool(const struct mt_ctx *ctx);
struct mt_budget *mt_ctx_budget(const struct mt_ctx *ctx);

/* MT_E_CANCELLED ("interrupted") once the cancel flag is set. Call it in every long loop. */
MT_NODISCARD mt_status mt_check_cancel(struct mt_ctx *ctx);

/* One line: control characters become '?'. */
void mt_log(struct mt_ctx *ctx, enum mt_log_level level, const char *fmt, ...) MT_PRINTF(3, 4);

/* Progress of one region at a time; regions do not nest. `title` and `unit` must outlive END.
 * mt_progress_part says that the regions from here on belong to part `part` (from 0) of `parts`
 * that take about the same time, so that the time left can be told for all of them; (0, 0) ends it.
 */
void mt_progress_part(struct mt_ctx *ctx, int part, int parts);
void mt_progress_begin(struct mt_ctx *ctx, const char *title, const char *unit, uint64_t total);
void mt_progress_add(struct mt_ctx *ctx, uint64_t n); /* any thread */
void mt_progress_end(struct mt_ctx *ctx);

#endif
