/* Every family with a GGUF architecture, there and back: a small random model as its family stores
 * it, a GGUF file of it, and a directory made of that file. Where a golden model has something that
 * the architecture does not hold (which is refused, and tested elsewhere), it is edited first. */
#include "formats/table.h"
#include "lib/base/json.h"
#include "lib/base/outdir.h"
#include "lib/base/path.h"
#include "lib/flow/walk.h"
#include "tests/pass_run.h"
#include "tests/write_kit.h"

#include <stdlib.h>
#include <sys/stat.h>

#define LAYERS_MAX 32

/* What a golden becomes. */
struct edit {
    const char *config;     /* keys that are set, as an object; null stays null */
    const char *drop;       /* tensors whose name holds this are left out */
    const char *twice[3];   /* rows of these are there twice: as many kv heads as heads */
    int layers[LAYERS_MAX]; /* the layer of the golden for each; -1 behind the last */
};
#define SAME_LAYERS                                                                                \
    {                                                                                              \
        -1                                                                                         \
    }

/* The name with another layer in it. */
static void rename_layer(const char *name, int layer, char *out, size_t n)
{
    const char *at = strstr(name, "layers.") + strlen("layers.");

    snprintf(out, n, "%.*s%d%s", (int)(at - name), name, layer, at + strspn(at, "0123456789"));
}

static int layer_of(const char *name)
{
    const char *at = strstr(name, "layers.");

    return at == NULL ? -1 : (int)strtol(at + strlen("layers."), NULL, 10);
}

struct st_out {
    struct mt_json *header;
    char *data;
    size_t n, cap;
};

static void put_tensor(struct st_out *o, const char *name, const struct mt_json *entry,
                       const char *bytes, int64_t n, int times)
{
    struct mt_json *e = mt_json_set_object(o->header, name), *list;
    const struct mt_json *shape = mt_json_first(mt_json_get(entry, "shape"));
    int64_t dim;
    int at = 0;

    mt_json_set_str(e, "dtype", mt_json_text(mt_json_get(entry, "dtype")));
    list = mt_json_set_array(e, "shape");
    for (; shape != NULL && mt_json_integer(shape, &dim); shape = mt_json_next(shape))
        mt_json_add_int(list, at++ == 0 ? dim * times : dim);
    list = mt_json_set_array(e, "data_offsets");
    mt_json_add_int(list, (int64_t)o->n);
    mt_json_add_int(list, (int64_t)o->n + n * times);
    o->data = realloc(o->data, o->n + (size_t)(n * times));
    for (int i = 0; i < times; i++, o->n += (size_t)n)
        memcpy(o->data + o->n, bytes, (size_t)n);
}

static void edit_tensors(const struct edit *e, const struct mt_json *header, const char *data,
                         struct st_out *o)
{
    for (const struct mt_json *j = mt_json_first(header); j != NULL; j = mt_json_next(j)) {
        const char *name = mt_json_key(j);
        const struct mt_json *range = mt_json_first(mt_json_get(j, "data_offsets"));
        int64_t begin = 0, end = 0;
        char renamed[256];
        int times = 1;

        if (strcmp(name, "__metadata__") == 0 || (e->drop != NULL && strstr(name, e->drop) != NULL))
            continue;
        (void)mt_json_integer(range, &begin);
        (void)mt_json_integer(mt_json_next(range), &end);
        for (int i = 0; i < 3 && e->twice[i] != NULL; i++)
            times = strstr(name, e->twice[i]) != NULL ? 2 : times;
        if (layer_of(name) < 0 || e->layers[0] < 0) {
            put_tensor(o, name, j, data + begin, end - begin, times);
            continue;
        }
        for (int l = 0; e->layers[l] >= 0; l++) {
            if (e->layers[l] != layer_of(name))
                continue;
            rename_layer(name, l, renamed, sizeof renamed);
            put_tensor(o, renamed, j, data + begin, end - begin, times);
        }
    }
}

static void save(struct t *t, const char *path, const void *a, size_t n, const void *b, size_t m)
{
    FILE *f = fopen(path, "wb");

    T_CHECK(t, f != NULL);
    T_CHECK(t, fwrite(a, 1, n, f) == n && fwrite(b, 1, m, f) == m);
    T_EQ_INT(t, fclose(f), 0);
}

static void edit_weights(struct t *t, const struct edit *e, const char *from, const char *to)
{
    struct st_out o = {.header = mt_json_new_object()};
    struct mt_json *header;
    size_t n, text_n;
    char *file = t_read_file(from, &n), *text, *head;

    T_CHECK(t, file != NULL && n > 8);
    uint64_t h = mt_le64((const unsigned char *)file);
    T_OK(t, mt_json_parse(&t->ctx, file + 8, (size_t)h, "header", &header));
    edit_tensors(e, header, file + 8 + h, &o);
    if (mt_json_print(&t->ctx, o.header, &text, &text_n) != MT_OK) {
        free(o.data);
        T_FAIL(t, "%s", mt_error(&t->ctx));
    }
    head = calloc(8 + text_n, 1);
    for (int i = 0; i < 8; i++)
        head[i] = (char)(text_n >> 8 * i & 255);
    memcpy(head + 8, text, text_n);
    save(t, to, head, 8 + text_n, o.data, o.n);
    free(head);
    free(o.data);
    free(file);
    mt_free(text);
    mt_json_free(header);
    mt_json_free(o.header);
}

static void edit_config(struct t *t, const struct edit *e, const char *from, const char *to)
{
    struct mt_json *config, *keys, *copy;
    size_t n;
    char *text;

    T_OK(t, mt_json_read(&t->ctx, from, (size_t)1 << 20, &config));
    T_OK(t, mt_json_parse(&t->ctx, e->config, strlen(e->config), "edit", &keys));
    for (const struct mt_json *j = mt_json_first(keys); j != NULL; j = mt_json_next(j)) {
        T_OK(t, mt_json_copy(&t->ctx, j, &copy));
        mt_json_set(config, mt_json_key(j), copy);
    }
    T_OK(t, mt_json_print(&t->ctx, config, &text, &n));
    save(t, to, text, n, "", 0);
    mt_free(text);
    mt_json_free(keys);
    mt_json_free(config);
}

/* A directory in scratch; its path in `dir`. */
static void make_model(struct t *t, const char *golden, const struct edit *e, char *dir, size_t n)
{
    char from[300], to[600];

    snprintf(dir, n, "%s", t_path(t, "src"));
    T_CHECK(t, mkdir(dir, 0777) == 0 || mt_path_is_dir(dir));
    snprintf(from, sizeof from, "tests/golden/%s/config.json", golden);
    snprintf(to, sizeof to, "%s/config.json", dir);
    edit_config(t, e, from, to);
    snprintf(from, sizeof from, "tests/golden/%s/model.safetensors", golden);
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    edit_weights(t, e, from, to);
}

/* Tensors of the two directories, as they are stored: the same names, types and bytes. */
static void same_files(struct t *t, const char *a, const char *b, const char *but)
{
    struct mt_json *x, *y;
    char path[600];
    size_t n, m;

    snprintf(path, sizeof path, "%s/model.safetensors", a);
    char *p = t_read_file(path, &n);
    snprintf(path, sizeof path, "%s/model.safetensors", b);
    char *q = t_read_file(path, &m);
    T_CHECK(t, p != NULL && q != NULL);
    uint64_t hp = mt_le64((const unsigned char *)p), hq = mt_le64((const unsigned char *)q);
    T_OK(t, mt_json_parse(&t->ctx, p + 8, (size_t)hp, "header", &x));
    T_OK(t, mt_json_parse(&t->ctx, q + 8, (size_t)hq, "header", &y));
    for (const struct mt_json *j = mt_json_first(x); j != NULL; j = mt_json_next(j)) {
        const struct mt_json *k = mt_json_get(y, mt_json_key(j)), *i, *l;
        int64_t begin = 0, end = 0, at = 0, to = 0;
        if (strcmp(mt_json_key(j), "__metadata__") == 0 ||
            (but != NULL && strstr(mt_json_key(j), but) != NULL))
            continue;
        if (k == NULL)
            T_FAIL(t, "%s is missing", mt_json_key(j));
        T_EQ_STR(t, mt_json_text(mt_json_get(k, "dtype")), mt_json_text(mt_json_get(j, "dtype")));
        i = mt_json_first(mt_json_get(j, "data_offsets"));
        l = mt_json_first(mt_json_get(k, "data_offsets"));
        (void)mt_json_integer(i, &begin);
        (void)mt_json_integer(mt_json_next(i), &end);
        (void)mt_json_integer(l, &at);
        (void)mt_json_integer(mt_json_next(l), &to);
        T_EQ_INT(t, to - at, end - begin);
        if (memcmp(p + 8 + hp + begin, q + 8 + hq + at, (size_t)(end - begin)) != 0)
            T_FAIL(t, "%s has other bytes", mt_json_key(j));
    }
    mt_json_free(x);
    mt_json_free(y);
    free(p);
    free(q);
}

struct family_case {
    const char *golden, *arch;
    struct edit edit;
    double tol;      /* of logits; 0: 1e-10 */
    const char *but; /* tensors that do not come back bit for bit */
};

static void there_and_back(struct t *t, const struct family_case *c)
{
    char dir[512], gguf[512], back[512];
    struct mt_model *src, *m, *again;
    double d;

    make_model(t, c->golden, &c->edit, dir, sizeof dir);
    if (t->failed)
        return;
    snprintf(gguf, sizeof gguf, "%s", t_path(t, "x.gguf"));
    snprintf(back, sizeof back, "%s", t_path(t, "back"));
    src = open_model(t, dir);
    T_CHECK(t, src != NULL);
    T_OK(t, write_format(t, src, "gguf", gguf, MT_OUT_FORCE, 0, NULL));
    m = open_model(t, gguf);
    T_CHECK(t, m != NULL && m->family != NULL);
    T_EQ_STR(t, m->family->name, src->family->name);
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, c->tol > 0 ? c->tol : 1e-10);
    T_OK(t, write_format(t, m, "safetensors", back, MT_OUT_FORCE, 0, NULL));
    again = open_model(t, back);
    T_CHECK(t, again != NULL && again->family == src->family);
    T_OK(t, logits_distance(&t->ctx, "ref", again, src, &d));
    T_NEAR(t, d, 0, c->tol > 0 ? c->tol : 1e-10);
    same_files(t, dir, back, c->but);
    mt_model_free(again);
    mt_model_free(m);
    mt_model_free(src);
}

#define DEEP                                                                                       \
    {                                                                                              \
        0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, -1           \
    }

static const struct family_case cases[] = {
    {"llama", "llama", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"llama-linear", "llama", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"llama-yarn", "llama", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"mixtral", "llama", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"qwen2", "qwen2", {"{\"use_sliding_window\": false}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"qwen3", "qwen3", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"qwen3_moe",
     "qwen3moe",
     {"{\"num_hidden_layers\": 2, \"mlp_only_layers\": [], \"norm_topk_prob\": true}",
      NULL,
      {NULL},
      {0, 2, -1}},
     0,
     NULL},
    {"qwen2_moe",
     "qwen2moe",
     {"{\"num_hidden_layers\": 2, \"mlp_only_layers\": [], \"use_sliding_window\": false, "
      "\"layer_types\": null}",
      NULL,
      {NULL},
      {1, 2, -1}},
     0,
     NULL},
    {"glm4_moe", "glm4moe", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"glm4_moe-plain", "glm4moe", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"olmoe",
     "olmoe",
     {"{\"clip_qkv\": null, \"num_key_value_heads\": 4}",
      NULL,
      {"k_proj", "v_proj", "k_norm"},
      SAME_LAYERS},
     0,
     NULL},
    {"granitemoe", "granitemoe", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"granitemoeshared", "granitemoe", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"dots1",
     "dots1",
     {"{\"attention_bias\": false, \"sliding_window\": null, \"layer_types\": null, "
      "\"num_key_value_heads\": 4}",
      "proj.bias",
      {"k_proj", "v_proj"},
      SAME_LAYERS},
     0,
     NULL},
    {"deepseek_v2",
     "deepseek2",
     {"{\"topk_method\": \"greedy\", \"num_hidden_layers\": 26, \"rms_norm_eps\": 1e-6, "
      "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, \"mscale\": 0.7, "
      "\"mscale_all_dim\": 0.7, \"original_max_position_embeddings\": 16}}",
      NULL,
      {NULL},
      DEEP},
     0,
     NULL},
    {"deepseek_v3",
     "deepseek2",
     {"{\"attention_bias\": false, \"rms_norm_eps\": 1e-6}", ".bias", {NULL}, SAME_LAYERS},
     0,
     NULL},
    {"ernie4_5_moe",
     "ernie4_5-moe",
     {"{\"num_hidden_layers\": 2, \"moe_layer_end_index\": -1}", NULL, {NULL}, {0, 1, -1}},
     0,
     "e_score_correction_bias"},
    {"gpt_oss", "gpt-oss", {"{\"swiglu_limit\": 7.0}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"gpt_oss-mxfp4", "gpt-oss", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"gpt2", "gpt2", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"phi3", "phi3", {"{\"sliding_window\": null}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    {"phi3-short", "phi3", {"{}", NULL, {NULL}, SAME_LAYERS}, 0, NULL},
    /* 1 + w is rounded to 32 bits in the file. */
    {"gemma2",
     "gemma2",
     {"{\"query_pre_attn_scalar\": 8}", NULL, {NULL}, SAME_LAYERS},
     1e-5,
     "norm"},
    {"gemma3_text",
     "gemma3",
     {"{\"query_pre_attn_scalar\": 8}", NULL, {NULL}, SAME_LAYERS},
     1e-5,
     "norm"},
};

static void run_case(struct t *t, const char *golden)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !t->failed; i++)
        if (strcmp(cases[i].golden, golden) == 0)
            there_and_back(t, &cases[i]);
}

T_TEST(llama_and_qwen)
{
    static const char *const names[] = {"llama", "llama-linear", "llama-yarn", "qwen2", "qwen3"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        run_case(t, names[i]);
}

T_TEST(experts_with_softmax_routers)
{
    static const char *const names[] = {"mixtral",    "qwen3_moe",        "qwen2_moe",   "olmoe",
                                        "granitemoe", "granitemoeshared", "ernie4_5_moe"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        run_case(t, names[i]);
}

T_TEST(experts_with_sigmoid_routers)
{
    run_case(t, "glm4_moe");
    run_case(t, "glm4_moe-plain");
    run_case(t, "dots1");
}

T_TEST(latent_attention)
{
    run_case(t, "deepseek_v2");
    run_case(t, "deepseek_v3");
}

T_TEST(gpt_oss_with_its_blocks)
{
    run_case(t, "gpt_oss");
    run_case(t, "gpt_oss-mxfp4");
}

T_TEST(tensors_of_several_roles)
{
    run_case(t, "gpt2");
    run_case(t, "phi3");
    run_case(t, "phi3-short");
}

T_TEST(norms_with_their_one)
{
    run_case(t, "gemma2");
    run_case(t, "gemma3_text");
}

/* ---- files that say something else than their tensors ---- */

static void write_case(struct t *t, const char *golden, char *gguf, size_t n)
{
    char dir[512];
    struct mt_model *src;

    snprintf(gguf, n, "%s", t_path(t, "x.gguf"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(cases[i].golden, golden) == 0)
            make_model(t, golden, &cases[i].edit, dir, sizeof dir);
    src = open_model(t, dir);
    T_CHECK(t, src != NULL);
    T_OK(t, write_format(t, src, "gguf", gguf, MT_OUT_FORCE, 0, NULL));
    mt_model_free(src);
}

/* Puts `now` where `was` is, `skip` bytes further on; the file is then listed, not bound. */
static void patched(struct t *t, const char *golden, const char *was, size_t skip, const void *now,
                    size_t bytes, const char *why)
{
    char gguf[512];
    struct mt_model *m;
    size_t n, len = strlen(was);
    char *text, *at = NULL;

    write_case(t, golden, gguf, sizeof gguf);
    if (t->failed)
        return;
    text = t_read_file(gguf, &n);
    for (size_t i = 0; at == NULL && i + len < n; i++)
        at = memcmp(text + i, was, len) == 0 ? text + i : NULL;
    T_CHECK(t, at != NULL);
    memcpy(at + skip, now, bytes);
    save(t, gguf, text, n, "", 0);
    free(text);
    m = open_model(t, gguf);
    T_CHECK(t, m != NULL && m->family == NULL);
    if (strstr(t->log, why) == NULL)
        t_fail(t, __FILE__, __LINE__, "%s: \"%s\" is not in: %s", golden, why, t->log);
    mt_model_free(m);
}

T_TEST(tensors_that_do_not_fit_are_told)
{
    const unsigned char three[] = {3, 0, 0, 0}, zero[] = {0, 0, 0, 0}, i32[] = {26, 0, 0, 0};
    const char heads[] = "phi3.attention.head_count", taps[] = "deepseek2.attention.kv_lora_rank";
    const char factors[] = "rope_factors_long.weight";

    patched(t, "deepseek_v3", "blk.0.attn_v_b.weight", 0, "blk.0.attn_v_x.weight", 21,
            "attn_k_b without attn_v_b");
    patched(t, "deepseek_v3", "blk.1.attn_k_b.weight", 0, "blk.1.attn_k_x.weight", 21,
            "attn_k_b without attn_v_b");
    patched(t, "deepseek_v3", taps, sizeof taps - 1 + 4, zero, 4, "make no latent attention");
    patched(t, "phi3", heads, sizeof heads - 1 + 4, three, 4,
            "rows do not divide into its 3 parts");
    patched(t, "phi3", "rope_factors_short.weight", 0, "rope_factors_shor_.weight", 25,
            "rope_factors_short.weight is missing");
    /* name, u32 rank, u64 dimension, type */
    patched(t, "phi3", factors, sizeof factors - 1 + 12, i32, 4, "no list of 32-bit floats");
}

T_TEST(pairs_without_an_architecture_are_refused_by_name)
{
    static const struct {
        const char *golden, *config, *why;
    } all[] = {
        {"gemma2", "{}", "gemma2 does not hold a scale of attention scores"},
        {"phi3", "{}", "phi3 does not hold a sliding window"},
        {"olmoe", "{\"clip_qkv\": null}", "olmoe does not hold fewer heads"},
        {"olmoe", "{}", "olmoe does not hold clipped"},
        {"deepseek_v2", "{}", "deepseek2 does not hold"},
        {"gpt_oss", "{}", "gpt-oss does not hold a swiglu_limit other than 7"},
        {"llama-dynamic", "{}", "llama does not hold dynamic rope scaling"},
        {"qwen2_moe", "{}", "qwen2moe does not hold a sliding window"},
        {"ernie4_5_moe", "{}", "ernie4_5-moe does not hold dense layers behind sparse ones"},
    };

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const struct edit e = {all[i].config, NULL, {NULL}, SAME_LAYERS};
        char dir[512], out[512];
        struct mt_model *src;

        make_model(t, all[i].golden, &e, dir, sizeof dir);
        src = open_model(t, dir);
        T_CHECK(t, src != NULL);
        snprintf(out, sizeof out, "%s", t_path(t, "no.gguf"));
        T_FAILS(t, write_format(t, src, "gguf", out, MT_OUT_FORCE, 0, NULL), MT_E_UNSUPPORTED,
                all[i].why);
        T_CHECK(t, !mt_path_exists(out) && !mt_path_exists(t_path(t, "no.gguf.partial")));
        mt_model_free(src);
    }
}
