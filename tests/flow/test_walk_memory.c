/* A walk needs no more anonymous memory for a model of twice the size. */
#include "lib/base/path.h"
#include "tests/flow_kit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- models with holes for weights: large, and made at once ---- */

#define BIG_HIDDEN 1024
#define BIG_WIDTH 4096
#define BIG_VOCAB 4096
#define BIG_LAYER_BYTES ((uint64_t)(4 * BIG_HIDDEN + 3 * BIG_WIDTH) * BIG_HIDDEN * 2)

struct big {
    char *head;
    size_t n, cap;
    uint64_t at;
};

static void big_add(struct big *b, const char *name, int64_t rows, int64_t cols)
{
    uint64_t end = b->at + 2 * (uint64_t)(rows > 0 ? rows : 1) * (uint64_t)cols;
    char dims[64];

    if (rows > 0)
        snprintf(dims, sizeof dims, "%lld,%lld", (long long)rows, (long long)cols);
    else
        snprintf(dims, sizeof dims, "%lld", (long long)cols);
    b->n += (size_t)snprintf(
        b->head + b->n, b->cap - b->n,
        "%s\"%s.weight\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
        b->n > 9 ? "," : "", name, dims, (unsigned long long)b->at, (unsigned long long)end);
    b->at = end;
}

static void big_layer(struct big *b, int l)
{
    static const struct {
        const char *name;
        int64_t rows, cols;
    } rows[] = {
        {"input_layernorm", 0, BIG_HIDDEN},           {"self_attn.q_proj", BIG_HIDDEN, BIG_HIDDEN},
        {"self_attn.k_proj", BIG_HIDDEN, BIG_HIDDEN}, {"self_attn.v_proj", BIG_HIDDEN, BIG_HIDDEN},
        {"self_attn.o_proj", BIG_HIDDEN, BIG_HIDDEN}, {"post_attention_layernorm", 0, BIG_HIDDEN},
        {"mlp.gate_proj", BIG_WIDTH, BIG_HIDDEN},     {"mlp.up_proj", BIG_WIDTH, BIG_HIDDEN},
        {"mlp.down_proj", BIG_HIDDEN, BIG_WIDTH},
    };
    char name[96];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s", l, rows[i].name);
        big_add(b, name, rows[i].rows, rows[i].cols);
    }
}

static const char *big_make(struct t *t, const char *name, int layers)
{
    struct big b = {.n = 8, .cap = (size_t)layers * 9 * 200 + 2000};
    const char *dir = kit_path(t, name);
    char path[700], config[800];

    b.head = calloc(b.cap, 1);
    b.head[b.n++] = '{';
    big_add(&b, "model.embed_tokens", BIG_VOCAB, BIG_HIDDEN);
    for (int l = 0; l < layers; l++)
        big_layer(&b, l);
    big_add(&b, "model.norm", 0, BIG_HIDDEN);
    big_add(&b, "lm_head", BIG_VOCAB, BIG_HIDDEN);
    b.head[b.n++] = '}';
    while (b.n % 8 != 0)
        b.head[b.n++] = ' ';
    for (int i = 0; i < 8; i++)
        b.head[i] = (char)((b.n - 8) >> (8 * i));
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    t_write_file(t, path, b.head, b.n);
    if (truncate(path, (off_t)(b.n + b.at)) != 0)
        t_fail(t, __FILE__, __LINE__, "cannot make %s", path);
    free(b.head);
    int n = snprintf(config, sizeof config,
                     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
                     "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
                     "\"num_attention_heads\": 8, \"num_key_value_heads\": 8, \"vocab_size\": %d, "
                     "\"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-05, "
                     "\"rope_theta\": 10000.0, \"hidden_act\": \"silu\", "
                     "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\"}\n",
                     BIG_HIDDEN, BIG_WIDTH, layers, BIG_VOCAB);
    snprintf(path, sizeof path, "%s/config.json", dir);
    t_write_file(t, path, config, (size_t)n);
    return dir;
}

/* ---- what the process holds ---- */

static uint64_t anon_kib(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
            break;
    }
    if (f != NULL)
        fclose(f);
    return kib;
}

struct sampler {
    pthread_t thread;
    _Atomic bool stop;
    uint64_t peak_kib;
};

static void *sampler_main(void *arg)
{
    struct sampler *s = arg;
    const struct timespec pause = {0, 500000};

    while (!atomic_load(&s->stop)) {
        uint64_t now = anon_kib();
        if (now > s->peak_kib)
            s->peak_kib = now;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* Peak of anonymous memory during a walk over `layers` layers, beyond what was there before. */
static uint64_t walk_peak_kib(struct t *t, int layers, uint64_t memory)
{
    const struct kit_scale_opts by = {.by = 0.5};
    const struct mt_walk_pass p = {&kit_scale, &by};
    struct kit_run r = {.passes = &p, .n_passes = 1, .threads = 2, .memory = memory};
    struct sampler s = {.peak_kib = 0};
    char name[32];

    snprintf(name, sizeof name, "big%d", layers);
    r.source = big_make(t, name, layers);
    snprintf(name, sizeof name, "out%d", layers);
    r.out = kit_path(t, name);
    uint64_t before = anon_kib();
    if (pthread_create(&s.thread, NULL, sampler_main, &s) != 0)
        return 0;
    mt_status st = kit_walk(t, &r);
    atomic_store(&s.stop, true);
    pthread_join(s.thread, NULL);
    if (st != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return s.peak_kib > before ? s.peak_kib - before : 0;
}

T_TEST(twice_the_model_needs_no_more_memory)
{
    const int layers = (int)(((uint64_t)256 << 20) / BIG_LAYER_BYTES);
    const uint64_t limit = (uint64_t)64 << 20;
    uint64_t one, two;

    if (anon_kib() == 0)
        T_SKIP(t, "this system does not tell RssAnon");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    T_SKIP(t, "sanitizers hold on to memory that was freed");
#endif
    one = walk_peak_kib(t, layers, limit);
    two = walk_peak_kib(t, 2 * layers, limit);
    printf("    peak anonymous memory: %llu KiB at %d layers, %llu KiB at %d\n",
           (unsigned long long)one, layers, (unsigned long long)two, 2 * layers);
    T_CHECK(t, !t->failed);
    T_CHECK(t, one > 0 && one < limit / 1024 && two < limit / 1024);
    T_CHECK(t, two < one + 3 * 1024);
}

T_TEST(what_the_disk_cannot_hold_is_refused_before_output_is_opened)
{
    struct kit_run r = {.out = kit_path(t, "out")};
    uint64_t room;

    T_OK(t, mt_path_free_bytes(&t->ctx, t->dir, &room));
    if (room / BIG_LAYER_BYTES > 20000)
        T_SKIP(t, "too much room here");
    r.source = big_make(t, "huge", (int)(room / BIG_LAYER_BYTES) + 2);
    T_FAILS(t, kit_walk(t, &r), MT_E_LIMIT, "its file system has");
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
}
