#include "cmd/cmd.h"

#include "cmd/table.h"
#include "formats/stats.h"
#include "lib/base/clock.h"
#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/outdir.h"
#include "lib/base/path.h"
#include "lib/base/scratch.h"
#include "lib/flow/profile_run.h"

#include <stdio.h>
#include <string.h>

enum profile_gram { GRAM_NONE, GRAM_X, GRAM_H, GRAM_BOTH };
static const char *const profile_grams[] = {"none", "x", "h", "both", NULL};

struct profile_cmd_opts {
    const char *out, *import;
    int gram;
    bool gates, all_experts, merge, dry_run, force;
};

static const struct mt_opt profile_opt_table[] = {
    MT_OPT_STR(struct profile_cmd_opts, out, "out", 'o', "STATS", NULL,
               "file to write; required. A name in .gguf gives an imatrix for llama.cpp"),
    MT_OPT_BOOL(struct profile_cmd_opts, force, "force", 0, "replace an existing STATS"),
    MT_OPT_ENUM(struct profile_cmd_opts, gram, "gram", 0, "WHAT", "none", profile_grams,
                "also X^T X of FFN inputs, H^T H of dense hidden layers: large"),
    MT_OPT_BOOL(struct profile_cmd_opts, gates, "gates", 0,
                "also the sums of act(Gx) of dense FFNs, for convert --method expertweaver"),
    MT_OPT_BOOL(struct profile_cmd_opts, all_experts, "all-experts", 0,
                "also the mean output of every expert over all tokens; costs a run of all experts"),
    MT_OPT_BOOL(struct profile_cmd_opts, merge, "merge", 0,
                "the arguments are profiles of one model: add them up"),
    MT_OPT_STR(struct profile_cmd_opts, import, "import", 0, "FILE", NULL,
               "no measuring: read imatrix.gguf (or .dat), scores in JSON, or a profile"),
    MT_OPT_BOOL(struct profile_cmd_opts, dry_run, "dry-run", 0,
                "tell what would be measured, its size and memory; write nothing"),
    MT_OPT_END,
};

struct profile_cmd {
    const struct cmd_args *a;
    const struct profile_cmd_opts *o;
    struct mt_model *m;
    struct mt_device *dev;
    struct mt_dataset *sets; /* one for each --data */
    int n_sets;
    struct mt_profile_text text;
    struct mt_profile *p;
    struct mt_stats_writer *w;
    uint64_t bytes, memory; /* of the file; of the run */
    double seconds;
    int64_t experts, unseen; /* routed experts, and those no token reached */
};

static bool profile_to_imatrix(const struct profile_cmd *c)
{
    const char *dot = strrchr(mt_path_base(c->o->out), '.');

    return dot != NULL && strcmp(dot, ".gguf") == 0;
}

/* ---- results ---- */

struct profile_share {
    const char *domain;
    int64_t windows, tokens;
};

static struct profile_share profile_share(const struct mt_profile *p, int domain)
{
    struct profile_share s = {.domain = mt_profile_domain(p, domain)};

    for (int i = 0; i < mt_profile_n_sources(p); i++) {
        const struct mt_profile_source *o = mt_profile_source(p, i);
        if (strcmp(o->domain, s.domain) != 0)
            continue;
        s.windows += o->windows;
        s.tokens += o->tokens;
    }
    return s;
}

static mt_status profile_json(struct mt_ctx *ctx, const struct profile_cmd *c)
{
    const struct mt_profile_info *info = mt_profile_info(c->p);
    struct mt_json *root = mt_json_new_object(), *list;

    mt_json_set_str(root, "profile", c->o->out);
    mt_json_set_bool(root, "written", !c->o->dry_run);
    mt_json_set_str(root, "origin", info->origin);
    mt_json_set_str(root, "model_sha256", info->model);
    mt_json_set_str(root, "tokenizer_sha256", info->tokenizer);
    mt_json_set_int(root, "layers", info->n_layers);
    mt_json_set_int(root, "seq_len", info->seq_len);
    mt_json_set_int(root, "bytes", (int64_t)c->bytes);
    if (c->memory > 0)
        mt_json_set_int(root, "memory_bytes", (int64_t)c->memory);
    if (c->seconds > 0)
        mt_json_set_num(root, "seconds", c->seconds);
    list = mt_json_set_array(root, "domains");
    for (int d = 0; d < mt_profile_n_domains(c->p); d++) {
        struct profile_share s = profile_share(c->p, d);
        struct mt_json *o = mt_json_add_object(list);
        mt_json_set_str(o, "name", s.domain);
        mt_json_set_int(o, "windows", s.windows);
        mt_json_set_int(o, "tokens", s.tokens);
    }
    if (c->experts > 0) {
        mt_json_set_int(root, "experts", c->experts);
        mt_json_set_int(root, "experts_without_tokens", c->unseen);
    }
    return cmd_print_json(ctx, root);
}

static mt_status profile_print(struct mt_ctx *ctx, const struct profile_cmd *c)
{
    struct cmd_table t;
    char size[32];
    mt_status st;

    cmd_table_begin(&t, "lrr");
    cmd_table_cell(ctx, &t, "domain");
    cmd_table_cell(ctx, &t, "windows");
    cmd_table_cell(ctx, &t, "tokens");
    for (int d = 0; d < mt_profile_n_domains(c->p); d++) {
        struct profile_share s = profile_share(c->p, d);
        cmd_table_cell(ctx, &t, "%s", s.domain);
        if (s.windows == 0) { /* imported */
            cmd_table_cell(ctx, &t, "-");
            cmd_table_cell(ctx, &t, "-");
            continue;
        }
        cmd_table_cell(ctx, &t, "%lld", (long long)s.windows);
        cmd_table_cell(ctx, &t, "%lld", (long long)s.tokens);
    }
    st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    if (c->experts > 0 && c->unseen > 0)
        printf("%lld of %lld experts were reached by no token\n", (long long)c->unseen,
               (long long)c->experts);
    printf("%s: %s%s\n", c->o->out, mt_format_bytes(c->bytes, size, sizeof size),
           c->o->dry_run ? ", not written (--dry-run)" : "");
    if (c->o->dry_run && c->memory > 0)
        printf("memory: %s\n", mt_format_bytes(c->memory, size, sizeof size));
    return st;
}

/* ---- measuring ---- */

/* The text of each --data is cut into windows of its own: profiles of single texts then add up to
 * the profile of all of them. */
static mt_status profile_open_data(struct mt_ctx *ctx, struct profile_cmd *c)
{
    const struct mt_strlist *data = &c->a->data->data;
    struct cmd_data all = *c->a->data;
    struct cmd_args a = *c->a;

    if (data->n == 0)
        return mt_fail(ctx, MT_E_OPTION, "--data is missing: give a text file");
    all.samples = 0;
    a.data = &all;
    MT_TRY(mt_alloc0(ctx, (size_t)data->n, sizeof *c->sets, "data sets", &c->sets));
    for (int i = 0; i < data->n; i++) {
        const struct mt_strlist one = {.n = 1, .v = {data->v[i]}};
        MT_TRY(cmd_open_data(ctx, &a, c->m, &one, &c->sets[i]));
        c->n_sets++;
    }
    return mt_profile_text_make(ctx, c->sets, c->n_sets, c->a->data->samples, &c->text);
}

static mt_status profile_put(struct mt_ctx *ctx, void *arg, const struct mt_profile *p, int layer,
                             enum mt_stat s, int domain)
{
    return mt_stats_put(ctx, arg, p, layer, s, domain);
}

/* Experts that no token of any domain reached. */
static mt_status profile_count_unseen(struct mt_ctx *ctx, struct profile_cmd *c)
{
    int64_t rows, cols;
    double *n;

    c->experts = c->unseen = 0;
    for (int l = 0; l < mt_profile_info(c->p)->n_layers; l++) {
        if (!mt_profile_has(c->p, l, MT_STAT_EXPERT_N))
            continue;
        mt_profile_shape(c->p, l, MT_STAT_EXPERT_N, &rows, &cols);
        MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *n, "expert counts", &n));
        mt_status st = mt_profile_get(ctx, c->p, l, MT_STAT_EXPERT_N, NULL, n, (size_t)cols);
        for (int64_t e = 0; st == MT_OK && e < cols; e++)
            c->unseen += n[e] == 0;
        c->experts += cols;
        mt_free(n);
        MT_TRY(st);
    }
    return MT_OK;
}

/* What was written, as the next command will read it. */
static mt_status profile_reread(struct mt_ctx *ctx, struct profile_cmd *c)
{
    mt_stats_close(c->w);
    c->w = NULL;
    mt_profile_free(c->p);
    c->p = NULL;
    MT_TRY(mt_stats_read(ctx, c->o->out, &c->p));
    return profile_count_unseen(ctx, c);
}

/* What writing takes beside the sums. */
static uint64_t profile_writer_bytes(const struct mt_profile *p)
{
    uint64_t parts = (uint64_t)mt_profile_info(p)->n_layers * MT_STAT_COUNT_ALL *
                     (uint64_t)mt_profile_n_domains(p);

    return parts * sizeof(uint64_t) + ((uint64_t)64 << 10);
}

static mt_status profile_measure(struct mt_ctx *ctx, struct profile_cmd *c)
{
    int gram = c->o->gram;
    double began = mt_clock_seconds();
    struct mt_profile_opts o = {
        .model = c->m,
        .text = &c->text,
        .x_gram = gram == GRAM_X || gram == GRAM_BOTH,
        .h_gram = gram == GRAM_H || gram == GRAM_BOTH,
        .gates = c->o->gates,
        .all_experts = c->o->all_experts,
        .scratch_dir = mt_scratch_dir(),
    };

    MT_TRY(profile_open_data(ctx, c));
    MT_TRY(cmd_open_device(ctx, c->a, &c->dev));
    o.dev = c->dev;
    o.seq_len = cmd_seq_len(c->a, c->m);
    MT_TRY(mt_profile_plan(ctx, &o, &c->p));
    MT_TRY(mt_profile_bytes(ctx, &o, c->p, &c->memory));
    c->memory += profile_writer_bytes(c->p);
    MT_TRY(mt_mem_fits(ctx, c->memory, "this profile"));
    c->memory += mt_mem_used(ctx);
    if (c->memory < mt_mem_peak(ctx)) /* reading the text took more */
        c->memory = mt_mem_peak(ctx);
    if (c->o->dry_run)
        return mt_stats_bytes(ctx, c->p, &c->bytes);
    if (profile_to_imatrix(c)) {
        MT_TRY(mt_profile_run(ctx, &o, c->p, NULL, NULL));
        MT_TRY(mt_stats_export_imatrix(ctx, c->o->out, c->o->force, c->p, c->m));
    } else {
        MT_TRY(mt_stats_open(ctx, c->o->out, c->o->force, c->p, &c->w));
        MT_TRY(mt_profile_run(ctx, &o, c->p, profile_put, c->w));
        MT_TRY(mt_stats_commit(ctx, c->w));
        MT_TRY(profile_reread(ctx, c));
    }
    c->seconds = mt_clock_seconds() - began;
    return MT_OK;
}

/* ---- merging, importing ---- */

static mt_status profile_merge_all(struct mt_ctx *ctx, struct profile_cmd *c,
                                   const struct mt_profile *const *in, int n)
{
    MT_TRY(mt_profile_merge_plan(ctx, in, n, &c->p));
    if (c->o->dry_run)
        return mt_stats_bytes(ctx, c->p, &c->bytes);
    MT_TRY(mt_stats_open(ctx, c->o->out, c->o->force, c->p, &c->w));
    for (int l = 0; l < mt_profile_info(c->p)->n_layers; l++) {
        MT_TRY(mt_check_cancel(ctx));
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat s = (enum mt_stat)i;
            for (int d = 0; mt_profile_has(c->p, l, s) && d < mt_profile_n_domains(c->p); d++) {
                MT_TRY(mt_profile_merge_part(ctx, in, n, c->p, l, s, d));
                MT_TRY(mt_stats_put(ctx, c->w, c->p, l, s, d));
                mt_profile_drop(c->p, l, s, d);
            }
        }
    }
    MT_TRY(mt_stats_commit(ctx, c->w));
    return profile_reread(ctx, c);
}

static mt_status profile_merge(struct mt_ctx *ctx, struct profile_cmd *c)
{
    struct mt_profile *in[MT_STRLIST_MAX] = {NULL};
    int n = c->a->pos->n;
    mt_status st = MT_OK;

    if (profile_to_imatrix(c))
        return mt_fail(ctx, MT_E_OPTION,
                       "--merge writes a profile; turn it into an imatrix with "
                       "`moetool profile MODEL --import STATS -o F.gguf`");
    for (int i = 0; i < n && st == MT_OK; i++)
        st = mt_stats_read(ctx, c->a->pos->v[i], &in[i]);
    if (st == MT_OK)
        st = profile_merge_all(ctx, c, (const struct mt_profile *const *)in, n);
    for (int i = 0; i < n; i++)
        mt_profile_free(in[i]);
    return st;
}

static mt_status profile_write_all(struct mt_ctx *ctx, struct profile_cmd *c)
{
    MT_TRY(mt_stats_open(ctx, c->o->out, c->o->force, c->p, &c->w));
    for (int l = 0; l < mt_profile_info(c->p)->n_layers; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++)
            for (int d = 0;
                 mt_profile_has(c->p, l, (enum mt_stat)i) && d < mt_profile_n_domains(c->p); d++)
                MT_TRY(mt_stats_put(ctx, c->w, c->p, l, (enum mt_stat)i, d));
    MT_TRY(mt_stats_commit(ctx, c->w));
    return profile_reread(ctx, c);
}

static mt_status profile_import(struct mt_ctx *ctx, struct profile_cmd *c)
{
    MT_TRY(mt_stats_import(ctx, c->o->import, c->m, &c->p));
    MT_TRY(profile_count_unseen(ctx, c));
    if (c->o->dry_run)
        return mt_stats_bytes(ctx, c->p, &c->bytes);
    if (profile_to_imatrix(c))
        return mt_stats_export_imatrix(ctx, c->o->out, c->o->force, c->p, c->m);
    return profile_write_all(ctx, c);
}

/* ---- the command ---- */

static mt_status profile_check_opts(struct mt_ctx *ctx, const struct profile_cmd *c)
{
    const struct profile_cmd_opts *o = c->o;

    if (o->out == NULL)
        return mt_fail(ctx, MT_E_OPTION, "-o STATS is missing: the file to write");
    if (o->merge && (o->import != NULL || c->a->data->data.n > 0))
        return mt_fail(ctx, MT_E_OPTION,
                       "--merge adds up profiles: it takes no --data or --import");
    if (o->import != NULL && c->a->data->data.n > 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--import reads statistics instead of measuring: leave "
                       "--data away, or profile and --merge");
    if (!o->merge && c->a->pos->n != 1)
        return mt_fail(ctx, MT_E_OPTION, "one MODEL is wanted; several profiles need --merge");
    return mt_outdir_probe(ctx, o->out, MT_OUT_FILE | (o->force ? (unsigned)MT_OUT_FORCE : 0));
}

static mt_status profile_file_bytes(struct mt_ctx *ctx, struct profile_cmd *c)
{
    struct mt_map *map;

    MT_TRY(mt_map_open(ctx, c->o->out, &map));
    c->bytes = map->bytes;
    mt_map_close(map);
    return MT_OK;
}

static mt_status profile_do(struct mt_ctx *ctx, struct profile_cmd *c)
{
    MT_TRY(profile_check_opts(ctx, c));
    if (c->o->merge)
        MT_TRY(profile_merge(ctx, c));
    else
        MT_TRY(cmd_open_model(ctx, c->a->pos->v[0], &c->m));
    if (c->o->import != NULL)
        MT_TRY(profile_import(ctx, c));
    else if (!c->o->merge)
        MT_TRY(profile_measure(ctx, c));
    if (!c->o->dry_run)
        MT_TRY(profile_file_bytes(ctx, c));
    return c->a->common->json ? profile_json(ctx, c) : profile_print(ctx, c);
}

static mt_status profile_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct profile_cmd c = {.a = a, .o = a->opts};
    mt_status st = profile_do(ctx, &c);

    mt_stats_close(c.w);
    mt_profile_free(c.p);
    mt_profile_text_free(&c.text);
    for (int i = 0; i < c.n_sets; i++)
        mt_dataset_free(&c.sets[i]);
    mt_free(c.sets);
    if (c.dev != NULL)
        mt_device_close(c.dev);
    mt_model_free(c.m);
    return st;
}

static const struct cmd_example profile_examples[] = {
    {"profile Qwen3-0.6B --data web=w.jsonl --data code=c.jsonl -o stats.safetensors",
     "statistics of two domains"},
    {"convert Qwen3-0.6B --profile stats.safetensors -o moe", "a conversion that needs no text"},
    {"profile --merge a.safetensors b.safetensors -o ab.safetensors", "two halves made one"},
    {"profile Qwen3-0.6B --data w.jsonl -o imatrix.gguf", "an imatrix for llama-quantize"},
    {"profile Qwen3-0.6B --import imatrix.gguf -o stats.safetensors", "and back"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_profile = {
    .name = "profile",
    .summary = "calibration statistics, measured once and used by later commands",
    .synopsis = "MODEL --data FILE -o STATS",
    .help =
        "Runs a model over text and writes what its layers did: for dense FFNs the sums of h, |h| "
        "and h^2 of every neuron, for experts how often and with which weight they were chosen and "
        "how large their outputs were, for every matrix the squares of its inputs. Each domain "
        "(--data NAME=FILE) has sums of its own; whoever uses the profile takes their total.\n\n"
        "The file names the model and the texts by SHA-256. A command that is given it with "
        "--profile refuses it for another model, or for another stage of the same one.\n\n"
        "--merge adds profiles up. Sums are exact, so the profile of two texts and the merged "
        "profiles of each, made with --samples 0 or with samples that give each text its share, "
        "are the same to the last bit (Gram matrices of one domain: to rounding).",
    .examples = profile_examples,
    .opts = profile_opt_table,
    .opts_size = sizeof(struct profile_cmd_opts),
    .reads_data = true,
    .args_min = 1,
    .args_max = MT_STRLIST_MAX,
    .run = profile_run,
};
