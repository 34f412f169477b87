#include "formats/table.h"
#include "lib/base/sys.h"
#include "lib/flow/walk.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <errno.h>

static struct noise_data data;

static double number(const struct mt_walk_result *r, int layer, const char *object, const char *key)
{
    const struct mt_json *l = mt_json_first(mt_json_get(r->manifest, "layers"));
    double v = NAN;

    for (; layer > 0 && l != NULL; layer--)
        l = mt_json_next(l);
    l = mt_json_get(l, "convert-ffn");
    if (object != NULL)
        l = mt_json_get(l, object);
    return mt_json_number(mt_json_get(l, key), &v) ? v : NAN;
}

/* Refit all against refit down, of the same groups and router: held-out errors, and what the whole
 * model gives. The first layer sees the same inputs either way, so it begins with the same error.
 */
static void better(struct t *t, struct mt_model *src, const char *options)
{
    struct mt_walk_result down, all;
    char text[160];
    double far, near;

    T_CHECK(t, src != NULL);
    noise_data(&data, 64, 64, 9);
    /* GPT-2 here has learned 40 positions. */
    for (int w = 0; w < 64; w++)
        data.windows[w].n = 40;
    data.set.n_tokens = 64 * 40;
    snprintf(text, sizeof text, "method=best shared=0 %s refit=down", options);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", text, src, &data.set, &down));
    snprintf(text, sizeof text, "method=best shared=0 %s", options);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", text, src, &data.set, &all));
    for (int l = 0; l < src->hp.n_layers; l++) {
        double first = number(&all, l, "refit", "error_down");
        double last = number(&all, l, "refit", "error_after");
        T_CHECK(t, last <= first && first <= number(&all, l, "refit", "error_before"));
        T_EQ_INT(t, number(&all, l, "refit", "tokens") + number(&all, l, "refit", "held_out"),
                 64 * 40);
        if (l == 0) {
            T_NEAR(t, first, number(&down, 0, "refit", "error_after"), 1e-9);
            T_CHECK(t, last < 0.95 * first && number(&all, 0, "refit", "epoch") > 0);
        }
    }
    T_OK(t, logits_distance(&t->ctx, "ref", down.plan, src, &far));
    T_OK(t, logits_distance(&t->ctx, "ref", all.plan, src, &near));
    T_CHECK(t, near < far);
    mt_walk_result_free(&down);
    mt_walk_result_free(&all);
    mt_model_free(src);
}

static struct mt_model *dense(struct t *t, const struct tiny *o)
{
    return tiny_open(t, tiny_write(t, "dense", o));
}

T_TEST(gated_ffns_do_better)
{
    better(t, dense(t, &(struct tiny){.width = 96, .seed = 41}), "experts=12");
}

T_TEST(biases_of_gate_and_up_are_trained_too)
{
    better(t, dense(t, &(struct tiny){.width = 96, .mlp_biases = true, .seed = 42}),
           "experts=12 active=6");
}

/* gpt-oss's form of the gate, which only the native layout holds for dense blocks. */
T_TEST(clamped_ffns_do_better)
{
    struct mt_model *m = dense(t, &(struct tiny){.width = 96, .seed = 43});

    T_CHECK(t, m != NULL);
    for (int l = 0; l < m->hp.n_layers; l++)
        m->ffn[l].glu_limit = 0.2;
    better(t, m, "experts=12 active=6 arch=native");
}

/* Plain ones with biases, and those with a norm behind them. */
T_TEST(ffns_of_other_families_do_better)
{
    static const char *const families[] = {"gpt2", "gemma2"};
    struct mt_model *m;
    char dir[64];

    for (int i = 0; i < 2 && !t->failed; i++) {
        snprintf(dir, sizeof dir, "tests/golden/%s", families[i]);
        T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &m));
        better(t, m, "experts=8 active=4 arch=native");
    }
}

/* Neurons that fill up experts are zeros in what is stored, and there are no more of them. */
T_TEST(padding_stays_zero)
{
    struct mt_model *src = tiny_open(t, tiny_write(t, "dense", &(struct tiny){.width = 50}));
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP};
    struct mt_walk_result r;
    float row[32];

    T_CHECK(t, src != NULL);
    noise_data(&data, 60, 64, 10);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=best experts=7 active=3 shared=0", src,
                     &data.set, &r));
    T_CHECK(t, number(&r, 0, "refit", "epoch") > 0);
    for (int k = 0; k < 2; k++) {
        int zeros = 0;
        for (int e = 0; e < 7; e++) {
            struct mt_tensor *m = mt_model_find(r.plan, mt_role(kinds[k], 0, e));
            T_CHECK(t, m != NULL && mt_tensor_rows(m) == 8 && mt_tensor_cols(m) == 32);
            for (int i = 0; i < 8; i++) {
                double sum = 0;
                T_OK(t, mt_tensor_fetch_f32(&t->ctx, m, i, 1, row));
                for (int c = 0; c < 32; c++)
                    sum += fabs((double)row[c]);
                zeros += sum == 0;
            }
        }
        T_EQ_INT(t, zeros, 6);
        T_EQ_INT(t, zeros, number(&r, 0, NULL, "padded"));
    }
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* No epochs: what refit down gives, bit for bit. */
T_TEST(without_epochs_it_is_refit_down)
{
    struct mt_model *src =
        tiny_open(t, tiny_write(t, "dense", &(struct tiny){.width = 96, .seed = 46}));
    static const char *const options[] = {"method=best experts=12 shared=0 refit=down",
                                          "method=best experts=12 shared=0 refit-epochs=0"};
    struct mt_walk_result r[2];
    double far;

    T_CHECK(t, src != NULL);
    noise_data(&data, 30, 64, 11);
    for (int i = 0; i < 2; i++)
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options[i], src, &data.set, &r[i]));
    T_OK(t, logits_distance(&t->ctx, "ref", r[0].plan, r[1].plan, &far));
    T_NEAR(t, far, 0, 0);
    T_EQ_INT(t, number(&r[1], 0, "refit", "epoch"), 0);
    mt_walk_result_free(&r[0]);
    mt_walk_result_free(&r[1]);
    mt_model_free(src);
}

static uint64_t mapped(const struct mt_model *plan)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < plan->n_maps; i++)
        bytes += plan->maps[i]->bytes;
    return bytes;
}

/* What is said before of scratch files is what they hold: a layer's tokens, and all that was
 * fitted. */
T_TEST(scratch_files_hold_what_was_said)
{
    static const struct {
        const char *pass, *options;
        uint64_t experts;
        bool tokens;
    } cases[] = {{"convert-ffn", "method=best experts=12 shared=0", 12, true},
                 {"convert-ffn", "method=best experts=12 shared=0 refit=down", 12, false},
                 {"convert-ffn", "method=best experts=12 shared=0 refit=none", 12, false},
                 {"prune-ffn", "width=32 select=obs refit=all", 0, true},
                 {"prune-ffn", "width=32 select=obs refit=down", 0, false}};
    struct mt_model *src = tiny_open(
        t, tiny_write(t, "dense", &(struct tiny){.width = 96, .mlp_biases = true, .seed = 49}));
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    noise_data(&data, 40, 64, 14);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        T_OK(t, run_pass(&t->ctx, cases[i].pass, cases[i].options, src, &data.set, &r));
        uint64_t tokens = cases[i].tokens ? 40 * 64 * (32 * 8 + (cases[i].experts + 7) / 8) : 0;
        uint64_t held = mapped(r.plan) + tokens;
        /* Nothing follows the last record of a layer, whose size is rounded up all the same. */
        T_CHECK(t, r.scratch_bytes >= held);
        T_CHECK(t, r.scratch_bytes <= held + 64 * (uint64_t)src->hp.n_layers);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

T_TEST(too_little_memory_names_the_way_out)
{
    struct mt_model *src =
        tiny_open(t, tiny_write(t, "dense", &(struct tiny){.width = 96, .seed = 47}));
    struct mt_model *flat =
        tiny_open(t, tiny_write(t, "flat", &(struct tiny){.hidden = 512, .width = 512}));
    /* Where FFNs are hardly wider than the model, training takes more than solving. */
    const struct {
        struct mt_model *src;
        const char *pass, *options, *spare;
    } cases[] = {{src, "convert-ffn", "method=best experts=12", "--refit none"},
                 {src, "convert-ffn", "method=best experts=12 refit=down", "--refit none"},
                 {src, "convert-ffn", "method=best experts=12 refit=none", NULL},
                 {flat, "convert-ffn", "method=partition experts=2 active=1 shared=0 refit=all",
                  "--refit down"},
                 {src, "prune-ffn", "width=40 select=obs refit=all", "--refit none"},
                 {src, "prune-ffn", "width=40 select=obs refit=none", NULL}};
    struct mt_walk_result r;
    struct mt_ctx ctx;

    T_CHECK(t, src != NULL && flat != NULL);
    noise_data(&data, 4, 64, 12);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        T_OK(t,
             mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 1, .memory_bytes_max = 1 << 18}));
        mt_status st = run_pass(&ctx, cases[i].pass, cases[i].options, cases[i].src, &data.set, &r);
        T_EQ_INT(t, st, MT_E_LIMIT);
        const char *take = strstr(mt_error(&ctx), "or take ");
        T_EQ_INT(t, take != NULL, cases[i].spare != NULL);
        if (take != NULL && cases[i].spare != NULL)
            T_CHECK(t, strncmp(take + strlen("or take "), cases[i].spare, strlen(cases[i].spare)) ==
                           0);
        mt_ctx_close(&ctx);
    }
    mt_model_free(src);
    mt_model_free(flat);
}

/* Whatever call on files fails, it is told and nothing is left behind. */
T_TEST(failing_files_are_told)
{
    struct mt_model *src =
        tiny_open(t, tiny_write(t, "dense", &(struct tiny){.layers = 1, .seed = 48}));
    mt_status st = MT_E_IO;
    struct mt_walk_result r;
    int failed = 0;

    T_CHECK(t, src != NULL);
    noise_data(&data, 6, 64, 13);
    const uint64_t used = mt_mem_used(&t->ctx);
    for (uint64_t n = 1; st != MT_OK; n += 1 + n / 3) {
        mt_fault_io(n, ENOSPC);
        st = run_pass(&t->ctx, "convert-ffn", "method=best experts=6 active=2", src, &data.set, &r);
        mt_fault_io(0, 0);
        if (st == MT_OK)
            mt_walk_result_free(&r);
        T_CHECK(t, st == MT_OK || st == MT_E_IO);
        T_EQ_INT(t, mt_mem_used(&t->ctx), used);
        failed += st != MT_OK;
    }
    T_CHECK(t, failed > 5);
    mt_model_free(src);
}
