#include "passes/convert/convert_opts.h"

#include "passes/convert/method.h"

/* 1 + enum mt_partition_how */
static const char *const convert_partition_names[] = {"auto",
                                                      "contiguous",
                                                      "random",
                                                      "cluster",
                                                      "cluster-up",
                                                      "cluster-both",
                                                      "coactivation",
                                                      "importance",
                                                      "importance-overlap",
                                                      NULL};
/* enum mt_convert_importance */
static const char *const convert_importance_names[] = {"activation", "output", NULL};
/* 1 + enum mt_router_labels */
static const char *const convert_label_names[] = {"auto", "membership", "lognorm", "soft", NULL};

/* enum mt_convert_scale */
static const char *const convert_scale_names[] = {"auto", "unit", "E/k", NULL};
static const char *const convert_pa_target_names[] = {"k-hot", "soft", "subset", NULL};
static const char *const convert_pa_kl_names[] = {"router-first", "target-first", NULL};

/* enum mt_convert_cover */
static const char *const convert_cover_names[] = {"none", "nearest", NULL};

/* enum mt_convert_widths */
static const char *const convert_width_names[] = {"fill", "pad", NULL};
static const char *const convert_out_bias_names[] = {"layer", "experts", NULL};
static const char *const convert_attention_names[] = {"average", "first", NULL};

const char *const mt_convert_arch_names[] = {
    "auto",      "glm4_moe",  "dots1", "granitemoeshared", "granitemoe", "mixtral",
    "qwen3_moe", "qwen2_moe", "olmoe", "native",           NULL};

const char *const mt_convert_select_names[] = {"obs", "wanda", "flap", "magnitude", "score", NULL};

const struct mt_opt mt_convert_opt_table[] = {
    MT_OPT_ENUM(struct mt_convert_opts, method, "method", 0, "NAME", "auto",
                mt_convert_method_names,
                "how neurons become experts; auto: best, which without --data is partition"),
    MT_OPT_INT(struct mt_convert_opts, experts, "experts", 0, "N", "0", 0, MT_SHAPE_EXPERTS_MAX,
               "routed experts per layer; 0: as many, up to 64, as leave experts a multiple of 32 "
               "neurons wide, a power of two if one does"),
    MT_OPT_STR(struct mt_convert_opts, active, "active", 0, "K|P%[,...]", "auto",
               "routed experts per token, or how much of the FFN's width may act for a token, "
               "shared experts included; or one for each layer, with commas, - for those of "
               "--dense-layers (native layout only, unless all are alike); auto: 50%; for method "
               "readme 1 expert, for dino 1 copy, "
               "for upcycle 2"),
    MT_OPT_STR(struct mt_convert_opts, shared, "shared", 0, "S", "auto",
               "shared experts of the same width; auto: 1 where the target has them; cv: in method "
               "expertweaver and the native layout, what each layer's gates suggest"),
    MT_OPT_ENUM(struct mt_convert_opts, partition, "partition", 0, "HOW", "auto",
                convert_partition_names,
                "how methods partition, factorllm, llama-moe, moefication and uoe divide neurons; "
                "given alone it means method partition; auto: what the method is made for"),
    MT_OPT_ENUM(struct mt_convert_opts, importance, "importance", 0, "WHAT", "activation",
                convert_importance_names,
                "what partitions importance and importance-overlap take for a neuron's worth on a "
                "token: |h_j| ||v_j||, or |h_j v_j.y|, its part of the output's square"),
    MT_OPT_ENUM(struct mt_convert_opts, router, "router", 0, "HOW", "auto", mt_convert_router_names,
                "how routers are made; auto: ridge with --data, else centroid; zero when all act"),
    MT_OPT_ENUM(struct mt_convert_opts, labels, "labels", 0, "HOW", "auto", convert_label_names,
                "what the ridge router learns about the contribution norms; auto: soft for method "
                "best and with --dynamic-k, else membership"),
    MT_OPT_NUM(struct mt_convert_opts, router_lambda, "router-lambda", 0, "L", "0.1", 0, 1e3,
               "how much the regressions of router ridge and of method best shrink: L "
               "times the mean square of an input"),
    MT_OPT_INT(struct mt_convert_opts, moves, "moves", 0, "N", "2", 0, 16,
               "how often method best fits a router and moves neurons to the experts that are "
               "chosen when they matter"),
    MT_OPT_INT(struct mt_convert_opts, copies, "copies", 0, "N", "0", 0, MT_SHAPE_EXPERTS_MAX,
               "how many copies of the FFN methods dino and upcycle make; 0: as --experts says, or "
               "8"),
    MT_OPT_INT(struct mt_convert_opts, granularity, "granularity", 0, "G", "0", 0,
               MT_SHAPE_EXPERTS_MAX,
               "into how many slices they cut each copy; 0: 2 for dino, 1 for upcycle"),
    MT_OPT_NUM(struct mt_convert_opts, noise, "noise", 0, "X", "0", 0, 1e3,
               "add noise of X times their size to the rows of router tied: the slices of a copy "
               "are then no longer chosen together, and the result is not the source any more"),
    MT_OPT_ENUM(
        struct mt_convert_opts, out_bias, "out-bias", 0, "WHERE", "layer", convert_out_bias_names,
        "where dino and upcycle leave a bias on the FFN's output, in the native layout: once "
        "in the layer, or divided by --granularity in every expert"),
    MT_OPT_ENUM(
        struct mt_convert_opts, attention, "attention", 0, "HOW", "average",
        convert_attention_names,
        "with --from, what becomes of all that is not in FFNs: the mean over the models that "
        "are experts, or what the first has"),
    MT_OPT_BOOL(
        struct mt_convert_opts, without_base, "without-base", 0,
        "with --from, MODEL itself is no expert: it only gives what --attention first takes"),
    MT_OPT_ENUM(struct mt_convert_opts, refit, "refit", 0, "HOW", "auto", mt_convert_refit_names,
                "what is fitted to the routers' choices; auto: what the method is made for"),
    MT_OPT_INT(struct mt_convert_opts, refit_epochs, "refit-epochs", 0, "N", "4", 0, 1000,
               "how often refit all goes through the calibration text"),
    MT_OPT_ENUM(struct mt_convert_opts, scale, "expert-scale", 0, "HOW", "auto",
                convert_scale_names,
                "what routed experts' outputs are multiplied by; auto: E/k for factorllm and "
                "llama-moe, else unit"),
    MT_OPT_INT(struct mt_convert_opts, router_rank, "router-rank", 0, "R", "16", 1, 65536,
               "rows of router spectral for each expert and side; no more than the expert's width"),
    MT_OPT_NUM(struct mt_convert_opts, pa_temp, "pa-temp", 0, "T", "1", 1e-3, 1e3,
               "temperature of the targets of routers pa and contribution"),
    MT_OPT_ENUM(
        struct mt_convert_opts, pa_targets, "pa-targets", 0, "HOW", "k-hot",
        convert_pa_target_names,
        "their targets: softmax of the k best experts' indicator, of the scores themselves, "
        "or of the indicator of the k that together come nearest to the output"),
    MT_OPT_ENUM(struct mt_convert_opts, pa_kl, "pa-kl", 0, "HOW", "router-first",
                convert_pa_kl_names, "their divergence: KL(router || target), or the reverse"),
    MT_OPT_ENUM(struct mt_convert_opts, select, "select", 0, "HOW", "obs", mt_convert_select_names,
                "which neurons method prune-baseline keeps (`moetool passes prune-ffn`)"),
    MT_OPT_NUM(struct mt_convert_opts, drift, "drift", 0, "B", "0.5", 0, 1,
               "how much of what earlier layers went astray a refit should bring back"),
    MT_OPT_NUM(struct mt_convert_opts, keep, "keep", 0, "P", "0.5", 0, 1,
               "share of the neurons in a domain's mask, of method readme; of those that count as "
               "active for router overlap"),
    MT_OPT_ENUM(struct mt_convert_opts, cover, "cover", 0, "HOW", "none", convert_cover_names,
                "neurons that no domain of method readme takes: none drops them, nearest has them "
                "always on"),
    MT_OPT_ENUM(struct mt_convert_opts, widths, "widths", 0, "HOW", "fill", convert_width_names,
                "how method readme makes layers of one width where the architecture wants that: "
                "fill shares as many neurons everywhere, those of most domains first; pad adds "
                "zero neurons (always with --cover nearest)"),
    MT_OPT_ENUM(struct mt_convert_opts, arch, "arch", 0, "A", "auto", mt_convert_arch_names,
                "target architecture; auto: the first that holds the result exactly in the format "
                "that is written: qwen3_moe for a Qwen3 source without shared experts, else "
                "glm4_moe where it can, and native where nothing else does"),
    MT_OPT_SWITCH(struct mt_convert_opts, dynamic_k, "dynamic-k", 0,
                  "as many experts act for a token as its scores ask for, by a threshold of each "
                  "layer, and at least half of --active, which is then their mean on the text of "
                  "--data. Closer to the source at the same cost; only the native layout holds it, "
                  "and there method best does it unless --no-dynamic-k is said"),
    MT_OPT_STR(struct mt_convert_opts, dense_layers, "dense-layers", 0, "LIST", "none",
               "layers whose FFN stays dense: 0, 0-2, 0,3,-1 (the last); the architecture must "
               "have a place for them"),
    MT_OPT_STR(struct mt_convert_opts, flatten, "flatten", 0, "M", "auto",
               "multiply routers by 2^-M, so that expert weights become even; auto: the smallest M "
               "of each layer that keeps them within 0.8 % of 1 on any text"),
    MT_OPT_END,
};
