/* Feeds files, and the files of directories, to a fuzz target: the corpus as a regression test.
 * With -mutate=SECONDS changed copies of them follow, blindly but reproducibly: a short run for
 * machines without libFuzzer. The input being tried lies in -last=FILE when the program dies.
 * usage: fuzz_NAME [-mutate=SECONDS] [-seed=N] [-last=FILE] PATH... */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

#define REPLAY_BYTES_MAX ((size_t)1 << 16) /* of a changed input */
#define REPLAY_SECONDS_MAX 60u             /* of one input, sanitizers included */

struct replay_input {
    unsigned char *p;
    size_t n;
};

static struct replay_input *replay_v;
static size_t replay_n, replay_cap;
static int replay_last = -1;
static uint64_t replay_state = 1;

static void *replay_grown(void *p, size_t n)
{
    p = realloc(p, n > 0 ? n : 1);
    if (p == NULL)
        abort();
    return p;
}

static void replay_run(const unsigned char *data, size_t n)
{
    if (replay_last >= 0 &&
        (pwrite(replay_last, data, n, 0) != (ssize_t)n || ftruncate(replay_last, (off_t)n) != 0))
        abort();
    alarm(REPLAY_SECONDS_MAX);
    LLVMFuzzerTestOneInput(data, n);
}

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    unsigned char *data = NULL;
    size_t n = 0, cap = 0, got = 1;

    if (f == NULL) {
        perror(path);
        exit(1);
    }
    while (got > 0) {
        if (n == cap) {
            cap = cap * 2 + 4096;
            data = replay_grown(data, cap);
        }
        got = fread(data + n, 1, cap - n, f);
        n += got;
    }
    fclose(f);
    if (replay_n == replay_cap) {
        replay_cap = replay_cap * 2 + 64;
        replay_v = replay_grown(replay_v, replay_cap * sizeof *replay_v);
    }
    /* A block of exactly this size, so that a sanitizer sees one byte too many. */
    replay_v[replay_n++] = (struct replay_input){replay_grown(data, n), n};
}

static int replay_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, so that a seed means the same everywhere. */
static void replay_path(const char *path)
{
    DIR *d = opendir(path);
    char **names = NULL;
    struct dirent *e;
    size_t n = 0;

    if (d == NULL) {
        replay_file(path);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        size_t bytes = strlen(path) + strlen(e->d_name) + 2;
        if (e->d_name[0] == '.')
            continue;
        names = replay_grown(names, (n + 1) * sizeof *names);
        names[n] = replay_grown(NULL, bytes);
        snprintf(names[n++], bytes, "%s/%s", path, e->d_name);
    }
    closedir(d);
    if (n > 0)
        qsort(names, n, sizeof *names, replay_by_name);
    for (size_t i = 0; i < n; i++) {
        replay_path(names[i]);
        free(names[i]);
    }
    free(names);
}

/* ---- changed copies ---- */

static uint64_t replay_random(uint64_t below)
{
    uint64_t x = replay_state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (x ^ x >> 31) % (below > 0 ? below : 1);
}

/* Bytes [at, at + gone) become the n bytes of p; p may not lie in buf. */
static size_t replay_splice(unsigned char *buf, size_t size, size_t at, size_t gone,
                            const unsigned char *p, size_t n)
{
    if (size - gone + n > REPLAY_BYTES_MAX)
        return size;
    memmove(buf + at + n, buf + at + gone, size - at - gone);
    if (n > 0)
        memcpy(buf + at, p, n);
    return size - gone + n;
}

static size_t replay_number(unsigned char *buf, size_t size, size_t at)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   0x7f,
                                   0xff,
                                   0x7fff,
                                   0xffff,
                                   0x7fffffff,
                                   0xffffffff,
                                   0x7fffffffffffffff,
                                   0xffffffffffffffff,
                                   0x4000000000000001,
                                   64};
    uint64_t v = odd[replay_random(sizeof odd / sizeof odd[0])] + replay_random(3) - 1;
    size_t n = (size_t)1 << replay_random(4);
    char text[24];

    if (replay_random(2) == 0) {
        snprintf(text, sizeof text, "%lld", (long long)v);
        return replay_splice(buf, size, at, 0, (const unsigned char *)text, strlen(text));
    }
    for (size_t i = 0; i < n && at + i < size; i++)
        buf[at + i] = (unsigned char)(v >> (8 * i));
    return size;
}

static size_t replay_change(unsigned char *buf, size_t size)
{
    const struct replay_input *other = &replay_v[replay_random(replay_n)];
    size_t at = (size_t)replay_random(size + 1), from, n;
    unsigned char copy[256];

    switch (replay_random(6)) {
    case 0:
        if (at < size)
            buf[at] ^= (unsigned char)(1 << replay_random(8));
        return size;
    case 1:
        if (at < size)
            buf[at] = (unsigned char)replay_random(256);
        return size;
    case 2:
        return replay_number(buf, size, at);
    case 3:
        n = (size_t)replay_random(size - at < 64 ? size - at + 1 : 64);
        return replay_splice(buf, size, at, n, NULL, 0);
    case 4: /* a piece of itself again */
        from = (size_t)replay_random(size + 1);
        n = (size_t)replay_random(size - from < sizeof copy ? size - from + 1 : sizeof copy);
        memcpy(copy, buf + from, n);
        return replay_splice(buf, size, at, 0, copy, n);
    default: /* a piece of another */
        from = (size_t)replay_random(other->n + 1);
        n = (size_t)replay_random(other->n - from < 1024 ? other->n - from + 1 : 1024);
        return replay_splice(buf, size, at, 0, other->p + from, n);
    }
}

static void replay_mutate(long seconds)
{
    unsigned char *buf = replay_grown(NULL, REPLAY_BYTES_MAX);
    time_t end = time(NULL) + seconds;
    unsigned long tried = 0;

    while (time(NULL) < end) {
        const struct replay_input *in = &replay_v[replay_random(replay_n)];
        size_t n = in->n < REPLAY_BYTES_MAX ? in->n : REPLAY_BYTES_MAX;
        unsigned char *exact;
        if (n > 0)
            memcpy(buf, in->p, n);
        for (uint64_t k = 1 + replay_random(6); k > 0; k--)
            n = replay_change(buf, n);
        exact = replay_grown(NULL, n);
        if (n > 0)
            memcpy(exact, buf, n);
        replay_run(exact, n);
        free(exact);
        tried++;
    }
    free(buf);
    printf("%lu changed inputs tried\n", tried);
}

int main(int argc, char **argv)
{
    const char *last = NULL;
    long seconds = 0;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-mutate=", 8) == 0)
            seconds = strtol(argv[i] + 8, NULL, 10);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            replay_state = strtoull(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "-last=", 6) == 0)
            last = argv[i] + 6;
        else
            replay_path(argv[i]);
    }
    if (last != NULL)
        replay_last = open(last, O_RDWR | O_CREAT | O_TRUNC, 0666);
    for (size_t i = 0; i < replay_n; i++)
        replay_run(replay_v[i].p, replay_v[i].n);
    printf("%zu inputs replayed\n", replay_n);
    if (seconds > 0 && replay_n > 0)
        replay_mutate(seconds);
    for (size_t i = 0; i < replay_n; i++)
        free(replay_v[i].p);
    free(replay_v);
    if (last != NULL)
        unlink(last);
    return replay_n == 0;
}
