#include "tests/tiny.h"

#include "lib/base/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

#define TINY_TENSORS_MAX 4096

struct tiny_tensor {
    char name[128];
    int64_t shape[2];
    int rank;
    bool f32; /* whatever the model's dtype */
    double mean, sd;
};

struct tiny_job {
    struct tiny o;
    struct tiny_tensor list[TINY_TENSORS_MAX];
    int n;
};

static void tiny_defaults(struct tiny *o)
{
    o->family = o->family != NULL ? o->family : "llama";
    o->layers = o->layers != 0 ? o->layers : 2;
    o->hidden = o->hidden != 0 ? o->hidden : 32;
    o->width = o->width != 0 ? o->width : 48;
    o->heads = o->heads != 0 ? o->heads : 4;
    o->kv_heads = o->kv_heads != 0 ? o->kv_heads : 2;
    o->head_dim = o->head_dim != 0 ? o->head_dim : 8;
    o->vocab = o->vocab != 0 ? o->vocab : o->tokenizer ? 260 : 64;
    o->experts = o->experts != 0 ? o->experts : 4;
    o->k = o->k != 0 ? o->k : 2;
    o->expert_width = o->expert_width != 0 ? o->expert_width : o->width;
    o->dtype = o->dtype == MT_BF16 ? MT_BF16 : MT_F32;
}

static bool tiny_is(const struct tiny *o, const char *family)
{
    return strcmp(o->family, family) == 0;
}

static bool tiny_moe(const struct tiny *o)
{
    return tiny_is(o, "mixtral") || tiny_is(o, "qwen3_moe") || tiny_is(o, "glm4_moe");
}

/* rows 0: a vector. */
static void tiny_add(struct tiny_job *j, int64_t rows, int64_t cols, double mean, double sd,
                     const char *fmt, ...) MT_PRINTF(6, 7);

static void tiny_add(struct tiny_job *j, int64_t rows, int64_t cols, double mean, double sd,
                     const char *fmt, ...)
{
    struct tiny_tensor *x = &j->list[j->n++];
    va_list ap;

    mt_assert(j->n < TINY_TENSORS_MAX);
    *x = (struct tiny_tensor){.rank = rows > 0 ? 2 : 1, .mean = mean, .sd = sd};
    x->shape[0] = rows > 0 ? rows : cols;
    x->shape[1] = cols;
    va_start(ap, fmt);
    vsnprintf(x->name, sizeof x->name, fmt, ap);
    va_end(ap);
}

static void tiny_matrix(struct tiny_job *j, int64_t rows, int64_t cols, const char *prefix,
                        const char *name)
{
    tiny_add(j, rows, cols, 0, 1 / sqrt((double)cols), "%s%s.weight", prefix, name);
}

static void tiny_vector(struct tiny_job *j, int64_t n, double mean, const char *prefix,
                        const char *name)
{
    tiny_add(j, 0, n, mean, 0.1, "%s%s", prefix, name);
}

static void tiny_attention(struct tiny_job *j, int l)
{
    const struct tiny *o = &j->o;
    int64_t q = o->heads * o->head_dim, kv = o->kv_heads * o->head_dim;
    bool qkv =
        tiny_is(o, "qwen2") || (o->biases && !tiny_is(o, "mistral") && !tiny_is(o, "mixtral"));
    bool out = o->biases && !tiny_is(o, "mistral") && !tiny_is(o, "mixtral") &&
               !tiny_is(o, "qwen2") && !tiny_is(o, "glm4_moe");
    char p[64];

    snprintf(p, sizeof p, "model.layers.%d.", l);
    tiny_vector(j, o->hidden, 1, p, "input_layernorm.weight");
    tiny_vector(j, o->hidden, 1, p, "post_attention_layernorm.weight");
    snprintf(p, sizeof p, "model.layers.%d.self_attn.", l);
    tiny_matrix(j, q, o->hidden, p, "q_proj");
    tiny_matrix(j, kv, o->hidden, p, "k_proj");
    tiny_matrix(j, kv, o->hidden, p, "v_proj");
    tiny_matrix(j, o->hidden, q, p, "o_proj");
    if (qkv) {
        tiny_vector(j, q, 0, p, "q_proj.bias");
        tiny_vector(j, kv, 0, p, "k_proj.bias");
        tiny_vector(j, kv, 0, p, "v_proj.bias");
    }
    if (out)
        tiny_vector(j, o->hidden, 0, p, "o_proj.bias");
    if (tiny_is(o, "qwen3") || tiny_is(o, "qwen3_moe") || (tiny_is(o, "glm4_moe") && o->qk_norm)) {
        tiny_vector(j, o->head_dim, 1, p, "q_norm.weight");
        tiny_vector(j, o->head_dim, 1, p, "k_norm.weight");
    }
}

static void tiny_triple(struct tiny_job *j, int64_t width, const char *prefix, bool mixtral)
{
    int64_t d = j->o.hidden;

    tiny_matrix(j, width, d, prefix, mixtral ? "w1" : "gate_proj");
    tiny_matrix(j, width, d, prefix, mixtral ? "w3" : "up_proj");
    tiny_matrix(j, d, width, prefix, mixtral ? "w2" : "down_proj");
}

static void tiny_ffn(struct tiny_job *j, int l)
{
    const struct tiny *o = &j->o;
    bool mixtral = tiny_is(o, "mixtral");
    char block[64], p[128];

    snprintf(block, sizeof block, "model.layers.%d.%s.", l, mixtral ? "block_sparse_moe" : "mlp");
    if (!tiny_moe(o) || (!mixtral && l < o->dense_layers)) {
        tiny_triple(j, o->width, block, false);
        if (o->mlp_biases) {
            tiny_vector(j, o->width, 0, block, "gate_proj.bias");
            tiny_vector(j, o->width, 0, block, "up_proj.bias");
            tiny_vector(j, o->hidden, 0, block, "down_proj.bias");
        }
        return;
    }
    tiny_add(j, o->experts, o->hidden, 0, 1, "%sgate.weight", block);
    for (int e = 0; e < o->experts; e++) {
        snprintf(p, sizeof p, "%sexperts.%d.", block, e);
        tiny_triple(j, mixtral ? o->width : o->expert_width, p, mixtral);
    }
    if (!tiny_is(o, "glm4_moe"))
        return;
    tiny_vector(j, o->experts, 0, block, "gate.e_score_correction_bias");
    j->list[j->n - 1].f32 = true;
    snprintf(p, sizeof p, "%sshared_experts.", block);
    if (o->shared > 0)
        tiny_triple(j, (int64_t)o->shared * o->expert_width, p, false);
}

static void tiny_tensors(struct tiny_job *j)
{
    const struct tiny *o = &j->o;

    tiny_add(j, o->vocab, o->hidden, 0, 1, "model.embed_tokens.weight");
    for (int l = 0; l < o->layers; l++) {
        tiny_attention(j, l);
        tiny_ffn(j, l);
    }
    tiny_vector(j, o->hidden, 1, "model.", "norm.weight");
    if (!o->tied)
        tiny_matrix(j, o->vocab, o->hidden, "", "lm_head");
}

static const char *tiny_bool(bool b)
{
    return b ? "true" : "false";
}

static void tiny_config_moe(const struct tiny *o, FILE *f)
{
    fprintf(f, "  \"num_experts_per_tok\": %d,\n", o->k);
    if (tiny_is(o, "mixtral")) {
        fprintf(f, "  \"num_local_experts\": %d,\n  \"sliding_window\": null,\n", o->experts);
        return;
    }
    fprintf(f, "  \"moe_intermediate_size\": %d,\n  \"norm_topk_prob\": %s,\n", o->expert_width,
            tiny_bool(!o->no_renorm));
    if (tiny_is(o, "glm4_moe")) {
        fprintf(f,
                "  \"n_routed_experts\": %d,\n  \"n_shared_experts\": %d,\n"
                "  \"first_k_dense_replace\": %d,\n  \"n_group\": 1,\n  \"topk_group\": 1,\n"
                "  \"routed_scaling_factor\": 1.5,\n  \"use_qk_norm\": %s,\n",
                o->experts, o->shared, o->dense_layers, tiny_bool(o->qk_norm));
        return;
    }
    fprintf(f, "  \"num_experts\": %d,\n  \"decoder_sparse_step\": 1,\n  \"mlp_only_layers\": [",
            o->experts);
    for (int l = 0; l < o->dense_layers; l++)
        fprintf(f, "%s%d", l > 0 ? ", " : "", l);
    fprintf(f, "],\n");
}

static void tiny_config(const struct tiny *o, FILE *f)
{
    const struct mt_family *family = mt_family_find(o->family);
    const char *dtype = o->dtype == MT_BF16 ? "bfloat16" : "float32";

    fprintf(f, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
            family != NULL ? family->architecture : "UnknownForCausalLM", o->family);
    fprintf(f,
            "  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n  \"num_hidden_layers\": %d,\n"
            "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n  \"head_dim\": %d,\n"
            "  \"vocab_size\": %d,\n  \"max_position_embeddings\": 512,\n"
            "  \"rms_norm_eps\": 1e-05,\n  \"hidden_act\": \"silu\",\n",
            o->hidden, o->width, o->layers, o->heads, o->kv_heads, o->head_dim, o->vocab);
    if (tiny_moe(o))
        tiny_config_moe(o, f);
    if (o->biases)
        fprintf(f, "  \"attention_bias\": true,\n");
    if (o->mlp_biases)
        fprintf(f, "  \"mlp_bias\": true,\n");
    if (tiny_is(o, "mistral") && (o->config == NULL || strstr(o->config, "sliding_window") == NULL))
        fprintf(f, "  \"sliding_window\": null,\n");
    if (o->config != NULL)
        fprintf(f, "  %s,\n", o->config);
    if (o->config == NULL || strstr(o->config, "rope_") == NULL)
        fprintf(f, "  \"rope_theta\": 10000.0,\n");
    fprintf(f,
            "  \"tie_word_embeddings\": %s,\n  \"bos_token_id\": 1,\n  \"eos_token_id\": 2,\n"
            "  \"torch_dtype\": \"%s\"\n}\n",
            tiny_bool(o->tied), dtype);
}

static size_t tiny_bytes(const struct tiny_job *j, const struct tiny_tensor *x)
{
    size_t n = (size_t)(x->rank == 2 ? x->shape[0] * x->shape[1] : x->shape[0]);

    return n * (x->f32 || j->o.dtype == MT_F32 ? 4 : 2);
}

static void tiny_values(const struct tiny_job *j, int i, FILE *f)
{
    const struct tiny_tensor *x = &j->list[i];
    size_t n = (size_t)(x->rank == 2 ? x->shape[0] * x->shape[1] : x->shape[0]);
    struct mt_rng rng;

    mt_rng_seed(&rng, j->o.seed, (uint64_t)i);
    for (size_t k = 0; k < n; k++) {
        float v = (float)(x->mean + x->sd * mt_rng_normal(&rng));
        uint32_t bits;
        uint16_t half;

        memcpy(&bits, &v, 4);
        half = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        if (x->f32 || j->o.dtype == MT_F32)
            fwrite(&bits, 4, 1, f);
        else
            fwrite(&half, 2, 1, f);
    }
}

/* Tensors [from, to) as one safetensors file. */
static void tiny_file(struct t *t, const struct tiny_job *j, const char *path, int from, int to)
{
    char *head = NULL;
    size_t head_n = 0, at = 0;
    uint64_t n;
    FILE *h = open_memstream(&head, &head_n), *f;

    fprintf(h, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = from; i < to; i++) {
        const struct tiny_tensor *x = &j->list[i];
        size_t bytes = tiny_bytes(j, x);

        fprintf(h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%" PRId64, x->name,
                x->f32 || j->o.dtype == MT_F32 ? "F32" : "BF16", x->shape[0]);
        if (x->rank == 2)
            fprintf(h, ",%" PRId64, x->shape[1]);
        fprintf(h, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    fprintf(h, "}");
    fflush(h);
    for (size_t pad = (8 - head_n % 8) % 8; pad > 0; pad--)
        fputc(' ', h);
    fclose(h);
    f = fopen(path, "wb");
    if (f == NULL) {
        t_fail(t, __FILE__, __LINE__, "cannot write %s", path);
        free(head);
        return;
    }
    n = head_n;
    fwrite(&n, 8, 1, f);
    fwrite(head, 1, head_n, f);
    for (int i = from; i < to; i++)
        tiny_values(j, i, f);
    if (fclose(f) != 0)
        t_fail(t, __FILE__, __LINE__, "cannot write %s", path);
    free(head);
}

static void tiny_shards(struct t *t, const struct tiny_job *j, const char *dir)
{
    size_t total = 0;
    char path[700];
    FILE *f;

    for (int i = 0; i < j->n; i++)
        total += tiny_bytes(j, &j->list[i]);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    f = fopen(path, "wb");
    mt_assert(f != NULL);
    fprintf(f, "{\"metadata\": {\"total_size\": %zu}, \"weight_map\": {\n", total);
    for (int s = 0; s < j->o.shards; s++) {
        int from = j->n * s / j->o.shards, to = j->n * (s + 1) / j->o.shards;

        snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", dir, s + 1, j->o.shards);
        tiny_file(t, j, path, from, to);
        for (int i = from; i < to; i++)
            fprintf(f, "  \"%s\": \"model-%05d-of-%05d.safetensors\"%s\n", j->list[i].name, s + 1,
                    j->o.shards, i + 1 < j->n ? "," : "");
    }
    fprintf(f, "}}\n");
    fclose(f);
}

/* A byte-level BPE without merges, so that every byte is a token: printable bytes stand for
 * themselves, the others for characters from 256 up (the GPT-2 table). */
static void tiny_tokenizer(const char *dir)
{
    char path[700];
    int next = 256;
    FILE *f;

    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    f = fopen(path, "wb");
    mt_assert(f != NULL);
    fprintf(f, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n"
               "\"added_tokens\": [{\"id\": 256, \"content\": \"<|endoftext|>\", \"single_word\": "
               "false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": "
               "true}],\n\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true},\n"
               "\"post_processor\": null,\n\"decoder\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true},\n"
               "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
               "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": "
               "false, \"byte_fallback\": false, \"vocab\": {");
    for (int b = 0; b < 256; b++) {
        bool keep = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;

        fprintf(f, "%s\"\\u%04x\": %d", b > 0 ? ", " : "", (unsigned)(keep ? b : next++), b);
    }
    fprintf(f, ", \"<|endoftext|>\": 256}, \"merges\": []}}\n");
    fclose(f);
}

const char *tiny_write(struct t *t, const char *name, const struct tiny *o)
{
    static char paths[32][512];
    static int turn;
    char *dir = paths[turn++ % 32], path[700];
    struct tiny_job *j = calloc(1, sizeof *j);
    FILE *f;

    snprintf(dir, sizeof paths[0], "%s/%s", t->dir, name);
    j->o = *o;
    tiny_defaults(&j->o);
    tiny_tensors(j);
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        t_fail(t, __FILE__, __LINE__, "cannot make %s", dir);
    snprintf(path, sizeof path, "%s/config.json", dir);
    f = fopen(path, "wb");
    if (f == NULL) {
        t_fail(t, __FILE__, __LINE__, "cannot write %s", path);
        free(j);
        return dir;
    }
    tiny_config(&j->o, f);
    fclose(f);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (j->o.shards > 1)
        tiny_shards(t, j, dir);
    else
        tiny_file(t, j, path, 0, j->n);
    if (j->o.tokenizer)
        tiny_tokenizer(dir);
    free(j);
    return dir;
}

static mt_status tiny_record(struct mt_ctx *ctx, struct mt_model *m, const struct mt_map *map,
                             uint64_t data, const struct mt_json *entry)
{
    const struct mt_json *shape = mt_json_get(entry, "shape");
    const char *dtype = mt_json_text(mt_json_get(entry, "dtype"));
    int64_t dims[MT_RANK_MAX], begin = 0, step = 1;
    enum mt_dtype type = MT_F32;
    struct mt_tensor *t;
    int rank = 0;

    for (const struct mt_json *j = mt_json_first(shape); j != NULL; j = mt_json_next(j))
        if (rank < MT_RANK_MAX && mt_json_integer(j, &dims[rank]))
            rank++;
    if (dtype == NULL || !mt_dtype_parse(dtype, strlen(dtype), &type) ||
        !mt_json_integer(mt_json_first(mt_json_get(entry, "data_offsets")), &begin))
        return mt_fail(ctx, MT_E_FORMAT, "%s: bad entry", mt_json_key(entry));
    MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE), type, rank, dims, &t));
    MT_TRY(
        mt_arena_strndup(ctx, &m->arena, mt_json_key(entry), strlen(mt_json_key(entry)), &t->name));
    t->src.kind = MT_SRC_SLICE;
    t->src.slice.map = map;
    t->src.slice.offset = data + (uint64_t)begin;
    for (int i = rank - 1; i >= 0; i--) {
        t->src.slice.stride[i] = step;
        step *= dims[i];
    }
    return MT_OK;
}

static mt_status tiny_read(struct mt_ctx *ctx, const char *dir, struct mt_model *m)
{
    struct mt_json *head;
    struct mt_map *map;
    char path[1200];
    mt_status st = MT_OK;
    uint64_t n;

    MT_TRY(mt_arena_strndup(ctx, &m->arena, dir, strlen(dir), &m->path));
    m->format = "safetensors";
    snprintf(path, sizeof path, "%s/config.json", dir);
    MT_TRY(mt_json_read(ctx, path, 1 << 20, &m->config));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    MT_TRY(mt_map_open(ctx, path, &map));
    MT_TRY(mt_model_own_map(ctx, m, map));
    n = mt_le64(map->base);
    MT_TRY(mt_json_parse(ctx, (const char *)map->base + 8, (size_t)n, path, &head));
    for (const struct mt_json *j = mt_json_first(head); j != NULL && st == MT_OK;
         j = mt_json_next(j))
        if (strcmp(mt_json_key(j), "__metadata__") != 0)
            st = tiny_record(ctx, m, map, 8 + n, j);
    mt_json_free(head);
    MT_TRY(st);
    return mt_model_bind(ctx, m);
}

struct mt_model *tiny_open(struct t *t, const char *dir)
{
    struct mt_model *m;

    if (mt_model_create(&t->ctx, &m) != MT_OK)
        return NULL;
    if (tiny_read(&t->ctx, dir, m) != MT_OK) {
        mt_model_free(m);
        return NULL;
    }
    return m;
}

struct mt_model *tiny_dense(struct t *t, const struct tiny *o)
{
    return tiny_open(t, tiny_write(t, "dense", o));
}
