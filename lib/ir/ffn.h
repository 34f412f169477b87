/* ffn.h: the shape of one layer's feed-forward block and the rule of its router.
 *
 * Dense: y = V (act(G x) * (U x)) [+ bias]. MoE: y = sum over the chosen experts of weight times
 * expert(x), plus the shared expert, plus the layer's bias. Router semantics by family: spec
 * formats, 3.1. All that standard families have is the zero of the fields that only the native
 * layout holds (docs/formats.md); mt_ffn_special names the first one that is used.
 *
 * A router has rows: row r gives logit r, and the k best rows are chosen. Row r means expert r
 * unless `map` says otherwise. Lists are borrowed from the model's arena; a plan borrows those of
 * its source until a pass sets its own.
 */
#ifndef MT_IR_FFN_H
#define MT_IR_FFN_H

#include "kernels/kernels.h"

#include <stdbool.h>
#include <stdint.h>

enum mt_router_score {
    MT_SCORE_SOFTMAX,      /* probabilities over all experts */
    MT_SCORE_SIGMOID,      /* each expert by itself */
    MT_SCORE_SOFTMAX_TOPK, /* top-k of logits, softmax over the chosen */
    MT_SCORE_LOGIT,        /* the logits themselves */
};

/* Fewer than k by token: which of the k chosen stay. Compared is what the selection compared,
 * biased scores where there is a bias. */
enum mt_router_cut {
    MT_CUT_NONE,
    MT_CUT_ABOVE,  /* those >= at */
    MT_CUT_RATIO,  /* those >= at * the best one (D2DMoE, arXiv 2310.04361) */
    MT_CUT_MARGIN, /* those >= the best one - at */
};

/* How logits become chosen experts and weights:
 * s = score(logits); selection on s + selection bias (if any), within the best `topk_group` of
 * `n_group` groups; weight = s of the chosen, divided by (their sum + renorm_eps) if `renorm`,
 * times `scale`. Ties go to the lowest index. */
struct mt_router_rule {
    enum mt_router_score score;
    bool renorm;
    double renorm_eps; /* 1e-20 for the DeepSeek-V3 line; 0 otherwise */
    double renorm_min; /* the sum is taken for no less (ERNIE); 0 otherwise */
    double scale;
    bool has_bias; /* a selection-only bias per row (e_score_correction_bias) */
    int n_group, topk_group;
    bool unit; /* weight = scale, whatever the score; renorm is not set then */
    enum mt_router_cut cut;
    double cut_at;
    int cut_min;     /* the best so many stay in any case; 0 to k */
    double cut_mean; /* how many stay for a token on average, on the text that the cut was set with;
                        0: unknown */
};

/* How hidden states x become logits z. Weights are the roles named in capitals, [rows or features,
 * hidden] where nothing else is said; + marks biases. */
enum mt_router_kind {
    MT_ROUTER_LINEAR, /* z = ROUTER x [+ its bias: mt_ffn.router_bias] */
    /* h = fn(ROUTER_HIDDEN x [+]), z = ROUTER h [+] [+ ROUTER_SKIP x], ROUTER [rows, width].
     * MoEfication's two layers (fn tanh); low-rank linear (fn identity); random features (cos,
     * relu, silu over a random ROUTER_HIDDEN). */
    MT_ROUTER_MLP,
    /* One neuron for each expert (CMoE, arXiv 2502.04416): z = |fn(ROUTER_GATE x [+]) *
     * (ROUTER x [+])|, or |fn(ROUTER x [+])| when not gated. */
    MT_ROUTER_REPRESENTATIVE,
    /* z_r = |P_r x| |Q_r x|, or |Q_r x| when not gated: Q_r are rows [r width, (r + 1) width) of
     * ROUTER, P_r those of ROUTER_GATE. Low-rank forms of what a gated expert gives in the mean. */
    MT_ROUTER_SPECTRAL,
};

/* MT_ROUTER_FN_SILU + a is enum mt_act a. */
enum mt_router_fn {
    MT_ROUTER_FN_IDENTITY,
    MT_ROUTER_FN_TANH,
    MT_ROUTER_FN_COS,
    MT_ROUTER_FN_SILU,
    MT_ROUTER_FN_GELU,
    MT_ROUTER_FN_GELU_TANH,
    MT_ROUTER_FN_RELU,
    MT_ROUTER_FN_RELU2,
    MT_ROUTER_FN_QUICK_GELU,
    MT_ROUTER_FN_COUNT
};
double mt_router_fn(enum mt_router_fn fn, double x);

struct mt_router {
    enum mt_router_kind kind;
    enum mt_router_fn fn;
    int64_t width;    /* mlp: features; spectral: rows for one logit; else 0 */
    bool gated;       /* representative, spectral */
    bool hidden_bias; /* on ROUTER_HIDDEN or ROUTER_GATE */
    bool skip;        /* mlp: ROUTER_SKIP is there */
    bool unit_input;  /* x / |x| instead of x; x = 0 stays */
};

/* Matrices of routed experts stored as a sum: LEFT RIGHT, LEFT [rows, rank], RIGHT [rank, columns],
 * [+ the layer's own matrix of the kind, of expert MT_EXPERT_NONE, which all experts share]
 * [+ a matrix of few rows: SPARSE [n, columns], numbers SPARSE_ROWS [n]]. Ranks and n are the
 * tensors'. D2-MoE, MC-SMoE: spec merge_prune, 2 and 4.6. */
struct mt_factors {
    bool on, base, sparse;
};
enum mt_ffn_matrix { MT_FFN_GATE, MT_FFN_UP, MT_FFN_DOWN, MT_FFN_MATRICES };

/* Matrices of routed experts as small numbers and planes of signs (D2MoE, spec quantize 1.6):
 * element (i, c) = SCALE (code - ZERO) + sum over planes p of PLANE_SCALE[p] * (bit ? 1 : -1), with
 * scales and zeros by row i and group c / group. */
struct mt_planes {
    int bits;  /* of the codes, 1 to 8; 0: plain numbers */
    int n;     /* planes */
    int group; /* columns of one scale */
};

struct mt_ffn {
    bool moe;
    bool gated; /* false: plain two-matrix FFN */
    enum mt_act act;
    int64_t width;          /* dense width, or of one routed expert; the widest where they differ */
    int n_experts;          /* 0 when dense */
    int k;                  /* experts per token; with `map`: rows */
    int64_t shared_width;   /* 0: no shared expert */
    bool shared_gated;      /* shared output times sigmoid(gate . x) (Qwen2-MoE) */
    bool in_bias, out_bias; /* biases on gate/up rows, on the output */
    bool router_bias;       /* a bias on the router's logits (gpt-oss) */
    /* gpt-oss: act(min(g, limit)) * (1 + clamp(u, -limit, limit)); 0: act(g) * u. */
    double glu_limit;
    struct mt_router_rule rule;

    /* What only the native layout holds. */
    const int64_t *widths; /* [n_experts], 0 allowed (an expert that is a bias); NULL: all alike */
    /* A bias added to the block's output once, FFN_DOWN's of MT_EXPERT_NONE. out_bias of a MoE
     * layer is a bias of each expert, which its weight multiplies. */
    bool layer_bias;
    struct mt_router router;
    int n_rows;         /* of the router; 0: n_experts */
    const int32_t *map; /* [n_rows]: the expert a row stands for, which runs once with the sum of
                           its rows' weights; NULL: row r is expert r */
    struct mt_factors factors[MT_FFN_MATRICES];
    struct mt_planes planes;
};

int mt_ffn_rows(const struct mt_ffn *f);                    /* of the router; 0 when dense */
int64_t mt_ffn_expert_width(const struct mt_ffn *f, int e); /* of routed expert e */
/* "unequal expert widths" and the like: the first feature that standard families know nothing of.
 * NULL when there is none. */
const char *mt_ffn_special(const struct mt_ffn *f);

/* Rows that act for a token: k, or fewer where a threshold tells what it leaves on average. */
double mt_ffn_mean_active(const struct mt_ffn *f);
/* Neurons that act for one token: dense width, or k*width + shared_width; with widths that differ
 * the mean of k experts, rounded up, and with a mean k to the nearest. */
int64_t mt_ffn_active_width(const struct mt_ffn *f);
/* Neurons stored. */
int64_t mt_ffn_total_width(const struct mt_ffn *f);
#endif
