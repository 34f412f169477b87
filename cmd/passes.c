#include "cmd/cmd.h"

#include "lib/base/json.h"
#include "passes/convert/method.h"
#include "passes/table.h"

#include <stdio.h>
#include <string.h>

static void passes_part(const char *name, const char *summary, const char *help)
{
    printf("\n%s: %s\n", name, summary);
    if (help != NULL)
        cmd_help_text(help);
}

/* What a conversion is made of. Entry 0 of the tables is "auto". */
static void passes_convert_parts(void)
{
    printf("\nmethods (--method):\n");
    for (int i = 1; mt_convert_methods[i] != NULL; i++)
        passes_part(mt_convert_methods[i]->name, mt_convert_methods[i]->summary,
                    mt_convert_methods[i]->help);
    passes_part(MT_CONVERT_PRUNE, "no experts: static pruning, the yardstick",
                "convert then runs the pass prune-ffn: --active is the width that stays.");
    printf("\nrouters (--router):\n");
    for (int i = 1; mt_convert_routers[i] != NULL; i++)
        passes_part(mt_convert_routers[i]->name, mt_convert_routers[i]->summary,
                    mt_convert_routers[i]->help);
    printf("\nrefits (--refit):\n");
    for (int i = 1; mt_convert_refits[i] != NULL; i++)
        passes_part(mt_convert_refits[i]->name, mt_convert_refits[i]->summary,
                    mt_convert_refits[i]->help);
}

static void passes_one(const struct mt_pass *p)
{
    printf("%s: %s\n\n", p->name, p->summary);
    cmd_help_text(p->help);
    printf("\noptions:\n");
    cmd_help_opts(p->opts);
    if (strcmp(p->name, "convert-ffn") == 0)
        passes_convert_parts();
}

static void passes_json_opts(struct mt_json *list, const struct mt_opt *rows)
{
    static const char *const kinds[] = {"boolean", "integer", "size", "number",
                                        "string",  "choice",  "list"};

    for (const struct mt_opt *o = rows; o->name != NULL; o++) {
        struct mt_json *j = mt_json_add_object(list), *choices;
        mt_json_set_str(j, "name", o->name);
        mt_json_set_str(j, "kind", kinds[o->kind]);
        mt_json_set_str(j, "default", o->dflt);
        mt_json_set_str(j, "help", o->help);
        if (o->kind != MT_OPT_KIND_ENUM)
            continue;
        choices = mt_json_set_array(j, "choices");
        for (int i = 0; o->names[i] != NULL; i++)
            mt_json_add_str(choices, o->names[i]);
    }
}

static mt_status passes_json(struct mt_ctx *ctx, const struct mt_pass *only)
{
    struct mt_json *root = mt_json_new_object(), *list = mt_json_set_array(root, "passes");

    for (int i = 0; mt_passes[i] != NULL; i++) {
        const struct mt_pass *p = mt_passes[i];
        struct mt_json *j;
        if (only != NULL && p != only)
            continue;
        j = mt_json_add_object(list);
        mt_json_set_str(j, "name", p->name);
        mt_json_set_str(j, "summary", p->summary);
        mt_json_set_str(j, "help", p->help);
        passes_json_opts(mt_json_set_array(j, "options"), p->opts);
    }
    return cmd_print_json(ctx, root);
}

static mt_status passes_find(struct mt_ctx *ctx, const char *name, const struct mt_pass **out)
{
    const char *names[64];
    const char *near;
    int n = 0;

    *out = mt_pass_find(name);
    if (*out != NULL)
        return MT_OK;
    for (; n < 63 && mt_passes[n] != NULL; n++)
        names[n] = mt_passes[n]->name;
    names[n] = NULL;
    near = mt_nearest_name(name, names);
    if (near != NULL)
        return mt_fail(ctx, MT_E_OPTION, "%s: unknown pass; did you mean %s?", name, near);
    return mt_fail(ctx, MT_E_OPTION, "%s: unknown pass; `moetool passes` lists them", name);
}

static mt_status passes_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    const struct mt_pass *only = NULL;

    if (a->pos->n > 0)
        MT_TRY(passes_find(ctx, a->pos->v[0], &only));
    if (a->common->json)
        return passes_json(ctx, only);
    if (only != NULL)
        passes_one(only);
    for (int i = 0; only == NULL && mt_passes[i] != NULL; i++)
        printf("%-14s %s\n", mt_passes[i]->name, mt_passes[i]->summary);
    return MT_OK;
}

static const struct cmd_example passes_examples[] = {
    {"passes", "every pass with one line"},
    {"passes convert-ffn", "what one does, where it comes from, and its options"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_passes = {
    .name = "passes",
    .summary = "what a pass does and the options it takes",
    .synopsis = "[NAME]",
    .help = "Lists the transformations, or describes one of them.",
    .examples = passes_examples,
    .args_max = 1,
    .run = passes_run,
};
