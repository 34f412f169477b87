/* t.h: the test harness. One executable per source file; tests register themselves.
 *
 *   T_TEST(keeping_every_expert_changes_no_logit) { T_OK(t, mt_something(&t->ctx, ...)); }
 *
 * A failed check prints where and what, marks the test failed and returns from it. Absence of
 * data or hardware is T_SKIP(t, "why"), never a pass. Arguments to the executable are words: only
 * tests whose name contains one of them run. Exit status 1 when a test failed.
 *
 * Each test gets a fresh context (2 threads, seed 1, log collected in t->log) and a scratch
 * directory of its own that is removed afterwards (kept after a failure when KEEP=1).
 */
#ifndef MT_TESTS_T_H
#define MT_TESTS_T_H

#include "lib/base/ctx.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct t {
    struct mt_ctx ctx;
    const char *name;
    char dir[256]; /* scratch directory */
    char *log;     /* all log lines of the context, joined by newlines; "" at first */
    int failed, skipped;
    volatile sig_atomic_t cancel;
};

typedef void (*t_fn)(struct t *t);
void t_register(const char *name, t_fn fn);

#define T_TEST(name_)                                                                              \
    static void t_test_##name_(struct t *t);                                                       \
    __attribute__((constructor)) static void t_register_##name_(void)                              \
    {                                                                                              \
        t_register(#name_, t_test_##name_);                                                        \
    }                                                                                              \
    static void t_test_##name_(struct t *t)

void t_fail(struct t *t, const char *file, int line, const char *fmt, ...) MT_PRINTF(4, 5);

#define T_CHECK(t, cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            t_fail(t, __FILE__, __LINE__, "%s", #cond);                                            \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define T_FAIL(t, ...)                                                                             \
    do {                                                                                           \
        t_fail(t, __FILE__, __LINE__, __VA_ARGS__);                                                \
        return;                                                                                    \
    } while (0)
/* The status is MT_OK; otherwise prints the context's text. */
#define T_OK(t, expr)                                                                              \
    do {                                                                                           \
        mt_status t_st_ = (expr);                                                                  \
        if (t_st_ != MT_OK) {                                                                      \
            t_fail(t, __FILE__, __LINE__, "%s: %s: %s", #expr, mt_status_text(t_st_),              \
                   mt_error(&(t)->ctx));                                                           \
            return;                                                                                \
        }                                                                                          \
    } while (0)
/* The call fails with `want`, and the text contains `part`. */
#define T_FAILS(t, expr, want, part)                                                               \
    do {                                                                                           \
        mt_status t_st_ = (expr);                                                                  \
        if (t_st_ != (want) || strstr(mt_error(&(t)->ctx), part) == NULL) {                        \
            t_fail(t, __FILE__, __LINE__, "%s: got status %d, text \"%s\"; wanted %d, \"%s\"",     \
                   #expr, (int)t_st_, mt_error(&(t)->ctx), (int)(want), part);                     \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define T_EQ_INT(t, got, want)                                                                     \
    do {                                                                                           \
        long long t_g_ = (long long)(got), t_w_ = (long long)(want);                               \
        if (t_g_ != t_w_) {                                                                        \
            t_fail(t, __FILE__, __LINE__, "%s = %lld, wanted %lld", #got, t_g_, t_w_);             \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define T_EQ_STR(t, got, want)                                                                     \
    do {                                                                                           \
        const char *t_g_ = (got), *t_w_ = (want);                                                  \
        if (strcmp(t_g_, t_w_) != 0) {                                                             \
            t_fail(t, __FILE__, __LINE__, "%s = \"%s\", wanted \"%s\"", #got, t_g_, t_w_);         \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define T_NEAR(t, got, want, tol)                                                                  \
    do {                                                                                           \
        double t_g_ = (double)(got), t_w_ = (double)(want), t_t_ = (double)(tol);                  \
        if (!(fabs(t_g_ - t_w_) <= t_t_)) {                                                        \
            t_fail(t, __FILE__, __LINE__, "%s = %.17g, wanted %.17g within %g", #got, t_g_, t_w_,  \
                   t_t_);                                                                          \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define T_SKIP(t, why)                                                                             \
    do {                                                                                           \
        (t)->skipped = 1;                                                                          \
        printf("    skipped: %s\n", why);                                                          \
        return;                                                                                    \
    } while (0)

/* ||a - b|| / ||b|| */
double t_rel_l2(const float *a, const float *b, size_t n);
double t_rel_l2_f64(const double *a, const double *b, size_t n);

/* Path of a file of the shared test data ($MOETOOL_DATA, default ../shared/data), NULL when it is
 * not there: then skip. And of tests/data, which ships. Static buffers, a few at a time. */
const char *t_data(const char *relative);
const char *t_shipped(const char *relative);
/* Path in the scratch directory. */
const char *t_path(struct t *t, const char *relative);
void t_write_file(struct t *t, const char *path, const void *data, size_t n);
/* Malloc'ed whole file, NULL when absent. */
char *t_read_file(const char *path, size_t *n);
/* True when two directories hold the same files with the same bytes. */
int t_same_tree(const char *a, const char *b);

#endif
