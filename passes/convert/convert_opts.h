/* convert_opts.h: what a conversion can be told; one table for the command line, help and manifest.
 *
 * A method that needs an option of its own adds a field and a row here, says in the row's help
 * which method reads it, and adds a line to the table in convert_scope.c, so that it is refused
 * elsewhere.
 */
#ifndef MT_PASSES_CONVERT_OPTS_H
#define MT_PASSES_CONVERT_OPTS_H

#include "lib/base/opt.h"

struct mt_format;

/* The method that is no conversion: the command runs the pass prune-ffn instead. */
#define MT_CONVERT_PRUNE "prune-baseline"

struct mt_convert_opts {
    int64_t experts;
    const char *active, *shared, *flatten;
    int method;                  /* index into mt_convert_method_names */
    int router;                  /* index into mt_convert_router_names */
    int refit;                   /* index into mt_convert_refit_names */
    int partition;               /* 0: auto; 1 + enum mt_partition_how */
    int importance;              /* enum mt_convert_importance */
    int labels;                  /* 0: auto; 1 + enum mt_router_labels */
    int64_t moves;               /* of method best */
    double router_lambda;        /* of ridge regressions that make linear routers */
    int64_t copies, granularity; /* of methods dino and upcycle; 0: auto */
    double noise;                /* of router tied */
    int out_bias;                /* 0: once in the layer; 1: in each expert */
    int attention;               /* of several models; 0: their mean; 1: the first's */
    bool without_base;           /* of several models: the first is no expert */
    int select;                  /* of prune-baseline; index into mt_convert_select_names */
    double drift;                /* of refits */
    int64_t refit_epochs;        /* of refit all */
    int scale;                   /* enum mt_convert_scale */
    int64_t router_rank;         /* of router spectral */
    double pa_temp;
    int pa_targets; /* 0: k-hot; 1: soft; 2: subset */
    int pa_kl;      /* 0: the router first; 1: the target first */
    int arch;       /* index into mt_convert_arch_names */

    double keep; /* of method readme and router overlap */
    int cover;   /* enum mt_convert_cover */

    int widths; /* enum mt_convert_widths */

    int dynamic_k;            /* enum mt_switch */
    const char *dense_layers; /* "none" or a list (layer_list.h) */
    const bool *dense;        /* no option: that list, of all layers; NULL: none */

    const struct mt_format *format; /* no option: what will be written; NULL: a directory */
    bool text;                      /* no option: activations will be shown */
};

/* What a routed expert's output is multiplied by. */
enum mt_convert_scale {
    MT_CONVERT_SCALE_AUTO, /* what the method is made for */
    MT_CONVERT_SCALE_UNIT,
    MT_CONVERT_SCALE_SHARE, /* E/k (FactorLLM, LLaMA-MoE) */
};

/* What a neuron is worth on a token (--partition importance). */
enum mt_convert_importance {
    MT_CONVERT_IMPORTANCE_ACTIVATION, /* |h_j| ||v_j|| */
    MT_CONVERT_IMPORTANCE_OUTPUT,     /* |h_j v_j.y|: |h_j dL/dh_j| of L = |y|^2 / 2 */
};

/* What becomes of neurons that a method leaves out. */
enum mt_convert_cover {
    MT_CONVERT_COVER_NONE,
    MT_CONVERT_COVER_NEAREST, /* they are always on */
};

/* Where layers would want widths of their own and the target has one for all. */
enum mt_convert_widths {
    MT_CONVERT_WIDTHS_FILL, /* the mean; lists are chosen to fit */
    MT_CONVERT_WIDTHS_PAD,  /* the widest; zero neurons fill up */
};

extern const struct mt_opt mt_convert_opt_table[];
extern const char *const mt_convert_arch_names[];   /* "auto" first, NULL-ended */
extern const char *const mt_convert_select_names[]; /* as prune-ffn has them */
#endif
