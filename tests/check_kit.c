#include "tests/check_kit.h"

#include <stdlib.h>

static void kit_list(const struct mt_check *c, enum mt_engine e, char *buf, size_t n)
{
    buf[0] = '\0';
    for (size_t i = 0; i < c->n; i++) {
        size_t at = strlen(buf);
        if (c->v[i].rule->engines >> e & 1)
            snprintf(buf + at, n - at, "[%s %s] %s: %s\n", c->v[i].rule->name,
                     mt_severity_name(c->v[i].rule->severity), c->v[i].subject, c->v[i].what);
    }
}

/* Whether `word` is one of the words of `list`. */
static bool kit_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = strstr(list, word); p != NULL; p = strstr(p + 1, word))
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
            return true;
    return false;
}

static bool kit_found(const struct mt_check *c, enum mt_engine e, enum mt_severity severity,
                      const char *rule, size_t n)
{
    for (size_t i = 0; i < c->n; i++)
        if ((c->v[i].rule->engines >> e & 1) != 0 && c->v[i].rule->severity == severity &&
            strlen(c->v[i].rule->name) == n && strncmp(c->v[i].rule->name, rule, n) == 0)
            return true;
    return false;
}

static struct mt_check *kit_run(struct t *t, const char *path, enum mt_engine e)
{
    struct mt_check *c;

    if (mt_check_path(&t->ctx, path, 1u << e, &c) == MT_OK)
        return c;
    t_fail(t, __FILE__, __LINE__, "%s: %s", path, mt_error(&t->ctx));
    return NULL;
}

void ck_has(struct t *t, const char *path, enum mt_engine e, enum mt_severity severity,
            const char *rule)
{
    struct mt_check *c = kit_run(t, path, e);
    char all[4096];

    if (c == NULL)
        return;
    kit_list(c, e, all, sizeof all);
    if (!kit_found(c, e, severity, rule, strlen(rule)))
        t_fail(t, __FILE__, __LINE__, "%s: no finding %s (%s) among:\n%s", mt_engine_names[e], rule,
               mt_severity_name(severity), all);
    mt_check_free(c);
}

void ck_only(struct t *t, const char *path, enum mt_engine e, enum mt_severity severity,
             const char *rules)
{
    struct mt_check *c = kit_run(t, path, e);
    const char *p = rules;
    char all[4096];
    bool good = true;

    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n; i++)
        good = good && kit_word(rules, c->v[i].rule->name) && c->v[i].rule->severity == severity;
    while (*p != '\0') {
        size_t n = strcspn(p, " ");
        good = good && kit_found(c, e, severity, p, n);
        p += n + (p[n] == ' ');
    }
    kit_list(c, e, all, sizeof all);
    if (!good)
        t_fail(t, __FILE__, __LINE__, "%s: wanted \"%s\" (%s) alone, got:\n%s", mt_engine_names[e],
               rules, mt_severity_name(severity), all);
    mt_check_free(c);
}

void ck_edit(struct t *t, const char *path, const char *from, const char *to)
{
    size_t n, f = strlen(from), w = strlen(to), at = 0, hits = 0;
    char *old = t_read_file(path, &n), *new = old != NULL ? malloc(n / f * (f + w) + n + 1) : NULL;

    for (size_t i = 0; new != NULL &&i < n;) {
        if (i + f <= n && memcmp(old + i, from, f) == 0) {
            for (size_t k = 0; k < w; k++)
                new[at++] = to[k];
            i += f;
            hits++;
        } else {
            new[at++] = old[i++];
        }
    }
    if (hits == 0)
        t_fail(t, __FILE__, __LINE__, "%s: no \"%s\" to replace", path, from);
    else
        t_write_file(t, path, new, at);
    free(old);
    free(new);
}
