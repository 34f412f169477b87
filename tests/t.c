#include "tests/t.h"

#include "kernels/linalg.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define T_MAX 512

static struct {
    const char *name;
    t_fn fn;
} t_all[T_MAX];
static int t_n;

void t_register(const char *name, t_fn fn)
{
    if (t_n < T_MAX) {
        t_all[t_n].name = name;
        t_all[t_n++].fn = fn;
    }
}

void t_fail(struct t *t, const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    t->failed = 1;
    printf("    %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

double t_rel_l2(const float *a, const float *b, size_t n)
{
    double num = 0, den = 0;

    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        num += d * d;
        den += (double)b[i] * (double)b[i];
    }
    return den > 0 ? sqrt(num / den) : sqrt(num);
}

double t_rel_l2_f64(const double *a, const double *b, size_t n)
{
    double num = 0, den = 0;

    for (size_t i = 0; i < n; i++) {
        num += (a[i] - b[i]) * (a[i] - b[i]);
        den += b[i] * b[i];
    }
    return den > 0 ? sqrt(num / den) : sqrt(num);
}

static const char *t_in_root(const char *root, const char *relative)
{
    static char buf[8][1024];
    static int turn;
    char *p = buf[turn++ % 8];

    snprintf(p, sizeof buf[0], "%s/%s", root, relative);
    return p;
}

const char *t_data(const char *relative)
{
    const char *root = getenv("MOETOOL_DATA");
    const char *p = t_in_root(root != NULL ? root : "../shared/data", relative);

    return access(p, R_OK) == 0 ? p : NULL;
}

const char *t_shipped(const char *relative)
{
    return t_in_root("tests/data", relative);
}

const char *t_path(struct t *t, const char *relative)
{
    return t_in_root(t->dir, relative);
}

void t_write_file(struct t *t, const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");

    if (f == NULL || fwrite(data, 1, n, f) != n)
        t_fail(t, __FILE__, __LINE__, "cannot write %s", path);
    if (f != NULL)
        fclose(f);
}

char *t_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    struct stat sb;
    char *p;

    if (f == NULL || fstat(fileno(f), &sb) != 0)
        return NULL;
    p = malloc((size_t)sb.st_size + 1);
    *n = fread(p, 1, (size_t)sb.st_size, f);
    p[*n] = 0;
    fclose(f);
    return p;
}

static int t_tree_in(const char *a, const char *b)
{
    DIR *d = opendir(a);
    struct dirent *e;
    int same = 1;

    if (d == NULL)
        return 0;
    while (same && (e = readdir(d)) != NULL) {
        char pa[1200], pb[1200];
        struct stat sa;
        if (e->d_name[0] == '.')
            continue;
        snprintf(pa, sizeof pa, "%s/%s", a, e->d_name);
        snprintf(pb, sizeof pb, "%s/%s", b, e->d_name);
        if (stat(pa, &sa) == 0 && S_ISDIR(sa.st_mode)) {
            same = t_tree_in(pa, pb);
        } else {
            size_t na = 0, nb = 0;
            char *ba = t_read_file(pa, &na), *bb = t_read_file(pb, &nb);
            same = ba != NULL && bb != NULL && na == nb && memcmp(ba, bb, na) == 0;
            if (!same)
                printf("    differs: %s %s\n", pa, pb);
            free(ba);
            free(bb);
        }
    }
    closedir(d);
    return same;
}

int t_same_tree(const char *a, const char *b)
{
    return t_tree_in(a, b) && t_tree_in(b, a);
}

static void t_log(void *self, enum mt_log_level level, const char *text)
{
    struct t *t = self;
    size_t n = strlen(t->log), m = strlen(text);

    (void)level;
    t->log = realloc(t->log, n + m + 2);
    memcpy(t->log + n, text, m);
    memcpy(t->log + n + m, "\n", 2);
}

static void t_run(const char *name, t_fn fn, int counts[3])
{
    struct t t = {.name = name};
    struct mt_ctx_opts o = {
        .n_threads = 2, .seed = 1, .sink = {&t, t_log, NULL}, .cancel = &t.cancel};
    char cmd[600];

    printf("  %s\n", name);
    fflush(stdout);
    snprintf(t.dir, sizeof t.dir, "%s/mt-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    t.log = calloc(1, 1);
    if (mkdtemp(t.dir) == NULL || mt_ctx_open(&t.ctx, &o) != MT_OK) {
        t_fail(&t, __FILE__, __LINE__, "cannot set the test up");
    } else {
        fn(&t);
        if (!t.failed && mt_mem_used(&t.ctx) != 0)
            t_fail(&t, __FILE__, __LINE__, "%llu counted bytes leaked",
                   (unsigned long long)mt_mem_used(&t.ctx));
        mt_ctx_close(&t.ctx);
        if (!t.failed || getenv("KEEP") == NULL) {
            snprintf(cmd, sizeof cmd, "chmod -R u+w '%s'; rm -rf '%s'", t.dir, t.dir);
            if (system(cmd) != 0)
                printf("    cannot remove %s\n", t.dir);
        }
    }
    free(t.log);
    counts[t.failed ? 1 : t.skipped ? 2 : 0]++;
    if (t.failed)
        printf("  FAILED %s\n", name);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int counts[3] = {0, 0, 0};

    mt_blas_prepare(argc, argv);
    for (int i = 0; i < t_n; i++) {
        int wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted |= strstr(t_all[i].name, argv[a]) != NULL;
        if (wanted)
            t_run(t_all[i].name, t_all[i].fn, counts);
    }
    printf("%d passed, %d failed, %d skipped\n", counts[0], counts[1], counts[2]);
    return counts[1] != 0;
}
