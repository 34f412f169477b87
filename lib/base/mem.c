#include "lib/base/mem.h"

#include "lib/base/ctx_env.h"
#include "lib/base/dtype.h"
#include "lib/base/fault.h"
#include "lib/base/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define MEM_ALIGN 64
#define MEM_RETURN (1 << 20) /* blocks that go back to the system when freed */

/* In front of every block; one alignment unit, so that the block itself stays aligned. */
struct mem_head {
    uint64_t bytes; /* charged, head included */
    struct mt_budget *budget;
};

static mt_fault mem_fault; /* counts down to the failing allocation */

void mt_fault_alloc(uint64_t n)
{
    atomic_store(&mem_fault, n);
}

bool mt_fault_alloc_waits(void)
{
    return atomic_load(&mem_fault) != 0;
}

bool mt_fault_alloc_now(void)
{
    return mt_fault_now(&mem_fault);
}

static bool mem_charge(struct mt_budget *b, uint64_t bytes)
{
    uint64_t used = atomic_load(&b->used), peak;

    do {
        if (bytes > b->limit || used > b->limit - bytes)
            return false;
    } while (!atomic_compare_exchange_weak(&b->used, &used, used + bytes));
    peak = atomic_load(&b->peak);
    while (used + bytes > peak && !atomic_compare_exchange_weak(&b->peak, &peak, used + bytes))
        ;
    return true;
}

static mt_status mem_over(struct mt_ctx *ctx, uint64_t bytes, const char *what)
{
    uint64_t used = mt_mem_used(ctx), mib = (bytes >> 20) + (used >> 20) + 2;
    char a[24], b[24], c[24];

    return mt_fail(ctx, MT_E_LIMIT,
                   "%s needs %s, but --memory allows %s and %s are in use; raise --memory to %lluM "
                   "or more",
                   what, mt_format_bytes(bytes, a, sizeof a),
                   mt_format_bytes(mt_mem_limit(ctx), b, sizeof b),
                   mt_format_bytes(used, c, sizeof c), (unsigned long long)mib);
}

mt_status mt_alloc(struct mt_ctx *ctx, size_t n, size_t size, const char *what, void *out)
{
    struct mt_budget *budget = mt_ctx_budget(ctx);
    uint64_t bytes;
    char *raw;

    memset(out, 0, sizeof(void *));
    if (!mt_size_mul(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return mt_fail(ctx, MT_E_LIMIT, "%s: size of %zu x %zu bytes overflows", what, n, size);
    bytes = (bytes + 2 * MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
    if (mt_fault_alloc_now())
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for %s", what);
    if (!mem_charge(budget, bytes))
        return mem_over(ctx, bytes, what);
    raw = aligned_alloc(MEM_ALIGN, bytes);
    if (raw == NULL) {
        atomic_fetch_sub(&budget->used, bytes);
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for %s (%llu bytes)", what,
                       (unsigned long long)bytes);
    }
    *(struct mem_head *)(void *)raw = (struct mem_head){bytes, budget};
    raw += MEM_ALIGN;
    memcpy(out, &raw, sizeof raw);
    /* cppcheck-suppress memleak ; given to the caller through `out` */
    return MT_OK;
}

mt_status mt_alloc0(struct mt_ctx *ctx, size_t n, size_t size, const char *what, void *out)
{
    void *p;

    MT_TRY(mt_alloc(ctx, n, size, what, out));
    memcpy(&p, out, sizeof p);
    mt_assert(p != NULL);
    memset(p, 0, n * size);
    return MT_OK;
}

static struct mem_head *mem_head_of(void *ptr)
{
    return (struct mem_head *)(void *)((char *)ptr - MEM_ALIGN);
}

mt_status mt_realloc(struct mt_ctx *ctx, size_t n, size_t size, const char *what, void *ptr)
{
    void *old, *fresh;

    memcpy(&old, ptr, sizeof old);
    MT_TRY(mt_alloc(ctx, n, size, what, &fresh));
    mt_assert(fresh != NULL);
    if (old != NULL) {
        uint64_t have = mem_head_of(old)->bytes - MEM_ALIGN;
        memcpy(fresh, old, have < n * size ? have : n * size);
        mt_free(old);
    }
    memcpy(ptr, &fresh, sizeof fresh);
    return MT_OK;
}

mt_status mt_grow(struct mt_ctx *ctx, size_t n, size_t *cap, size_t size, const char *what,
                  void *ptr)
{
    size_t more = *cap * 2 + 16;

    if (n < *cap)
        return MT_OK;
    MT_TRY(mt_realloc(ctx, more, size, what, ptr));
    *cap = more;
    return MT_OK;
}

void mt_free(void *ptr)
{
    if (ptr == NULL)
        return;
    struct mem_head *h = mem_head_of(ptr);
    atomic_fetch_sub(&h->budget->used, h->bytes);
    free(h);
}

mt_status mt_mem_charge(struct mt_ctx *ctx, uint64_t bytes, const char *what)
{
    return mem_charge(mt_ctx_budget(ctx), bytes) ? MT_OK : mem_over(ctx, bytes, what);
}

void mt_mem_refund(struct mt_budget *budget, uint64_t bytes)
{
    atomic_fetch_sub(&budget->used, bytes);
}

void mt_mem_return_freed(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, MEM_RETURN);
#endif
}

uint64_t mt_mem_used(const struct mt_ctx *ctx)
{
    return atomic_load(&mt_ctx_budget(ctx)->used);
}

uint64_t mt_mem_peak(const struct mt_ctx *ctx)
{
    return atomic_load(&mt_ctx_budget(ctx)->peak);
}

uint64_t mt_mem_limit(const struct mt_ctx *ctx)
{
    return mt_ctx_budget(ctx)->limit;
}

mt_status mt_mem_fits(struct mt_ctx *ctx, uint64_t bytes, const char *what)
{
    uint64_t limit = mt_mem_limit(ctx), used = mt_mem_used(ctx);

    if (bytes > limit || used > limit - bytes)
        return mem_over(ctx, bytes, what);
    return MT_OK;
}

/* Arena blocks double from 4 KiB to 1 MiB; a larger object gets a block of its own. */
#define ARENA_FIRST 4096u
#define ARENA_LAST (1u << 20)
#define ARENA_ALIGN 16u

struct mt_arena_block {
    struct mt_arena_block *next;
    size_t used, bytes;
};

void mt_arena_init(struct mt_arena *a)
{
    a->head = NULL;
}

void mt_arena_free(struct mt_arena *a)
{
    while (a->head != NULL) {
        struct mt_arena_block *next = a->head->next;
        mt_free(a->head);
        a->head = next;
    }
}

mt_status mt_arena_alloc(struct mt_ctx *ctx, struct mt_arena *a, size_t n, size_t size, void *out)
{
    const size_t head =
        (sizeof(struct mt_arena_block) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    struct mt_arena_block *b = a->head;
    uint64_t bytes;
    char *p;

    memset(out, 0, sizeof(void *));
    if (!mt_size_mul(n, size, &bytes) || bytes > SIZE_MAX / 4)
        return mt_fail(ctx, MT_E_LIMIT, "size of %zu x %zu bytes overflows", n, size);
    bytes = (bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (b == NULL || b->bytes - b->used < bytes) {
        size_t want = b == NULL                   ? ARENA_FIRST
                      : b->bytes * 2 > ARENA_LAST ? ARENA_LAST
                                                  : b->bytes * 2;
        if (want < head + bytes)
            want = head + bytes;
        MT_TRY(mt_alloc(ctx, 1, want, "records", &b));
        mt_assert(b != NULL);
        *b = (struct mt_arena_block){.next = a->head, .used = head, .bytes = want};
        a->head = b;
    }
    p = (char *)b + b->used;
    b->used += bytes;
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof p);
    return MT_OK;
}

mt_status mt_arena_strndup(struct mt_ctx *ctx, struct mt_arena *a, const char *s, size_t n,
                           const char **out)
{
    char *p;

    MT_TRY(mt_arena_alloc(ctx, a, n + 1, 1, &p));
    mt_assert(p != NULL);
    memcpy(p, s, n);
    *out = p;
    return MT_OK;
}

mt_status mt_arena_printf(struct mt_ctx *ctx, struct mt_arena *a, const char **out, const char *fmt,
                          ...)
{
    va_list ap;
    char *p;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    mt_assert(n >= 0);
    MT_TRY(mt_arena_alloc(ctx, a, (size_t)n + 1, 1, &p));
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    *out = p;
    return MT_OK;
}
