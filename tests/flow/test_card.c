#include "lib/flow/card.h"

#include "tests/t.h"

#include <stdlib.h>

static const char manifest_text[] =
    "{\"moetool\": \"0.1.0\", \"source\": {\"identity\": \"0123456789abcdef0123\", "
    "\"model_type\": \"llama\", \"parameters\": 8030261248, \"parameters_active\": 8030261248, "
    "\"bytes\": 16060522496}, \"passes\": [{\"name\": \"convert-ffn\", \"options\": {\"experts\": "
    "16, \"active\": \"50%\", \"none\": null, \"exact\": true}}], \"data\": {\"sha256\": "
    "\"fedcba9876543210ffff\", \"windows\": 64, \"tokens\": 131072, \"domains\": [\"wiki\", "
    "\"code\"]}, \"target\": {\"model_type\": \"glm4_moe\", \"architecture\": "
    "\"Glm4MoeForCausalLM\", \"format\": \"safetensors\", \"parameters\": 8031000000, "
    "\"parameters_active\": 5000000000, \"bytes\": 16062000000, \"ffn\": {\"layers\": 32, "
    "\"moe_layers\": 32, \"hidden\": 4096, \"width\": 896, \"experts\": 16, \"active\": 7, "
    "\"shared_width\": 896}}}";

static const char validation_text[] =
    "{\"n_tokens\": 4096, \"kl_mean\": 0.0123, \"kl_stderr\": 0.0004, \"ppl_ref\": 7.5, "
    "\"ppl_cand\": 7.61, \"top1\": 0.957, \"domains\": [{\"name\": \"wiki\", \"kl_mean\": 0.01, "
    "\"nll_ref\": 2, \"nll_cand\": 2.01}, {\"name\": \"code\", \"kl_mean\": 0.02, \"nll_ref\": 1, "
    "\"nll_cand\": 1.02}]}";

/* The card's text; malloc'ed. */
static char *card(struct t *t, const char *manifest, const char *validation,
                  const struct mt_card_opts *o, const char *name)
{
    struct mt_json *m, *v = NULL;
    struct mt_outdir *out;
    char path[600];
    size_t n;

    snprintf(path, sizeof path, "%s/%s", t->dir, name);
    if (mt_json_parse(&t->ctx, manifest, strlen(manifest), "m", &m) != MT_OK ||
        (validation != NULL &&
         mt_json_parse(&t->ctx, validation, strlen(validation), "v", &v) != MT_OK) ||
        mt_outdir_open(&t->ctx, path, 0, &out) != MT_OK)
        return NULL;
    mt_status st = mt_card_write(&t->ctx, out, m, v, o);
    if (st == MT_OK)
        st = mt_outdir_commit(&t->ctx, out);
    mt_outdir_close(out, false);
    mt_json_free(m);
    mt_json_free(v);
    snprintf(path, sizeof path, "%s/%s/README.md", t->dir, name);
    return st == MT_OK ? t_read_file(path, &n) : NULL;
}

#define HAS(text, part)                                                                            \
    do {                                                                                           \
        if (strstr(text, part) == NULL)                                                            \
            T_FAIL(t, "no \"%s\" in:\n%s", part, text);                                            \
    } while (0)

T_TEST(a_card_tells_the_making_the_shape_and_the_figures)
{
    const struct mt_card_opts o = {.base_model = "Org/Name", .license = "apache-2.0"};
    char *text = card(t, manifest_text, validation_text, &o, "a");

    T_CHECK(t, text != NULL);
    T_CHECK(t, strncmp(text, "---\n", 4) == 0);
    HAS(text, "base_model: \"Org/Name\"\nlicense: \"apache-2.0\"\nlibrary_name: transformers\n");
    HAS(text, "- moe\n---\n");
    HAS(text, "- `convert-ffn`: experts 16, active 50%, exact yes\n");
    HAS(text, "131072 tokens in 64 windows (wiki, code; SHA-256 `fedcba9876543210`)");
    HAS(text, "| parameters | 8.03 B | 8.03 B |");
    HAS(text, "| acting for a token | 8.03 B | 5 B |");
    HAS(text,
        "All have 16 routed experts of width 896, 7 of which act for a token, and a shared one of "
        "width 896.");
    HAS(text, "| KL(source, this), nats per token | 0.0123 ± 0.0004 |");
    HAS(text, "| same most likely token | 95.70 % |");
    HAS(text, "| code | 0.02 | 2.718 | 2.773 |");
    HAS(text, "from_pretrained");
    HAS(text, "vllm serve");
    free(text);
}

T_TEST(a_card_claims_nothing_that_was_not_measured)
{
    char *text = card(t, "{\"source\": {}, \"passes\": [], \"target\": {}}", NULL, NULL, "b");

    T_CHECK(t, text != NULL);
    HAS(text, "Nothing was measured");
    HAS(text, "no calibration data");
    HAS(text, "copied");
    T_CHECK(t, strstr(text, "base_model") == NULL && strstr(text, "license") == NULL);
    T_CHECK(t, strstr(text, "- moe\n") == NULL && strstr(text, "The figures") == NULL);
    free(text);
}

T_TEST(names_cannot_break_the_front_matter)
{
    const struct mt_card_opts o = {.base_model = "a\"b\\c\nlicense: x"};
    char *text = card(t, manifest_text, NULL, &o, "c");

    T_CHECK(t, text != NULL);
    HAS(text, "base_model: \"a\\\"b\\\\clicense: x\"\n");
    free(text);
}

/* Nobody else loads it, so no recipe for loaders; errors stand where there are no logits. */
T_TEST(the_native_layout_and_figures_without_logits)
{
    static const char manifest[] =
        "{\"moetool\": \"0.1.0\", \"target\": {\"model_type\": \"moetool\", \"format\": "
        "\"safetensors\"}}";
    static const char blocks[] =
        "{\"ffn_error\": 0.2, \"ffn_inputs\": 3276, \"layers\": [0.25, 0.125]}";
    static const char states[] = "{\"state_error\": 0.5, \"n_tokens\": 99}";
    char *text = card(t, manifest, blocks, NULL, "n");

    T_CHECK(t, text != NULL && strstr(text, "from_pretrained") == NULL &&
                   strstr(text, "library_name") == NULL);
    HAS(text, "moetool's own layout");
    HAS(text, "on 3276 inputs that were held out");
    HAS(text, "| 1 | 0.125 |\n| all | 0.2 |");
    free(text);
    text = card(t, manifest, states, NULL, "s");
    T_CHECK(t, text != NULL);
    HAS(text, "over 99 tokens: 0.5.");
    free(text);
}
