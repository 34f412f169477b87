/* Feeds files, and the files of directories, to a fuzz target: the corpus as a regression test.
 * usage: fuzz_NAME PATH... */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    unsigned char *data = NULL;
    size_t n = 0, cap = 0, got = 1;

    if (f == NULL) {
        perror(path);
        return 0;
    }
    while (got > 0) {
        if (n == cap) {
            cap = cap * 2 + 4096;
            data = realloc(data, cap);
            if (data == NULL)
                abort();
        }
        got = fread(data + n, 1, cap - n, f);
        n += got;
    }
    fclose(f);
    /* A block of exactly this size, so that a sanitizer sees one byte too many. */
    data = realloc(data, n > 0 ? n : 1);
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 1;
}

static int replay_path(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int n = 0;

    if (d == NULL)
        return replay_file(path);
    while ((e = readdir(d)) != NULL) {
        char file[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        n += replay_path(file);
    }
    closedir(d);
    return n;
}

int main(int argc, char **argv)
{
    int n = 0;

    for (int i = 1; i < argc; i++)
        n += replay_path(argv[i]);
    printf("%d inputs replayed\n", n);
    return n == 0;
}
