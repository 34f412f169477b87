/* scratch.h: files for what memory need not hold, gone with the process.
 *
 * Ownership: who opens a file closes it. Threads: any, on parts of their own.
 */
#ifndef MT_BASE_SCRATCH_H
#define MT_BASE_SCRATCH_H

#include "lib/base/ctx.h"

#include <stddef.h>
#include <stdint.h>

/* $TMPDIR, else /var/tmp, which unlike /tmp is hardly ever memory, else /tmp. */
const char *mt_scratch_dir(void);
/* A file in `dir` for `what`, without a name. MT_E_IO; *fd is -1 or to be closed, also after a
 * failure. */
MT_NODISCARD mt_status mt_scratch_open(struct mt_ctx *ctx, const char *dir, const char *what,
                                       int *fd);
/* All n bytes: 0, or what errno says; EIO when the file ends before. */
int mt_scratch_write(int fd, const void *bytes, size_t n, uint64_t at);
int mt_scratch_read(int fd, void *to, size_t n, uint64_t at);
#endif
