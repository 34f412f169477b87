/* cmd.h: what a command is and what commands share.
 *
 * A command is a file with one `const struct cmd_command` at its end and a line in cmd.def. main.c
 * parses the options of all its tables, opens the context and calls `run`; the status it returns
 * becomes the exit code. Help, man page and parsing come from the same tables.
 *
 * Only this directory knows stdout, stderr and exit(). Results go to stdout and nothing else does:
 * one JSON object under --json, else text. Log and progress go through the context's sink.
 */
#ifndef MT_CMD_CMD_H
#define MT_CMD_CMD_H

#include "formats/gguf_vocab.h"
#include "kernels/device.h"
#include "lib/base/opt.h"
#include "lib/flow/format.h"
#include "lib/flow/pass.h"
#include "lib/flow/profile.h"
#include "lib/text/dataset.h"

/* Exit codes, for every command. */
enum cmd_exit { CMD_DONE = 0, CMD_FAILED = 1, CMD_USAGE = 2, CMD_EXCEEDED = 3 };
int cmd_exit_code(mt_status st);

/* Options of every command. */
struct cmd_common {
    int64_t threads, seed;
    uint64_t memory;
    int device;
    bool json, allow_nan, quiet, verbose, help;
};
extern const struct mt_opt cmd_common_opts[];

/* Options of the commands that read texts. */
struct cmd_data {
    struct mt_strlist data;
    int64_t samples, seq_len;
    bool no_bos;
};
extern const struct mt_opt cmd_data_opts[];

struct cmd_args {
    const char *name; /* of the command */
    const struct cmd_common *common;
    const struct cmd_data *data; /* NULL unless the command reads texts */
    const void *opts;            /* the command's own */
    const void *pass_opts;       /* of cmd->pass */
    const struct mt_strlist *pos;
};

struct cmd_example {
    const char *line, *what; /* line without "moetool "; a NULL line ends the list */
};

struct cmd_command {
    const char *name, *summary;
    const char *synopsis; /* arguments: "MODEL -o OUT" */
    const char *help;     /* paragraphs, blank line between */
    const struct cmd_example *examples;
    const struct mt_opt *opts; /* may be NULL */
    size_t opts_size;
    const struct mt_pass *pass; /* whose options are the command's too; may be NULL */
    bool reads_data;
    int args_min, args_max;
    mt_status (*run)(struct mt_ctx *ctx, const struct cmd_args *a);
};
extern const struct cmd_command *const cmd_all[]; /* NULL-ended, in the order of cmd.def */
const struct cmd_command *cmd_find(const char *name);

/* ---- help.c ---- */
void cmd_help_all(void);
void cmd_help_one(const struct cmd_command *c);
void cmd_help_man(void);
void cmd_help_text(const char *text);          /* wrapped paragraphs */
void cmd_help_opts(const struct mt_opt *rows); /* an option table as indented text */

/* ---- text.c ---- */
/* tokenizer.json beside the model, else BERT's vocab.txt or what a GGUF file carries. */
MT_NODISCARD mt_status cmd_open_tokenizer(struct mt_ctx *ctx, const struct mt_model *m,
                                          struct mt_tokenizer **t);
/* The model's chat template and the tokens it names. Free it also after a failure. */
struct cmd_chat {
    struct mt_chat chat; /* borrows from below */
    struct mt_json *config;
    char *jinja;
    struct mt_gguf_chat gguf; /* of a GGUF file without files beside it */
};
MT_NODISCARD mt_status cmd_open_chat(struct mt_ctx *ctx, const struct mt_model *m,
                                     struct cmd_chat *out);
void cmd_chat_free(struct cmd_chat *c);

/* ---- common.c ---- */
MT_NODISCARD mt_status cmd_open_model(struct mt_ctx *ctx, const char *path, struct mt_model **m);
/* Statistics that passes over `m` may use, of any kind that mt_stats_import reads; *given*, and
 * hung on m. `path` NULL: none. */
MT_NODISCARD mt_status cmd_open_profile(struct mt_ctx *ctx, const char *path, struct mt_model *m,
                                        struct mt_profile **out);
/* Measures such statistics on the windows of `data` (measure.c) and hangs them on m; *given*. */
MT_NODISCARD mt_status cmd_measure_profile(struct mt_ctx *ctx, const struct cmd_args *a,
                                           struct mt_model *m, struct mt_device *dev,
                                           const struct mt_dataset *data, struct mt_profile **out);
MT_NODISCARD mt_status cmd_open_device(struct mt_ctx *ctx, const struct cmd_args *a,
                                       struct mt_device **dev);
/* Tokens in a window, by the command's data options and the model's context. */
int64_t cmd_seq_len(const struct cmd_args *a, const struct mt_model *m);
/* Windows of `sources` for a model, by the command's data options. */
MT_NODISCARD mt_status cmd_open_data(struct mt_ctx *ctx, const struct cmd_args *a,
                                     const struct mt_model *m, const struct mt_strlist *sources,
                                     struct mt_dataset *out);
/* Says so when the manifest of `m` names `data` as the text that calibrated it. */
MT_NODISCARD mt_status cmd_warn_same_data(struct mt_ctx *ctx, const struct mt_model *m,
                                          const struct mt_dataset *data);
/* Refuses a figure of m that is NaN or Inf unless --allow-nan, and names the weight it comes from.
 */
MT_NODISCARD mt_status cmd_check_finite(struct mt_ctx *ctx, const struct cmd_args *a,
                                        const struct mt_model *m, double figure);
/* Says what licence the model's own card names; "" when it names none. */
void cmd_find_license(struct mt_ctx *ctx, const struct mt_model *m, char *buf, size_t n);
/* Last component of a model's path without a trailing slash; borrowed from `buf`. */
const char *cmd_model_name(const char *path, char *buf, size_t n);
/* 31.4 M, 1.23 G: SI, three digits. */
const char *cmd_format_count(uint64_t v, char *buf, size_t n);
/* Why a model of no known family is that, in a few words. */
const char *cmd_why_unknown(const struct mt_model *m, char *buf, size_t n);
/* Refuses, before any text is read, a model that gives no predictions here: of an unknown family,
 * an encoder, or one whose forward pass is missing. */
MT_NODISCARD mt_status cmd_check_predicts(struct mt_ctx *ctx, const struct mt_model *m);
/* The one JSON object of a run, on stdout. Ends `j` (NULL is a memory failure). */
MT_NODISCARD mt_status cmd_print_json(struct mt_ctx *ctx, struct mt_json *j);
uint64_t cmd_default_memory(void);
/* Formats that can be written, "auto" first, NULL-ended; and the one of a choice among them, where
 * auto goes by the suffix of `out`. */
extern const char *const cmd_format_names[];
const struct mt_format *cmd_out_format(int choice, const char *out);
/* Refuses an `out` that is missing, or named like a format that is only read. */
MT_NODISCARD mt_status cmd_check_out(struct mt_ctx *ctx, int choice, const char *out);
/* --max-shard-size: "auto" is 5G where the format is a directory and one file where it is not. */
#define CMD_OPT_SHARD_SIZE(st, f)                                                                  \
    MT_OPT_STR(st, f, "max-shard-size", 0, "SIZE", "auto",                                         \
               "largest weight file; 0: one file. auto: 5G for a directory, one file for GGUF")
MT_NODISCARD mt_status cmd_shard_bytes(struct mt_ctx *ctx, const char *text,
                                       const struct mt_format *format, uint64_t *bytes);

#endif
