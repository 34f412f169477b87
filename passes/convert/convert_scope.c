#include "passes/convert/method.h"
#include "passes/lib/partition.h"

#include <stdio.h>
#include <string.h>

#define SCOPE_LIST_BYTES 128

/* Who reads an option; lists of names with spaces around each, NULL: none. An option without a row
 * is read whatever the parts are. */
struct scope_row {
    const char *option, *methods, *routers, *refits;
};

/* Methods that let --partition say where slices lie, and --expert-scale what they weigh. */
#define SCOPE_SLICES " factorllm llama-moe moefication uoe "
#define SCOPE_COPIES " dino upcycle "

static const struct scope_row scope_rows[] = {
    {"partition", " partition" SCOPE_SLICES "dino upcycle ", NULL, NULL},
    {"importance", " partition" SCOPE_SLICES, NULL, NULL},
    {"refit-epochs", NULL, NULL, " all "},
    {"expert-scale", SCOPE_SLICES "dino upcycle ", NULL, NULL},
    {"labels", " best ", " ridge features overlap ", NULL},
    {"moves", " best ", NULL, NULL},
    {"router-lambda", " best ", " ridge ", NULL},
    {"copies", SCOPE_COPIES, NULL, NULL},
    {"granularity", SCOPE_COPIES, NULL, NULL},
    {"out-bias", SCOPE_COPIES, NULL, NULL},
    {"noise", NULL, " tied ", NULL},
    {"router-rank", NULL, " spectral ", NULL},
    {"pa-temp", NULL, " pa contribution ", NULL},
    {"pa-targets", NULL, " pa contribution ", NULL},
    {"pa-kl", NULL, " pa contribution ", NULL},
    {"select", " " MT_CONVERT_PRUNE " ", NULL, NULL},
    {"keep", " readme ", " overlap ", NULL},
    {"cover", " readme ", NULL, NULL},
    {"widths", " readme ", NULL, NULL},
};

/* What static pruning, which makes no experts, can be told beside --method. */
static const char scope_prune[] = " method active select refit refit-epochs drift ";

/* Options that say how something is fitted to text. */
static const char scope_fits[] =
    " labels moves drift dynamic-k refit-epochs pa-temp pa-targets pa-kl router-rank ";

static bool scope_has(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = list; p != NULL && (p = strstr(p, name)) != NULL; p += n)
        if (p > list && p[-1] == ' ' && p[n] == ' ')
            return true;
    return false;
}

/* "methods dino and upcycle" of " dino upcycle "; appended to out. */
static void scope_say(const char *what, const char *list, char *out, size_t size)
{
    size_t at = strlen(out), n = 0, total = 0;

    if (list == NULL)
        return;
    for (const char *p = list; *p != '\0'; p++)
        total += p[0] != ' ' && p[1] == ' ';
    at += (size_t)snprintf(out + at, size - at, "%s%s%s ", at > 0 ? " and " : "", what,
                           total > 1 ? "s" : "");
    for (const char *p = list + 1; *p != '\0' && at < size; p += strcspn(p, " ") + 1, n++)
        at += (size_t)snprintf(out + at, size - at, "%s%.*s",
                               n == 0           ? ""
                               : n + 1 == total ? " and "
                                                : ", ",
                               (int)strcspn(p, " "), p);
}

/* The parts of a conversion by name, as asked for or meant. */
struct scope_parts {
    const char *method, *router, *refit;
};

static mt_status scope_refuse(struct mt_ctx *ctx, const struct scope_row *row,
                              const struct scope_parts *is)
{
    char who[SCOPE_LIST_BYTES] = "", here[SCOPE_LIST_BYTES] = "";

    scope_say("method", row->methods, who, sizeof who);
    scope_say("router", row->routers, who, sizeof who);
    scope_say("refit", row->refits, who, sizeof who);
    const char *lists[] = {row->methods, row->routers, row->refits};
    const char *const what[] = {"method", "router", "refit"};
    const char *const names[] = {is->method, is->router, is->refit};
    for (int i = 0, n = 0; i < 3; i++)
        if (lists[i] != NULL)
            snprintf(here + strlen(here), sizeof here - strlen(here), "%s%s is %s",
                     n++ > 0 ? ", " : "", what[i], names[i]);
    return mt_fail(ctx, MT_E_OPTION, "--%s: only %s read%s it, and here %s", row->option, who,
                   strstr(who, " and ") != NULL ? "" : "s", here);
}

/* Two ways to divide neurons have two measures of worth. */
static mt_status scope_importance(struct mt_ctx *ctx, const struct mt_convert_opts *o)
{
    int how = o->partition - 1;

    if (how == MT_PARTITION_IMPORTANCE || how == MT_PARTITION_IMPORTANCE_OVERLAP)
        return MT_OK;
    return mt_fail(ctx, MT_E_OPTION,
                   "--importance: only --partition importance and importance-overlap read it");
}

static const char *scope_why(const struct mt_convert_given *given)
{
    return given->profile ? " (a profile holds sums, not what neurons do together)" : "";
}

/* What is fitted to text, and was asked for, has text to be fitted to. */
static mt_status scope_data(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                            const struct mt_convert_given *given)
{
    const char *router = mt_convert_router_names[o->router];
    const char *refit = mt_convert_refit_names[o->refit];

    if (o->method > 0 && mt_convert_methods[o->method] != NULL &&
        mt_convert_methods[o->method]->data && !mt_convert_methods[o->method]->profiles)
        return mt_fail(ctx, MT_E_OPTION,
                       "--method %s looks at what neurons do on text: give some with --data%s",
                       mt_convert_method_names[o->method], scope_why(given));
    if (o->router > 0 && mt_convert_routers[o->router]->data && strcmp(router, "domain") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router %s is fitted to text: give some with --data%s, or take "
                       "--router centroid",
                       router, scope_why(given));
    if (o->refit > 0 && strcmp(refit, "none") != 0)
        return mt_fail(ctx, MT_E_OPTION, "--refit %s is fitted to text: give some with --data",
                       refit);
    return MT_OK;
}

static mt_status scope_prune_data(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                  const struct mt_convert_given *given)
{
    const char *refit = mt_convert_refit_names[o->refit];
    const char *select = mt_convert_select_names[o->select];

    bool sums = strcmp(select, "wanda") == 0 || strcmp(select, "flap") == 0;

    if (strcmp(select, "score") == 0 && !given->profile)
        return mt_fail(ctx, MT_E_OPTION,
                       "--select score keeps the largest scores of a JSON file: give it with "
                       "--profile");
    if (strcmp(select, "obs") == 0 || (sums && !given->profile))
        return mt_fail(ctx, MT_E_OPTION,
                       "--select %s looks at what neurons do on text: give some with --data%s, or "
                       "take --select %s",
                       select, scope_why(given), given->profile ? "wanda or flap" : "magnitude");
    if (o->refit > 0 && strcmp(refit, "none") != 0)
        return mt_fail(ctx, MT_E_OPTION, "--refit %s is fitted to text: give some with --data",
                       refit);
    return MT_OK;
}

/* Of auto only that a profile alone fits nothing: without either, nobody expects fits. */
static void scope_warn(struct mt_ctx *ctx, const struct mt_convert_opts *o, const char *method,
                       const struct mt_convert_given *given)
{
    if (strcmp(method, "best") != 0 || (o->method == 0 && !given->profile))
        return;
    mt_log(ctx, MT_LOG_WARN,
           "method best fits to text, and without --data groups neurons by their weights%s",
           given->profile ? ": a profile holds sums, which choose shared neurons and serve methods "
                            "readme and prune-baseline (--select wanda or flap)"
                          : ", as partition does");
}

mt_status mt_convert_check_scope(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                 const struct mt_convert_given *given)
{
    const struct mt_convert_method *m = mt_convert_method_asked(o);
    const struct scope_parts is = {m != NULL ? m->name : MT_CONVERT_PRUNE,
                                   o->router > 0 ? mt_convert_router_names[o->router]
                                   : m != NULL   ? m->router
                                                 : "none",
                                   o->refit > 0 ? mt_convert_refit_names[o->refit]
                                   : m != NULL  ? m->refit
                                                : "none"};

    if (given->models && strcmp(is.method, "upcycle") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--from: only --method upcycle makes experts of several models");
    if (strcmp(o->shared, "cv") == 0 && strcmp(is.method, "expertweaver") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--shared cv: only method expertweaver tells how many each layer's gates "
                       "suggest, and here method is %s",
                       is.method);
    if (m != NULL && !given->models && strcmp(is.router, "domain") == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router domain makes a row of each model's own text: give models with "
                       "--from NAME=MODEL, and text with --data NAME=FILE for each of them");
    for (const struct mt_opt *row = mt_convert_opt_table; row->name != NULL; row++) {
        if (!mt_opt_changed(row, o))
            continue;
        if (m == NULL && !scope_has(scope_prune, row->name))
            return mt_fail(ctx, MT_E_OPTION,
                           "--%s: method %s makes no experts; it reads --active, --select, "
                           "--refit, --refit-epochs and --drift",
                           row->name, MT_CONVERT_PRUNE);
        for (size_t i = 0; i < sizeof scope_rows / sizeof scope_rows[0]; i++) {
            const struct scope_row *s = &scope_rows[i];
            if (strcmp(s->option, row->name) == 0 && !scope_has(s->methods, is.method) &&
                !scope_has(s->routers, is.router) && !scope_has(s->refits, is.refit))
                return scope_refuse(ctx, s, &is);
        }
        if (strcmp(row->name, "importance") == 0)
            MT_TRY(scope_importance(ctx, o));
        if (!given->text && scope_has(scope_fits, row->name))
            return mt_fail(ctx, MT_E_OPTION,
                           "--%s: nothing is fitted without text: give some with --data",
                           row->name);
    }
    if (given->text)
        return MT_OK;
    scope_warn(ctx, o, is.method, given);
    return m != NULL ? scope_data(ctx, o, given) : scope_prune_data(ctx, o, given);
}
