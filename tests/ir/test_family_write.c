#include "tests/tiny.h"

#include <stdlib.h>

/* A model of the family without tensors, with plain hyper-parameters that it can hold. */
static struct mt_model *plain(struct t *t, const char *family)
{
    const struct mt_router_rule softmax = {
        .score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1, .n_group = 1, .topk_group = 1};
    struct mt_model *m;
    bool moe, norms;

    if (mt_model_create(&t->ctx, &m) != MT_OK ||
        mt_arena_alloc(&t->ctx, &m->arena, 4, sizeof *m->ffn, &m->ffn) != MT_OK)
        return NULL;
    m->family = mt_family_find(family);
    moe = m->family->moe;
    norms = strncmp(family, "qwen3", 5) == 0 || strcmp(family, "dots1") == 0;
    m->hp = (struct mt_hparams){.n_layers = 4,
                                .hidden = 64,
                                .vocab = 100,
                                .max_pos = 512,
                                .n_heads = 4,
                                .n_kv_heads = 2,
                                .head_dim = 24,
                                .norm_eps = 1e-5,
                                .embed_scale = 1,
                                .logit_scale = 1,
                                .residual_scale = 1,
                                .bos_id = -1,
                                .eos_id = -1};
    m->hp.rope =
        (struct mt_rope_params){.theta = 1e4, .factor = 1, .partial = 1, .original_max_pos = 512};
    m->hp.qk_norm = norms ? MT_QK_NORM_HEAD : MT_QK_NORM_NONE;
    m->hp.qkv_bias = strcmp(family, "qwen2") == 0;
    for (int l = 0; l < 4; l++) {
        m->ffn[l] = (struct mt_ffn){.moe = moe, .gated = true, .width = 48};
        if (moe) {
            m->ffn[l].n_experts = 8;
            m->ffn[l].k = 2;
            m->ffn[l].rule = softmax;
        }
    }
    if (strcmp(family, "olmoe") == 0)
        m->hp.qk_norm = MT_QK_NORM_FULL;
    if (strcmp(family, "olmoe") == 0 || strcmp(family, "qwen2_moe") == 0)
        m->hp.head_dim = 16; /* their heads are as wide as the hidden state */
    for (int l = 0; strcmp(family, "qwen2_moe") == 0 && l < 4; l++) {
        m->ffn[l].shared_width = 30;
        m->ffn[l].shared_gated = true;
    }
    if (strncmp(family, "granite", 7) == 0) {
        m->hp.attn_scale = 0.125; /* its config always tells one */
        for (int l = 0; moe && l < 4; l++) {
            m->ffn[l].rule.score = MT_SCORE_SOFTMAX_TOPK;
            m->ffn[l].rule.renorm = false;
        }
    }
    if (strcmp(family, "glm4_moe") == 0 || strcmp(family, "dots1") == 0)
        for (int l = 0; l < 4; l++) {
            m->ffn[l].rule.score = MT_SCORE_SIGMOID;
            m->ffn[l].rule.has_bias = true;
            m->ffn[l].rule.renorm_eps = 1e-20;
            m->ffn[l].shared_width = 96;
        }
    return m;
}

/* What the config of m, written over `source`, reads back as; text of it in *json when asked. */
static mt_status again(struct t *t, const struct mt_model *m, const char *source,
                       struct mt_model **out, char **json)
{
    struct mt_model *r;
    size_t n;

    MT_TRY(mt_model_create(&t->ctx, &r));
    *out = r;
    MT_TRY(mt_json_parse(&t->ctx, source, strlen(source), "config.json", &r->config));
    MT_TRY(m->family->write_config(&t->ctx, m, r->config));
    if (json != NULL)
        MT_TRY(mt_json_print(&t->ctx, r->config, json, &n));
    r->family = mt_family_find(mt_json_text(mt_json_get(r->config, "model_type")));
    return r->family->read_config(&t->ctx, r);
}

static bool same_model(const struct mt_model *a, const struct mt_model *b)
{
    const struct mt_hparams *x = &a->hp, *y = &b->hp;
    const struct mt_rope_params *p = &x->rope, *q = &y->rope;
    bool same =
        x->n_layers == y->n_layers && x->hidden == y->hidden && x->vocab == y->vocab &&
        x->max_pos == y->max_pos && x->n_heads == y->n_heads && x->n_kv_heads == y->n_kv_heads &&
        x->head_dim == y->head_dim && x->norm_eps == y->norm_eps && x->qk_norm == y->qk_norm &&
        x->qkv_bias == y->qkv_bias && x->o_bias == y->o_bias && x->tied == y->tied &&
        x->sliding_window == y->sliding_window && x->window_first_layer == y->window_first_layer &&
        x->bos_id == y->bos_id && x->eos_id == y->eos_id && a->family == b->family;

    same = same && p->type == q->type && p->theta == q->theta && p->factor == q->factor &&
           p->low_freq_factor == q->low_freq_factor && p->high_freq_factor == q->high_freq_factor &&
           p->original_max_pos == q->original_max_pos && p->beta_fast == q->beta_fast &&
           p->beta_slow == q->beta_slow && p->attention_factor == q->attention_factor &&
           p->mscale == q->mscale && p->mscale_all_dim == q->mscale_all_dim &&
           p->partial == q->partial && p->pairs == q->pairs;
    same = same && x->embed_scale == y->embed_scale && x->logit_scale == y->logit_scale &&
           x->residual_scale == y->residual_scale;
    same = same && x->clip_qkv == y->clip_qkv && x->attn_scale == y->attn_scale &&
           x->mla.q_rank == y->mla.q_rank && x->mla.kv_rank == y->mla.kv_rank &&
           x->mla.nope == y->mla.nope && x->mla.rope == y->mla.rope && x->mla.v == y->mla.v;
    for (int l = 0; same && l < x->n_layers; l++) {
        const struct mt_ffn *f = &a->ffn[l], *g = &b->ffn[l];
        same = f->moe == g->moe && f->gated == g->gated && f->act == g->act &&
               f->width == g->width && f->n_experts == g->n_experts && f->k == g->k &&
               f->shared_width == g->shared_width && f->shared_gated == g->shared_gated &&
               f->in_bias == g->in_bias && f->out_bias == g->out_bias &&
               f->rule.score == g->rule.score && f->rule.renorm == g->rule.renorm &&
               f->rule.renorm_eps == g->rule.renorm_eps && f->rule.scale == g->rule.scale &&
               f->rule.has_bias == g->rule.has_bias && f->rule.n_group == g->rule.n_group &&
               f->rule.topk_group == g->rule.topk_group;
    }
    return same;
}

T_TEST(what_a_family_writes_it_reads_back)
{
    static const char *const names[] = {
        "llama", "llama-linear", "llama-dynamic", "llama-yarn", "mistral",          "qwen2",
        "qwen3", "mixtral",      "qwen3_moe",     "glm4_moe",   "glm4_moe-plain",   "olmoe",
        "dots1", "deepseek_v2",  "deepseek_v3",   "granitemoe", "granitemoeshared", "granite"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char dir[128], path[160], *source;
        struct mt_model *m, *r;
        size_t n;

        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        snprintf(path, sizeof path, "%s/config.json", dir);
        m = tiny_open(t, dir);
        source = t_read_file(path, &n);
        T_CHECK(t, m != NULL && source != NULL);
        T_OK(t, m->family->can_hold(&t->ctx, m));
        T_OK(t, again(t, m, source, &r, NULL));
        if (!same_model(m, r))
            T_FAIL(t, "%s changed on its way through its own config", names[i]);
        mt_model_free(r);
        T_OK(t, again(t, m, "{}", &r, NULL)); /* and needs nothing of the source but token ids */
        r->hp.bos_id = m->hp.bos_id;
        r->hp.eos_id = m->hp.eos_id;
        T_CHECK(t, same_model(m, r));
        mt_model_free(r);
        mt_model_free(m);
        free(source);
    }
}

T_TEST(every_family_holds_its_plain_self)
{
    const struct mt_family *const *all = mt_family_all();

    for (int i = 0; all[i] != NULL; i++) {
        struct mt_model *m, *r;

        /* Latent attention has no plain form; its golden models stand for it. The native layout
         * is another family's. */
        if (all[i]->can_hold == NULL || all[i]->wraps || strncmp(all[i]->name, "deepseek", 8) == 0)
            continue;
        m = plain(t, all[i]->name);
        T_CHECK(t, m != NULL);
        T_OK(t, all[i]->can_hold(&t->ctx, m));
        T_OK(t, again(t, m, "{}", &r, NULL));
        T_CHECK(t, same_model(m, r));
        mt_model_free(r);
        mt_model_free(m);
    }
}

/* Loaders have defaults of their own for what is absent, so the keys are those of the family's own
 * configs, but for training and generation. */
T_TEST(a_converted_model_has_every_key_of_its_family)
{
    static const char *const names[] = {"glm4_moe", "dots1",     "granitemoe", "granitemoeshared",
                                        "mixtral",  "qwen3_moe", "qwen2_moe",  "olmoe"};
    static const char *const other[] = {"attention_dropout",
                                        "initializer_range",
                                        "output_router_logits",
                                        "pad_token_id",
                                        "bos_token_id",
                                        "eos_token_id",
                                        "router_aux_loss_coef",
                                        "router_jitter_noise",
                                        "use_cache",
                                        "layer_types", /* follows from the windows */
                                        "max_window_layers",
                                        "dtype",
                                        "torch_dtype", /* of the embedding, which `plain` lacks */
                                        "num_local_experts" /* a second name of Qwen3-MoE's */};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128], *text;
        struct mt_model *m = plain(t, names[i]), *r;
        struct mt_json *real;
        size_t n;

        snprintf(path, sizeof path, "tests/golden/%s/config.json", names[i]);
        text = t_read_file(path, &n);
        T_CHECK(t, m != NULL && text != NULL);
        T_OK(t, mt_json_parse(&t->ctx, text, n, path, &real));
        T_OK(t, again(t, m, "{}", &r, NULL));
        for (const struct mt_json *j = mt_json_first(real); j != NULL; j = mt_json_next(j)) {
            /* Qwen3-MoE's count has two names. */
            bool skip = strcmp(names[i], "qwen3_moe") == 0 &&
                        strcmp(mt_json_key(j), "num_local_experts") == 0;
            for (size_t k = 0; k < sizeof other / sizeof other[0]; k++)
                skip = skip || strcmp(other[k], mt_json_key(j)) == 0;
            if (!skip && mt_json_get(r->config, mt_json_key(j)) == NULL)
                T_FAIL(t, "%s: %s is not written", names[i], mt_json_key(j));
        }
        mt_json_free(real);
        free(text);
        mt_model_free(r);
        mt_model_free(m);
    }
}

/* A Llama's attention with experts: the default target of a conversion. */
T_TEST(a_converted_llama_says_all_that_glm4_moe_loaders_assume)
{
    struct mt_model *m = plain(t, "glm4_moe"), *r;
    char *text;

    T_CHECK(t, m != NULL);
    T_OK(t,
         again(t, m,
               "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
               "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 9}, \"eos_token_id\": [3, 4], "
               "\"intermediate_size\": 999, \"mlp_bias\": false, \"pretraining_tp\": 2, "
               "\"auto_map\": {\"AutoModel\": \"x.Y\"}, \"rope_theta\": 7, "
               "\"initializer_range\": 0.02, \"num_nextn_predict_layers\": 1}",
               &r, &text));
    T_EQ_STR(t, mt_json_text(mt_json_first(mt_json_get(r->config, "architectures"))),
             "Glm4MoeForCausalLM");
    static const struct {
        const char *key;
        double want;
    } numbers[] = {{"partial_rotary_factor", 1},
                   {"n_group", 1},
                   {"topk_group", 1},
                   {"first_k_dense_replace", 0},
                   {"head_dim", 24},
                   {"num_nextn_predict_layers", 0},
                   {"n_shared_experts", 2},
                   {"rope_theta", 1e4},
                   {"initializer_range", 0.02},
                   {"n_routed_experts", 8},
                   {"moe_intermediate_size", 48},
                   {"num_experts_per_tok", 2},
                   {"routed_scaling_factor", 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        double got = -1;
        if (!mt_json_number(mt_json_get(r->config, numbers[i].key), &got) || got != numbers[i].want)
            T_FAIL(t, "%s is %g in %s", numbers[i].key, got, text);
    }
    struct mt_json *rope = mt_json_get(r->config, "rope_parameters");
    double partial = 0, theta = 0;
    bool flag = true;
    T_CHECK(t,
            mt_json_number(mt_json_get(rope, "partial_rotary_factor"), &partial) && partial == 1);
    T_CHECK(t, mt_json_number(mt_json_get(rope, "rope_theta"), &theta) && theta == 1e4);
    T_EQ_STR(t, mt_json_text(mt_json_get(rope, "rope_type")), "default");
    T_CHECK(t, mt_json_get(r->config, "rope_scaling") == NULL);
    T_CHECK(t, mt_json_truth(mt_json_get(r->config, "use_qk_norm"), &flag) && !flag);
    T_CHECK(t, mt_json_truth(mt_json_get(r->config, "attention_bias"), &flag) && !flag);
    T_CHECK(t, mt_json_get(r->config, "mlp_bias") == NULL);
    T_CHECK(t, mt_json_get(r->config, "pretraining_tp") == NULL);
    T_CHECK(t, mt_json_get(r->config, "auto_map") == NULL);
    T_EQ_INT(t, mt_json_count(mt_json_get(r->config, "eos_token_id")), 2);
    mt_free(text);
    mt_model_free(r);
    mt_model_free(m);
}

T_TEST(scaled_rope_is_written_in_both_spellings)
{
    struct mt_model *m = plain(t, "glm4_moe"), *r;
    double inside = 0, outside = 0;

    T_CHECK(t, m != NULL);
    m->hp.rope.type = MT_ROPE_LLAMA3;
    m->hp.rope.factor = 8;
    m->hp.rope.low_freq_factor = 1;
    m->hp.rope.high_freq_factor = 4;
    m->hp.rope.original_max_pos = 8192;
    T_OK(t, again(t, m, "{}", &r, NULL));
    T_CHECK(t, same_model(m, r));
    T_CHECK(t, mt_json_number(mt_json_get(mt_json_get(r->config, "rope_scaling"), "factor"),
                              &outside) &&
                   mt_json_number(mt_json_get(mt_json_get(r->config, "rope_parameters"), "factor"),
                                  &inside) &&
                   inside == 8 && outside == 8);
    mt_model_free(r);
    mt_model_free(m);
}

T_TEST(the_dtype_written_is_that_of_the_tensors)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "qwen3_moe", .dtype = MT_BF16});
    struct mt_model *m = tiny_open(t, dir), *r;

    T_CHECK(t, m != NULL);
    T_OK(t, again(t, m, "{\"torch_dtype\": \"float32\"}", &r, NULL));
    T_EQ_STR(t, mt_json_text(mt_json_get(r->config, "torch_dtype")), "bfloat16");
    T_EQ_STR(t, mt_json_text(mt_json_get(r->config, "dtype")), "bfloat16");
    mt_model_free(r);
    mt_model_free(m);
}

/* Next-token predictors that travel along stay declared; ones that are gone do not. */
T_TEST(predictor_layers_are_counted)
{
    static const char *const names[] = {"model.layers.4.eh_proj.weight",
                                        "model.layers.5.mlp.gate.weight",
                                        "model.layers.7.mlp.gate.weight"};
    struct mt_model *m = plain(t, "glm4_moe"), *r;
    const int64_t shape[1] = {1};
    struct mt_tensor *x;
    int64_t n = -1;

    T_CHECK(t, m != NULL);
    for (int i = 0; i < 3; i++) {
        T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_F32, 1, shape, &x));
        x->name = names[i];
    }
    T_OK(t, again(t, m, "{\"num_nextn_predict_layers\": 1}", &r, NULL));
    T_CHECK(t, mt_json_integer(mt_json_get(r->config, "num_nextn_predict_layers"), &n) && n == 2);
    mt_model_free(r);
    mt_model_free(m);
}

T_TEST(mixed_layers_of_qwen3_moe_are_listed)
{
    struct mt_model *m = plain(t, "qwen3_moe"), *r;

    T_CHECK(t, m != NULL);
    m->ffn[2] = (struct mt_ffn){.gated = true, .width = 200};
    T_OK(t, m->family->can_hold(&t->ctx, m));
    T_OK(t, again(t, m, "{\"decoder_sparse_step\": 3}", &r, NULL));
    T_CHECK(t, same_model(m, r));
    mt_model_free(r);
    mt_model_free(m);
}

enum change {
    QKV_BIAS,
    O_BIAS,
    ALL_BIAS,
    NO_BIAS,
    WIDE_HEADS,
    HEAD_NORM,
    NO_NORM,
    FULL_NORM,
    PARTIAL,
    WINDOW,
    LATE_WINDOW,
    LONG_WINDOW,
    LAYER_NORM,
    OFFSET_NORM,
    EMBED_SCALE,
    SHARED,
    GATED_SHARED,
    ODD_SHARED,
    NO_SHARED,
    SIGMOID,
    SOFTMAX,
    BIASED_ROUTER,
    UNBIASED_ROUTER,
    SCALED,
    GROUPS,
    NO_RENORM,
    TOPK_SOFTMAX,
    NO_EPS,
    GELU,
    UNGATED,
    FFN_BIAS,
    IN_BIAS,
    DENSE_FIRST,
    DENSE_LAST,
    DENSE,
    MOE,
    TWO_COUNTS,
    TWO_K,
    TWO_WIDTHS,
    TWO_RULES,
    TWO_DENSE,
    ONE_EXPERT,
};

static void change_ffn(struct mt_ffn *f, enum change c)
{
    switch (c) {
    case SHARED:
        f->shared_width = f->width;
        break;
    case GATED_SHARED:
        f->shared_width = f->width, f->shared_gated = true;
        break;
    case ODD_SHARED:
        f->shared_width = f->width + 1;
        break;
    case NO_SHARED:
        f->shared_width = 0;
        break;
    case SIGMOID:
        f->rule.score = MT_SCORE_SIGMOID;
        break;
    case SOFTMAX:
        f->rule.score = MT_SCORE_SOFTMAX;
        break;
    case TOPK_SOFTMAX:
        f->rule.score = MT_SCORE_SOFTMAX_TOPK, f->rule.renorm = false;
        break;
    case BIASED_ROUTER:
        f->rule.has_bias = true;
        break;
    case UNBIASED_ROUTER:
        f->rule.has_bias = false;
        break;
    case SCALED:
        f->rule.scale = 2.5;
        break;
    case GROUPS:
        f->rule.n_group = 4, f->rule.topk_group = 2;
        break;
    case NO_RENORM:
        f->rule.renorm = false;
        break;
    case NO_EPS:
        f->rule.renorm_eps = 0;
        break;
    case GELU:
        f->act = MT_ACT_GELU_TANH;
        break;
    case UNGATED:
        f->gated = false;
        break;
    case FFN_BIAS:
        f->in_bias = f->out_bias = true;
        break;
    case IN_BIAS:
        f->in_bias = true;
        break;
    case ONE_EXPERT:
        f->n_experts = f->k = 1;
        break;
    case MOE:
        f->moe = true, f->n_experts = 8, f->k = 2;
        break;
    default:
        break;
    }
}

static void change_model(struct mt_model *m, enum change c)
{
    const struct mt_ffn dense = {.gated = true, .width = 100};
    struct mt_hparams *hp = &m->hp;

    switch (c) {
    case QKV_BIAS:
        hp->qkv_bias = true;
        break;
    case O_BIAS:
        hp->o_bias = true;
        break;
    case ALL_BIAS:
        hp->qkv_bias = hp->o_bias = true;
        break;
    case NO_BIAS:
        hp->qkv_bias = false;
        break;
    case WIDE_HEADS:
        hp->head_dim += 8;
        break;
    case HEAD_NORM:
        hp->qk_norm = MT_QK_NORM_HEAD;
        break;
    case NO_NORM:
        hp->qk_norm = MT_QK_NORM_NONE;
        break;
    case FULL_NORM:
        hp->qk_norm = MT_QK_NORM_FULL;
        break;
    case PARTIAL:
        hp->rope.partial = 0.5;
        break;
    case WINDOW:
        hp->sliding_window = 128;
        break;
    case LATE_WINDOW:
        hp->sliding_window = 128, hp->window_first_layer = 1;
        break;
    case LONG_WINDOW:
        hp->sliding_window = 512;
        break;
    case LAYER_NORM:
        hp->norm = MT_NORM_LAYER;
        break;
    case OFFSET_NORM:
        hp->norm_offset = 1;
        break;
    case EMBED_SCALE:
        hp->embed_scale = 8;
        break;
    case DENSE_FIRST:
        m->ffn[0] = dense;
        break;
    case DENSE_LAST:
        m->ffn[3] = dense;
        break;
    case DENSE:
        m->ffn[0] = m->ffn[1] = m->ffn[2] = m->ffn[3] = dense;
        break;
    case TWO_COUNTS:
        m->ffn[2].n_experts = 6;
        break;
    case TWO_K:
        m->ffn[2].k = 1;
        break;
    case TWO_WIDTHS:
        m->ffn[2].width = 64;
        break;
    case TWO_RULES:
        m->ffn[2].rule.scale = 3;
        break;
    case TWO_DENSE:
        m->ffn[0] = m->ffn[1] = dense, m->ffn[1].width++;
        break;
    default:
        for (int l = 0; l < 4; l++)
            change_ffn(&m->ffn[l], c);
        break;
    }
}

static const struct {
    const char *family;
    enum change change;
    const char *want; /* NULL: it can */
} holds[] = {
    {"qwen2_moe", WIDE_HEADS,
     "heads that together are not as wide as the hidden state; glm4_moe can"},
    {"olmoe", WIDE_HEADS,
     "heads that together are not as wide as the hidden state; only the native layout can"},
    {"granitemoe", SHARED, "granitemoe cannot hold a shared expert; granitemoeshared can"},
    {"granitemoe", EMBED_SCALE, NULL},
    {"granitemoeshared", SHARED, NULL},
    {"granitemoeshared", ALL_BIAS, NULL},
    {"granitemoeshared", QKV_BIAS, "biases on only some of q, k, v and o; glm4_moe can"},
    {"granitemoeshared", HEAD_NORM, "q/k norms; glm4_moe can"},
    {"granitemoeshared", SIGMOID, "a sigmoid router; glm4_moe can"},
    {"granitemoeshared", WINDOW, "sliding-window attention; mixtral can"},
    {"granitemoeshared", DENSE_FIRST, "dense layers beside sparse ones; glm4_moe can"},
    {"granitemoeshared", TWO_COUNTS, "expert counts that differ between layers"},
    {"mixtral", QKV_BIAS, "mixtral cannot hold biases on q, k and v; glm4_moe can"},
    {"mixtral", HEAD_NORM, "mixtral cannot hold q/k norms; glm4_moe can"},
    {"mixtral", SHARED, "mixtral cannot hold a shared expert; glm4_moe can"},
    {"mixtral", ALL_BIAS, "biases on q, k and v; granitemoeshared can"},
    {"mixtral", O_BIAS, "a bias on o_proj; only the native layout can"},
    {"mixtral", PARTIAL, "rotary positions on a part of each head; glm4_moe can"},
    {"mixtral", WINDOW, NULL},
    {"mixtral", LATE_WINDOW, "a sliding window in some layers only"},
    {"mixtral", SIGMOID, "a sigmoid router; glm4_moe can"},
    {"mixtral", BIASED_ROUTER, "a selection bias in the router; glm4_moe can"},
    {"mixtral", SCALED, "scaled router weights; glm4_moe can"},
    {"mixtral", GROUPS, "groups of experts; glm4_moe can"},
    {"mixtral", NO_RENORM, "router weights that are not renormalised; qwen3_moe can"},
    {"mixtral", TOPK_SOFTMAX, NULL},
    {"mixtral", GELU, "gelu"},
    {"mixtral", UNGATED, "FFNs without a gate"},
    {"mixtral", FFN_BIAS, "biases in FFNs"},
    {"mixtral", DENSE_FIRST, "dense layers beside sparse ones; glm4_moe can"},
    {"mixtral", DENSE, "a model without experts"},
    {"mixtral", TWO_COUNTS, "expert counts that differ between layers"},
    {"mixtral", TWO_K, "different numbers of active experts by layer"},
    {"mixtral", TWO_WIDTHS, "expert widths that differ between layers"},
    {"mixtral", TWO_RULES, "router rules that differ between layers"},
    {"mixtral", LAYER_NORM, "plain RMSNorm only"},
    {"mixtral", OFFSET_NORM, "plain RMSNorm only"},
    {"mixtral", EMBED_SCALE, "scaled embeddings"},
    {"mixtral", FULL_NORM, "q/k norms over all heads at once"},
    {"qwen3_moe", NO_NORM, "qwen3_moe cannot hold attention without q/k norms; glm4_moe can"},
    {"qwen3_moe", SHARED, "qwen3_moe cannot hold a shared expert; glm4_moe can"},
    {"qwen3_moe", QKV_BIAS, "biases on only some of q, k, v and o; glm4_moe can"},
    {"qwen3_moe", ALL_BIAS, NULL},
    {"qwen3_moe", NO_RENORM, NULL},
    {"qwen3_moe", WINDOW, NULL},
    {"qwen3_moe", LATE_WINDOW, "a sliding window in some layers only"},
    {"qwen3_moe", SIGMOID, "a sigmoid router; glm4_moe can"},
    {"qwen3_moe", DENSE_FIRST, NULL},
    {"qwen3_moe", DENSE_LAST, NULL},
    {"qwen3_moe", TWO_DENSE, "FFN widths that differ between layers"},
    {"qwen3_moe", GELU, "experts (SiLU only)"},
    {"glm4_moe", QKV_BIAS, NULL},
    {"glm4_moe", O_BIAS, "glm4_moe cannot hold a bias on o_proj; only the native layout can"},
    {"glm4_moe", ALL_BIAS, "glm4_moe cannot hold a bias on o_proj"},
    {"glm4_moe", HEAD_NORM, NULL},
    {"glm4_moe", PARTIAL, NULL},
    {"glm4_moe", WINDOW, "glm4_moe cannot hold sliding-window attention; mixtral can"},
    {"glm4_moe", LONG_WINDOW, NULL},
    {"glm4_moe", SOFTMAX, "a softmax router; qwen3_moe or mixtral can"},
    {"glm4_moe", UNBIASED_ROUTER, "a router without a selection bias (zeros where unused)"},
    {"glm4_moe", SCALED, NULL},
    {"glm4_moe", GROUPS, NULL},
    {"glm4_moe", NO_RENORM, NULL},
    {"glm4_moe", NO_EPS, "a renormalisation without its 1e-20"},
    {"glm4_moe", NO_SHARED, NULL},
    {"glm4_moe", ODD_SHARED, "a shared expert whose width is no multiple"},
    {"glm4_moe", GATED_SHARED, "a gated shared expert"},
    {"glm4_moe", DENSE_FIRST, NULL},
    {"glm4_moe", DENSE_LAST, "dense layers behind sparse ones"},
    {"glm4_moe", ONE_EXPERT, "fewer than two experts in a group"},
    {"glm4_moe", GELU, "experts (SiLU only)"},
    {"llama", QKV_BIAS, "biases on only some of q, k, v and o; qwen2 can"},
    {"llama", ALL_BIAS, NULL},
    {"llama", FFN_BIAS, NULL},
    {"llama", IN_BIAS, "biases on only a part of the FFN"},
    {"llama", GELU, NULL},
    {"llama", HEAD_NORM, "llama cannot hold q/k norms; qwen3 can"},
    {"llama", WINDOW, "llama cannot hold sliding-window attention; mistral can"},
    {"llama", MOE, "llama cannot hold experts; glm4_moe can"},
    {"llama", TWO_DENSE, "FFN widths that differ"},
    {"llama", PARTIAL, "rotary positions on a part of each head"},
    {"mistral", WINDOW, NULL},
    {"mistral", FFN_BIAS, "biases in FFNs; llama can"},
    {"mistral", ALL_BIAS, "mistral cannot hold biases on q, k and v; llama can"},
    {"qwen2", NO_BIAS, "qwen2 cannot hold attention without biases on q, k and v; llama can"},
    {"qwen2", LATE_WINDOW, NULL},
    {"qwen2", O_BIAS, "qwen2 cannot hold a bias on o_proj; llama can"},
    {"qwen3", NO_NORM, "qwen3 cannot hold attention without q/k norms; llama can"},
    {"qwen3", ALL_BIAS, NULL},
};

T_TEST(refusals_name_the_one_thing_and_who_can)
{
    for (size_t i = 0; i < sizeof holds / sizeof holds[0]; i++) {
        struct mt_model *m = plain(t, holds[i].family), *r;
        mt_status st;

        T_CHECK(t, m != NULL);
        change_model(m, holds[i].change);
        st = m->family->can_hold(&t->ctx, m);
        if (holds[i].want != NULL) {
            if (st != MT_E_UNSUPPORTED || strstr(mt_error(&t->ctx), holds[i].want) == NULL)
                T_FAIL(t, "row %zu: status %d, \"%s\", wanted \"%s\"", i, (int)st,
                       mt_error(&t->ctx), holds[i].want);
        } else {
            /* What it says it can hold, its config must be able to say. */
            T_OK(t, st);
            T_OK(t, again(t, m, "{}", &r, NULL));
            if (holds[i].change == TOPK_SOFTMAX)
                for (int l = 0; l < 4; l++)
                    m->ffn[l].rule = r->ffn[l].rule;
            if (holds[i].change == LONG_WINDOW)
                m->hp.sliding_window = 0;
            if (!same_model(m, r))
                T_FAIL(t, "row %zu (%s) does not survive its config", i, holds[i].family);
            mt_model_free(r);
        }
        mt_model_free(m);
    }
}
