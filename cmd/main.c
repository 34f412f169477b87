#include "cmd/cmd.h"

#include "cmd/sink.h"
#include "kernels/linalg.h"
#include "lib/flow/walk.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MT_CMD(name) extern const struct cmd_command mt_cmd_##name;
#include "cmd/cmd.def"
#undef MT_CMD

const struct cmd_command *const cmd_all[] = {
#define MT_CMD(name) &mt_cmd_##name,
#include "cmd/cmd.def"
#undef MT_CMD
    NULL,
};

int cmd_exit_code(mt_status st)
{
    switch (st) {
    case MT_OK:
        return CMD_DONE;
    case MT_E_OPTION:
        return CMD_USAGE;
    case MT_E_EXCEEDED:
        return CMD_EXCEEDED;
    default:
        return CMD_FAILED;
    }
}

const struct cmd_command *cmd_find(const char *name)
{
    for (int i = 0; cmd_all[i] != NULL; i++) {
        if (strcmp(cmd_all[i]->name, name) == 0)
            return cmd_all[i];
    }
    return NULL;
}

/* ---- signals ---- */

static volatile sig_atomic_t main_cancel;

static void main_on_interrupt(int number)
{
    (void)number;
    if (main_cancel != 0)
        _exit(CMD_FAILED);
    main_cancel = 1;
}

/* No check beforehand can exclude that a mapped file shrinks while it is read. */
static void main_on_sigbus(int number)
{
    static const char text[] = "moetool: a file was truncated, or its disk failed, while it was "
                               "being read; nothing whole was written\n";

    (void)number;
    ssize_t told = write(STDERR_FILENO, text, sizeof text - 1);
    (void)told;
    _exit(CMD_FAILED);
}

static void main_catch(int number, void (*handler)(int))
{
    struct sigaction sa = {.sa_handler = handler};

    sigemptyset(&sa.sa_mask);
    sigaction(number, &sa, NULL);
}

static void main_catch_all(void)
{
    struct sigaction hup;

    main_catch(SIGINT, main_on_interrupt);
    main_catch(SIGTERM, main_on_interrupt);
    if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN) /* nohup */
        main_catch(SIGHUP, main_on_interrupt);
    main_catch(SIGBUS, main_on_sigbus);
    main_catch(SIGXFSZ, SIG_IGN); /* a write then fails with EFBIG, which has a sentence */
}

/* ---- one run ---- */

struct main_run {
    const struct cmd_command *cmd;
    struct cmd_common common;
    struct cmd_data data;
    void *opts, *pass_opts;
    struct mt_strlist pos;
};

static mt_status main_parse(struct mt_ctx *ctx, struct main_run *r, int argc, char **argv)
{
    const struct cmd_command *c = r->cmd;
    struct mt_opt_table tables[4];
    int n = 0;

    tables[n++] = (struct mt_opt_table){cmd_common_opts, &r->common};
    if (c->opts != NULL)
        tables[n++] = (struct mt_opt_table){c->opts, r->opts};
    if (c->pass != NULL)
        tables[n++] = (struct mt_opt_table){c->pass->opts, r->pass_opts};
    if (c->reads_data)
        tables[n++] = (struct mt_opt_table){cmd_data_opts, &r->data};
    for (int i = 0; i < n; i++)
        mt_opt_defaults(tables[i].rows, tables[i].values);
    MT_TRY(mt_opt_parse(ctx, argc, argv, tables, n, &r->pos));
    if (r->common.help)
        return MT_OK;
    if (r->pos.n < c->args_min)
        return mt_fail(ctx, MT_E_OPTION, "too few arguments; usage: moetool %s %s", c->name,
                       c->synopsis);
    if (r->pos.n > c->args_max)
        return mt_fail(ctx, MT_E_OPTION, "%s: one argument too many; usage: moetool %s %s",
                       r->pos.v[c->args_max], c->name, c->synopsis);
    return MT_OK;
}

static mt_status main_finish_stdout(struct mt_ctx *ctx, mt_status st)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return st;
    return st != MT_OK ? st : mt_fail(ctx, MT_E_IO, "cannot write the results to stdout");
}

static mt_status main_call(struct mt_ctx *ctx, const struct main_run *r)
{
    const struct cmd_args a = {
        .name = r->cmd->name,
        .common = &r->common,
        .data = r->cmd->reads_data ? &r->data : NULL,
        .opts = r->opts,
        .pass_opts = r->pass_opts,
        .pos = &r->pos,
    };

    mt_log(ctx, MT_LOG_DEBUG, "%d threads, BLAS core %s", mt_ctx_threads(ctx), mt_blas_core());
    return main_finish_stdout(ctx, r->cmd->run(ctx, &a));
}

static int main_report(const struct main_run *r, const struct mt_ctx *ctx, mt_status st)
{
    if (st != MT_OK)
        fprintf(stderr, "moetool: %s: %s\n", r->cmd->name, mt_error(ctx));
    return cmd_exit_code(st);
}

/* Options are read with a context of one thread, because they say how many there shall be. */
static int main_run(struct main_run *r, int argc, char **argv)
{
    struct mt_ctx_opts o = {.n_threads = 1};
    struct cmd_sink sink;
    struct mt_ctx ctx;
    mt_status st;

    st = mt_ctx_open(&ctx, &o);
    if (st == MT_OK)
        st = main_parse(&ctx, r, argc, argv);
    int code = main_report(r, &ctx, st);
    mt_ctx_close(&ctx);
    if (st != MT_OK)
        return code;
    if (r->common.help) {
        cmd_help_one(r->cmd);
        return fflush(stdout) == 0 ? CMD_DONE : CMD_FAILED;
    }
    cmd_sink_open(&sink, r->common.quiet, r->common.verbose);
    o = (struct mt_ctx_opts){
        .n_threads = (int)r->common.threads,
        .memory_bytes_max = r->common.memory != 0 ? r->common.memory : cmd_default_memory(),
        .seed = (uint64_t)r->common.seed,
        .allow_nan = r->common.allow_nan,
        .sink = cmd_sink_callbacks(&sink),
        .cancel = &main_cancel,
    };
    st = mt_ctx_open(&ctx, &o);
    if (st == MT_OK)
        st = main_call(&ctx, r);
    cmd_sink_close(&sink);
    code = main_report(r, &ctx, st);
    mt_ctx_close(&ctx);
    return code;
}

static int main_command(const struct cmd_command *c, int argc, char **argv)
{
    struct main_run r = {.cmd = c};
    int code = CMD_FAILED;

    r.opts = calloc(1, c->opts_size + 1);
    r.pass_opts = calloc(1, (c->pass != NULL ? c->pass->opts_size : 0) + 1);
    if (r.opts != NULL && r.pass_opts != NULL)
        code = main_run(&r, argc, argv);
    else
        fprintf(stderr, "moetool: out of memory\n");
    free(r.opts);
    free(r.pass_opts);
    return code;
}

static int main_unknown(const char *name)
{
    const char *names[sizeof cmd_all / sizeof cmd_all[0]] = {NULL};
    const char *near;

    for (int i = 0; cmd_all[i] != NULL; i++)
        names[i] = cmd_all[i]->name;
    near = mt_nearest_name(name, names);
    if (near != NULL)
        fprintf(stderr, "moetool: %s: unknown command; did you mean %s?\n", name, near);
    else
        fprintf(stderr, "moetool: %s: unknown command; `moetool help` lists them\n", name);
    return CMD_USAGE;
}

static int main_help(int argc, char **argv)
{
    if (argc < 1) {
        cmd_help_all();
    } else if (strcmp(argv[0], "--man") == 0) {
        cmd_help_man();
    } else if (cmd_find(argv[0]) == NULL) {
        return main_unknown(argv[0]);
    } else {
        cmd_help_one(cmd_find(argv[0]));
    }
    return fflush(stdout) == 0 ? CMD_DONE : CMD_FAILED;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";

    mt_mem_return_freed();
    mt_blas_prepare(argc, argv);
    main_catch_all();
    if (argc < 2) {
        fprintf(stderr, "moetool: a command is missing; `moetool help` lists them\n");
        return CMD_USAGE;
    }
    if (strcmp(word, "--version") == 0) {
        printf("moetool %s\n", MT_VERSION);
        return fflush(stdout) == 0 ? CMD_DONE : CMD_FAILED;
    }
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return main_help(argc - 2, argv + 2);
    if (cmd_find(word) == NULL)
        return main_unknown(word);
    return main_command(cmd_find(word), argc - 2, argv + 2);
}
