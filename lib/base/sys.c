#include "lib/base/sys.h"

#include "lib/base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static mt_fault sys_fault; /* counts down to the failing call */
static _Atomic int sys_fault_errno;

void mt_fault_io(uint64_t n, int err)
{
    atomic_store(&sys_fault_errno, err);
    atomic_store(&sys_fault, n);
}

bool mt_fault_io_waits(void)
{
    return atomic_load(&sys_fault) != 0;
}

static bool sys_fails(void)
{
    if (!mt_fault_now(&sys_fault))
        return false;
    errno = atomic_load(&sys_fault_errno);
    return true;
}

int mt_sys_open(const char *path, int flags)
{
    return sys_fails() ? -1 : open(path, flags | O_CLOEXEC, 0666);
}

int mt_sys_mkstemp(char *path)
{
    return sys_fails() ? -1 : mkstemp(path);
}

int mt_sys_mkdir(const char *path)
{
    return sys_fails() ? -1 : mkdir(path, 0777);
}

ssize_t mt_sys_read(int fd, void *p, size_t n)
{
    return sys_fails() ? -1 : read(fd, p, n);
}

ssize_t mt_sys_pread(int fd, void *p, size_t n, uint64_t offset)
{
    return sys_fails() ? -1 : pread(fd, p, n, (off_t)offset);
}

/* What a full disk leaves: the first half. */
static ssize_t sys_torn(ssize_t half)
{
    (void)half;
    errno = atomic_load(&sys_fault_errno);
    return -1;
}

ssize_t mt_sys_write(int fd, const void *p, size_t n)
{
    return sys_fails() ? sys_torn(write(fd, p, n / 2)) : write(fd, p, n);
}

ssize_t mt_sys_pwrite(int fd, const void *p, size_t n, uint64_t offset)
{
    return sys_fails() ? sys_torn(pwrite(fd, p, n / 2, (off_t)offset))
                       : pwrite(fd, p, n, (off_t)offset);
}

int mt_sys_fsync(int fd)
{
    return sys_fails() ? -1 : fsync(fd);
}

int mt_sys_fdatasync(int fd)
{
    return sys_fails() ? -1 : fdatasync(fd);
}

int mt_sys_truncate(int fd, uint64_t bytes)
{
    return sys_fails() ? -1 : ftruncate(fd, (off_t)bytes);
}

int mt_sys_rename(const char *from, const char *to)
{
    return sys_fails() ? -1 : rename(from, to);
}

int mt_sys_unlink(const char *path)
{
    return sys_fails() ? -1 : unlink(path);
}

void *mt_sys_map(int fd, size_t bytes)
{
    void *p = sys_fails() ? MAP_FAILED : mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);

    return p != MAP_FAILED ? p : NULL;
}
