/* mem.h: memory that is counted.
 *
 * Everything larger than a few words comes from mt_alloc, which charges the context's budget and
 * fails with one sentence when `--memory` would be passed. The budget bounds anonymous memory
 * (RssAnon); mapped files are not charged. Blocks are aligned to 64 bytes and are *given* to the
 * caller, who ends them with mt_free. An arena serves many small objects with one lifetime.
 *
 * Threads: budget and mt_alloc are safe from any thread; an arena belongs to one thread at a time.
 * Fault injection: mt_fault_alloc(n) makes the n-th later allocation fail, for tests.
 */
#ifndef MT_BASE_MEM_H
#define MT_BASE_MEM_H

#include "lib/base/ctx.h"

#include <stddef.h>

/* n * size bytes, not zeroed; never returns NULL with MT_OK (n*size == 0 gives a valid block).
 * `what` names the thing in the failure text: "hidden states", "header of model.safetensors". */
MT_NODISCARD mt_status mt_alloc(struct mt_ctx *ctx, size_t n, size_t size, const char *what,
                                void *out /* T** */);
MT_NODISCARD mt_status mt_alloc0(struct mt_ctx *ctx, size_t n, size_t size, const char *what,
                                 void *out /* T** */);
/* Grows or shrinks *ptr (NULL allowed); on failure the old block stays valid. */
MT_NODISCARD mt_status mt_realloc(struct mt_ctx *ctx, size_t n, size_t size, const char *what,
                                  void *ptr /* T** */);
/* Room for one more behind n elements of an array that holds *cap: doubles it when it is full. */
MT_NODISCARD mt_status mt_grow(struct mt_ctx *ctx, size_t n, size_t *cap, size_t size,
                               const char *what, void *ptr /* T**, in and out */);
/* NULL is fine. Refunds the budget that was charged. */
void mt_free(void *ptr);

/* Bytes handed out now, the highest they have been, and the limit (UINT64_MAX without one). */
uint64_t mt_mem_used(const struct mt_ctx *ctx);
uint64_t mt_mem_peak(const struct mt_ctx *ctx);
uint64_t mt_mem_limit(const struct mt_ctx *ctx);

/* For memory that does not come from mt_alloc but counts all the same: charges it to the budget, or
 * fails as mt_alloc does. Refunded to the budget that was charged (mt_ctx_budget). */
MT_NODISCARD mt_status mt_mem_charge(struct mt_ctx *ctx, uint64_t bytes, const char *what);
void mt_mem_refund(struct mt_budget *budget, uint64_t bytes);

/* Fails with the sentence of a plan that cannot fit: "<what> needs 3.1 GiB, --memory allows ...".
 * Charges nothing. */
MT_NODISCARD mt_status mt_mem_fits(struct mt_ctx *ctx, uint64_t bytes, const char *what);

/* Makes the process give blocks of 1 MiB and more back to the system when they are freed, so that
 * what it holds is what is counted. By itself glibc keeps freed blocks of up to 32 MiB: at a limit
 * of 145M a conversion held 151 MiB so. Once, before other threads start; for programs. */
void mt_mem_return_freed(void);

/* The n-th allocation from now fails (1 = the next); 0 switches injection off. Process-wide. Who
 * allocates otherwise asks mt_fault_alloc_now first: true for the one that is to fail. */
void mt_fault_alloc(uint64_t n);
bool mt_fault_alloc_now(void);
/* True while the failure that was ordered has not happened. */
bool mt_fault_alloc_waits(void);

struct mt_arena_block;
struct mt_arena {
    struct mt_arena_block *head;
};
void mt_arena_init(struct mt_arena *a);
void mt_arena_free(struct mt_arena *a); /* frees every object; the arena may be used again */
MT_NODISCARD mt_status mt_arena_alloc(struct mt_ctx *ctx, struct mt_arena *a, size_t n, size_t size,
                                      void *out /* T**, zeroed */);
MT_NODISCARD mt_status mt_arena_strndup(struct mt_ctx *ctx, struct mt_arena *a, const char *s,
                                        size_t n, const char **out);
MT_NODISCARD mt_status mt_arena_printf(struct mt_ctx *ctx, struct mt_arena *a, const char **out,
                                       const char *fmt, ...) MT_PRINTF(4, 5);

#endif
