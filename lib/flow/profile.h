/* profile.h: what calibration text did inside a model, measured once and used by many passes.
 *
 * A profile holds statistics by (layer, statistic, domain). Each domain has sums of its own; the
 * total is their merge. Identity: the SHA-256 of the model (mt_model_identity) and of each source
 * of text; a profile of another model or stage is refused. Two profiles of one model merge:
 *
 *   SUM    sums over tokens. A window's sum is made in fp64 in the order of its tokens; windows are
 *          added exactly (exact.h), so profile(A) + profile(B) has the bits of profile(A and B),
 *          whatever the order, the split, -j or --memory.
 *   COUNT  whole numbers, exact
 *   MAX    exact
 *   GRAM   X^T X: fp64 totals of fp32 products per block; exact between different domains, within
 *          one domain the same to rounding (1e-15 relative)
 *   GIVEN  scores from elsewhere (JSON); not merged
 *
 * Notation: x FFN input after its norm [d]; h = act(Gx)*(Ux); y FFN output (behind the norm that
 * some families put there); z router logits; g_e the weight that multiplies expert e's output f_e
 * (after normalisation and scale); experts are seen at the tokens routed to them.
 *
 * Ownership: *given*, ended by mt_profile_free; a profile read from a file keeps it mapped.
 * Threads: reading is safe from any thread; building is single-threaded.
 */
#ifndef MT_FLOW_PROFILE_H
#define MT_FLOW_PROFILE_H

#include "lib/flow/exact.h"
#include "lib/ir/model.h"

enum mt_stat_kind {
    MT_STAT_SUM,
    MT_STAT_COUNT,
    MT_STAT_MAX,
    MT_STAT_GRAM,
    MT_STAT_GIVEN,
};

/* Sizes that shapes are made of: 1, hidden size d, heads' outputs Q, dense width D, experts E,
 * width of an expert I, width of the shared expert S, rows of the router R (E unless mt_ffn.map
 * says else). A statistic is there where its sizes are; I only where experts are of one width. */
enum mt_stat_dim { MT_DIM_1, MT_DIM_d, MT_DIM_Q, MT_DIM_D, MT_DIM_E, MT_DIM_I, MT_DIM_S, MT_DIM_R };

/* X(STAT, "role", "name", KIND, rows, columns). In a file: layers.L.<role>.<name>.<domain> */
#define MT_STAT_LIST(X)                                                                            \
    X(ATTN_X_SQ, "attn", "x_sq", SUM, 1, d)            /* inputs of q, k, v: x^2 */                \
    X(ATTN_O_SQ, "attn", "o_sq", SUM, 1, Q)            /* inputs of o_proj: x^2 */                 \
    X(TOKENS, "ffn", "n", COUNT, 1, 1)                 /* tokens */                                \
    X(X_SUM, "ffn", "x_sum", SUM, 1, d)                /* x */                                     \
    X(X_SQ, "ffn", "x_sq", SUM, 1, d)                  /* x^2 */                                   \
    X(Y_SUM, "ffn", "y_sum", SUM, 1, d)                /* y */                                     \
    X(Y_SQ, "ffn", "y_sq", SUM, 1, d)                  /* y^2 */                                   \
    X(H_SUM, "ffn", "h_sum", SUM, 1, D)                /* h */                                     \
    X(H_ABS, "ffn", "h_abs", SUM, 1, D)                /* |h| */                                   \
    X(H_SQ, "ffn", "h_sq", SUM, 1, D)                  /* h^2 */                                   \
    X(H_MAX, "ffn", "h_max", MAX, 1, D)                /* largest |h| */                           \
    X(H_TOP, "ffn", "h_top", COUNT, 1, D)              /* tokens where |h| is among the top 10 */  \
    X(A_SUM, "ffn", "a_sum", SUM, 1, D)                /* act(Gx), of a plain FFN h */             \
    X(X_GRAM, "ffn", "x_gram", GRAM, d, d)             /* x x^T */                                 \
    X(H_GRAM, "ffn", "h_gram", GRAM, D, D)             /* h h^T */                                 \
    X(SHARED_H_ABS, "shared", "h_abs", SUM, 1, S)      /* |h| of the shared expert */              \
    X(SHARED_H_SQ, "shared", "h_sq", SUM, 1, S)        /* h^2 of it */                             \
    X(ROUTER_Z_SUM, "router", "z_sum", SUM, 1, R)      /* z */                                     \
    X(ROUTER_Z_GRAM, "router", "z_gram", SUM, R, R)    /* z z^T */                                 \
    X(ROUTER_TOP1, "router", "top1", COUNT, 1, E)      /* tokens whose heaviest expert it is */    \
    X(ROUTER_COACT, "router", "coact", COUNT, E, E)    /* tokens that chose both */                \
    X(EXPERT_N, "experts", "n", COUNT, 1, E)           /* tokens routed to it */                   \
    X(EXPERT_G, "experts", "g_sum", SUM, 1, E)         /* g */                                     \
    X(EXPERT_F_NORM, "experts", "f_norm", SUM, 1, E)   /* ||f|| */                                 \
    X(EXPERT_F_SQ, "experts", "f_sq", SUM, 1, E)       /* ||f||^2 */                               \
    X(EXPERT_GF_NORM, "experts", "gf_norm", SUM, 1, E) /* g ||f|| */                               \
    X(EXPERT_F_MAX, "experts", "f_max", MAX, 1, E)     /* largest component of |f| */              \
    X(EXPERT_F_SUM, "experts", "f_sum", SUM, E, d)     /* f */                                     \
    X(EXPERT_F_ALL, "experts", "f_all_sum", SUM, E, d) /* f over all tokens, routed or not */      \
    X(EXPERT_X_SQ, "experts", "x_sq", SUM, E, d)       /* x^2 */                                   \
    X(EXPERT_H_ABS, "experts", "h_abs", SUM, E, I)     /* |h| */                                   \
    X(EXPERT_H_SQ, "experts", "h_sq", SUM, E, I)       /* h^2 */                                   \
    X(EXPERT_SCORE, "experts", "score", GIVEN, 1, E)   /* keep the largest */                      \
    X(NEURON_SCORE, "ffn", "score", GIVEN, 1, D)       /* keep the largest */

enum mt_stat {
#define MT_STAT_ENUM(id, role, name, kind, rows, cols) MT_STAT_##id,
    MT_STAT_LIST(MT_STAT_ENUM)
#undef MT_STAT_ENUM
        MT_STAT_COUNT_ALL
};

#define MT_STAT_TOP_K 10 /* CMoE's K_a, for h_top */

struct mt_stat_row {
    const char *role, *name;
    enum mt_stat_kind kind;
    enum mt_stat_dim rows, cols;
};
const struct mt_stat_row *mt_stat_row(enum mt_stat s);
/* The shape a statistic has at a layer of m; rows 0: it has none there. */
void mt_stat_shape(const struct mt_model *m, int layer, enum mt_stat s, int64_t *rows,
                   int64_t *cols);

/* One text and how much of it was seen, per domain in it. */
struct mt_profile_source {
    const char *domain;
    char sha256[65];     /* of the source's bytes; of a file imported */
    char ids_sha256[65]; /* of the windows' token ids; "" when not known */
    int64_t windows, tokens;
};

struct mt_profile_info {
    char model[65];     /* mt_model_identity; "" when not known (imported) */
    char tokenizer[65]; /* of tokenizer.json; "" when the model has none */
    int64_t seq_len;    /* tokens in a window; 0: not known */
    const char *origin; /* "moetool", "imatrix", "json" */
    int n_layers;
    int64_t hidden;
};

struct mt_profile;

/* ---- use ---- */

const struct mt_profile_info *mt_profile_info(const struct mt_profile *p);
int mt_profile_n_domains(const struct mt_profile *p);
const char *mt_profile_domain(const struct mt_profile *p, int i); /* in order of names */
int mt_profile_n_sources(const struct mt_profile *p);
const struct mt_profile_source *mt_profile_source(const struct mt_profile *p, int i);

/* SHA-256 of all that tells this profile from others: model, sources, what it holds. */
void mt_profile_identity(const struct mt_profile *p, char hex[65]);
/* Whether the statistic is there at a layer, and its shape ([rows, cols], row-major). */
bool mt_profile_has(const struct mt_profile *p, int layer, enum mt_stat s);
void mt_profile_shape(const struct mt_profile *p, int layer, enum mt_stat s, int64_t *rows,
                      int64_t *cols);
/* Copies it into out[n]; n must be rows * cols. domain NULL: the total. MT_E_ABSENT names what the
 * profile lacks and how to get it; MT_E_FORMAT when n is another size. */
MT_NODISCARD mt_status mt_profile_get(struct mt_ctx *ctx, const struct mt_profile *p, int layer,
                                      enum mt_stat s, const char *domain, double *out, size_t n);

/* Refuses, in one line with both identities, a profile of another model or of another stage of it.
 * Imported statistics carry no identity: their shapes are checked instead. `name` is the profile's
 * file. */
MT_NODISCARD mt_status mt_profile_check(struct mt_ctx *ctx, const struct mt_profile *p,
                                        const struct mt_model *m, const char *name);

/* ---- making one ---- */

/* Values of one statistic of one domain. `exact` of SUM, else NULL; `v` is what it rounds to. */
struct mt_profile_part {
    const double *v;
    const struct mt_exact *exact;
};

/* `info` and sources are copied; domains are those of the sources. */
MT_NODISCARD mt_status mt_profile_create(struct mt_ctx *ctx, const struct mt_profile_info *info,
                                         const struct mt_profile_source *sources, int n_sources,
                                         struct mt_profile **out);
void mt_profile_free(struct mt_profile *p); /* NULL is fine */
/* Says that a layer has the statistic, with parts to be set: for every domain, in any order. */
void mt_profile_declare(struct mt_profile *p, int layer, enum mt_stat s, int64_t rows,
                        int64_t cols);
/* Sets a part. `v` and `exact` are *taken* when `owned`, else borrowed. */
void mt_profile_set(struct mt_profile *p, int layer, enum mt_stat s, int domain, const double *v,
                    const struct mt_exact *exact, bool owned);
/* NULL members: not set. */
struct mt_profile_part mt_profile_part(const struct mt_profile *p, int layer, enum mt_stat s,
                                       int domain);
/* Lets go of one part's buffers: it is declared but not set. */
void mt_profile_drop(struct mt_profile *p, int layer, enum mt_stat s, int domain);
void mt_profile_own_map(struct mt_profile *p, struct mt_map *map /* taken */);

/* An empty profile with the sources, domains and declarations of all, which must be of one model
 * and one window length; statistics that one of them lacks are left out and told. Parts come from
 * mt_profile_merge_part, one at a time. */
MT_NODISCARD mt_status mt_profile_merge_plan(struct mt_ctx *ctx, const struct mt_profile *const *in,
                                             int n, struct mt_profile **out);
/* Sets one part of `out` from those of `in`. */
MT_NODISCARD mt_status mt_profile_merge_part(struct mt_ctx *ctx, const struct mt_profile *const *in,
                                             int n, struct mt_profile *out, int layer,
                                             enum mt_stat s, int domain);
#endif
