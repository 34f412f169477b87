#include "cmd/cmd.h"

#include "lib/flow/walk.h"

#include <stdio.h>
#include <string.h>

#define HELP_WIDTH 88
#define HELP_INDENT 24

static const char help_about[] =
    "Turns dense language models into Mixture-of-Experts models, and shows how far the result is "
    "from the original. Models are directories as on the Hugging Face hub (config.json and "
    "safetensors), single files (safetensors, GGUF, torch), or Org/Name in the local cache. Output "
    "appears whole or not at "
    "all.";

/* Words of `text` from column `at`, wrapped at HELP_WIDTH; later lines start at `indent`. */
static void help_wrap(const char *text, int at, int indent)
{
    bool first = true;

    while (*text != '\0') {
        size_t n = strcspn(text, " \n");
        if (!first && at + 1 + (int)n > HELP_WIDTH) {
            printf("\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)n, text);
        at += (int)n;
        text += n;
        first = false;
        if (text[0] == '\n' && text[1] == '\n') {
            printf("\n\n%*s", indent, "");
            at = indent;
            first = true;
        }
        text += strspn(text, " \n");
    }
    putchar('\n');
}

void cmd_help_text(const char *text)
{
    help_wrap(text, 0, 0);
}

/* What follows the help text of an option: its choices, and its default unless the text tells. */
static void help_extra(const struct mt_opt *o, char *buf, size_t n)
{
    size_t at = 0;

    buf[0] = '\0';
    bool dflt = o->dflt != NULL && strstr(o->help, "default:") == NULL;

    if (o->kind != MT_OPT_KIND_ENUM) {
        if (dflt)
            snprintf(buf, n, " (default: %s)", o->dflt);
        return;
    }
    for (int i = 0; o->names[i] != NULL && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%s", i > 0 ? ", " : " (", o->names[i]);
    if (at < n)
        snprintf(buf + at, n - at, "%s%s)", dflt ? "; default: " : "", dflt ? o->dflt : "");
}

void cmd_help_opts(const struct mt_opt *rows)
{
    for (const struct mt_opt *o = rows; o->name != NULL; o++) {
        char text[1024], extra[256];
        int at = o->letter != 0 ? printf("  -%c, --%s", o->letter, o->name)
                                : printf("      --%s", o->name);
        if (o->arg != NULL)
            at += printf(" %s", o->arg);
        if (at + 2 > HELP_INDENT) {
            putchar('\n');
            at = 0;
        }
        printf("%*s", HELP_INDENT - at, "");
        help_extra(o, extra, sizeof extra);
        snprintf(text, sizeof text, "%s%s", o->help, extra);
        help_wrap(text, HELP_INDENT, HELP_INDENT);
    }
}

void cmd_help_all(void)
{
    printf("moetool %s\n\nusage: moetool COMMAND ...\n\n", MT_VERSION);
    help_wrap(help_about, 0, 0);
    printf("\ncommands:\n");
    for (int i = 0; cmd_all[i] != NULL; i++)
        printf("  %-10s %s\n", cmd_all[i]->name, cmd_all[i]->summary);
    printf("\n`moetool help COMMAND` tells more. Exit code: 0 done, 1 failed, 2 wrong usage, 3 a "
           "validation limit\nwas exceeded.\n");
}

void cmd_help_one(const struct cmd_command *c)
{
    printf("usage: moetool %s %s\n\n", c->name, c->synopsis);
    help_wrap(c->help, 0, 0);
    if (c->opts != NULL || c->pass != NULL)
        printf("\noptions:\n");
    if (c->opts != NULL)
        cmd_help_opts(c->opts);
    if (c->pass != NULL)
        cmd_help_opts(c->pass->opts);
    if (c->reads_data) {
        printf("\ntexts:\n");
        cmd_help_opts(cmd_data_opts);
    }
    printf("\noptions of every command:\n");
    cmd_help_opts(cmd_common_opts);
    printf("\nexamples:\n");
    for (const struct cmd_example *e = c->examples; e->line != NULL; e++) {
        printf("  # %s\n  moetool %s\n", e->what, e->line);
    }
}

/* ---- man page ---- */

static void man_text(const char *s)
{
    bool line_start = true;

    for (; *s != '\0'; s++) {
        if (s[0] == '\n' && s[1] == '\n') {
            printf("\n.PP\n");
            s++;
            line_start = true;
            continue;
        }
        if (line_start && (*s == '.' || *s == '\''))
            printf("\\&");
        if (*s == '\\')
            printf("\\e");
        else if (*s == '-')
            printf("\\-");
        else
            putchar(*s);
        line_start = *s == '\n';
    }
}

static void man_line(const char *s)
{
    man_text(s);
    putchar('\n');
}

static void man_opts(const struct mt_opt *rows)
{
    for (const struct mt_opt *o = rows; o->name != NULL; o++) {
        char extra[256];
        printf(".TP\n");
        if (o->letter != 0)
            printf("\\fB\\-%c\\fR, ", o->letter);
        printf("\\fB\\-\\-");
        man_text(o->name);
        printf("\\fR");
        if (o->arg != NULL) {
            printf(" \\fI");
            man_text(o->arg);
            printf("\\fR");
        }
        putchar('\n');
        help_extra(o, extra, sizeof extra);
        man_text(o->help);
        man_line(extra);
    }
}

static void man_command(const struct cmd_command *c)
{
    printf(".SS moetool %s ", c->name);
    man_line(c->synopsis);
    man_line(c->help);
    if (c->opts != NULL)
        man_opts(c->opts);
    if (c->pass != NULL)
        man_opts(c->pass->opts);
    if (c->reads_data)
        man_opts(cmd_data_opts);
    printf(".PP\nExamples:\n.RS\n.nf\n");
    for (const struct cmd_example *e = c->examples; e->line != NULL; e++) {
        printf("# ");
        man_line(e->what);
        printf("moetool ");
        man_line(e->line);
    }
    printf(".fi\n.RE\n");
}

void cmd_help_man(void)
{
    printf(".TH MOETOOL 1 \"\" \"moetool %s\" \"User Commands\"\n", MT_VERSION);
    printf(
        ".SH NAME\nmoetool \\- turns dense language models into Mixture\\-of\\-Experts models\n");
    printf(".SH SYNOPSIS\n\\fBmoetool\\fR \\fICOMMAND\\fR ...\n.SH DESCRIPTION\n");
    man_line(help_about);
    printf(".PP\nResults go to standard output, log and progress to standard error.\n");
    printf(".SH COMMANDS\n");
    for (int i = 0; cmd_all[i] != NULL; i++)
        man_command(cmd_all[i]);
    printf(".SH OPTIONS OF EVERY COMMAND\n");
    man_opts(cmd_common_opts);
    printf(
        ".SH EXIT STATUS\n.TP\n0\ndone\n.TP\n1\nfailed; one line on standard error says why\n"
        ".TP\n2\nwrong usage\n.TP\n3\na validation limit (\\fB\\-\\-max\\-kl\\fR) was exceeded\n");
    printf(
        ".SH FILES\n.TP\n\\fIOUT\\fR.partial\nan output while it is written; can be continued "
        "with \\fB\\-\\-resume\\fR\n.TP\n\\fIOUT\\fR/moetool.json\nwhat the output was made from, "
        "and how\n");
    printf(".SH ENVIRONMENT\n.TP\nHF_HUB_CACHE, HF_HOME\nwhere models named Org/Name are looked "
           "for\n.TP\nTMPDIR\nwhere scratch files go that are not beside an output (default: "
           "/var/tmp)\n"
           ".TP\nOPENBLAS_CORETYPE\noverrides the choice of BLAS kernels\n");
}
