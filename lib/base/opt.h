/* opt.h: one typed option table for command flags, pass arguments, help, man page and provenance.
 *
 * A table is an array of rows ended by MT_OPT_END; each row writes one field of a plain struct.
 * mt_opt_defaults fills the struct from the rows' default texts, mt_opt_set parses one value,
 * mt_opt_parse reads argv. Strings in the struct are borrowed from argv or the table. Lists
 * (MT_OPT_KIND_LIST) collect repeated options into a struct mt_strlist. Sizes accept K, M, G, T
 * (powers of 1024, an optional "iB" or "B"). Unknown names suggest the nearest. `--name=value`,
 * `--name value`, `-n value`, `-n5`, `--no-name` for booleans and switches, `--` ends options.
 *
 * Messages read "--experts 9x: expected an integer"; failures are MT_E_OPTION. Threads: safe.
 */
#ifndef MT_BASE_OPT_H
#define MT_BASE_OPT_H

#include "lib/base/ctx.h"

#include <stddef.h>

enum mt_opt_kind {
    MT_OPT_KIND_BOOL,   /* bool */
    MT_OPT_KIND_SWITCH, /* int: enum mt_switch; a boolean whose default decides by itself */
    MT_OPT_KIND_INT,    /* int64_t within [min, max] */
    MT_OPT_KIND_SIZE,   /* uint64_t bytes */
    MT_OPT_KIND_NUM,    /* double within [min, max] */
    MT_OPT_KIND_STR,    /* const char *; NULL when not given */
    MT_OPT_KIND_ENUM,   /* int: index into `names` */
    MT_OPT_KIND_LIST,   /* struct mt_strlist */
};

enum mt_switch {
    MT_SWITCH_AUTO,
    MT_SWITCH_OFF,
    MT_SWITCH_ON,
};

#define MT_STRLIST_MAX 64
struct mt_strlist {
    int n;
    const char *v[MT_STRLIST_MAX];
};

struct mt_opt {
    const char *name; /* long name without dashes; NULL ends the table */
    char letter;      /* short name, or 0 */
    enum mt_opt_kind kind;
    size_t offset;
    const char *dflt; /* default as text; NULL: zero value, "not given" */
    const char *arg;  /* what help calls the value: "N", "FILE"; NULL for booleans and switches */
    double min, max;  /* INT and NUM; both 0: unlimited */
    const char *const *names; /* ENUM: NULL-ended; the help lists them */
    const char *help;
};

#define MT_OPT_BOOL(st, f, nm, ch, text)                                                           \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_BOOL, .offset = offsetof(st, f),             \
        .help = text                                                                               \
    }
#define MT_OPT_SWITCH(st, f, nm, ch, text)                                                         \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_SWITCH, .offset = offsetof(st, f),           \
        .help = text                                                                               \
    }
#define MT_OPT_INT(st, f, nm, ch, arg_, dflt_, lo, hi, text)                                       \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_INT, .offset = offsetof(st, f), .arg = arg_, \
        .dflt = dflt_, .min = lo, .max = hi, .help = text                                          \
    }
#define MT_OPT_NUM(st, f, nm, ch, arg_, dflt_, lo, hi, text)                                       \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_NUM, .offset = offsetof(st, f), .arg = arg_, \
        .dflt = dflt_, .min = lo, .max = hi, .help = text                                          \
    }
#define MT_OPT_SIZE(st, f, nm, ch, arg_, dflt_, text)                                              \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_SIZE, .offset = offsetof(st, f),             \
        .arg = arg_, .dflt = dflt_, .help = text                                                   \
    }
#define MT_OPT_STR(st, f, nm, ch, arg_, dflt_, text)                                               \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_STR, .offset = offsetof(st, f), .arg = arg_, \
        .dflt = dflt_, .help = text                                                                \
    }
#define MT_OPT_ENUM(st, f, nm, ch, arg_, dflt_, names_, text)                                      \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_ENUM, .offset = offsetof(st, f),             \
        .arg = arg_, .dflt = dflt_, .names = names_, .help = text                                  \
    }
#define MT_OPT_LIST(st, f, nm, ch, arg_, text)                                                     \
    {                                                                                              \
        .name = nm, .letter = ch, .kind = MT_OPT_KIND_LIST, .offset = offsetof(st, f),             \
        .arg = arg_, .help = text                                                                  \
    }
#define MT_OPT_END                                                                                 \
    {                                                                                              \
        .name = NULL                                                                               \
    }

struct mt_opt_table {
    const struct mt_opt *rows;
    void *values; /* the struct the offsets refer to */
};

/* Fills `values` from the defaults. The tables are ours, so a bad default is an assertion. */
void mt_opt_defaults(const struct mt_opt *rows, void *values);

MT_NODISCARD mt_status mt_opt_set(struct mt_ctx *ctx, const struct mt_opt *rows, void *values,
                                  const char *name, const char *text);

/* Reads argv[0..argc) against several tables; what is not an option goes to `positional` (borrowed
 * pointers, at most MT_STRLIST_MAX). */
MT_NODISCARD mt_status mt_opt_parse(struct mt_ctx *ctx, int argc, char **argv,
                                    const struct mt_opt_table *tables, int n_tables,
                                    struct mt_strlist *positional);

/* The value of one row as text that mt_opt_set reads back equal; into buf. For provenance. */
void mt_opt_print(const struct mt_opt *row, const void *values, char *buf, size_t n);
/* True when the value differs from the default. */
bool mt_opt_changed(const struct mt_opt *row, const void *values);

/* Length of the shorter edit between a and b, for "did you mean"; and the nearest of a NULL-ended
 * list of names within distance 3, or NULL. */
const char *mt_nearest_name(const char *given, const char *const *names);
#endif
