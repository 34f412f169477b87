/* sys.h: system calls on files, so that tests can make any of them fail.
 *
 * Each function is the call of its name and fails as it does, with errno. mt_fault_io orders a
 * failure: of all these calls of the process, whatever they are, the n-th from now. Who opens,
 * writes, flushes, renames or maps files of a model or an output goes through here; what only looks
 * (stat, readdir) or cleans up after a failure does not. Threads: any.
 */
#ifndef MT_BASE_SYS_H
#define MT_BASE_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int mt_sys_open(const char *path, int flags); /* mode 0666 */
int mt_sys_mkstemp(char *path);
int mt_sys_mkdir(const char *path);
ssize_t mt_sys_read(int fd, void *p, size_t n);
ssize_t mt_sys_pread(int fd, void *p, size_t n, uint64_t offset);
ssize_t mt_sys_write(int fd, const void *p, size_t n);
ssize_t mt_sys_pwrite(int fd, const void *p, size_t n, uint64_t offset);
int mt_sys_fsync(int fd);
int mt_sys_fdatasync(int fd);
int mt_sys_truncate(int fd, uint64_t bytes);
int mt_sys_rename(const char *from, const char *to);
int mt_sys_unlink(const char *path);
/* Read-only and private, of the whole file; NULL on failure. */
void *mt_sys_map(int fd, size_t bytes);

/* The n-th call from now fails with errno `err` (1 = the next); 0 switches injection off. A write
 * that fails so has written half of its bytes. Process-wide. */
void mt_fault_io(uint64_t n, int err);
bool mt_fault_io_waits(void); /* the failure that was ordered has not happened */
#endif
