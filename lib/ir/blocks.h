/* blocks.h: feed-forward blocks of a model of unknown family, found by the names of their tensors.
 *
 * A pattern names the tensors of all layers in one line:
 *
 *   h.*.mlp.{c_fc,c_proj}                            in and out
 *   layers.*.feed_forward.{w1,w3,w2}                 gate, up and down
 *   blocks.*.{gate+up=mlp.wi,down=mlp.wo}            gate and up in one tensor, gate's rows first
 *   enc.*.{up=W1,up.bias=b1,down=W2,down.bias=b2}    biases under names of their own
 *   re:enc/(\d+)/(?:(?<up>fc1)|(?<down>fc2))         a regular expression
 *
 * `*` stands for a piece of a name without dots, mostly the layer's number. Blocks are numbered in
 * the order of what the `*` stand for, numbers as numbers. There is exactly one {list}; its items
 * are texts without `*`, each `role=text` or, by count, in and out, or gate, up and down. Roles are
 * gate, up (or in), down (or out), gate+up and up+gate; `.bias` behind one names its bias. A name
 * may end with .weight; the bias beside it is found by itself.
 *
 * A regular expression (PCRE2) must match a whole name up to .weight or .bias; its named groups
 * gate, up, down, gate_up or up_gate (and up_bias and so on) tell the role, all others what `*`
 * would stand for. A vector beside a block's matrices that looks like a bias and that the pattern
 * does not name is told in a warning.
 *
 * Matrices are stored [out, in] (torch's Linear) or [in, out] (GPT-2's Conv1D, JAX). Which it is
 * follows from biases, or from the hidden size when it is known; else the longer side is taken for
 * the FFN's width, which is told.
 *
 * The model then has family ffn_only: layers that are blocks, and every other tensor `other`. It
 * has no forward pass, but its blocks run (mt_runner_open_blocks), passes that edit blocks work,
 * and the native layout holds the result. Its config becomes {"model_type": "ffn_only", sizes, the
 * pattern, "config": the file's own}.
 */
#ifndef MT_IR_BLOCKS_H
#define MT_IR_BLOCKS_H

#include "lib/ir/model.h"

enum mt_blocks_layout { MT_BLOCKS_AUTO, MT_BLOCKS_OUT_IN, MT_BLOCKS_IN_OUT };

struct mt_blocks_ask {
    const char *pattern;
    const char *act; /* as in config.json ("relu"); NULL: hidden_act and the like of the config */
    enum mt_blocks_layout layout;
    int64_t hidden;  /* 0: not known beforehand */
    bool assume_act; /* an activation that nobody tells becomes gelu, with a warning; without it
                        that is MT_E_OPTION naming --act */
};

/* Binds an unbound model (or one that was opened leniently and whose config its family cannot
 * read). MT_E_OPTION tells what is wrong with the pattern: its grammar, that nothing matches (with
 * names that are there), or which block lacks which tensor. */
MT_NODISCARD mt_status mt_blocks_bind(struct mt_ctx *ctx, struct mt_model *m,
                                      const struct mt_blocks_ask *ask);

/* Whether a model consists of blocks alone as far as is known: bound here, or read from the native
 * layout of one that was. */
bool mt_model_only_blocks(const struct mt_model *m);
#endif
