/* moe_shape.h: how many experts of which width a dense model is cut into, and for which target.
 *
 * Reads what the user asked for against what the source is, and refuses in a sentence what cannot
 * be: sources that are not dense gated FFNs without bias, shared experts in a format without them,
 * more experts than neurons, more active experts than there are.
 */
#ifndef MT_PASSES_MOE_SHAPE_H
#define MT_PASSES_MOE_SHAPE_H

#include "lib/flow/format.h"
#include "passes/lib/targets.h"

#define MT_SHAPE_EXPERTS_MAX 4096
#define MT_SHAPE_BLOCK 32 /* quantization blocks and kernels want widths in multiples of it */
#define MT_SHAPE_EXPERTS_AUTO 64 /* most experts that are chosen unasked */
#define MT_SHAPE_EXPERTS_ODD 8   /* chosen when no count gives whole blocks */
#define MT_WHY_BYTES 640

struct mt_shape_ask {
    int64_t experts; /* 0: chosen from the width */
    /* "4" experts, or "50%" of the FFN's width, shared experts included; or one of these for each
     * layer of the model, "60%,50%,-", with - for those of `dense` */
    const char *active;
    const char *shared; /* "auto": 1 where the target has them; or a number */
    const char *arch;   /* a target's name, or "auto": the first that holds the result exactly
                           (target_choice.h) */
    const struct mt_format *format; /* what will be written, if it cannot hold all; NULL: a
                                       directory */
    /* Experts are `copies` copies of the whole FFN, each cut into `granules` slices, as many as
     * that makes; `experts` and `shared` are not looked at. copies 0: parts of the FFN. */
    int copies, granules;
    bool expert_bias;  /* each expert gets the FFN's output bias (over granules), not the layer */
    const bool *dense; /* [n_layers] layers that stay dense; NULL: none. Borrowed */
};

struct mt_moe_shape {
    const struct mt_target *target;
    struct mt_target use; /* it, with the rule and the alpha that these experts want */
    int copies, granules; /* 0: experts are parts of the FFN */
    int n_layers, n_experts, n_shared, k; /* k: of `by_token` and `own_active` on average */
    int64_t hidden, width;                /* of the source */
    int64_t expert_width; /* I = ceil(width / (N + S)); of copies ceil(width / granules) */
    int64_t shared_width; /* as stored: S * I, or I zero neurons where the target insists */
    bool expert_bias;     /* each expert has the FFN's output bias, over granules, not the layer */
    bool zero_biases;     /* on q, k and v, for a target that wants some */
    const bool *dense;    /* of the question */
    bool by_token;        /* a threshold of each layer says how many act for a token */
    bool own_active;      /* layers differ in k (mt_moe_shape_layer); native layout only */
    bool own_widths;      /* the method's: not made of the source's width; for the widest layer */
    char why[MT_WHY_BYTES]; /* how --arch auto came to the target; empty when it was asked for */
};

/* The rule of a layer's router. By token it is a score of at least 0: the experts' biases have the
 * threshold in them. Half of k act in any case, so that no token is left next to nothing. */
struct mt_router_rule mt_moe_rule(const struct mt_moe_shape *s);
/* Router rows that are looked at for a token: k, or all of them. */
int mt_moe_rows_max(const struct mt_moe_shape *s);

MT_NODISCARD mt_status mt_moe_shape_read(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                                         const struct mt_model *src, struct mt_moe_shape *out);

/* The shape of one layer, in place of the whole's: its own k, of which all act in any case when
 * they are all. MT_E_OPTION as for the whole. */
MT_NODISCARD mt_status mt_moe_shape_layer(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                                          int layer, struct mt_moe_shape *s);

/* MT_E_OPTION when --active is a list; `who` lets as many act in every layer. */
MT_NODISCARD mt_status mt_moe_refuse_list(struct mt_ctx *ctx, const char *active, const char *who);

/* The shape as one target gives it, with no regard to whether the target can hold the source. */
MT_NODISCARD mt_status mt_moe_shape_for(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                                        const struct mt_model *src, const struct mt_target *target,
                                        struct mt_moe_shape *out);

/* Logs how a target was chosen, and what is remarkable about a shape: zeros in it, and a width that
 * suits no quantization block, with a count that would. Apart from reading, so that errors in other
 * options come first. */
void mt_moe_shape_tell(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                       const struct mt_moe_shape *s);
#endif
