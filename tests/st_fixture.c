#include "tests/st_fixture.h"

#include <stdlib.h>
#include <sys/stat.h>

void fx_mkdir(struct t *t, const char *name)
{
    char path[1024];

    for (const char *p = strchr(name, '/');; p = strchr(p + 1, '/')) {
        int n = p != NULL ? (int)(p - name) : (int)strlen(name);
        snprintf(path, sizeof path, "%s/%.*s", t->dir, n, name);
        mkdir(path, 0777);
        if (p == NULL)
            return;
    }
}

static const char *fx_path(struct t *t, const char *name)
{
    char dir[512];
    const char *slash = strrchr(name, '/');

    if (slash != NULL) {
        snprintf(dir, sizeof dir, "%.*s", (int)(slash - name), name);
        fx_mkdir(t, dir);
    }
    return t_path(t, name);
}

const char *fx_st_raw(struct t *t, const char *name, uint64_t claimed, const void *header,
                      size_t n_header, size_t n_data)
{
    const char *path = fx_path(t, name);
    unsigned char *p = malloc(8 + n_header + n_data);

    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(claimed >> 8 * i);
    memcpy(p + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++)
        p[8 + n_header + i] = (unsigned char)(i * 31 + 7);
    t_write_file(t, path, p, 8 + n_header + n_data);
    free(p);
    return path;
}

const char *fx_st(struct t *t, const char *name, const char *header, size_t n_data)
{
    return fx_st_raw(t, name, strlen(header), header, strlen(header), n_data);
}

const char *fx_text(struct t *t, const char *name, const char *text)
{
    const char *path = fx_path(t, name);

    t_write_file(t, path, text, strlen(text));
    return path;
}

struct mt_tensor *fx_find(const struct mt_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        if (strcmp(m->tensors[i]->name, name) == 0)
            return m->tensors[i];
    }
    return NULL;
}
