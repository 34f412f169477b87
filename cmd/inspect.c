#include "cmd/blocks.h"
#include "cmd/facts.h"
#include "cmd/table.h"
#include "lib/base/path.h"
#include "lib/run/runner.h"

#include <stdio.h>
#include <string.h>

#define INSPECT_NAMES 5 /* unknown tensors named without -v */
#define INSPECT_NOTES 20

struct inspect_opts {
    struct cmd_blocks blocks;
    bool tensors;
};

static const struct mt_opt inspect_opt_table[] = {
    MT_OPT_BOOL(struct inspect_opts, tensors, "tensors", 't', "list every tensor"),
    CMD_BLOCKS_OPTS(struct inspect_opts, blocks),
    MT_OPT_END,
};

/* What is printed, gathered once for text and JSON. */
struct inspect {
    const struct mt_model *m;
    struct mt_model_size size;
    uint64_t file_bytes;
    size_t n_of[MT_DTYPE_COUNT];
    uint64_t bytes_of[MT_DTYPE_COUNT];
    size_t n_unknown;
    bool runs;
    char why_not[MT_ERROR_TEXT_MAX];
};

/* Binding a runner reads shapes only: no weight is touched before a layer is opened. */
static void inspect_try_runner(struct mt_ctx *ctx, struct inspect *in)
{
    struct mt_runner *r;
    struct mt_device *dev;
    struct mt_ctx quiet;

    mt_ctx_child(&quiet, ctx);
    if (in->m->family == NULL) {
        cmd_why_unknown(in->m, in->why_not, sizeof in->why_not);
        return;
    }
    for (int d = MT_DTYPE_PLAIN_COUNT; d < MT_DTYPE_COUNT; d++) {
        if (in->n_of[d] == 0)
            continue;
        snprintf(in->why_not, sizeof in->why_not, "%s blocks are carried, not read as numbers",
                 mt_dtype_name((enum mt_dtype)d));
        return;
    }
    mt_status st = mt_device_open(&quiet, "cpu", &dev);
    if (st == MT_OK) {
        st = mt_runner_open(&quiet, in->m, dev, &r);
        if (st == MT_OK)
            mt_runner_close(r);
        mt_device_close(dev);
    }
    in->runs = st == MT_OK;
    snprintf(in->why_not, sizeof in->why_not, "%s", st == MT_OK ? "" : mt_error(&quiet));
}

static void inspect_gather(struct mt_ctx *ctx, const struct mt_model *m, struct inspect *in)
{
    *in = (struct inspect){.m = m};
    mt_model_measure(m, &in->size);
    for (size_t i = 0; i < m->n_maps; i++)
        in->file_bytes += m->maps[i]->bytes;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        in->n_of[t->dtype]++;
        in->bytes_of[t->dtype] += mt_tensor_bytes(t);
        in->n_unknown += m->family != NULL && t->role.kind == MT_ROLE_OTHER;
    }
    inspect_try_runner(ctx, in);
}

/* ---- text ---- */

static void inspect_sizes(struct mt_ctx *ctx, struct cmd_table *t, const struct inspect *in)
{
    const struct mt_model_size *s = &in->size;
    char a[24], b[24];

    cmd_table_cell(ctx, t, "parameters");
    if (in->m->family == NULL || mt_model_only_blocks(in->m))
        cmd_table_cell(ctx, t, "%s", cmd_format_count(s->params_total, a, sizeof a));
    else
        cmd_table_cell(ctx, t, "%s, of which %s act for a token",
                       cmd_format_count(s->params_total, a, sizeof a),
                       cmd_format_count(s->params_active, b, sizeof b));
    if (in->m->family != NULL) {
        cmd_table_cell(ctx, t, "in FFNs");
        cmd_table_cell(ctx, t, "%s, of which %s act for a token",
                       cmd_format_count(s->ffn_params_total, a, sizeof a),
                       cmd_format_count(s->ffn_params_active, b, sizeof b));
    }
    for (int i = 0; i < MT_DTYPE_COUNT; i++) {
        if (in->n_of[i] == 0)
            continue;
        cmd_table_cell(ctx, t, "%s", mt_dtype_name((enum mt_dtype)i));
        cmd_table_cell(ctx, t, "%zu tensors, %s", in->n_of[i],
                       mt_format_bytes(in->bytes_of[i], a, sizeof a));
    }
}

static void inspect_head(struct mt_ctx *ctx, struct cmd_table *t, const struct inspect *in)
{
    const struct mt_model *m = in->m;
    char a[24];

    cmd_table_cell(ctx, t, "format");
    cmd_table_cell(ctx, t, "%s, %zu file%s, %s", m->format, m->n_maps, m->n_maps == 1 ? "" : "s",
                   mt_format_bytes(in->file_bytes, a, sizeof a));
    cmd_table_cell(ctx, t, "family");
    if (m->family != NULL && m->base != NULL && m->base != m->family)
        cmd_table_cell(ctx, t, "%s (%s), blocks in the place of %s's", m->family->name,
                       m->family->architecture, m->base->name);
    else if (m->family != NULL && m->family->inside)
        cmd_table_cell(ctx, t, "%s inside %s; the other parts travel along", m->family->name,
                       m->model_type);
    else if (m->family != NULL)
        cmd_table_cell(ctx, t, "%s (%s)", m->family->name, m->family->architecture);
    else
        cmd_table_cell(ctx, t, "unknown: model_type %s",
                       m->model_type != NULL ? m->model_type : "(none)");
}

static void inspect_tail(struct mt_ctx *ctx, struct cmd_table *t, const struct inspect *in)
{
    const struct mt_model *m = in->m;

    cmd_table_cell(ctx, t, "travels along");
    if (m->n_sidecars + m->n_made == 0)
        cmd_table_cell(ctx, t, "nothing");
    for (size_t i = 0; i < m->n_sidecars; i++) {
        if (i > 0)
            cmd_table_cell(ctx, t, "%s", "");
        cmd_table_cell(ctx, t, "%s", m->sidecars[i].name);
    }
    for (size_t i = 0; i < m->n_made; i++) {
        if (i + m->n_sidecars > 0)
            cmd_table_cell(ctx, t, "%s", "");
        cmd_table_cell(ctx, t, "%s, made of what the file holds", m->made[i].name);
    }
    cmd_table_cell(ctx, t, "forward pass");
    cmd_table_cell(ctx, t, in->runs ? "yes%s" : "no: %s", in->why_not);
}

static void inspect_unknown(const struct inspect *in, bool all)
{
    size_t told = 0;

    if (in->n_unknown == 0)
        return;
    printf("%zu tensor%s unknown to the family, carried through unchanged:\n", in->n_unknown,
           in->n_unknown == 1 ? "" : "s");
    for (size_t i = 0; i < in->m->n_tensors && (all || told < INSPECT_NAMES); i++) {
        if (in->m->tensors[i]->role.kind == MT_ROLE_OTHER) {
            printf("  %s\n", in->m->tensors[i]->name);
            told++;
        }
    }
    if (told < in->n_unknown)
        printf("  and %zu more (-v lists them)\n", in->n_unknown - told);
}

/* What the file says besides: epochs, options, versions. */
static void inspect_notes(const struct mt_model *m, bool all)
{
    size_t told = 0;

    if (m->n_notes == 0)
        return;
    printf("besides tensors:\n");
    for (; told < m->n_notes && (all || told < INSPECT_NOTES); told++)
        printf("  %s: %s\n", m->notes[told].name, m->notes[told].text);
    if (told < m->n_notes)
        printf("  and %zu more (-v lists them)\n", m->n_notes - told);
}

static void inspect_shape(const struct mt_tensor *t, char *buf, size_t n)
{
    size_t at = (size_t)snprintf(buf, n, "[");

    for (int i = 0; i < t->rank && at < n; i++)
        at +=
            (size_t)snprintf(buf + at, n - at, "%s%lld", i > 0 ? ", " : "", (long long)t->shape[i]);
    if (at < n)
        snprintf(buf + at, n - at, "]");
}

static mt_status inspect_tensors(struct mt_ctx *ctx, const struct mt_model *m)
{
    struct cmd_table t;
    char shape[200], label[160], b[24];

    cmd_table_begin(&t, "llrrl");
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *x = m->tensors[i];
        inspect_shape(x, shape, sizeof shape);
        cmd_table_cell(ctx, &t, "%s", x->name);
        cmd_table_cell(ctx, &t, "%s", mt_dtype_name(x->dtype));
        cmd_table_cell(ctx, &t, "%s", shape);
        cmd_table_cell(ctx, &t, "%s", mt_format_bytes(mt_tensor_bytes(x), b, sizeof b));
        cmd_table_cell(ctx, &t, "%s",
                       x->role.kind == MT_ROLE_OTHER ? "other"
                                                     : mt_tensor_label(x, label, sizeof label));
    }
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    return st;
}

static mt_status inspect_text(struct mt_ctx *ctx, const struct inspect *in, bool tensors, bool all)
{
    struct cmd_table t;

    cmd_table_begin(&t, "ll");
    inspect_head(ctx, &t, in);
    cmd_facts_table(ctx, &t, in->m);
    inspect_sizes(ctx, &t, in);
    inspect_tail(ctx, &t, in);
    printf("%s\n", in->m->path);
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    if (st != MT_OK)
        return st;
    inspect_unknown(in, all);
    inspect_notes(in->m, all);
    if (!tensors)
        return MT_OK;
    printf("\n");
    return inspect_tensors(ctx, in->m);
}

/* ---- JSON ---- */

static void inspect_json_tensors(struct mt_json *root, const struct mt_model *m)
{
    struct mt_json *list = mt_json_set_array(root, "tensors");
    char label[160];

    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        struct mt_json *o = mt_json_add_object(list), *shape;
        mt_json_set_str(o, "name", t->name);
        mt_json_set_str(o, "dtype", mt_dtype_name(t->dtype));
        shape = mt_json_set_array(o, "shape");
        for (int d = 0; d < t->rank; d++)
            mt_json_add_int(shape, t->shape[d]);
        mt_json_set_int(o, "bytes", (int64_t)mt_tensor_bytes(t));
        mt_json_set_str(o, "role",
                        t->role.kind == MT_ROLE_OTHER ? NULL
                                                      : mt_tensor_label(t, label, sizeof label));
    }
}

static void inspect_json_files(struct mt_json *root, const struct mt_model *m)
{
    struct mt_json *list = mt_json_set_array(root, "files");

    for (size_t i = 0; i < m->n_maps; i++) {
        struct mt_json *o = mt_json_add_object(list);
        mt_json_set_str(o, "name", mt_path_base(m->maps[i]->path));
        mt_json_set_int(o, "bytes", (int64_t)m->maps[i]->bytes);
    }
    list = mt_json_set_array(root, "sidecars");
    for (size_t i = 0; i < m->n_sidecars; i++)
        mt_json_add_str(list, m->sidecars[i].name);
}

static mt_status inspect_json(struct mt_ctx *ctx, const struct inspect *in, bool tensors)
{
    struct mt_json *root = mt_json_new_object(), *o, *list;
    const struct mt_model *m = in->m;

    mt_json_set_str(root, "path", m->path);
    mt_json_set_str(root, "format", m->format);
    mt_json_set_str(root, "model_type", m->model_type);
    mt_json_set_str(root, "family", m->family != NULL ? m->family->name : NULL);
    mt_json_set_str(root, "architecture", m->family != NULL ? m->family->architecture : NULL);
    if (m->family != NULL && m->base != NULL && m->base != m->family)
        mt_json_set_str(root, "base_family", m->base->name);
    cmd_facts_json(root, m);
    mt_json_set_int(root, "parameters", (int64_t)in->size.params_total);
    mt_json_set_int(root, "bytes", (int64_t)in->size.bytes);
    mt_json_set_int(root, "n_tensors", (int64_t)m->n_tensors);
    if (m->family != NULL) {
        mt_json_set_int(root, "parameters_active", (int64_t)in->size.params_active);
        mt_json_set_int(root, "ffn_parameters", (int64_t)in->size.ffn_params_total);
        mt_json_set_int(root, "ffn_parameters_active", (int64_t)in->size.ffn_params_active);
    }
    o = mt_json_set_object(root, "dtypes");
    for (int i = 0; i < MT_DTYPE_COUNT; i++) {
        struct mt_json *d;
        if (in->n_of[i] == 0)
            continue;
        d = mt_json_set_object(o, mt_dtype_name((enum mt_dtype)i));
        mt_json_set_int(d, "tensors", (int64_t)in->n_of[i]);
        mt_json_set_int(d, "bytes", (int64_t)in->bytes_of[i]);
    }
    inspect_json_files(root, m);
    list = mt_json_set_array(root, "unknown_tensors");
    for (size_t i = 0; i < m->n_tensors && in->n_unknown > 0; i++) {
        if (m->tensors[i]->role.kind == MT_ROLE_OTHER)
            mt_json_add_str(list, m->tensors[i]->name);
    }
    if (m->n_notes > 0)
        list = mt_json_set_array(root, "notes");
    for (size_t i = 0; i < m->n_notes; i++) {
        o = mt_json_add_object(list);
        mt_json_set_str(o, "name", m->notes[i].name);
        mt_json_set_str(o, "text", m->notes[i].text);
    }
    mt_json_set_bool(root, "forward_pass", in->runs);
    if (!in->runs)
        mt_json_set_str(root, "forward_pass_missing", in->why_not);
    if (tensors)
        inspect_json_tensors(root, m);
    return cmd_print_json(ctx, root);
}

static mt_status inspect_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    const struct inspect_opts *o = a->opts;
    struct mt_model *m;
    struct inspect in;
    mt_status st;

    MT_TRY(cmd_open_blocks(ctx, a->pos->v[0], &o->blocks, 0, true, &m));
    inspect_gather(ctx, m, &in);
    st = a->common->json ? inspect_json(ctx, &in, o->tensors)
                         : inspect_text(ctx, &in, o->tensors, a->common->verbose);
    mt_model_free(m);
    return st;
}

static const struct cmd_example inspect_examples[] = {
    {"inspect Qwen3-0.6B", "family, shapes, experts, sizes"},
    {"inspect model.safetensors --tensors", "one file, every tensor"},
    {"inspect my-model --ffn 'blocks.*.mlp.{fc1,fc2}'", "the FFNs of a model nobody knows"},
    {"inspect checkpoint.pt --tensors", "what torch.save wrote; no code of it is run"},
    {"inspect Qwen/Qwen3-0.6B --json", "from the local Hugging Face cache, for scripts"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_inspect = {
    .name = "inspect",
    .summary = "what is in a model: family, shapes, experts, sizes",
    .synopsis = "MODEL",
    .help = "Tells what a model is: format, family, shapes, the FFN of each layer, parameters in "
            "all and per token, bytes, and whether it can be run here. Reads headers and "
            "config.json only, so it answers at once for any size, also for unknown families, "
            "whose FFNs --ffn "
            "points at.",
    .examples = inspect_examples,
    .opts = inspect_opt_table,
    .opts_size = sizeof(struct inspect_opts),
    .args_min = 1,
    .args_max = 1,
    .run = inspect_run,
};
