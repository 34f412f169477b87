/* The profile file: what is written is read back as it was, and what is not one is refused. */
#include "formats/stats.h"

#include "lib/base/path.h"
#include "tests/t.h"
#include "tests/toy.h"

#include <stdlib.h>

#define DOMAINS 2

/* A profile of a toy with a few statistics of every kind; a domain with an awkward name. */
static struct mt_profile *make(struct t *t, const struct mt_model *m)
{
    static const enum mt_stat some[] = {
        MT_STAT_ATTN_X_SQ, MT_STAT_TOKENS,   MT_STAT_H_MAX,        MT_STAT_H_SUM,
        MT_STAT_X_GRAM,    MT_STAT_EXPERT_N, MT_STAT_EXPERT_F_SUM, MT_STAT_ROUTER_Z_GRAM};
    const struct mt_profile_info info = {.origin = "moetool",
                                         .model = "0123456789abcdef0123456789abcdef"
                                                  "0123456789abcdef0123456789abcdef",
                                         .seq_len = 128,
                                         .n_layers = m->hp.n_layers,
                                         .hidden = m->hp.hidden};
    struct mt_profile_source sources[DOMAINS] = {
        {.domain = "a.\"b\"\\ \x01 \xc3\xa4", .windows = 1},
        {.domain = "web", .windows = 2, .tokens = 99}};
    struct mt_profile *p;
    double next = 0.1;

    memset(sources[0].sha256, 'a', 64);
    memset(sources[1].sha256, 'b', 64);
    memset(sources[1].ids_sha256, 'c', 64);
    if (mt_profile_create(&t->ctx, &info, sources, DOMAINS, &p) != MT_OK)
        return NULL;
    for (int l = 0; l < m->hp.n_layers; l++) {
        for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
            int64_t rows, cols;
            mt_stat_shape(m, l, some[i], &rows, &cols);
            if (rows == 0)
                continue;
            mt_profile_declare(p, l, some[i], rows, cols);
            for (int d = 0; d < DOMAINS; d++) {
                struct mt_exact *exact = NULL;
                double *v;
                size_t n = (size_t)(rows * cols);
                if (mt_alloc(&t->ctx, n, sizeof *v, "v", &v) != MT_OK ||
                    mt_alloc0(&t->ctx, n, sizeof *exact, "v", &exact) != MT_OK)
                    return NULL;
                for (size_t k = 0; k < n; k++, next *= -1.0371)
                    v[k] = mt_exact_add(&exact[k], next) ? mt_exact_value(&exact[k]) : (next = 0.1);
                if (mt_stat_row(some[i])->kind != MT_STAT_SUM) {
                    mt_free(exact);
                    exact = NULL;
                }
                mt_profile_set(p, l, some[i], d, v, exact, true);
            }
        }
    }
    return p;
}

static mt_status write_all(struct mt_ctx *ctx, const char *path, bool force,
                           const struct mt_profile *p)
{
    struct mt_stats_writer *w;
    mt_status st = mt_stats_open(ctx, path, force, p, &w);

    for (int l = 0; st == MT_OK && l < mt_profile_info(p)->n_layers; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++)
            for (int d = 0; d < DOMAINS && mt_profile_has(p, l, (enum mt_stat)i) && st == MT_OK;
                 d++)
                st = mt_stats_put(ctx, w, p, l, (enum mt_stat)i, d);
    if (st == MT_OK)
        st = mt_stats_commit(ctx, w);
    mt_stats_close(w);
    return st;
}

static void check_same(struct t *t, const struct mt_profile *a, const struct mt_profile *b)
{
    int seen = 0;

    T_EQ_INT(t, mt_profile_n_domains(b), DOMAINS);
    for (int d = 0; d < DOMAINS; d++) {
        const struct mt_profile_source *x = mt_profile_source(a, d), *y = mt_profile_source(b, d);
        T_EQ_STR(t, mt_profile_domain(b, d), mt_profile_domain(a, d));
        T_EQ_STR(t, y->domain, x->domain);
        T_EQ_STR(t, y->sha256, x->sha256);
        T_EQ_STR(t, y->ids_sha256, x->ids_sha256);
        T_CHECK(t, x->windows == y->windows && x->tokens == y->tokens);
    }
    T_EQ_STR(t, mt_profile_info(b)->model, mt_profile_info(a)->model);
    T_EQ_STR(t, mt_profile_info(b)->origin, mt_profile_info(a)->origin);
    T_EQ_INT(t, mt_profile_info(b)->seq_len, mt_profile_info(a)->seq_len);
    for (int l = 0; l < mt_profile_info(a)->n_layers; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat s = (enum mt_stat)i;
            int64_t rows, cols;
            T_EQ_INT(t, mt_profile_has(b, l, s), mt_profile_has(a, l, s));
            for (int d = 0; d < DOMAINS && mt_profile_has(a, l, s); d++, seen++) {
                struct mt_profile_part x = mt_profile_part(a, l, s, d),
                                       y = mt_profile_part(b, l, s, d);
                mt_profile_shape(b, l, s, &rows, &cols);
                size_t n = (size_t)(rows * cols);
                T_CHECK(t, memcmp(x.v, y.v, n * sizeof *x.v) == 0);
                T_CHECK(t, (x.exact == NULL) == (y.exact == NULL));
                T_CHECK(t, x.exact == NULL || memcmp(x.exact, y.exact, n * sizeof *x.exact) == 0);
            }
        }
    T_CHECK(t, seen > 20);
}

static struct mt_model *toy(struct t *t)
{
    struct mt_model *m = NULL;

    if (toy_model(&t->ctx, &(struct toy){.experts = 4, .k = 2, .first_dense = 1, .hidden = 16},
                  &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

T_TEST(what_is_written_is_read_back_as_it_was)
{
    struct mt_model *m = toy(t);
    struct mt_profile *p = make(t, m), *q;
    const char *path = t_path(t, "p.safetensors");
    uint64_t bytes;
    size_t n;

    T_CHECK(t, p != NULL);
    T_OK(t, write_all(&t->ctx, path, false, p));
    T_OK(t, mt_stats_read(&t->ctx, path, &q));
    check_same(t, p, q);
    T_OK(t, mt_stats_bytes(&t->ctx, p, &bytes));
    free(t_read_file(path, &n));
    T_EQ_INT(t, n, bytes);
    T_FAILS(t, write_all(&t->ctx, path, false, p), MT_E_IO, "--force");
    T_OK(t, write_all(&t->ctx, path, true, q));
    free(t_read_file(path, &n));
    T_EQ_INT(t, n, bytes);
    mt_profile_free(p);
    mt_profile_free(q);
    mt_model_free(m);
}

T_TEST(a_writer_that_is_not_committed_leaves_nothing)
{
    struct mt_model *m = toy(t);
    struct mt_profile *p = make(t, m);
    const char *path = t_path(t, "gone.safetensors");
    struct mt_stats_writer *w;
    char partial[512];

    T_OK(t, mt_stats_open(&t->ctx, path, false, p, &w));
    T_OK(t, mt_stats_put(&t->ctx, w, p, 0, MT_STAT_TOKENS, 0));
    mt_stats_close(w);
    snprintf(partial, sizeof partial, "%s.partial", path);
    T_CHECK(t, !mt_path_exists(path) && !mt_path_exists(partial));
    mt_profile_free(p);
    mt_model_free(m);
}

/* Replaces one text of the header by another of the same length and reads the file. */
static mt_status read_changed(struct t *t, const char *path, const char *from, const char *to)
{
    size_t n, k = strlen(from);
    struct mt_profile *p = NULL;
    char *bytes = t_read_file(path, &n), *at = NULL;
    const char *changed = t_path(t, "changed.safetensors");

    for (size_t i = 8; at == NULL && i + k < n; i++)
        if (memcmp(bytes + i, from, k) == 0)
            at = bytes + i;
    if (at == NULL || strlen(to) != k) {
        t_fail(t, __FILE__, __LINE__, "no \"%s\" to change", from);
        free(bytes);
        return MT_E_ABSENT;
    }
    memcpy(at, to, k);
    t_write_file(t, changed, bytes, n);
    free(bytes);
    mt_status st = mt_stats_read(&t->ctx, changed, &p);
    mt_profile_free(p);
    return st;
}

T_TEST(what_is_no_profile_is_refused)
{
    struct mt_model *m = toy(t);
    struct mt_profile *p = make(t, m), *q;
    const char *path = t_path(t, "p.safetensors");

    T_OK(t, write_all(&t->ctx, path, false, p));
    T_FAILS(t, read_changed(t, path, "moetool-profile", "moetool-prophet"), MT_E_FORMAT,
            "is no profile");
    T_FAILS(t, read_changed(t, path, "\"version\":\"1\"", "\"version\":\"2\""), MT_E_UNSUPPORTED,
            "of version 2");
    T_FAILS(t, read_changed(t, path, "0123456789abcdef", "0123456789abcdeg"), MT_E_FORMAT,
            "model_sha256");
    T_FAILS(t, read_changed(t, path, "\"n_layers\":\"2\"", "\"n_layers\":\"0\""), MT_E_FORMAT,
            "n_layers");
    T_FAILS(t, read_changed(t, path, "\"n_layers\":\"2\"", "\"n_layers\":\"x\""), MT_E_FORMAT,
            "n_layers");
    T_FAILS(t, read_changed(t, path, "[{\\\"domain", "[{\\\"tomain"), MT_E_FORMAT,
            "without \"domain\"");
    T_FAILS(t,
            read_changed(t, path, "ffn.n.web\":{\"dtype\":\"F64", "ffn.n.web\":{\"dtype\":\"I64"),
            MT_E_FORMAT, "ffn.n.web");
    /* A statistic of a later version is passed over; what it was is then missing. */
    T_FAILS(t, read_changed(t, path, "\"layers.0.ffn.n.web", "\"layers.0.ffn.m.web"), MT_E_FORMAT,
            "layers.0.ffn.n is missing for domain \"web\"");
    T_FAILS(
        t,
        read_changed(t, path, "\"exact.layers.0.attn.x_sq.web", "\"exact.layers.0.attn.x_sx.web"),
        MT_E_FORMAT, "layers.0.attn.x_sq is missing");
    T_FAILS(t, mt_stats_read(&t->ctx, t_path(t, "none"), &q), MT_E_ABSENT, "none");
    mt_profile_free(p);
    mt_model_free(m);
}

T_TEST(damaged_files_are_survived)
{
    struct mt_model *m = toy(t);
    struct mt_profile *p = make(t, m), *q;
    const char *path = t_path(t, "p.safetensors"), *bad = t_path(t, "bad.safetensors");
    size_t n;
    char *bytes;

    T_OK(t, write_all(&t->ctx, path, false, p));
    bytes = t_read_file(path, &n);
    for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : 211) {
        t_write_file(t, bad, bytes, cut);
        T_CHECK(t, mt_stats_read(&t->ctx, bad, &q) != MT_OK && q == NULL);
    }
    for (size_t at = 8; at < 3000; at += 3) {
        bytes[at] = (char)(bytes[at] ^ 0x15);
        t_write_file(t, bad, bytes, n);
        if (mt_stats_read(&t->ctx, bad, &q) == MT_OK)
            mt_profile_free(q);
        bytes[at] = (char)(bytes[at] ^ 0x15);
    }
    free(bytes);
    mt_profile_free(p);
    mt_model_free(m);
}
