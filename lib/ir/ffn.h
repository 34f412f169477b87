/* ffn.h: the shape of one layer's feed-forward block and the rule of its router.
 *
 * Dense: y = V (act(G x) * (U x)) [+ bias]. MoE: y = sum over the chosen experts of weight times
 * expert(x), plus the shared expert. Router semantics by family: spec formats, 3.1.
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
    bool has_bias; /* a selection-only bias per expert (e_score_correction_bias) */
    int n_group, topk_group;
};

struct mt_ffn {
    bool moe;
    bool gated; /* false: plain two-matrix FFN */
    enum mt_act act;
    int64_t width;          /* dense width, or of one routed expert */
    int n_experts;          /* 0 when dense */
    int k;                  /* experts per token */
    int64_t shared_width;   /* 0: no shared expert */
    bool shared_gated;      /* shared output times sigmoid(gate . x) (Qwen2-MoE) */
    bool in_bias, out_bias; /* biases on gate/up rows, on the output */
    bool router_bias;       /* a bias on the router's logits (gpt-oss) */
    /* gpt-oss: act(min(g, limit)) * (1 + clamp(u, -limit, limit)); 0: act(g) * u. */
    double glu_limit;
    struct mt_router_rule rule;
};

/* Neurons that act for one token: dense width, or k*width + shared_width. */
int64_t mt_ffn_active_width(const struct mt_ffn *f);
/* Neurons stored. */
int64_t mt_ffn_total_width(const struct mt_ffn *f);
#endif
