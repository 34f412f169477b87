/* status.h: how a function says that it failed, and how the reason reaches the user.
 *
 * Every fallible function takes a context first and returns an mt_status. Who detects a fault
 * writes the sentence with mt_fail (what is wrong, in which tensor of which file, what to do);
 * callers add where they were with mt_wrap. One line reaches the user. The text lives in the
 * context, so nothing is allocated on the way out.
 *
 * mt_assert is for our own bugs only. File contents, options and hardware never reach it.
 *
 * This header is valid C++, because CUDA sources include it.
 */
#ifndef MT_BASE_STATUS_H
#define MT_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define MT_STATUS_LIST(X)                                                                          \
    X(NOMEM, "out of memory")                                                                      \
    X(IO, "input or output error")                                                                 \
    X(FORMAT, "malformed input")                                                                   \
    X(LIMIT, "limit exceeded")                                                                     \
    X(OPTION, "wrong usage")                                                                       \
    X(ABSENT, "not found")                                                                         \
    X(UNSUPPORTED, "not supported")                                                                \
    X(NUMERIC, "numerical failure")                                                                \
    X(DEVICE, "device failure")                                                                    \
    X(CANCELLED, "interrupted")                                                                    \
    X(EXCEEDED, "validation limit exceeded")

typedef enum mt_status {
    MT_OK = 0,
#define MT_STATUS_ENUM(name, text) MT_E_##name,
    MT_STATUS_LIST(MT_STATUS_ENUM)
#undef MT_STATUS_ENUM
} mt_status;

struct mt_ctx;

#define MT_NODISCARD __attribute__((warn_unused_result))
#define MT_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

/* The short English text of a status ("out of memory"). Never NULL. */
const char *mt_status_text(mt_status st);

/* Records a failure: replaces the context's text and returns `st` (which must not be MT_OK). */
mt_status mt_fail(struct mt_ctx *ctx, mt_status st, const char *fmt, ...) MT_PRINTF(3, 4);

/* As mt_fail, with strerror(errno_value) appended after ": ". */
mt_status mt_fail_errno(struct mt_ctx *ctx, int errno_value, const char *fmt, ...) MT_PRINTF(3, 4);

/* Puts "<fmt>: " in front of the recorded text; a place that stands in it already moves there.
 * Passes MT_OK through untouched. */
mt_status mt_wrap(struct mt_ctx *ctx, mt_status st, const char *fmt, ...) MT_PRINTF(3, 4);

/* The recorded text of the last failure; "" when there is none. Borrowed from the context. */
const char *mt_error(const struct mt_ctx *ctx);

/* The only control-flow macro. Use it where nothing is held; otherwise `goto out`. */
#define MT_TRY(expr)                                                                               \
    do {                                                                                           \
        mt_status mt_try_status_ = (expr);                                                         \
        if (mt_try_status_ != MT_OK)                                                               \
            return mt_try_status_;                                                                 \
    } while (0)

#ifdef __cplusplus
#define MT_NORETURN [[noreturn]]
#else
#define MT_NORETURN _Noreturn
#endif
MT_NORETURN void mt_assert_failed(const char *expr, const char *file, int line);
#define mt_assert(expr) ((expr) ? (void)0 : mt_assert_failed(#expr, __FILE__, __LINE__))

#ifdef __cplusplus
}
#endif
#endif
