/* A walk needs no more anonymous memory for a model of twice the size. */
#include "lib/base/path.h"
#include "tests/flow_kit.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
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

/* Peak of anonymous memory during a walk over a model of `bytes`, beyond what was there before. The
 * files are removed: together they would need the disk of CI. */
static uint64_t walk_peak_kib(struct t *t, struct kit_run r, uint64_t bytes)
{
    int layers = (int)(bytes / BIG_LAYER_BYTES);
    struct sampler s = {.peak_kib = 0};

    r.source = big_make(t, "big", layers);
    r.out = kit_path(t, "out");
#ifdef __GLIBC__
    malloc_trim(0); /* what the walk before freed must not hide what this one takes */
#endif
    uint64_t before = anon_kib();
    if (pthread_create(&s.thread, NULL, sampler_main, &s) != 0)
        return 0;
    mt_status st = kit_walk(t, &r);
    atomic_store(&s.stop, true);
    pthread_join(s.thread, NULL);
    if (st != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    unlink(kit_path(t, "big/model.safetensors"));
    unlink(kit_path(t, "out/model.safetensors"));
    unlink(kit_path(t, "out/config.json"));
    return s.peak_kib > before ? s.peak_kib - before : 0;
}

static void check_twice(struct t *t, struct kit_run r, uint64_t bytes)
{
    uint64_t one, two;

    if (anon_kib() == 0)
        T_SKIP(t, "this system does not tell RssAnon");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    T_SKIP(t, "sanitizers hold on to memory that was freed");
#endif
    one = walk_peak_kib(t, r, bytes);
    r.flags = MT_OUT_FORCE;
    two = walk_peak_kib(t, r, 2 * bytes);
    printf("    peak anonymous memory: %llu KiB for %llu MiB, %llu KiB for twice as much\n",
           (unsigned long long)one, (unsigned long long)bytes >> 20, (unsigned long long)two);
    T_CHECK(t, !t->failed);
    T_CHECK(t, one > 0 && one < r.memory / 1024 && two < r.memory / 1024);
    T_CHECK(t, two < one + 3 * 1024);
}

T_TEST(twice_the_model_needs_no_more_memory)
{
    const struct kit_scale_opts by = {.by = 0.5};
    const struct mt_walk_pass p = {&kit_scale, &by};

    check_twice(
        t,
        (struct kit_run){.passes = &p, .n_passes = 1, .threads = 2, .memory = (uint64_t)64 << 20},
        (uint64_t)1 << 30);
}

/* The hidden states of both streams, one layer's weights at a time. */
T_TEST(twice_the_model_with_activations_needs_no_more_memory)
{
    const struct kit_scale_opts by = {.by = 0.5};
    const struct mt_walk_pass p = {&kit_tilt, &by};

    check_twice(
        t,
        (struct kit_run){
            .passes = &p, .n_passes = 1, .data = true, .threads = 2, .memory = (uint64_t)256 << 20},
        (uint64_t)128 << 20);
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
