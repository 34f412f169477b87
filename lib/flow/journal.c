#include "lib/flow/journal.h"

#include "lib/base/hash.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/sys.h"
#include "lib/flow/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define JOURNAL_MAGIC "moetool-journal 2 "
#define JOURNAL_BYTES_MAX ((size_t)1 << 30)
#define JOURNAL_SUM 8   /* hex digits of a line's checksum */
#define JOURNAL_DATA 17 /* of the checksum of a unit's bytes, and a space */

struct journal_unit {
    bool done;
    uint64_t sum; /* of its bytes */
    struct mt_json *facts;
};

struct mt_journal {
    char *path;
    int fd;
    int n_units, n_done;
    struct journal_unit units[];
};

mt_status mt_journal_key_add(struct mt_ctx *ctx, struct mt_journal_key *k, const char *name,
                             const char *value)
{
    size_t need = strlen(name) + strlen(value) + 5;

    if (k->n + need > k->cap) {
        size_t cap = (k->n + need) * 2;
        MT_TRY(mt_realloc(ctx, cap, 1, "journal", &k->text));
        k->cap = cap;
    }
    k->n += (size_t)snprintf(k->text + k->n, k->cap - k->n, "%s = %s\n", name, value);
    /* A value with a newline in it must not make a line of its own. */
    for (char *p = k->text + k->n - need + 1; p < k->text + k->n - 1; p++) {
        if (*p == '\n')
            *p = ' ';
    }
    return MT_OK;
}

void mt_journal_key_free(struct mt_journal_key *k)
{
    mt_free(k->text);
    *k = (struct mt_journal_key){0};
}

static void journal_sum(const char *text, size_t n, char hex[65])
{
    struct mt_sha256 s;

    mt_sha256_begin(&s);
    mt_sha256_add(&s, text, n);
    mt_sha256_hex(&s, hex);
}

/* The checksum of a unit's line: its head ("unit N ") and the rest. */
static void journal_line_sum(const char *head, size_t head_n, const char *rest, size_t n,
                             char hex[65])
{
    struct mt_sha256 s;

    mt_sha256_begin(&s);
    mt_sha256_add(&s, head, head_n);
    mt_sha256_add(&s, rest, n);
    mt_sha256_hex(&s, hex);
}

/* Where the key stands in a journal's text: after the first line, up to the empty line. False when
 * the head is not whole. */
static bool journal_head(const char *text, size_t n, const char **key, size_t *key_n,
                         const char **body)
{
    const size_t magic = strlen(JOURNAL_MAGIC);
    const char *start, *end;
    char hex[65];

    if (n < magic + 65 || memcmp(text, JOURNAL_MAGIC, magic) != 0 || text[magic + 64] != '\n')
        return false;
    start = text + magic + 65;
    end = *start == '\n' ? start : strstr(start, "\n\n");
    if (end == NULL)
        return false;
    *key = start;
    *key_n = (size_t)(end - start) + (end != start);
    *body = start + *key_n + 1;
    journal_sum(*key, *key_n, hex);
    return memcmp(hex, text + magic, 64) == 0;
}

static mt_status journal_read(struct mt_ctx *ctx, const char *dir, char **text, size_t *n)
{
    char *path;

    *text = NULL;
    MT_TRY(mt_path_join(ctx, dir, MT_JOURNAL_NAME, &path));
    mt_status st = mt_read_file(ctx, path, JOURNAL_BYTES_MAX, text, n);
    mt_free(path);
    return st;
}

mt_status mt_journal_there(struct mt_ctx *ctx, const char *dir, bool *there)
{
    const char *key, *body;
    size_t n, key_n;
    char *text;
    mt_status st = journal_read(ctx, dir, &text, &n);

    *there = st == MT_OK && journal_head(text, n, &key, &key_n, &body);
    mt_free(text);
    return st == MT_E_ABSENT ? MT_OK : st;
}

/* The value of the line `name = value` in a key; NULL when there is none. */
static const char *journal_value(const char *key, size_t key_n, const char *line, size_t name_n,
                                 size_t *value_n)
{
    const char *end = key + key_n;

    while (key < end) {
        const char *eol = memchr(key, '\n', (size_t)(end - key));
        if (eol == NULL)
            eol = end;
        if ((size_t)(eol - key) >= name_n + 3 && memcmp(key, line, name_n) == 0 &&
            memcmp(key + name_n, " = ", 3) == 0) {
            *value_n = (size_t)(eol - key) - name_n - 3;
            return key + name_n + 3;
        }
        key = eol + 1;
    }
    return NULL;
}

/* How much of a value to print: of a checksum enough to tell it from others. */
static int journal_shown(const char *v, size_t n)
{
    return n == 64 && strspn(v, "0123456789abcdef") >= 64 ? 12 : (int)n;
}

/* Appends "name: A then, B now" for lines of `a` that `b` lacks or has otherwise. With `reverse`
 * only lines that `b` lacks, told the other way round. The layout is told only where nothing else
 * explains it. */
static int journal_tell(const char *a, size_t an, const char *b, size_t bn, bool reverse, int told,
                        char *buf, size_t size)
{
    const char *end = a + an;

    for (const char *eol; a < end && told < 3; a = eol + 1) {
        eol = memchr(a, '\n', (size_t)(end - a));
        if (eol == NULL)
            eol = end;
        const char *eq = strstr(a, " = "), *now;
        if (eq == NULL || eq > eol)
            continue;
        int name_n = (int)(eq - a), then_n = (int)(eol - eq - 3);
        int shown = journal_shown(eq + 3, (size_t)then_n);
        size_t now_n = 0, used = strlen(buf);
        now = journal_value(b, bn, a, (size_t)name_n, &now_n);
        if (now != NULL &&
            (reverse || (now_n == (size_t)then_n && memcmp(now, eq + 3, now_n) == 0)))
            continue;
        if (told > 0 && name_n == 6 && memcmp(a, "layout", 6) == 0)
            continue;
        if (now == NULL)
            snprintf(buf + used, size - used, "%s%.*s: %s%.*s%s", told ? "; " : "", name_n, a,
                     reverse ? "not given then, " : "", shown, eq + 3,
                     reverse ? " now" : " then, not given now");
        else
            snprintf(buf + used, size - used, "%s%.*s: %.*s then, %.*s now", told ? "; " : "",
                     name_n, a, shown, eq + 3, journal_shown(now, now_n), now);
        told++;
    }
    return told;
}

static mt_status journal_differs(struct mt_ctx *ctx, const char *dir, const char *then,
                                 size_t then_n, const struct mt_journal_key *now)
{
    char buf[600] = "";
    int told = journal_tell(then, then_n, now->text, now->n, false, 0, buf, sizeof buf);

    journal_tell(now->text, now->n, then, then_n, true, told, buf, sizeof buf);
    return mt_fail(ctx, MT_E_OPTION,
                   "%s was begun differently (%s); resume it with the same settings or start over "
                   "with --force",
                   dir, buf);
}

/* One unit line without its newline: "unit N SUM DATA {json}". False when it is not whole. */
static bool journal_take_line(struct mt_ctx *ctx, struct mt_journal *j, char *line, size_t n)
{
    char *end, hex[65];
    long unit;

    if (n < 6 || memcmp(line, "unit ", 5) != 0)
        return false;
    unit = strtol(line + 5, &end, 10);
    if (*end != ' ' || unit < 0 || unit >= j->n_units || j->units[unit].done)
        return false;
    char *sum = end + 1, *rest = sum + JOURNAL_SUM + 1, *json = rest + JOURNAL_DATA;
    if ((size_t)(json - line) > n || rest[-1] != ' ' || json[-1] != ' ')
        return false;
    journal_line_sum(line, (size_t)(sum - line), rest, n - (size_t)(rest - line), hex);
    if (memcmp(hex, sum, JOURNAL_SUM) != 0)
        return false;
    j->units[unit].sum = strtoull(rest, &end, 16);
    if (end != json - 1 || mt_json_parse(ctx, json, n - (size_t)(json - line), MT_JOURNAL_NAME,
                                         &j->units[unit].facts) != MT_OK)
        return false;
    j->units[unit].done = true;
    j->n_done++;
    return true;
}

/* Takes the whole lines of a journal; *keep is the length of what was taken. */
static void journal_take_units(struct mt_ctx *ctx, struct mt_journal *j, char *text, char *body,
                               size_t n, size_t *keep)
{
    for (;;) {
        size_t at = (size_t)(body - text);
        char *eol = memchr(body, '\n', n - at);
        *keep = at;
        if (eol == NULL || !journal_take_line(ctx, j, body, (size_t)(eol - body)))
            return;
        body = eol + 1;
    }
}

static mt_status journal_write(struct mt_ctx *ctx, struct mt_journal *j, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t got = mt_sys_write(j->fd, data, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return mt_fail_errno(ctx, errno, "cannot write %s", j->path);
        data += got;
        n -= (size_t)got;
    }
    if (mt_sys_fdatasync(j->fd) != 0)
        return mt_fail_errno(ctx, errno, "cannot flush %s", j->path);
    return MT_OK;
}

static mt_status journal_start(struct mt_ctx *ctx, struct mt_journal *j,
                               const struct mt_journal_key *key)
{
    char hex[65], *head;
    size_t size = strlen(JOURNAL_MAGIC) + 66 + key->n + 2;

    j->fd = mt_sys_open(j->path, O_WRONLY | O_CREAT | O_TRUNC);
    if (j->fd < 0)
        return mt_fail_errno(ctx, errno, "cannot create %s", j->path);
    MT_TRY(mt_alloc(ctx, 1, size, "journal", &head));
    journal_sum(key->text, key->n, hex);
    int n = snprintf(head, size, "%s%s\n%s\n", JOURNAL_MAGIC, hex, key->text);
    mt_status st = journal_write(ctx, j, head, (size_t)n);
    mt_free(head);
    return st;
}

static mt_status journal_continue(struct mt_ctx *ctx, struct mt_journal *j, const char *dir,
                                  const struct mt_journal_key *key)
{
    const char *then, *body;
    size_t n, then_n, keep;
    char *text;
    mt_status st = journal_read(ctx, dir, &text, &n);

    if (st != MT_OK)
        return st;
    if (!journal_head(text, n, &then, &then_n, &body)) {
        st = mt_fail(ctx, MT_E_FORMAT, "%s is damaged; start over with --force", j->path);
    } else if (then_n != key->n || memcmp(then, key->text, then_n) != 0) {
        st = journal_differs(ctx, dir, then, then_n, key);
    } else {
        journal_take_units(ctx, j, text, text + (body - text), n, &keep);
        j->fd = mt_sys_open(j->path, O_WRONLY);
        if (j->fd < 0 || mt_sys_truncate(j->fd, keep) != 0 || lseek(j->fd, 0, SEEK_END) < 0)
            st = mt_fail_errno(ctx, errno, "cannot continue %s", j->path);
    }
    mt_free(text);
    return st;
}

mt_status mt_journal_open(struct mt_ctx *ctx, const char *dir, const struct mt_journal_key *key,
                          int n_units, bool resume, struct mt_journal **out)
{
    struct mt_journal *j;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *j + (size_t)n_units * sizeof j->units[0], "journal", &j));
    j->fd = -1;
    j->n_units = n_units;
    mt_status st = mt_path_join(ctx, dir, MT_JOURNAL_NAME, &j->path);
    if (st == MT_OK)
        st = resume ? journal_continue(ctx, j, dir, key) : journal_start(ctx, j, key);
    if (st != MT_OK) {
        mt_journal_close(j);
        return st;
    }
    *out = j;
    return MT_OK;
}

void mt_journal_close(struct mt_journal *j)
{
    if (j == NULL)
        return;
    if (j->fd >= 0)
        close(j->fd);
    for (int i = 0; i < j->n_units; i++)
        mt_json_free(j->units[i].facts);
    mt_free(j->path);
    mt_free(j);
}

bool mt_journal_has(const struct mt_journal *j, int unit)
{
    return j->units[unit].done;
}

int mt_journal_count(const struct mt_journal *j)
{
    return j->n_done;
}

const struct mt_json *mt_journal_facts(const struct mt_journal *j, int unit)
{
    return j->units[unit].facts;
}

/* One line of a printed tree: newlines and the indentation after them go; inside strings a newline
 * is always escaped. */
static size_t journal_one_line(char *text, size_t n)
{
    size_t to = 0;

    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\n') {
            text[to++] = text[i];
            continue;
        }
        while (i + 1 < n && text[i + 1] == ' ')
            i++;
    }
    return to;
}

uint64_t mt_journal_sum(const struct mt_journal *j, int unit)
{
    return j->units[unit].sum;
}

mt_status mt_journal_add(struct mt_ctx *ctx, struct mt_journal *j, int unit, uint64_t sum,
                         struct mt_json *facts)
{
    char hex[65], *text = NULL, *line = NULL;
    size_t n = 4;
    mt_status st = MT_OK;

    mt_assert(unit >= 0 && unit < j->n_units && !j->units[unit].done);
    j->units[unit].facts = facts;
    j->units[unit].sum = sum;
    if (facts != NULL)
        st = mt_json_print(ctx, facts, &text, &n);
    if (st == MT_OK)
        st = mt_alloc(ctx, n + 96, 1, "journal", &line);
    if (st == MT_OK) {
        if (facts != NULL)
            n = journal_one_line(text, n);
        /* The rest first, where it will stand, because the sum before it is made of it. */
        int head = snprintf(line, 64, "unit %d ", unit);
        char *rest = line + head + JOURNAL_SUM + 1;
        int rest_n = snprintf(rest, n + 32, "%016" PRIx64 " %.*s\n", sum, (int)n,
                              facts != NULL ? text : "null");
        journal_line_sum(line, (size_t)head, rest, (size_t)rest_n - 1, hex);
        memcpy(line + head, hex, JOURNAL_SUM);
        rest[-1] = ' ';
        st = journal_write(ctx, j, line, (size_t)(rest - line) + (size_t)rest_n);
    }
    mt_free(text);
    mt_free(line);
    if (st == MT_OK) {
        j->units[unit].done = true;
        j->n_done++;
    }
    return st;
}
