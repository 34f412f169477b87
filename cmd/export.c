#include "cmd/cmd.h"

#include "cmd/facts.h"
#include "formats/table.h"
#include "lib/base/path.h"
#include "lib/flow/card.h"
#include "lib/flow/walk.h"

#include <stdio.h>
#include <string.h>

extern const struct mt_pass mt_pass_cast, mt_pass_native;

static const char *const export_archs[] = {"keep", "native", NULL};
enum { EXPORT_PER_EXPERT, EXPORT_STACKED };
static const char *const export_experts[] = {"per-expert", "stacked", NULL};

struct export_opts {
    const char *out;
    int format, arch, experts;
    const char *max_shard_size;
    bool dry_run, resume, force;
};

static const struct mt_opt export_opt_table[] = {
    MT_OPT_STR(struct export_opts, out, "out", 'o', "OUT", NULL,
               "directory to write, or a .gguf or .safetensors file; required"),
    MT_OPT_ENUM(struct export_opts, format, "format", 0, "NAME", "auto", cmd_format_names,
                "what to write; auto: one file when OUT ends in .gguf or .safetensors, else a "
                "safetensors directory"),
    MT_OPT_ENUM(struct export_opts, arch, "arch", 0, "A", "keep", export_archs,
                "native: moetool's own layout, which takes any model (docs/formats.md)"),
    MT_OPT_ENUM(struct export_opts, experts, "experts", 0, "LAYOUT", "per-expert", export_experts,
                "experts of a safetensors layer: a tensor for each, or stacked as transformers 5 "
                "holds them. Families that publish stacks keep them; GGUF always stacks"),
    MT_OPT_BOOL(struct export_opts, force, "force", 0, "replace an existing OUT"),
    MT_OPT_BOOL(struct export_opts, resume, "resume", 0, "continue an interrupted run"),
    MT_OPT_BOOL(struct export_opts, dry_run, "dry-run", 0,
                "tell sizes, memory and disk; write nothing"),
    CMD_OPT_SHARD_SIZE(struct export_opts, max_shard_size),
    MT_OPT_END,
};

struct export
{
    const struct cmd_args *a;
    const struct export_opts *o;
    const struct mt_format *format;
    uint64_t shard_bytes;
    struct mt_model *src;
    struct mt_walk_result walk;
};

/* "BF16 80.0 MiB, F32 12.0 KiB", in the order of the types. */
static void export_dtypes(const uint64_t bytes[MT_DTYPE_COUNT], char *buf, size_t n)
{
    size_t at = 0;
    char size[24];

    buf[0] = '\0';
    for (int d = 0; d < MT_DTYPE_COUNT && at < n; d++) {
        if (bytes[d] > 0)
            at += (size_t)snprintf(buf + at, n - at, "%s%s %s", at > 0 ? ", " : "",
                                   mt_dtype_name((enum mt_dtype)d),
                                   mt_format_bytes(bytes[d], size, sizeof size));
    }
}

static mt_status export_finish(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                               const struct mt_json *manifest, struct mt_outdir *out)
{
    const struct mt_card_opts card = {0};
    const struct export *e = arg;

    (void)result;
    if (e->format->one_file)
        return MT_OK;
    return mt_card_write(ctx, out, manifest, NULL, &card);
}

static mt_status export_print(struct mt_ctx *ctx, struct export *e)
{
    uint64_t before[MT_DTYPE_COUNT] = {0};
    struct cmd_table t;
    char text[256];
    mt_status st;

    for (size_t i = 0; i < e->src->n_tensors; i++)
        before[e->src->tensors[i]->dtype] += mt_tensor_bytes(e->src->tensors[i]);

    cmd_table_begin(&t, "ll");
    cmd_table_cell(ctx, &t, "format");
    cmd_table_cell(ctx, &t, "%s, from %s", e->format->name, e->src->format);
    cmd_table_cell(ctx, &t, "tensors");
    cmd_table_cell(ctx, &t, "%zu", e->walk.plan->n_tensors);
    export_dtypes(before, text, sizeof text);
    cmd_table_cell(ctx, &t, "before");
    cmd_table_cell(ctx, &t, "%s", text);
    export_dtypes(e->walk.type_bytes, text, sizeof text);
    cmd_table_cell(ctx, &t, "after");
    cmd_table_cell(ctx, &t, "%s", text);
    if (e->o->dry_run) {
        cmd_table_cell(ctx, &t, "memory");
        cmd_table_cell(ctx, &t, "%s at most, beside mapped files",
                       mt_format_bytes(e->walk.memory_bytes, text, sizeof text));
        cmd_table_cell(ctx, &t, "disk");
        cmd_table_cell(ctx, &t, "%s", mt_format_bytes(e->walk.disk_bytes, text, sizeof text));
    }
    st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    printf("\n%s %s\n", e->o->dry_run ? "would be written to" : "written to",
           e->walk.written != NULL ? e->walk.written : e->o->out);
    return st;
}

static mt_status export_print_json(struct mt_ctx *ctx, struct export *e)
{
    struct mt_json *root = mt_json_new_object();

    mt_json_set_str(root, "source", e->a->pos->v[0]);
    mt_json_set_str(root, "out", e->walk.written != NULL ? e->walk.written : e->o->out);
    mt_json_set_str(root, "format", e->format->name);
    mt_json_set_bool(root, "dry_run", e->o->dry_run);
    mt_json_set_int(root, "tensor_bytes", (int64_t)e->walk.bytes_out);
    mt_json_set_int(root, "memory_bytes", (int64_t)e->walk.memory_bytes);
    mt_json_set_int(root, "disk_bytes", (int64_t)e->walk.disk_bytes);
    cmd_facts_json(mt_json_set_object(root, "result"), e->walk.plan);
    mt_json_set(root, "manifest", e->walk.manifest);
    e->walk.manifest = NULL; /* taken */
    return cmd_print_json(ctx, root);
}

static mt_status export_go(struct mt_ctx *ctx, struct export *e)
{
    /* Nothing to cast: no pass at all, so that the config is copied word for word. */
    bool casts = mt_opt_changed(&mt_pass_cast.opts[0], e->a->pass_opts);
    const char nothing = 0; /* options of a pass that has none */
    struct mt_walk_pass steps[2];
    int n = 0;

    if (e->o->arch != 0)
        steps[n++] = (struct mt_walk_pass){&mt_pass_native, &nothing};
    if (casts)
        steps[n++] = (struct mt_walk_pass){&mt_pass_cast, e->a->pass_opts};
    const struct mt_walk_opts o = {
        .source = e->src,
        .passes = steps,
        .n_passes = n,
        .format = e->format,
        .formats = mt_formats,
        .out_path = e->o->out,
        .out_flags = (e->o->force ? MT_OUT_FORCE : 0u) | (e->o->resume ? MT_OUT_RESUME : 0u),
        .write = {.shard_bytes_max = e->shard_bytes,
                  .stack_experts = e->o->experts == EXPORT_STACKED},
        .dry_run = e->o->dry_run,
        .keep_on_failure = true,
        .finish = export_finish,
        .finish_arg = e,
    };
    mt_status st;

    MT_TRY(mt_walk_run(ctx, &o, &e->walk));
    st = e->a->common->json ? export_print_json(ctx, e) : export_print(ctx, e);
    mt_walk_result_free(&e->walk);
    return st;
}

/* Stacks need experts, and a format that has a choice. */
static mt_status export_check_experts(struct mt_ctx *ctx, const struct export *e)
{
    if (e->o->experts != EXPORT_STACKED)
        return MT_OK;
    if (strncmp(e->format->name, "safetensors", strlen("safetensors")) != 0)
        return mt_fail(ctx, MT_E_OPTION, "--experts stacked is for safetensors; %s has no choice",
                       e->format->name);
    if (e->src->family == NULL || mt_model_first_moe(e->src) == NULL || e->src->family->wraps)
        return mt_fail(ctx, MT_E_OPTION,
                       "--experts stacked: %s has no experts of a family that can be stacked",
                       e->src->path);
    return MT_OK;
}

static mt_status export_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct export e = {.a = a, .o = a->opts};
    mt_status st;

    MT_TRY(cmd_check_out(ctx, e.o->format, e.o->out));
    e.format = cmd_out_format(e.o->format, e.o->out);
    MT_TRY(cmd_shard_bytes(ctx, e.o->max_shard_size, e.format, &e.shard_bytes));
    MT_TRY(cmd_open_model(ctx, a->pos->v[0], &e.src));
    st = export_check_experts(ctx, &e);
    if (st == MT_OK)
        st = export_go(ctx, &e);
    mt_model_free(e.src);
    return st;
}

static const struct cmd_example export_examples[] = {
    {"export model.safetensors -o model", "a directory of shards from one file"},
    {"export Qwen3-0.6B -o small --dtype bf16", "weights rounded to bf16"},
    {"export Qwen3-0.6B -o shards --max-shard-size 500M", "smaller files"},
    {"export Qwen3-0.6B -o qwen3.safetensors", "one file that carries its config"},
    {"export Qwen3-30B-A3B -o stacked --experts stacked", "a tensor for all experts of a layer"},
    {"export gpt-oss-20b -o plain --dtype bf16", "MXFP4 blocks as numbers"},
    {"export Qwen3-0.6B -o qwen3.gguf", "one GGUF file with its tokenizer, as llama.cpp loads it"},
    {"export Qwen3-30B-A3B -o q.gguf --max-shard-size 8G",
     "in parts; llama.cpp is given the first"},
    {"export model.gguf -o model", "and back: a Hugging Face directory"},
    {"export Mixtral -o native --arch native", "in moetool's own layout"},
    {"export Qwen3-0.6B -o small --dtype f16 --dry-run", "what would happen"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_export = {
    .name = "export",
    .summary = "another format, dtype or shard size; nothing else changes",
    .synopsis = "MODEL -o OUT [--dtype TYPE]",
    .help =
        "Writes the model again: as another format, in shards of another size or with weights of "
        "another float type. Nothing is computed but the rounding: with --dtype keep every tensor "
        "has the same values as before. Routers and the biases that choose experts are never "
        "rounded. Models of unknown families can be exported too, but for GGUF.\n\n"
        "A directory is what transformers and vLLM load: model.safetensors, or shards with an "
        "index, beside config.json and the tokenizer. One .safetensors file carries its config "
        "in its header and nothing else: moetool reads it back, engines want a directory. With "
        "--experts stacked the experts of a layer become two tensors, as transformers 5 holds "
        "them; both layouts are read.\n\n"
        "A GGUF file holds F32, F16 and BF16 weights (and gpt-oss's MXFP4 blocks), experts "
        "stacked, vectors and routers in F32, and the tokenizer of tokenizer.json. Families: "
        "llama, "
        "mistral, mixtral, qwen2, qwen3, qwen2_moe, qwen3_moe, glm4_moe, olmoe, granitemoe, "
        "granitemoeshared, deepseek_v2, deepseek_v3, dots1, ernie4_5_moe, gpt_oss, gpt2, phi3, "
        "gemma2 and gemma3_text. What the architecture's code in llama.cpp would compute otherwise "
        "is refused. Blocks of quantized GGUF files are copied to GGUF as they are; a directory "
        "cannot hold them.",
    .examples = export_examples,
    .opts = export_opt_table,
    .opts_size = sizeof(struct export_opts),
    .pass = &mt_pass_cast,
    .args_min = 1,
    .args_max = 1,
    .run = export_run,
};
