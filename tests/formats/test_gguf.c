#include "formats/gguf.h"
#include "formats/table.h"
#include "tests/gguf_fixture.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"
#include "tests/write_kit.h"

#include <stdlib.h>

static struct gg g;

/* ---- a writer of its own: tiny models of one layer, F32 ---- */

#define H 16
#define HEADS 2
#define KV 1
#define DIM 8
#define W 24
#define VOCAB 20
#define EXPERTS 3

static struct mt_tensor *of(const struct mt_model *m, enum mt_role_kind kind, int layer, int expert)
{
    return mt_model_find(m, mt_role(kind, layer, expert));
}

static void put_floats(struct t *t, const struct mt_tensor *x, int heads)
{
    int64_t rows = mt_tensor_rows(x), cols = mt_tensor_cols(x);
    float *v;

    T_OK(t, mt_tensor_load_f32(&t->ctx, x, &v));
    if (heads == 0)
        for (int64_t i = 0; i < rows * cols; i++)
            gg_f32(&g, v[i]);
    /* [heads, 2, dim / 2, cols] becomes [heads, dim / 2, 2, cols]. */
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < DIM / 2; i++)
            for (int64_t p = 0; p < 2; p++)
                for (int64_t c = 0; c < cols; c++)
                    gg_f32(&g, v[(h * DIM + p * DIM / 2 + i) * cols + c]);
    mt_free(v);
    gg_pad(&g, 32);
}

struct entry {
    const char *name;
    const struct mt_tensor *first; /* of a stack: expert 0 */
    enum mt_role_kind stack;
    int heads;
};

static void llama_entries(const struct mt_model *m, bool moe, struct entry *e, int *n)
{
    const enum mt_role_kind norms[] = {MT_ROLE_ATTN_NORM, MT_ROLE_FFN_NORM};
    const enum mt_role_kind ffn[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    static const char *const dense[] = {"blk.0.ffn_gate.weight", "blk.0.ffn_up.weight",
                                        "blk.0.ffn_down.weight"};
    static const char *const stacks[] = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight",
                                         "blk.0.ffn_down_exps.weight"};

    *n = 0;
    e[(*n)++] = (struct entry){.name = "token_embd.weight", .first = of(m, MT_ROLE_EMBED, -1, -1)};
    if (!m->hp.tied)
        e[(*n)++] =
            (struct entry){.name = "output.weight", .first = of(m, MT_ROLE_LM_HEAD, -1, -1)};
    e[(*n)++] =
        (struct entry){.name = "output_norm.weight", .first = of(m, MT_ROLE_FINAL_NORM, -1, -1)};
    e[(*n)++] = (struct entry){.name = "blk.0.attn_norm.weight", .first = of(m, norms[0], 0, -1)};
    e[(*n)++] = (struct entry){.name = "blk.0.ffn_norm.weight", .first = of(m, norms[1], 0, -1)};
    e[(*n)++] = (struct entry){
        .name = "blk.0.attn_q.weight", .first = of(m, MT_ROLE_ATTN_Q, 0, -1), .heads = HEADS};
    e[(*n)++] = (struct entry){
        .name = "blk.0.attn_k.weight", .first = of(m, MT_ROLE_ATTN_K, 0, -1), .heads = KV};
    e[(*n)++] =
        (struct entry){.name = "blk.0.attn_v.weight", .first = of(m, MT_ROLE_ATTN_V, 0, -1)};
    e[(*n)++] =
        (struct entry){.name = "blk.0.attn_output.weight", .first = of(m, MT_ROLE_ATTN_O, 0, -1)};
    if (moe)
        e[(*n)++] = (struct entry){.name = "blk.0.ffn_gate_inp.weight",
                                   .first = of(m, MT_ROLE_ROUTER, 0, -1)};
    for (int i = 0; i < 3; i++)
        e[(*n)++] = (struct entry){.name = moe ? stacks[i] : dense[i],
                                   .first = of(m, ffn[i], 0, moe ? 0 : -1),
                                   .stack = moe ? ffn[i] : MT_ROLE_OTHER};
}

static const char *write_llama(struct t *t, const struct mt_model *m, bool moe)
{
    struct entry e[16];
    uint64_t at = 0;
    int n;

    llama_entries(m, moe, e, &n);
    gg_begin(&g, (uint64_t)n, moe ? 11 : 9);
    gg_kv_text(&g, "general.architecture", "llama");
    gg_kv_u32(&g, "llama.block_count", 1);
    gg_kv_u32(&g, "llama.context_length", 64);
    gg_kv_u32(&g, "llama.embedding_length", H);
    gg_kv_u32(&g, "llama.feed_forward_length", W);
    gg_kv_u32(&g, "llama.attention.head_count", HEADS);
    gg_kv_u32(&g, "llama.attention.head_count_kv", KV);
    gg_kv_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gg_kv_f32(&g, "llama.rope.freq_base", 500.0f);
    if (moe) {
        gg_kv_u32(&g, "llama.expert_count", EXPERTS);
        gg_kv_u32(&g, "llama.expert_used_count", 2);
    }
    for (int i = 0; i < n; i++) {
        uint64_t ne[3] = {(uint64_t)mt_tensor_cols(e[i].first),
                          (uint64_t)mt_tensor_rows(e[i].first), EXPERTS};
        uint32_t rank = e[i].stack != MT_ROLE_OTHER ? 3 : (uint32_t)e[i].first->rank;
        gg_tensor(&g, e[i].name, rank, ne, 0, at);
        at += mt_tensor_bytes(e[i].first) * (rank == 3 ? EXPERTS : 1);
        at = (at + 31) / 32 * 32;
    }
    gg_pad(&g, 32);
    for (int i = 0; i < n; i++) {
        bool stack = e[i].stack != MT_ROLE_OTHER;
        for (int x = 0; x < (stack ? EXPERTS : 1); x++)
            put_floats(t, stack ? of(m, e[i].stack, 0, x) : e[i].first, e[i].heads);
    }
    return gg_file(t, &g, moe ? "moe.gguf" : "dense.gguf");
}

static const struct tiny small = {.layers = 1,
                                  .hidden = H,
                                  .width = W,
                                  .heads = HEADS,
                                  .kv_heads = KV,
                                  .head_dim = DIM,
                                  .vocab = VOCAB,
                                  .experts = EXPERTS,
                                  .seed = 5,
                                  .config = "\"rope_theta\": 500.0"};

static void check_same_logits(struct t *t, const struct tiny *o, bool moe)
{
    struct mt_model *src = tiny_open(t, tiny_write(t, "src", o)), *m;
    double d;

    T_CHECK(t, src != NULL);
    m = open_model(t, write_llama(t, src, moe));
    T_CHECK(t, m != NULL);
    T_EQ_STR(t, m->format, "gguf");
    T_CHECK(t, m->family == src->family);
    T_EQ_INT(t, m->hp.tied, o->tied);
    T_EQ_INT(t, m->n_tensors, src->n_tensors);
    T_CHECK(t, m->hp.norm_eps == 1e-5);
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, 0);
    mt_model_free(m);
    mt_model_free(src);
}

T_TEST(a_llama_file_gives_the_logits_of_the_model_it_holds)
{
    struct tiny o = small;

    check_same_logits(t, &o, false);
}

T_TEST(a_head_that_is_absent_is_tied)
{
    struct tiny o = small;

    o.tied = true;
    check_same_logits(t, &o, false);
}

T_TEST(stacked_experts_are_cut)
{
    struct tiny o = small;

    o.family = "mixtral";
    check_same_logits(t, &o, true);
}

/* ---- files that are no models we know ---- */

T_TEST(shared_files_are_listed)
{
    static const char *const names[] = {"files/weight-inspect_tiny.gguf",
                                        "tokenizers/llama.cpp/ggml-vocab-llama-spm.gguf",
                                        "tokenizers/llama.cpp/ggml-vocab-bert-bge.gguf"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = t_data(names[i]);
        char byte[32 << 10];
        struct mt_model *m;
        if (path == NULL)
            T_SKIP(t, "the shared test data are not there");
        m = open_model(t, path);
        T_CHECK(t, m != NULL && m->family == NULL);
        T_EQ_INT(t, m->n_tensors, i == 0);
        T_CHECK(t, strcmp(m->model_type, i == 2 ? "bert" : "llama") == 0);
        /* Only a header: its tensor is known by shape, its bytes are not there. */
        if (i == 0)
            T_FAILS(t, mt_tensor_fetch(&t->ctx, m->tensors[0], 0, 1, byte), MT_E_FORMAT,
                    "past the end");
        mt_model_free(m);
    }
}

T_TEST(a_file_that_breaks_its_architecture_is_listed_with_a_warning)
{
    const uint64_t ne[] = {8, 4};
    struct mt_model *m;

    gg_begin(&g, 1, 1);
    gg_kv_text(&g, "general.architecture", "llama");
    gg_tensor(&g, "token_embd.weight", 2, ne, 0, 0);
    gg_pad(&g, 32);
    gg_data(&g, 128);
    m = open_model(t, gg_file(t, &g, "x.gguf"));
    T_CHECK(t, m != NULL && m->family == NULL);
    T_EQ_STR(t, m->tensors[0]->name, "token_embd.weight");
    T_EQ_INT(t, m->tensors[0]->shape[0], 4);
    T_CHECK(t,
            strstr(t->log, "block_count") != NULL && strstr(t->log, "listed as they are") != NULL);
    mt_model_free(m);
}

T_TEST(block_types_are_carried_and_sliced_by_rows)
{
    const uint64_t ne[] = {64, 4};
    unsigned char rows[2 * 2 * 34];
    static const int32_t idx[] = {3, 1}, none[64];
    const int64_t shape[] = {2, 64}, whole[] = {4, 64};
    struct mt_tensor *x, *y;
    struct mt_model *m;

    gg_begin(&g, 1, 0);
    gg_tensor(&g, "w", 2, ne, 8, 0); /* Q8_0: a row is 68 bytes */
    gg_pad(&g, 32);
    gg_data(&g, 4 * 68);
    m = open_model(t, gg_file(t, &g, "q.gguf"));
    T_CHECK(t, m != NULL);
    T_EQ_INT(t, m->tensors[0]->dtype, MT_Q8_0);
    T_EQ_INT(t, mt_tensor_bytes(m->tensors[0]), 4 * 68);
    T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_Q8_0, 2, shape, &x));
    T_OK(t, mt_recipe_gather_rows(&t->ctx, m, x, m->tensors[0], idx, 2, 1.0f));
    T_OK(t, mt_tensor_fetch(&t->ctx, x, 0, 2, rows));
    for (int i = 0; i < 68; i++) {
        T_EQ_INT(t, rows[i], (unsigned char)((3 * 68 + i) * 31 + 7));
        T_EQ_INT(t, rows[68 + i], (unsigned char)((68 + i) * 31 + 7));
    }
    T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_Q8_0, 2, whole, &y));
    T_FAILS(t, mt_recipe_gather_cols(&t->ctx, m, y, m->tensors[0], none, 64, 1.0f),
            MT_E_UNSUPPORTED, "single elements");
    /* As numbers: a scale of 16 bits, then 32 integers. */
    float v[64];
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, m->tensors[0], 0, 1, v));
    T_NEAR(t, (double)v[1] / (double)v[0], (double)(signed char)(100) / (double)(signed char)69,
           1e-6);
    mt_model_free(m);
    const uint64_t book[] = {256};
    gg_begin(&g, 1, 0);
    gg_tensor(&g, "w", 1, book, 16, 0);
    gg_pad(&g, 32);
    gg_data(&g, 66);
    m = open_model(t, gg_file(t, &g, "q.gguf"));
    T_CHECK(t, m != NULL);
    T_FAILS(t, mt_tensor_fetch_f32(&t->ctx, m->tensors[0], 0, 1, (float[256]){0}), MT_E_UNSUPPORTED,
            "IQ2_XXS");
    mt_model_free(m);
}

/* ---- parts ---- */

static const char *part(struct t *t, const char *file, uint32_t no, uint32_t count,
                        const char *name, uint32_t total)
{
    const uint64_t ne[] = {8};

    gg_begin(&g, 1, total > 0 ? 3 : 2);
    gg_key(&g, "split.no", 2);
    gg_raw(&g, &(unsigned char){(unsigned char)no}, 1);
    gg_raw(&g, "", 1);
    gg_key(&g, "split.count", 2);
    gg_raw(&g, &(unsigned char){(unsigned char)count}, 1);
    gg_raw(&g, "", 1);
    if (total > 0)
        gg_kv_u32(&g, "split.tensors.count", total);
    gg_tensor(&g, name, 1, ne, 0, 0);
    gg_pad(&g, 32);
    gg_data(&g, 32);
    return gg_file(t, &g, file);
}

T_TEST(parts_are_read_from_the_first)
{
    struct mt_model *m;

    part(t, "m-00002-of-00002.gguf", 1, 2, "b", 0);
    m = open_model(t, part(t, "m-00001-of-00002.gguf", 0, 2, "a", 2));
    T_CHECK(t, m != NULL);
    T_EQ_INT(t, m->n_tensors, 2);
    T_EQ_INT(t, m->n_maps, 2);
    mt_model_free(m);
}

T_TEST(parts_that_do_not_fit_together)
{
    struct mt_model *m;
    const char *first;

    first = part(t, "m-00001-of-00002.gguf", 0, 2, "a", 2);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, first, &m), MT_E_ABSENT, "m-00002-of-00002.gguf");
    T_FAILS(t,
            mt_model_open(&t->ctx, mt_formats, part(t, "m-00002-of-00002.gguf", 1, 2, "b", 0), &m),
            MT_E_FORMAT, "name its first part");
    part(t, "m-00002-of-00002.gguf", 0, 2, "b", 0);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m-00001-of-00002.gguf"), &m),
            MT_E_FORMAT, "says it is part 0 of 2, expected 1 of 2");
    part(t, "m-00002-of-00002.gguf", 1, 2, "a", 0);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m-00001-of-00002.gguf"), &m),
            MT_E_FORMAT, "tensor a");
    part(t, "m-00002-of-00002.gguf", 1, 2, "b", 0);
    part(t, "m-00001-of-00002.gguf", 0, 2, "a", 3);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m-00001-of-00002.gguf"), &m),
            MT_E_FORMAT, "3 tensors are announced, the parts hold 2");
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, part(t, "alone.gguf", 0, 2, "a", 0), &m),
            MT_E_FORMAT, "name its first part");
}
