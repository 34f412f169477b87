/* The native layout's config: what is written reads back the same, and every way it can lie. The
 * model of tests/golden/moetool uses all of it; test_golden.c compares its logits. */
#include "lib/ir/native.h"

#include "lib/base/rng.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <stdlib.h>
#include <unistd.h>

static const char golden[] = "tests/golden/moetool";

static char *text_of(struct t *t, const struct mt_json *j)
{
    char *text = NULL;
    size_t n;

    if (mt_json_print(&t->ctx, j, &text, &n) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return text;
}

/* The object of a block, as text. */
static char *written(struct t *t, const struct mt_ffn *f)
{
    struct mt_json *j = mt_json_new_object();
    char *text;

    mt_native_write_ffn(f, j);
    text = text_of(t, j);
    mt_json_free(j);
    return text;
}

T_TEST(what_is_written_reads_back_the_same)
{
    struct mt_model *m = tiny_open(t, golden);

    T_CHECK(t, m != NULL);
    for (int l = 0; l < m->hp.n_layers; l++) {
        char *first = written(t, &m->ffn[l]), *second;
        struct mt_json *j;
        struct mt_ffn f;
        T_OK(t, mt_json_parse(&t->ctx, first, strlen(first), "block", &j));
        T_OK(t, mt_native_read_ffn(&t->ctx, m, j, &f));
        second = written(t, &f);
        T_EQ_STR(t, second, first);
        T_CHECK(t, f.k == m->ffn[l].k && f.n_rows == m->ffn[l].n_rows &&
                       f.router.kind == m->ffn[l].router.kind && f.rule.cut == m->ffn[l].rule.cut &&
                       f.act == m->ffn[l].act && f.planes.bits == m->ffn[l].planes.bits);
        mt_json_free(j);
        mt_free(first);
        mt_free(second);
    }
    mt_model_free(m);
}

/* A block of random features, each that fits the others. */
static void random_ffn(struct mt_rng *r, int64_t *widths, int32_t *map, struct mt_ffn *f)
{
    *f =
        (struct mt_ffn){.moe = true, .n_experts = 8, .k = 1 + (int)mt_rng_below(r, 4), .width = 12};
    f->gated = mt_rng_below(r, 2);
    f->act = (enum mt_act)mt_rng_below(r, 6);
    f->in_bias = mt_rng_below(r, 2);
    f->out_bias = mt_rng_below(r, 2);
    f->layer_bias = mt_rng_below(r, 2);
    f->router_bias = mt_rng_below(r, 2);
    f->shared_width = (int64_t)mt_rng_below(r, 2) * 6;
    f->shared_gated = f->shared_width > 0 && mt_rng_below(r, 2);
    f->router.kind = (enum mt_router_kind)mt_rng_below(r, 4);
    f->router.fn = (enum mt_router_fn)mt_rng_below(r, MT_ROUTER_FN_COUNT);
    f->router.unit_input = mt_rng_below(r, 2);
    f->router.gated = f->router.kind >= MT_ROUTER_REPRESENTATIVE && mt_rng_below(r, 2);
    if (f->router.kind == MT_ROUTER_MLP) {
        f->router.skip = mt_rng_below(r, 2);
        f->router.hidden_bias = mt_rng_below(r, 2);
    }
    if (f->router.kind == MT_ROUTER_SPECTRAL)
        f->router_bias = false;
    if (f->router.kind == MT_ROUTER_MLP || f->router.kind == MT_ROUTER_SPECTRAL)
        f->router.width = 1 + (int64_t)mt_rng_below(r, 9);
    f->rule.score = (enum mt_router_score)mt_rng_below(r, 4);
    f->rule.unit = mt_rng_below(r, 2);
    f->rule.renorm = !f->rule.unit && mt_rng_below(r, 2);
    f->rule.renorm_eps = f->rule.renorm ? 1e-20 : 0;
    f->rule.renorm_min = mt_rng_below(r, 2) ? 0.1 : 0;
    if (f->rule.renorm && f->rule.score == MT_SCORE_LOGIT)
        f->rule.renorm_min = 0.1;
    f->rule.scale = mt_rng_normal(r);
    f->rule.has_bias = mt_rng_below(r, 2);
    f->rule.n_group = 1 << mt_rng_below(r, 2);
    f->rule.topk_group = f->rule.n_group;
    f->rule.cut = (enum mt_router_cut)mt_rng_below(r, 4);
    f->rule.cut_at = f->rule.cut != MT_CUT_NONE ? mt_rng_normal(r) : 0;
    f->rule.cut_min = f->rule.cut != MT_CUT_NONE ? (int)mt_rng_below(r, 2) : 0;
    for (int e = 0; e < 8; e++)
        widths[e] = e == 3 ? 12 : (int64_t)mt_rng_below(r, 13);
    for (int i = 0; i < 16; i++)
        map[i] = (int32_t)mt_rng_below(r, 8);
    if (mt_rng_below(r, 2)) {
        f->map = map;
        f->n_rows = 16;
    }
    if (mt_rng_below(r, 2))
        f->widths = widths;
    else if (mt_rng_below(r, 2))
        f->planes = (struct mt_planes){2, 3, 32};
    else
        f->factors[MT_FFN_UP] = (struct mt_factors){true, mt_rng_below(r, 2), mt_rng_below(r, 2)};
}

T_TEST(any_mix_of_features_survives)
{
    struct mt_model *m;
    struct mt_rng r;

    T_OK(t, mt_model_create(&t->ctx, &m));
    mt_rng_seed(&r, 5, 1);
    for (int i = 0; i < 300; i++) {
        int64_t widths[8];
        int32_t map[16];
        struct mt_ffn f, back;
        struct mt_json *j;
        random_ffn(&r, widths, map, &f);
        char *first = written(t, &f), *second;
        T_OK(t, mt_json_parse(&t->ctx, first, strlen(first), "block", &j));
        T_OK(t, mt_native_read_ffn(&t->ctx, m, j, &back));
        second = written(t, &back);
        T_EQ_STR(t, second, first);
        T_CHECK(t, back.rule.scale == f.rule.scale && back.rule.cut_at == f.rule.cut_at);
        T_CHECK(t, (back.widths == NULL) == (f.widths == NULL) && back.n_rows == f.n_rows);
        for (int e = 0; e < 8; e++)
            T_EQ_INT(t, mt_ffn_expert_width(&back, e), mt_ffn_expert_width(&f, e));
        for (int k = 0; k < f.n_rows; k++)
            T_EQ_INT(t, back.map[k], map[k]);
        mt_json_free(j);
        mt_free(first);
        mt_free(second);
    }
    mt_model_free(m);
}

/* The golden's config with one text in place of another (its first place), beside its weights. */
static struct mt_model *changed(struct t *t, const char *find, const char *put)
{
    char here[2048], weights[4096], *text, *at, *out;
    size_t n, size;

    text = t_read_file("tests/golden/moetool/config.json", &n);
    at = text != NULL ? strstr(text, find) : NULL;
    if (at == NULL || getcwd(here, sizeof here) == NULL) {
        t_fail(t, __FILE__, __LINE__, "no \"%s\" in the config", find);
        free(text);
        return NULL;
    }
    size = n + strlen(put) + 1;
    out = malloc(size);
    n = (size_t)snprintf(out, size, "%.*s%s%s", (int)(at - text), text, put, at + strlen(find));
    t_write_file(t, t_path(t, "config.json"), out, n);
    snprintf(weights, sizeof weights, "%s/tests/golden/moetool/model.safetensors", here);
    unlink(t_path(t, "model.safetensors"));
    if (symlink(weights, t_path(t, "model.safetensors")) != 0)
        t_fail(t, __FILE__, __LINE__, "no link to the weights");
    free(text);
    free(out);
    return tiny_open(t, t->dir);
}

T_TEST(configs_that_lie_are_told_in_a_sentence)
{
    static const struct {
        const char *find, *put, *want;
    } lies[] = {
        {"\"version\": 1", "\"version\": 2",
         "moetool.version is 2; this program knows up to 1: use a newer one"},
        {"\"version\": 1", "\"version\": 1.5", "version"},
        {"\"version\": 1,", "", "version is missing"},
        {"\"version\": 1", "\"version\": 0", "version is 0"},
        {"\"moetool\": {", "\"moetool\": [], \"x\": {", "the object \"moetool\" is missing"},
        {"\"base\": {", "\"base\": 3, \"x\": {", "moetool.base is missing"},
        {"\"model_type\": \"gpt2\"", "\"model_type\": \"moetool\"",
         "model_type moetool is not known here"},
        {"\"model_type\": \"gpt2\"", "\"model_type\": \"gpt7\"",
         "moetool.base: model_type gpt7 is not known here"},
        {"\"model_type\": \"gpt2\",", "", "model_type (none)"},
        {"\"n_embd\": 16", "\"n_embd\": \"16\"", "n_embd"},
        {"\"n_layer\": 6", "\"n_layer\": 7",
         "moetool.layers has 6 entries, but the model has 7 layers"},
        {"\"layers\": [", "\"layers\": 1, \"x\": [", "moetool.layers has 0 entries"},
        {"\"ffn\": \"moe\"", "\"ffn\": \"mixture\"", "ffn \"mixture\" is not known"},
        {"\"ffn\": \"moe\",", "", "moetool.layers[0]: ffn is missing"},
        {"\"experts\": 4", "\"experts\": 4.5", "experts"},
        {"\"experts\": 4", "\"experts\": 5", "width has 4 entries for 5 experts"},
        {"\"experts\": 4", "\"experts\": -4", "experts is -4"},
        {"\"experts\": 4", "\"experts\": 1000000000", "experts is 1000000000"},
        {"\"active\": 2", "\"active\": 5", "5 of 4 experts per token"},
        {"\"active\": 2", "\"active\": 0", "active is 0"},
        {"\"active\": 2,", "", "active is missing"},
        {"\"gated\": false", "\"gated\": \"no\"", "gated"},
        {"\"gated\": false", "\"gated\": true", "layers.0.experts.0.gate_proj is missing"},
        {"\"activation\": \"gelu_pytorch_tanh\"", "\"activation\": \"swoosh\"", "\"swoosh\""},
        {"\"in_bias\": true", "\"in_bias\": false", "config declares no such bias"},
        {"\"layer_bias\": true", "\"layer_bias\": false", "config declares no such bias"},
        {"\"layer_bias\": true", "\"layer_blas\": true",
         "moetool.layers[0]: the layer: key \"layer_blas\" is not known to version 1"},
        {"\"kind\": \"linear\"", "\"kind\": \"oracle\"", "kind \"oracle\" is not known"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"function2\": 1",
         "router: key \"function2\" is not known"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"gated\": true", "never gated"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"skip\": true", "skip"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"width\": 5", "width is 5"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"groups\": 3", "groups"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"weight\": \"unit\"",
         "renormalize contradicts weight"},
        {"\"kind\": \"linear\"", "\"kind\": \"linear\", \"hidden_bias\": true", "hidden_bias"},
        {"\"router\": {", "\"router\": [], \"x\": {", "key \"x\""},
        {"\"score\": \"softmax\"", "\"score\": 3", "score"},
        {"\"width\": 7", "\"width\": 8",
         "(ffn.1.router.hidden.weight) has shape [7, 16], but the config gives [8, 16]"},
        {"\"width\": 7", "\"width\": 0", "width is 0"},
        {"\"map\": [", "\"map\": 3, \"x\": [", "key \"x\""},
        {"\"width\": 6", "\"width\": [6, 6, 6, 6, 6]",
         "factors over one base need experts of one width"},
        {"\"width\": 12", "\"width\": 13", "shape"},
        {"\"bits\": 3", "\"bits\": 9", "bits is 9"},
        {"\"bits\": 3", "\"bits\": 4", "codes) has shape [12, 6], but the config gives [12, 8]"},
        {"\"planes\": 2", "\"planes\": 1",
         "planes) has shape [2, 12, 2], but the config gives [1, 12, 2]"},
        {"\"group\": 8", "\"group\": 0", "group is 0"},
        {"\"group\": 8", "\"group\": 7", "scale"},
        {"\"kind\": \"ratio\"", "\"kind\": \"rate\"", "kind \"rate\""},
        {"\"at\": 0.8", "\"at\": null, \"of\": 1", "key \"of\""},
        {"\"min\": 1", "\"min\": 5", "min is 5"},
        {"\"skip\": true", "\"skip\": false",
         "router_skip (ffn.1.router.skip.weight) is there, but the config leaves no place for it"},
        {"\"factors\": {", "\"factors\": {\"sideways\": {}, ", "key \"sideways\""},
        {"\"sparse\": true", "\"sparse\": false", "is there, but the config leaves no place"},
        {"\"shared_gated\": true", "\"shared_gated\": false", "leaves no place"},
        {"\"shared_width\": 8", "\"shared_width\": 0", "shared_gated without a shared expert"},
        {"\"score\": \"sigmoid\"", "\"score\": \"sigmoid\", \"renorm_eps\": -1", "renorm_eps"},
    };
    int before = t->failed;

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct mt_model *m = changed(t, lies[i].find, lies[i].put);
        if (m != NULL)
            t_fail(t, __FILE__, __LINE__, "%s -> %s was taken", lies[i].find, lies[i].put);
        else if (strstr(mt_error(&t->ctx), lies[i].want) == NULL)
            t_fail(t, __FILE__, __LINE__, "%s -> %s: \"%s\", wanted \"%s\"", lies[i].find,
                   lies[i].put, mt_error(&t->ctx), lies[i].want);
        mt_model_free(m);
    }
    T_CHECK(t, t->failed == before);
}

/* Lists, whose text in the file stands over several lines. */
T_TEST(tables_that_lie_are_told_in_a_sentence)
{
    static const struct {
        const char *json, *want;
    } lies[] = {
        {"{\"map\": [0, 1, 3], \"kind\": \"linear\"}", "router: map[2] is none of the 3 experts"},
        {"{\"map\": [0, -1]}", "map[1] is none of the 3 experts"},
        {"{\"map\": [0, 1.5]}", "map[1]"},
        {"{\"map\": [\"0\"]}", "map[0]"},
        {"{\"map\": []}", "map is no list of 1 to"},
        {"{\"map\": {}}", "map is no list"},
        {"{\"map\": [0]}", "2 of 1 experts per token"},
        {"{\"groups\": 3, \"groups_active\": 1}", "2 of 3 rows in 1 of 3 groups cannot be chosen"},
        {"{\"threshold\": 3}", "threshold is no object"},
        {"{\"score\": \"logit\", \"renormalize\": true}", "needs renorm_min above 0"},
        {"{\"kind\": \"spectral\", \"width\": 2, \"bias\": true}",
         "spectral routers have no biases"},
        {"{\"kind\": \"mlp\"}", "width is missing"},
        {"{\"kind\": \"representative\", \"hidden_bias\": true}", "hidden_bias"},
        {"[]", "router is no object"},
    };
    struct mt_model *m;
    struct mt_ffn f;

    T_OK(t, mt_model_create(&t->ctx, &m));
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct mt_json *j;
        char text[512];
        snprintf(text, sizeof text,
                 "{\"ffn\": \"moe\", \"experts\": 3, \"active\": 2, \"width\": 4, \"router\": %s}",
                 lies[i].json);
        T_OK(t, mt_json_parse(&t->ctx, text, strlen(text), "block", &j));
        T_FAILS(t, mt_native_read_ffn(&t->ctx, m, j, &f), MT_E_FORMAT, lies[i].want);
        mt_json_free(j);
    }
    mt_model_free(m);
}

T_TEST(widths_that_lie_are_told_in_a_sentence)
{
    static const struct {
        const char *json, *want;
    } lies[] = {
        {"[1, 2]", "width has 2 entries for 3 experts"},
        {"[0, 0, 0]", "every expert is 0 neurons wide"},
        {"[1, -1, 1]", "width[1]"},
        {"[1, 1, 99999999999]", "width[2]"},
        {"[1, 1, \"1\"]", "width[2]"},
        {"{}", "width"},
        {"0", "width is 0"},
        {"null", "width is missing"},
    };
    struct mt_model *m;
    struct mt_ffn f;

    T_OK(t, mt_model_create(&t->ctx, &m));
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct mt_json *j;
        char text[512];
        snprintf(text, sizeof text,
                 "{\"ffn\": \"moe\", \"experts\": 3, \"active\": 2, \"router\": {}, \"width\": %s}",
                 lies[i].json);
        T_OK(t, mt_json_parse(&t->ctx, text, strlen(text), "block", &j));
        T_FAILS(t, mt_native_read_ffn(&t->ctx, m, j, &f), MT_E_FORMAT, lies[i].want);
        mt_json_free(j);
    }
    mt_model_free(m);
}

/* Written as the family writes it, the config gives the same model again. */
T_TEST(a_config_written_gives_the_same_blocks)
{
    struct mt_model *m = tiny_open(t, golden), *again;
    struct mt_json *config;
    char *text;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_json_copy(&t->ctx, m->config, &config));
    T_OK(t, m->family->write_config(&t->ctx, m, config));
    text = text_of(t, config);
    t_write_file(t, t_path(t, "new.json"), text, strlen(text));
    mt_json_free(config);
    again = changed(t, "\"version\": 1", "\"version\": 1");
    mt_model_free(again);
    t_write_file(t, t_path(t, "config.json"), text, strlen(text));
    again = tiny_open(t, t->dir);
    if (again == NULL)
        T_FAIL(t, "%s", mt_error(&t->ctx));
    T_EQ_STR(t, again->base->name, "gpt2");
    for (int l = 0; l < m->hp.n_layers; l++) {
        char *a = written(t, &m->ffn[l]), *b = written(t, &again->ffn[l]);
        T_EQ_STR(t, b, a);
        mt_free(a);
        mt_free(b);
    }
    mt_free(text);
    mt_model_free(again);
    mt_model_free(m);
}
