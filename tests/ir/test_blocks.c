/* Blocks found by patterns: every way of storing one gives the same numbers under the same roles.
 */
#include "lib/base/map.h"
#include "lib/ir/blocks.h"
#include "lib/ir/family.h"
#include "tests/t.h"

#include <stdlib.h>

enum { H = 6, W = 10, LAYERS = 12, ROOM = 1 << 16 };

/* A model of named tensors in memory, its numbers 1, 2, 3, ... unless filled. */
struct made {
    struct t *t;
    struct mt_model *m;
    struct mt_map map;
    float *data;
    size_t used;
};

static void made_begin(struct t *t, struct made *d)
{
    *d = (struct made){.t = t, .data = calloc(ROOM, sizeof(float))};
    d->map.base = (const unsigned char *)d->data;
    d->map.bytes = ROOM * sizeof(float);
    d->map.path = "memory";
    if (mt_model_create(&t->ctx, &d->m) != MT_OK)
        abort();
    d->m->path = "made";
}

static void made_end(struct made *d)
{
    mt_model_free(d->m);
    free(d->data);
}

/* [rows, cols], or a vector when cols is 0; returns its numbers. */
static float *made_add(struct made *d, const char *name, int64_t rows, int64_t cols)
{
    const int64_t shape[2] = {rows, cols};
    float *v = d->data + d->used;
    struct mt_tensor *t;

    if (mt_model_add(&d->t->ctx, d->m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE), MT_F32,
                     cols > 0 ? 2 : 1, shape, &t) != MT_OK ||
        mt_arena_strndup(&d->t->ctx, &d->m->arena, name, strlen(name), &t->name) != MT_OK)
        abort();
    t->src.kind = MT_SRC_SLICE;
    t->src.slice.map = &d->map;
    t->src.slice.offset = d->used * sizeof(float);
    t->src.slice.stride[0] = cols > 0 ? cols : 1;
    t->src.slice.stride[1] = 1;
    for (int64_t i = 0; i < rows * (cols > 0 ? cols : 1); i++)
        v[i] = (float)(d->used + (size_t)i + 1);
    d->used += (size_t)(rows * (cols > 0 ? cols : 1));
    return v;
}

static void made_addf(struct made *d, const char *format, int layer, int64_t rows, int64_t cols)
{
    char name[128];

    snprintf(name, sizeof name, format, layer);
    made_add(d, name, rows, cols);
}

static mt_status made_bind(struct made *d, const char *pattern)
{
    const struct mt_blocks_ask ask = {.pattern = pattern, .act = "relu"};

    return mt_blocks_bind(&d->t->ctx, d->m, &ask);
}

/* Element (row, col) of a role's matrix. */
static float made_at(struct made *d, enum mt_role_kind kind, int layer, int64_t row, int64_t col)
{
    const struct mt_tensor *t = mt_model_find(d->m, mt_role(kind, layer, MT_EXPERT_NONE));
    float v[64];

    if (t == NULL || mt_tensor_fetch_f32(&d->t->ctx, t, row, 1, v) != MT_OK)
        return NAN;
    return v[col];
}

T_TEST(two_names_are_in_and_out_and_layers_count_as_numbers)
{
    struct made d;

    made_begin(t, &d);
    made_add(&d, "embed.weight", 30, H);
    for (int i = 0; i < LAYERS; i++) {
        int l = (i + 7) % LAYERS; /* any order in the file */
        made_addf(&d, "h.%d.mlp.fc1.weight", l, W, H);
        made_addf(&d, "h.%d.mlp.fc1.bias", l, W, 0);
        made_addf(&d, "h.%d.mlp.fc2.weight", l, H, W);
        made_addf(&d, "h.%d.mlp.fc2.bias", l, H, 0);
        made_addf(&d, "h.%d.attn.fc1.weight", l, W, H);
    }
    T_OK(t, made_bind(&d, "h.*.mlp.{fc1,fc2}"));
    T_CHECK(t, mt_model_only_blocks(d.m));
    T_EQ_INT(t, d.m->hp.n_layers, LAYERS);
    T_EQ_INT(t, d.m->hp.hidden, H);
    for (int l = 0; l < LAYERS; l++) {
        const struct mt_tensor *up = mt_model_find(d.m, mt_role(MT_ROLE_FFN_UP, l, MT_EXPERT_NONE));
        char name[64];
        snprintf(name, sizeof name, "h.%d.mlp.fc1.weight", l);
        T_CHECK(t, up != NULL);
        T_EQ_STR(t, up->name, name);
        T_CHECK(t, mt_model_bias(d.m, MT_ROLE_FFN_DOWN, l, MT_EXPERT_NONE) != NULL);
        T_EQ_INT(t, d.m->ffn[l].width, W);
        T_CHECK(t, d.m->ffn[l].in_bias && d.m->ffn[l].out_bias && !d.m->ffn[l].gated &&
                       d.m->ffn[l].act == MT_ACT_RELU);
    }
    made_end(&d);
}

/* Six ways to store one gated block whose numbers say where they belong. */
T_TEST(every_way_to_store_a_block_gives_its_numbers)
{
    static const struct {
        const char *pattern;
        bool transposed, fused, up_first;
    } ways[] = {
        {"l.*.{gate=g,up=u,down=d}", false, false, false},
        {"l.*.{g,u,d}", true, false, false},
        {"l.*.{gu,d}", false, true, false},
        {"l.*.{gate+up=gu,out=d}", true, true, false},
        {"l.*.{up+gate=gu,down=d}", false, true, true},
        {"re:l\\.(\\d+)\\.(?:(?<up_gate>gu)|(?<down>d))", true, true, true},
    };

    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        struct made d;
        float *v[2], *down;
        bool tr = ways[w].transposed, fused = ways[w].fused;
        made_begin(t, &d);
        if (fused)
            v[0] = made_add(&d, "l.0.gu.weight", tr ? H : 2 * W, tr ? 2 * W : H);
        else
            v[0] = made_add(&d, "l.0.g.weight", tr ? H : W, tr ? W : H);
        v[1] = fused ? v[0] : made_add(&d, "l.0.u.weight", tr ? H : W, tr ? W : H);
        down = made_add(&d, "l.0.d.weight", tr ? W : H, tr ? H : W);
        for (int64_t i = 0; i < W; i++)
            for (int64_t j = 0; j < H; j++) {
                for (int k = 0; k < 2; k++) { /* gate, up */
                    int64_t row = i + (fused && (k == 1) != ways[w].up_first ? W : 0);
                    int64_t rows = fused ? 2 * W : W;
                    v[k][tr ? j * rows + row : row * H + j] = (float)(1000 * k + 10 * i + j);
                }
                down[tr ? i * H + j : j * W + i] = (float)(5000 + 10 * i + j);
            }
        T_OK(t, made_bind(&d, ways[w].pattern));
        T_CHECK(t, d.m->ffn[0].gated && d.m->ffn[0].width == W && d.m->hp.hidden == H);
        for (int64_t i = 0; i < W; i++)
            for (int64_t j = 0; j < H; j++) {
                T_NEAR(t, made_at(&d, MT_ROLE_FFN_GATE, 0, i, j), 10 * i + j, 0);
                T_NEAR(t, made_at(&d, MT_ROLE_FFN_UP, 0, i, j), 1000 + 10 * i + j, 0);
                T_NEAR(t, made_at(&d, MT_ROLE_FFN_DOWN, 0, j, i), 5000 + 10 * i + j, 0);
            }
        made_end(&d);
    }
}

/* A copy of the model puts what was cut together again. */
T_TEST(cut_tensors_come_back_whole_in_a_copy)
{
    struct mt_model *plan;
    struct made d;
    bool whole = false;

    made_begin(t, &d);
    made_add(&d, "l.0.gu.weight", 2 * W, H);
    made_add(&d, "l.0.d.weight", H, W);
    T_OK(t, made_bind(&d, "l.*.{gu,d}"));
    T_OK(t, mt_model_plan(&t->ctx, d.m, &plan));
    T_OK(t, mt_model_restack(&t->ctx, plan));
    for (size_t i = 0; i < plan->n_tensors; i++)
        whole |= strcmp(plan->tensors[i]->name, "l.0.gu.weight") == 0;
    T_CHECK(t, whole && plan->n_tensors == 2);
    mt_model_free(plan);
    made_end(&d);
}

/* Without biases a plain block of [a, b] and [b, a] could be either way round. */
T_TEST(layouts_follow_from_biases_sizes_or_the_option)
{
    static const struct {
        int64_t rows, cols, bias, hidden; /* of the matrix in, its bias, what is known */
        enum mt_blocks_layout layout;
        int64_t want; /* hidden size; 0: refused */
    } cases[] = {
        {W, H, 0, 0, MT_BLOCKS_AUTO, H},   {H, W, 0, 0, MT_BLOCKS_AUTO, H},
        {W, H, H, 0, MT_BLOCKS_AUTO, W},   {W, H, W, 0, MT_BLOCKS_AUTO, H},
        {W, H, 0, W, MT_BLOCKS_AUTO, W},   {W, H, 0, 0, MT_BLOCKS_IN_OUT, W},
        {H, W, 0, 0, MT_BLOCKS_OUT_IN, W}, {W, W, 0, 0, MT_BLOCKS_AUTO, 0},
        {W, W, 0, 0, MT_BLOCKS_IN_OUT, W}, {W, H, 0, 77, MT_BLOCKS_AUTO, 0},
        {W, H, W, 0, MT_BLOCKS_IN_OUT, 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_blocks_ask ask = {.pattern = "x.*.{a,b}",
                                    .act = "gelu",
                                    .layout = cases[i].layout,
                                    .hidden = cases[i].hidden};
        struct made d;
        mt_status st;
        made_begin(t, &d);
        made_add(&d, "x.0.a", cases[i].rows, cases[i].cols);
        made_add(&d, "x.0.b", cases[i].cols, cases[i].rows);
        if (cases[i].bias > 0)
            made_add(&d, "x.0.a.bias", cases[i].bias, 0);
        st = mt_blocks_bind(&t->ctx, d.m, &ask);
        if (cases[i].bias > 0 && st == MT_OK && !d.m->ffn[0].in_bias)
            T_FAIL(t, "case %zu: the bias was not found", i);
        if ((st == MT_OK) != (cases[i].want > 0) ||
            (st == MT_OK && d.m->hp.hidden != cases[i].want))
            T_FAIL(t, "case %zu: status %d, hidden %lld: %s", i, (int)st, (long long)d.m->hp.hidden,
                   mt_error(&t->ctx));
        made_end(&d);
    }
}

T_TEST(biases_and_blocks_under_names_of_their_own)
{
    struct made d;

    made_begin(t, &d);
    for (int s = 0; s < 2; s++)
        for (int b = 0; b < 2; b++) {
            char name[64];
            snprintf(name, sizeof name, "stage%c.b%d.W1", "ba"[s], 9 + b);
            made_add(&d, name, W, H);
            snprintf(name, sizeof name, "stage%c.b%d.c1", "ba"[s], 9 + b);
            made_add(&d, name, W, 0);
            snprintf(name, sizeof name, "stage%c.b%d.W2", "ba"[s], 9 + b);
            made_add(&d, name, H, W);
        }
    T_OK(t, made_bind(&d, "stage*.b*.{up=W1,up.bias=c1,down=W2}"));
    T_EQ_INT(t, d.m->hp.n_layers, 4);
    T_EQ_STR(t, mt_model_find(d.m, mt_role(MT_ROLE_FFN_UP, 0, MT_EXPERT_NONE))->name,
             "stagea.b9.W1");
    T_EQ_STR(t, mt_model_find(d.m, mt_role(MT_ROLE_FFN_UP, 3, MT_EXPERT_NONE))->name,
             "stageb.b10.W1");
    T_CHECK(t, d.m->ffn[2].in_bias && !d.m->ffn[2].out_bias);
    made_end(&d);
}

T_TEST(wrong_patterns_are_told_what_is_wrong)
{
    static const struct {
        const char *pattern, *says;
    } cases[] = {
        {"l.*.mlp", "expected one {list}"},
        {"l.*.{a,b}.{c,d}", "expected one {list}"},
        {"l.*.{", "expected one {list}"},
        {"}{", "expected one {list}"},
        {"l.0.{a,b}", "no `*`"},
        {"l.*.{a}", "two tensors (in, out) or three"},
        {"l.*.{a,,b}", "empty"},
        {"l.*.{up=}", "empty"},
        {"l.*.{up=a,b}", "either all entries"},
        {"l.*.{side=a,down=b}", "roles are gate, up"},
        {"l.*.{a*,b}", "inside the list"},
        {"*.*.*.*.*.{a,b}", "too many"},
        {"l.*.{1,2,3,4,5,6,7,8,9}", "too many entries"},
        {"re:l(", "missing closing"},
        {"re:l\\.(\\d+)\\.a", "no group is named"},
        {"x.*.{a,b}", "matrices here are called l.0.a, l.0.b"},
        {"l.*.{a,c}", "the block of l.0.a lacks the matrix that leads out"},
        {"l.*.{up=c,down=a}", "lacks the matrix that leads in"},
        {"l.*.{up=a,gate+up=b,down=wide}", "both together and apart"},
        {"l.*.{a,wide}", "are not the matrices of one block"},
        {"l.*.{gate=wide,up=a,down=b}", "are not alike"},
        {"l.*.{up=a,down=v}", "is no matrix"},
        {"re:l.(\\d).(?:(?<up>a|wide)|(?<down>b))", "the same part of a block"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct made d;
        made_begin(t, &d);
        made_add(&d, "l.0.a", W, H);
        made_add(&d, "l.0.b", H, W);
        made_add(&d, "l.0.wide", 3 * W, H);
        made_add(&d, "l.0.v", H, 0);
        T_FAILS(t, made_bind(&d, cases[i].pattern), MT_E_OPTION, cases[i].says);
        made_end(&d);
    }
}

T_TEST(inputs_of_another_width_are_told_from_a_wrong_pattern)
{
    struct mt_blocks_ask ask = {.pattern = "l.*.{a,b}", .act = "relu", .hidden = H + 1};
    struct made d;

    made_begin(t, &d);
    made_add(&d, "l.0.a", W, H);
    made_add(&d, "l.0.b", H, W);
    made_add(&d, "l.0.wide", 3 * W, H);
    T_FAILS(t, mt_blocks_bind(&t->ctx, d.m, &ask), MT_E_OPTION, "--hidden");
    ask.pattern = "l.*.{wide,b}";
    T_FAILS(t, mt_blocks_bind(&t->ctx, d.m, &ask), MT_E_OPTION,
            "are not the matrices of one block");
    made_end(&d);
}

T_TEST(activations_come_from_the_option_or_the_config)
{
    static const char text[] = "{\"model_type\": \"odd\", \"activation_function\": \"relu2\"}";
    struct mt_blocks_ask ask = {.pattern = "l.*.{a,b}"};

    for (int i = 0; i < 4; i++) {
        struct made d;
        made_begin(t, &d);
        made_add(&d, "l.0.a", W, H);
        made_add(&d, "l.0.b", H, W);
        if (i == 0)
            T_OK(t, mt_json_parse(&t->ctx, text, sizeof text - 1, "config", &d.m->config));
        ask.act = i == 3 ? "softplus" : NULL;
        ask.assume_act = i == 2;
        if (i == 1)
            T_FAILS(t, mt_blocks_bind(&t->ctx, d.m, &ask), MT_E_OPTION, "--act");
        else if (i == 3)
            T_FAILS(t, mt_blocks_bind(&t->ctx, d.m, &ask), MT_E_UNSUPPORTED, "--act \"softplus\"");
        else
            T_OK(t, mt_blocks_bind(&t->ctx, d.m, &ask));
        if (i == 0) {
            T_CHECK(t, d.m->ffn[0].act == MT_ACT_RELU2);
            T_EQ_STR(t, mt_json_text(mt_json_get(mt_json_get(d.m->config, "config"), "model_type")),
                     "odd");
        }
        if (i == 2)
            T_CHECK(t, strstr(t->log, "gelu is shown") != NULL);
        made_end(&d);
    }
}

T_TEST(blocks_of_other_sizes_and_known_families_are_refused)
{
    struct made d;

    made_begin(t, &d);
    made_add(&d, "l.0.a", W, H);
    made_add(&d, "l.0.b", H, W);
    made_add(&d, "l.1.a", W, H + 1);
    made_add(&d, "l.1.b", H + 1, W);
    T_FAILS(t, made_bind(&d, "l.*.{a,b}"), MT_E_OPTION, "l.1.a");
    made_end(&d);
    made_begin(t, &d);
    d.m->family = mt_family_find("llama");
    T_FAILS(t, made_bind(&d, "l.*.{a,b}"), MT_E_OPTION, "of family llama");
    made_end(&d);
}

/* Folders with `w` and `b` in them: the expression names both, or is warned. */
T_TEST(biases_of_expressions_and_forgotten_ones)
{
    static const char *const patterns[] = {
        "re:h/(\\d+)/(?:(?<up>fc/w)|(?<up_bias>fc/b)|(?<down>proj/w)|(?<down_bias>proj/b))",
        "re:h/(\\d+)/(?:(?<up>fc/w)|(?<up_bias>fc/b)|(?<down>proj/w))",
        "h/*/{up=fc/w,down=proj/w}",
        "h/*/{up=fc/w,up.bias=fc/b,down=proj/w,down.bias=proj/b}",
    };

    for (int i = 0; i < 4; i++) {
        struct made d;
        size_t before = strlen(t->log);
        made_begin(t, &d);
        made_add(&d, "h/0/norm", H, 0);
        made_add(&d, "h/0/fc/w", W, H);
        made_add(&d, "h/0/fc/b", W, 0);
        made_add(&d, "h/0/proj/w", H, W);
        made_add(&d, "h/0/proj/b", H, 0);
        T_OK(t, made_bind(&d, patterns[i]));
        T_CHECK(t, d.m->ffn[0].in_bias == (i != 2) && d.m->ffn[0].out_bias == (i % 3 == 0));
        const char *said = strstr(t->log + before, "looks like a bias");
        T_CHECK(t, (said != NULL) == (i == 1 || i == 2));
        if (i == 1)
            T_CHECK(t, strstr(t->log + before, "h/0/proj/b looks like a bias of h/0/proj/w"));
        made_end(&d);
    }
}
