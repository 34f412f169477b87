#include "cmd/cmd.h"

#include "formats/stats.h"
#include "formats/table.h"
#include "kernels/device.h"
#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/flow/emit.h"
#include "lib/flow/walk.h"
#include "lib/run/runner.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COMMON_MANIFEST_BYTES_MAX ((size_t)64 << 20)
#define COMMON_CARD_BYTES_MAX ((size_t)1 << 20)
#define COMMON_SEQ_LEN 512

static const char *const common_devices[] = {"cpu", "cuda", "ref", NULL};

const struct mt_opt cmd_common_opts[] = {
    MT_OPT_INT(struct cmd_common, threads, "threads", 'j', "N", NULL, 0, 4096,
               "threads (default: one per core)"),
    MT_OPT_SIZE(struct cmd_common, memory, "memory", 0, "SIZE", NULL,
                "bound on memory beside mapped files, such as 4G (default: half of the machine's)"),
    MT_OPT_INT(struct cmd_common, seed, "seed", 0, "N", "0", 0, 9007199254740992.0,
               "seed of every random choice"),
    MT_OPT_ENUM(struct cmd_common, device, "device", 0, "NAME", "cpu", common_devices,
                "where models run; ref is slow and computes in fp64"),
    MT_OPT_BOOL(struct cmd_common, json, "json", 0, "print one JSON object instead of text"),
    MT_OPT_BOOL(struct cmd_common, allow_nan, "allow-nan", 0,
                "go on when weights hold NaN or infinity"),
    MT_OPT_BOOL(struct cmd_common, quiet, "quiet", 'q', "no log, no progress; warnings remain"),
    MT_OPT_BOOL(struct cmd_common, verbose, "verbose", 'v', "tell more"),
    MT_OPT_BOOL(struct cmd_common, help, "help", 'h', "show this help"),
    MT_OPT_END,
};

const struct mt_opt cmd_data_opts[] = {
    MT_OPT_LIST(struct cmd_data, data, "data", 'd', "[NAME=]FILE",
                "text, JSONL with \"text\" or \"messages\", ids (.u16, .u32), or a directory of "
                "such files; may be repeated, each with a domain name"),
    MT_OPT_INT(struct cmd_data, samples, "samples", 0, "N", "128", 0, 1e9,
               "windows of text over all domains; 0: all there are"),
    MT_OPT_INT(struct cmd_data, seq_len, "seq-len", 0, "N", NULL, 0, 1 << 20,
               "tokens in a window (default: 512, or the model's context if shorter)"),
    MT_OPT_BOOL(struct cmd_data, no_bos, "no-bos", 0,
                "do not put the model's BOS token before each document"),
    MT_OPT_END,
};

/* A container may have less than the machine. */
static uint64_t common_cgroup_bytes(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/memory.max",
                                        "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    uint64_t bytes = UINT64_MAX;

    for (int i = 0; i < 2; i++) {
        unsigned long long v;
        FILE *f = fopen(files[i], "r");
        if (f == NULL)
            continue;
        if (fscanf(f, "%llu", &v) == 1 && v < bytes) /* "max" is no number */
            bytes = v;
        fclose(f);
    }
    return bytes;
}

uint64_t cmd_default_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t bytes = common_cgroup_bytes();

    if (pages > 0 && page > 0 && (uint64_t)pages * (uint64_t)page < bytes)
        bytes = (uint64_t)pages * (uint64_t)page;
    return bytes / 2;
}

mt_status cmd_open_model(struct mt_ctx *ctx, const char *path, struct mt_model **m)
{
    return mt_model_open(ctx, mt_formats, path, m);
}

mt_status cmd_open_profile(struct mt_ctx *ctx, const char *path, struct mt_model *m,
                           struct mt_profile **out)
{
    *out = NULL;
    if (path == NULL)
        return MT_OK;
    MT_TRY(mt_wrap(ctx, mt_stats_import(ctx, path, m, out), "--profile"));
    m->profile = *out;
    return MT_OK;
}

mt_status cmd_open_device(struct mt_ctx *ctx, const struct cmd_args *a, struct mt_device **dev)
{
    return mt_device_open(ctx, common_devices[a->common->device], dev);
}

const char *cmd_why_unknown(const struct mt_model *m, char *buf, size_t n)
{
    if (m->flaw != NULL)
        snprintf(buf, n, "%s", m->flaw);
    else if (m->n_tensors == 0)
        snprintf(buf, n, "it holds no weights%s", m->n_made > 0 ? ", only a vocabulary" : "");
    else if (m->model_type == NULL)
        snprintf(buf, n, "no config tells its model_type");
    else
        snprintf(buf, n, "model_type %s is not known", m->model_type);
    return buf;
}

mt_status cmd_check_predicts(struct mt_ctx *ctx, const struct mt_model *m)
{
    char why[MT_ERROR_TEXT_MAX];
    struct mt_device *dev;
    struct mt_runner *r;
    mt_status st;

    if (m->family == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: cannot be run: %s", m->path,
                       cmd_why_unknown(m, why, sizeof why));
    if (m->hp.both_ways)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: %s is an encoder and predicts no tokens; moetool encode runs it",
                       m->path, m->family->name);
    MT_TRY(mt_device_open(ctx, "cpu", &dev));
    st = mt_runner_open(ctx, m, dev, &r);
    if (st == MT_OK)
        mt_runner_close(r);
    mt_device_close(dev);
    return st;
}

static void common_warn_empty(struct mt_ctx *ctx, const struct mt_dataset *d)
{
    for (int i = 0; i < d->n_domains; i++) {
        size_t w = 0;
        while (w < d->n_windows && d->windows[w].domain != i)
            w++;
        if (w == d->n_windows)
            mt_log(ctx, MT_LOG_WARN, "no window of %s: it is empty or --samples is too small",
                   d->domains[i]);
    }
}

int64_t cmd_seq_len(const struct cmd_args *a, const struct mt_model *m)
{
    if (a->data->seq_len > 0)
        return a->data->seq_len;
    return m->hp.max_pos >= 2 && m->hp.max_pos < COMMON_SEQ_LEN ? m->hp.max_pos : COMMON_SEQ_LEN;
}

/* Ids need no tokenizer. */
static mt_status common_data_tokenizer(struct mt_ctx *ctx, const struct mt_model *m,
                                       const struct mt_strlist *sources, struct mt_tokenizer **t)
{
    mt_status st = cmd_open_tokenizer(ctx, m, t);

    for (int i = 0; st == MT_E_ABSENT && i < sources->n; i++)
        if (!mt_dataset_is_ids(sources->v[i]))
            return mt_fail(ctx, st,
                           "%s: no tokenizer.json beside the model; put one there, or give ids of "
                           "tokens instead of text (--data FILE.u16 or .u32)",
                           m->path);
    if (st == MT_E_ABSENT) {
        *t = NULL;
        st = MT_OK;
    }
    return st;
}

mt_status cmd_open_data(struct mt_ctx *ctx, const struct cmd_args *a, const struct mt_model *m,
                        const struct mt_strlist *sources, struct mt_dataset *out)
{
    struct mt_dataset_opts o = {.samples = a->data->samples,
                                .seq_len = cmd_seq_len(a, m),
                                .bos_id = a->data->no_bos ? -1 : (int32_t)m->hp.bos_id,
                                .vocab = m->hp.vocab};
    struct mt_tokenizer *t = NULL;
    struct cmd_chat chat;
    mt_status st;

    if (sources->n == 0)
        return mt_fail(ctx, MT_E_OPTION, "--data is missing: give a text file");
    if (o.seq_len == 1)
        return mt_fail(ctx, MT_E_OPTION, "--seq-len 1: a window needs at least 2 tokens");
    MT_TRY(common_data_tokenizer(ctx, m, sources, &t));
    st = cmd_open_chat(ctx, m, &chat);
    o.chat = chat.chat;
    if (a->data->no_bos)
        o.chat.bos = NULL;
    if (st == MT_OK)
        st = mt_dataset_open(ctx, t, sources, &o, out);
    cmd_chat_free(&chat);
    mt_tokenizer_free(t);
    if (st == MT_OK)
        common_warn_empty(ctx, out);
    if (st == MT_OK)
        mt_log(ctx, MT_LOG_DEBUG, "%zu windows, %zu tokens, %d domains", out->n_windows,
               out->n_tokens, out->n_domains);
    return st;
}

/* Path of a file in the directory of the weights; NULL when it is not there. *Given*. */
static mt_status common_beside(struct mt_ctx *ctx, const struct mt_model *m, const char *name,
                               char **path)
{
    const char *weights = m->n_maps > 0 ? m->maps[0]->path : name;
    size_t n = (size_t)(mt_path_base(weights) - weights);

    MT_TRY(mt_alloc(ctx, n + strlen(name) + 1, 1, "a path", path));
    memcpy(*path, weights, n);
    memcpy(*path + n, name, strlen(name) + 1);
    if (m->n_maps == 0 || !mt_path_is_file(*path)) {
        mt_free(*path);
        *path = NULL;
    }
    return MT_OK;
}

/* "license: X" in the front matter of a model card. */
static void common_read_license(const char *card, char *buf, size_t n)
{
    static const char key[] = "\nlicense:";
    const char *end = strncmp(card, "---\n", 4) == 0 ? strstr(card + 4, "\n---") : NULL;
    const char *at = end != NULL ? strstr(card, key) : NULL;

    if (at == NULL || at > end)
        return;
    at += sizeof key - 1;
    at += strspn(at, " \"'");
    snprintf(buf, n, "%.*s", (int)strcspn(at, "\"'\r\n"), at);
}

void cmd_find_license(struct mt_ctx *ctx, const struct mt_model *m, char *buf, size_t n)
{
    char *path = NULL, *text = NULL;
    struct mt_ctx quiet;
    size_t bytes;

    buf[0] = '\0';
    mt_ctx_child(&quiet, ctx); /* a card that cannot be read is no reason to stop */
    if (common_beside(&quiet, m, "README.md", &path) == MT_OK && path != NULL &&
        mt_read_file(&quiet, path, COMMON_CARD_BYTES_MAX, &text, &bytes) == MT_OK)
        common_read_license(text, buf, n);
    mt_free(text);
    mt_free(path);
}

/* Whether a manifest names the text, given itself or through a profile. */
static bool common_calibrated_on(const struct mt_json *manifest, const char *sha256)
{
    const struct mt_json *sources = mt_json_get(mt_json_get(manifest, "profile"), "sources");
    const char *hash = mt_json_text(mt_json_get(mt_json_get(manifest, "data"), "sha256"));
    bool same = hash != NULL && strcmp(hash, sha256) == 0;

    for (const struct mt_json *s = mt_json_first(sources); s != NULL; s = mt_json_next(s)) {
        hash = mt_json_text(mt_json_get(s, "sha256"));
        same = same || (hash != NULL && strcmp(hash, sha256) == 0);
    }
    return same;
}

mt_status cmd_warn_same_data(struct mt_ctx *ctx, const struct mt_model *m,
                             const struct mt_dataset *data)
{
    struct mt_json *j = NULL;
    mt_status st = MT_OK;
    char *path;

    MT_TRY(common_beside(ctx, m, MT_MANIFEST_NAME, &path));
    if (path != NULL)
        st = mt_json_read(ctx, path, COMMON_MANIFEST_BYTES_MAX, &j);
    mt_free(path);
    if (st != MT_OK)
        return st;
    if (common_calibrated_on(j, data->sha256))
        mt_log(ctx, MT_LOG_WARN,
               "%s was calibrated on this very text, so figures on it flatter; use other text",
               m->path);
    mt_json_free(j);
    return MT_OK;
}

mt_status cmd_check_finite(struct mt_ctx *ctx, const struct cmd_args *a, const struct mt_model *m,
                           double figure)
{
    if (isfinite(figure) || a->common->allow_nan)
        return MT_OK;
    MT_TRY(mt_wrap(ctx, mt_emit_blame(ctx, m->tensors, m->n_tensors, -1),
                   "predictions are not finite"));
    return mt_fail(ctx, MT_E_NUMERIC,
                   "%s: predictions are not finite, though weights are; --allow-nan shows the "
                   "figures all the same",
                   m->path);
}

const char *cmd_model_name(const char *path, char *buf, size_t n)
{
    size_t len;

    snprintf(buf, n, "%s", mt_path_base(path));
    len = strlen(buf);
    while (len > 1 && buf[len - 1] == '/')
        buf[--len] = '\0';
    return buf;
}

const char *cmd_format_count(uint64_t v, char *buf, size_t n)
{
    static const char *const units[] = {"k", "M", "G", "T", "P"};
    double x = (double)v / 1000;
    size_t u = 0;

    if (v < 1000) {
        snprintf(buf, n, "%u", (unsigned)v);
        return buf;
    }
    while (x >= 999.5 && u + 1 < sizeof units / sizeof units[0]) {
        x /= 1000;
        u++;
    }
    snprintf(buf, n, "%.*f %s", x < 9.995 ? 2 : x < 99.95 ? 1 : 0, x, units[u]);
    return buf;
}

mt_status cmd_print_json(struct mt_ctx *ctx, struct mt_json *j)
{
    mt_status st;
    char *text;
    size_t n;

    st = mt_json_print(ctx, j, &text, &n);
    mt_json_free(j);
    if (st == MT_OK)
        fwrite(text, 1, n, stdout); /* main.c checks stdout at the end */
    mt_free(text);
    return st;
}

const char *const cmd_format_names[] = {"auto", "safetensors", "safetensors-file", "gguf", NULL};

static bool common_ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);

    return n > s && strcmp(name + n - s, suffix) == 0;
}

const struct mt_format *cmd_out_format(int choice, const char *out)
{
    if (choice != 0)
        return mt_format_writer(cmd_format_names[choice]);
    return mt_format_writer(common_ends(out, ".gguf")          ? "gguf"
                            : common_ends(out, ".safetensors") ? "safetensors-file"
                                                               : "safetensors");
}

mt_status cmd_check_out(struct mt_ctx *ctx, int choice, const char *out)
{
    static const char *const read_only[] = {".pt", ".pth", ".ckpt", ".bin", NULL};

    if (out == NULL)
        return mt_fail(ctx, MT_E_OPTION, "-o OUT is missing: the directory or file to write");
    for (int i = 0; choice == 0 && read_only[i] != NULL; i++)
        if (common_ends(out, read_only[i]))
            return mt_fail(ctx, MT_E_OPTION,
                           "-o %s: torch checkpoints are read, not written; name a directory, a "
                           ".safetensors or a .gguf file",
                           out);
    return MT_OK;
}

mt_status cmd_shard_bytes(struct mt_ctx *ctx, const char *text, const struct mt_format *format,
                          uint64_t *bytes)
{
    struct size {
        uint64_t bytes;
    } size = {0};
    static const struct mt_opt rows[] = {
        MT_OPT_SIZE(struct size, bytes, "max-shard-size", 0, "SIZE", "5G", ""), MT_OPT_END};

    if (strcmp(text, "auto") == 0)
        mt_opt_defaults(rows, &size);
    else
        MT_TRY(mt_opt_set(ctx, rows, &size, "max-shard-size", text));
    *bytes = strcmp(text, "auto") == 0 && format->one_file ? 0 : size.bytes;
    return MT_OK;
}
