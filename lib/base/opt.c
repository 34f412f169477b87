#include "lib/base/opt.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPT_WHY_MAX 320

static void *opt_field(const struct mt_opt *row, void *values)
{
    return (char *)values + row->offset;
}

/* ---- one value from text; on failure `why` says what was expected ---- */

static bool opt_in_range(const struct mt_opt *row, double v, char *why)
{
    if (row->min >= row->max && row->min <= row->max) /* both the same: no limits */
        return true;
    if (v >= row->min && v <= row->max)
        return true;
    if (row->max > 1e15)
        snprintf(why, OPT_WHY_MAX, "expected at least %.15g", row->min);
    else
        snprintf(why, OPT_WHY_MAX, "expected %.15g to %.15g", row->min, row->max);
    return false;
}

static bool opt_int(const struct mt_opt *row, const char *text, int64_t *out, char *why)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || isspace((unsigned char)*text) || errno != 0) {
        snprintf(why, OPT_WHY_MAX, "expected an integer");
        return false;
    }
    return opt_in_range(row, (double)*out, why);
}

static bool opt_num(const struct mt_opt *row, const char *text, double *out, char *why)
{
    char *end;

    *out = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)*text) || !isfinite(*out)) {
        snprintf(why, OPT_WHY_MAX, "expected a number");
        return false;
    }
    return opt_in_range(row, *out, why);
}

static bool opt_size(const char *text, uint64_t *out, char *why)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end), scaled;
    const char *unit;

    snprintf(why, OPT_WHY_MAX, "expected a size such as 4G, 512M or 1000000");
    if (end == text || !isdigit((unsigned char)*text) || !isfinite(v))
        return false;
    unit = *end == '\0' ? NULL : strchr(units, toupper((unsigned char)*end));
    if (unit != NULL)
        end++;
    scaled = unit == NULL ? v : ldexp(v, 10 * (int)(unit - units + 1));
    if (unit != NULL && *end == 'i')
        end++;
    if (*end == 'B' || *end == 'b')
        end++;
    if (*end != '\0' || scaled >= 0x1p63)
        return false;
    *out = unit == NULL && strchr(text, '.') == NULL ? strtoull(text, NULL, 10) : (uint64_t)scaled;
    return true;
}

static bool opt_bool(const char *text, bool *out, char *why)
{
    static const char *const yes[] = {"true", "yes", "on", "1", NULL};
    static const char *const no[] = {"false", "no", "off", "0", NULL};

    for (int i = 0; yes[i] != NULL; i++) {
        *out = strcmp(text, yes[i]) == 0;
        if (*out || strcmp(text, no[i]) == 0)
            return true;
    }
    snprintf(why, OPT_WHY_MAX, "expected yes or no");
    return false;
}

/* enum mt_switch */
static const char *const opt_switch_names[] = {"auto", "false", "true"};

static bool opt_switch(const char *text, int *out, char *why)
{
    bool on = false, known = strcmp(text, "auto") != 0;

    if (known && !opt_bool(text, &on, why)) {
        snprintf(why, OPT_WHY_MAX, "expected yes, no or auto");
        return false;
    }
    *out = !known ? MT_SWITCH_AUTO : on ? MT_SWITCH_ON : MT_SWITCH_OFF;
    return true;
}

/* Kinds that a name alone sets. */
static bool opt_is_flag(const struct mt_opt *row)
{
    return row->kind == MT_OPT_KIND_BOOL || row->kind == MT_OPT_KIND_SWITCH;
}

static void opt_set_flag(const struct mt_opt *row, void *values, bool on)
{
    if (row->kind == MT_OPT_KIND_BOOL)
        *(bool *)opt_field(row, values) = on;
    else
        *(int *)opt_field(row, values) = on ? MT_SWITCH_ON : MT_SWITCH_OFF;
}

static bool opt_enum(const struct mt_opt *row, const char *text, int *out, char *why)
{
    size_t n;

    for (int i = 0; row->names[i] != NULL; i++) {
        if (strcmp(row->names[i], text) == 0) {
            *out = i;
            return true;
        }
    }
    n = (size_t)snprintf(why, OPT_WHY_MAX, "expected ");
    for (int i = 0; row->names[i] != NULL && n < OPT_WHY_MAX; i++) {
        const char *sep = i == 0 ? "" : row->names[i + 1] == NULL ? " or " : ", ";
        n += (size_t)snprintf(why + n, OPT_WHY_MAX - n, "%s%s", sep, row->names[i]);
    }
    return false;
}

static bool opt_assign(const struct mt_opt *row, void *values, const char *text, char *why)
{
    void *field = opt_field(row, values);
    struct mt_strlist *list = field;
    const char **str = field;

    switch (row->kind) {
    case MT_OPT_KIND_BOOL:
        return opt_bool(text, field, why);
    case MT_OPT_KIND_SWITCH:
        return opt_switch(text, field, why);
    case MT_OPT_KIND_INT:
        return opt_int(row, text, field, why);
    case MT_OPT_KIND_SIZE:
        return opt_size(text, field, why);
    case MT_OPT_KIND_NUM:
        return opt_num(row, text, field, why);
    case MT_OPT_KIND_ENUM:
        return opt_enum(row, text, field, why);
    case MT_OPT_KIND_STR:
        *str = text;
        return true;
    case MT_OPT_KIND_LIST:
        break;
    }
    if (list->n == MT_STRLIST_MAX) {
        snprintf(why, OPT_WHY_MAX, "given more than %d times", MT_STRLIST_MAX);
        return false;
    }
    list->v[list->n++] = text;
    return true;
}

static size_t opt_bytes(const struct mt_opt *row)
{
    switch (row->kind) {
    case MT_OPT_KIND_BOOL:
        return sizeof(bool);
    case MT_OPT_KIND_SWITCH:
    case MT_OPT_KIND_ENUM:
        return sizeof(int);
    case MT_OPT_KIND_LIST:
        return sizeof(struct mt_strlist);
    case MT_OPT_KIND_STR:
        return sizeof(char *);
    default:
        return 8;
    }
}

static void opt_default(const struct mt_opt *row, void *values)
{
    char why[OPT_WHY_MAX];

    memset(opt_field(row, values), 0, opt_bytes(row));
    if (row->dflt != NULL)
        mt_assert(opt_assign(row, values, row->dflt, why));
}

void mt_opt_defaults(const struct mt_opt *rows, void *values)
{
    for (const struct mt_opt *row = rows; row->name != NULL; row++)
        opt_default(row, values);
}

/* ---- names ---- */

#define OPT_NAME_MAX 64

/* Levenshtein distance, one row at a time; long names never match. */
static size_t opt_distance(const char *a, const char *b)
{
    size_t row[OPT_NAME_MAX + 1], na = strlen(a), nb = strlen(b);

    if (na > OPT_NAME_MAX || nb > OPT_NAME_MAX)
        return OPT_NAME_MAX;
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[nb];
}

/* Keeps the better of *best and `name`. A guess that changes most of the word is no help. */
static void opt_nearer(const char *given, const char *name, const char **best, size_t *distance)
{
    size_t d = opt_distance(given, name);

    if (d < *distance && d <= 3 && 2 * d <= strlen(name)) {
        *best = name;
        *distance = d;
    }
}

const char *mt_nearest_name(const char *given, const char *const *names)
{
    size_t distance = OPT_NAME_MAX;
    const char *best = NULL;

    for (; *names != NULL; names++)
        opt_nearer(given, *names, &best, &distance);
    return best;
}

static const struct mt_opt *opt_find(const struct mt_opt *rows, const char *name, size_t n)
{
    for (; rows->name != NULL; rows++) {
        if (strlen(rows->name) == n && memcmp(rows->name, name, n) == 0)
            return rows;
    }
    return NULL;
}

static mt_status opt_unknown(struct mt_ctx *ctx, const struct mt_opt_table *tables, int n_tables,
                             const char *dashes, const char *name, size_t n)
{
    size_t distance = OPT_NAME_MAX;
    const char *best = NULL;
    char given[OPT_NAME_MAX + 1];

    snprintf(given, sizeof given, "%.*s", (int)(n < OPT_NAME_MAX ? n : OPT_NAME_MAX), name);
    for (int t = 0; t < n_tables; t++) {
        for (const struct mt_opt *row = tables[t].rows; row->name != NULL; row++)
            opt_nearer(given, row->name, &best, &distance);
    }
    if (best != NULL)
        return mt_fail(ctx, MT_E_OPTION, "%s%s: unknown option; did you mean %s%s?", dashes, given,
                       dashes, best);
    return mt_fail(ctx, MT_E_OPTION, "%s%s: unknown option", dashes, given);
}

mt_status mt_opt_set(struct mt_ctx *ctx, const struct mt_opt *rows, void *values, const char *name,
                     const char *text)
{
    const struct mt_opt *row = opt_find(rows, name, strlen(name));
    struct mt_opt_table table = {rows, values};
    char why[OPT_WHY_MAX];

    if (row == NULL)
        return opt_unknown(ctx, &table, 1, "", name, strlen(name));
    if (!opt_assign(row, values, text, why))
        return mt_fail(ctx, MT_E_OPTION, "%s=%s: %s", name, text, why);
    return MT_OK;
}

/* ---- argv ---- */

struct opt_args {
    struct mt_ctx *ctx;
    int argc, i;
    char **argv;
    const struct mt_opt_table *tables;
    int n_tables;
};

static mt_status opt_take(struct opt_args *a, const struct mt_opt *row, void *values,
                          const char *shown, const char *text)
{
    char why[OPT_WHY_MAX];

    if (text == NULL) {
        if (a->i + 1 >= a->argc)
            return mt_fail(a->ctx, MT_E_OPTION, "%s: needs a value (%s)", shown,
                           row->arg != NULL ? row->arg : "VALUE");
        text = a->argv[++a->i];
    }
    if (!opt_assign(row, values, text, why))
        return mt_fail(a->ctx, MT_E_OPTION, "%s %s: %s", shown, text, why);
    return MT_OK;
}

static mt_status opt_long(struct opt_args *a)
{
    const char *name = a->argv[a->i] + 2, *eq = strchr(name, '=');
    size_t n = eq != NULL ? (size_t)(eq - name) : strlen(name);
    char shown[OPT_NAME_MAX + 3];

    snprintf(shown, sizeof shown, "--%.*s", (int)(n < OPT_NAME_MAX ? n : OPT_NAME_MAX), name);
    for (int t = 0; t < a->n_tables; t++) {
        const struct mt_opt *row = opt_find(a->tables[t].rows, name, n);
        if (row == NULL)
            continue;
        if (opt_is_flag(row) && eq == NULL) {
            opt_set_flag(row, a->tables[t].values, true);
            return MT_OK;
        }
        return opt_take(a, row, a->tables[t].values, shown, eq != NULL ? eq + 1 : NULL);
    }
    for (int t = 0; t < a->n_tables && n > 3 && memcmp(name, "no-", 3) == 0 && eq == NULL; t++) {
        const struct mt_opt *row = opt_find(a->tables[t].rows, name + 3, n - 3);
        if (row != NULL && opt_is_flag(row)) {
            opt_set_flag(row, a->tables[t].values, false);
            return MT_OK;
        }
    }
    return opt_unknown(a->ctx, a->tables, a->n_tables, "--", name, n);
}

static mt_status opt_short(struct opt_args *a)
{
    for (const char *p = a->argv[a->i] + 1; *p != '\0'; p++) {
        const char shown[3] = {'-', *p, '\0'};
        const struct mt_opt *row = NULL;
        void *values = NULL;

        for (int t = 0; t < a->n_tables && row == NULL; t++) {
            values = a->tables[t].values;
            for (row = a->tables[t].rows; row->name != NULL && row->letter != *p; row++)
                ;
            if (row->name == NULL)
                row = NULL;
        }
        if (row == NULL)
            return mt_fail(a->ctx, MT_E_OPTION, "%s: unknown option", shown);
        if (!opt_is_flag(row))
            return opt_take(a, row, values, shown, p[1] != '\0' ? p + 1 : NULL);
        opt_set_flag(row, values, true);
    }
    return MT_OK;
}

mt_status mt_opt_parse(struct mt_ctx *ctx, int argc, char **argv, const struct mt_opt_table *tables,
                       int n_tables, struct mt_strlist *positional)
{
    struct opt_args a = {ctx, argc, 0, argv, tables, n_tables};
    bool only_positional = false;

    positional->n = 0;
    for (; a.i < argc; a.i++) {
        const char *arg = argv[a.i];
        if (only_positional || arg[0] != '-' || arg[1] == '\0') {
            if (positional->n == MT_STRLIST_MAX)
                return mt_fail(ctx, MT_E_OPTION, "%s: more than %d arguments", arg, MT_STRLIST_MAX);
            positional->v[positional->n++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            only_positional = true;
        } else {
            MT_TRY(arg[1] == '-' ? opt_long(&a) : opt_short(&a));
        }
    }
    return MT_OK;
}

/* ---- back to text ---- */

static void opt_print_list(const struct mt_strlist *list, char *buf, size_t n)
{
    size_t at = 0;

    for (int i = 0; i < list->n && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%s", i > 0 ? "," : "", list->v[i]);
}

static void opt_print_num(double v, char *buf, size_t n)
{
    char text[40];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (back >= v && back <= v)
            break;
    }
    snprintf(buf, n, "%s", text);
}

void mt_opt_print(const struct mt_opt *row, const void *values, char *buf, size_t n)
{
    const void *field = (const char *)values + row->offset;
    const char *str;

    buf[0] = '\0';
    switch (row->kind) {
    case MT_OPT_KIND_BOOL:
        snprintf(buf, n, "%s", *(const bool *)field ? "true" : "false");
        break;
    case MT_OPT_KIND_SWITCH:
        snprintf(buf, n, "%s", opt_switch_names[*(const int *)field]);
        break;
    case MT_OPT_KIND_INT:
        snprintf(buf, n, "%lld", (long long)*(const int64_t *)field);
        break;
    case MT_OPT_KIND_SIZE:
        snprintf(buf, n, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case MT_OPT_KIND_NUM:
        opt_print_num(*(const double *)field, buf, n);
        break;
    case MT_OPT_KIND_STR:
        memcpy(&str, field, sizeof str);
        snprintf(buf, n, "%s", str != NULL ? str : "");
        break;
    case MT_OPT_KIND_ENUM:
        snprintf(buf, n, "%s", row->names[*(const int *)field]);
        break;
    case MT_OPT_KIND_LIST:
        opt_print_list(field, buf, n);
        break;
    }
}

bool mt_opt_changed(const struct mt_opt *row, const void *values)
{
    union {
        struct mt_strlist list;
        uint64_t word;
    } dflt;
    struct mt_opt at_zero = *row;
    const void *field = (const char *)values + row->offset;
    const char *a, *b;

    at_zero.offset = 0;
    opt_default(&at_zero, &dflt);
    if (row->kind == MT_OPT_KIND_LIST)
        return ((const struct mt_strlist *)field)->n != 0;
    if (row->kind != MT_OPT_KIND_STR)
        return memcmp(field, &dflt, opt_bytes(row)) != 0;
    memcpy(&a, field, sizeof a);
    memcpy(&b, &dflt, sizeof b);
    return (a == NULL) != (b == NULL) || (a != NULL && strcmp(a, b) != 0);
}
