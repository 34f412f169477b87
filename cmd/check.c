#include "cmd/cmd.h"

#include "formats/check.h"

#include <stdio.h>
#include <string.h>

struct check_opts {
    struct mt_strlist engines;
};

static const struct mt_opt check_opt_table[] = {
    MT_OPT_LIST(struct check_opts, engines, "for", 0, "ENGINE",
                "transformers, vllm, llama.cpp or moetool; may be repeated (default: all that take "
                "the model's format)"),
    MT_OPT_END,
};

static mt_status check_engines(struct mt_ctx *ctx, const struct check_opts *o, unsigned *engines)
{
    *engines = 0;
    for (int i = 0; i < o->engines.n; i++) {
        int e = 0;
        while (e < MT_ENGINE_COUNT && strcmp(mt_engine_names[e], o->engines.v[i]) != 0)
            e++;
        if (e == MT_ENGINE_COUNT)
            return mt_fail(ctx, MT_E_OPTION,
                           "--for %s: no such engine; there are transformers, vllm, llama.cpp and "
                           "moetool",
                           o->engines.v[i]);
        *engines |= 1u << e;
    }
    return MT_OK;
}

static bool check_speaks_of(const struct mt_check_finding *f, int engine)
{
    return (f->rule->engines >> engine & 1) != 0;
}

static void check_text(const struct mt_check *c)
{
    for (int e = 0; e < MT_ENGINE_COUNT; e++) {
        if ((c->engines >> e & 1) == 0)
            continue;
        printf("%-13s %s\n", mt_engine_names[e],
               mt_severity_verdict(mt_check_worst(c, (enum mt_engine)e)));
        for (size_t i = 0; i < c->n; i++) {
            const struct mt_check_finding *f = &c->v[i];
            if (!check_speaks_of(f, e))
                continue;
            printf("  %-8s %s: %s", mt_severity_name(f->rule->severity), f->subject, f->what);
            if (f->more > 0)
                printf(" (and %zu more)", f->more);
            printf("\n           -> %s\n", f->rule->remedy);
        }
    }
}

static void check_json_findings(struct mt_json *list, const struct mt_check *c, int engine)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct mt_check_finding *f = &c->v[i];
        struct mt_json *o;
        if (!check_speaks_of(f, engine))
            continue;
        o = mt_json_add_object(list);
        mt_json_set_str(o, "rule", f->rule->name);
        mt_json_set_str(o, "severity", mt_severity_name(f->rule->severity));
        mt_json_set_str(o, "subject", f->subject);
        mt_json_set_str(o, "what", f->what);
        mt_json_set_str(o, "remedy", f->rule->remedy);
        mt_json_set_int(o, "more", (int64_t)f->more);
    }
}

static mt_status check_json(struct mt_ctx *ctx, const struct mt_check *c)
{
    struct mt_json *root = mt_json_new_object(), *list, *o;

    mt_json_set_str(root, "model", c->path);
    mt_json_set_str(root, "format", c->m != NULL ? c->m->format : NULL);
    mt_json_set_str(root, "model_type", c->m != NULL ? c->m->model_type : NULL);
    list = mt_json_set_array(root, "engines");
    for (int e = 0; e < MT_ENGINE_COUNT; e++) {
        enum mt_severity worst = mt_check_worst(c, (enum mt_engine)e);
        if ((c->engines >> e & 1) == 0)
            continue;
        o = mt_json_add_object(list);
        mt_json_set_str(o, "engine", mt_engine_names[e]);
        mt_json_set_bool(o, "loads", worst < MT_SEVERITY_REFUSED);
        mt_json_set_bool(o, "faithful", worst < MT_SEVERITY_WRONG);
        mt_json_set_str(o, "worst", mt_severity_name(worst));
        check_json_findings(mt_json_set_array(o, "findings"), c, e);
    }
    return cmd_print_json(ctx, root);
}

/* The exit code says in one bit whether all engines that were asked for can have the model. */
static mt_status check_verdict(struct mt_ctx *ctx, const struct mt_check *c)
{
    for (int e = 0; e < MT_ENGINE_COUNT; e++) {
        enum mt_severity worst = mt_check_worst(c, (enum mt_engine)e);
        if ((c->engines >> e & 1) != 0 && worst >= MT_SEVERITY_WRONG)
            return mt_fail(ctx, MT_E_FORMAT, "%s: %s %s", c->path, mt_engine_names[e],
                           worst == MT_SEVERITY_REFUSED
                               ? "would not load it"
                               : "would load it and compute something else");
    }
    return MT_OK;
}

static mt_status check_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct mt_check *c;
    unsigned engines;
    mt_status st = MT_OK;

    MT_TRY(check_engines(ctx, a->opts, &engines));
    MT_TRY(mt_check_path(ctx, a->pos->v[0], engines, &c));
    if (a->common->json)
        st = check_json(ctx, c);
    else
        check_text(c);
    if (st == MT_OK)
        st = check_verdict(ctx, c);
    mt_check_free(c);
    return st;
}

static const struct cmd_example check_examples[] = {
    {"check model", "all engines that take the format"},
    {"check model --for vllm --for transformers", "these"},
    {"check model.gguf --json", "for scripts"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_check = {
    .name = "check",
    .summary = "would an engine load this model, and compute what it says?",
    .synopsis = "MODEL [--for ENGINE]...",
    .help =
        "Applies the loading rules of transformers (version 5), vLLM, llama.cpp and moetool to a "
        "model: architecture, names, shapes and types of all tensors, config or metadata, index, "
        "tokenizer files, and what an engine's code takes for granted, such as whether router "
        "weights are renormalised. Nothing is run and no weights are read but a few small ones, so "
        "it answers at once for any size.\n\n"
        "A finding is a remark (it loads and computes the same), wrong (it loads and computes "
        "something else) or refused (it does not load); each tells what the engine does and what "
        "to do. Exit code 0 when every engine asked for loads the model and computes what it says, "
        "1 when one does not.\n\n"
        "The same rules run at the end of every write: an output that an engine it is meant for "
        "would not load fails the command and leaves nothing.",
    .examples = check_examples,
    .opts = check_opt_table,
    .opts_size = sizeof(struct check_opts),
    .args_min = 1,
    .args_max = 1,
    .run = check_run,
};
