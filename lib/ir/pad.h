/* pad.h: layers with different numbers of experts, for families that know one number.
 *
 * Passes may leave each layer with as many experts as it deserves, and the native layout keeps them
 * so. Configs of Hugging Face and metadata of GGUF have one number for all layers. Where experts
 * are chosen by a sigmoid score plus a selection bias, layers can be padded exactly (spec
 * formats, 3.5): a dead expert is all zeros, its score is one half, and its bias is the least of
 * the live ones minus 2, so that it stands behind every live expert: their scores lie within (0,
 * 1). It is never chosen as long as no more experts act than live, and the weights of the chosen do
 * not look at it. A softmax over all experts would give it a part, and routers without a bias would
 * choose it, so those families are refused.
 */
#ifndef MT_IR_PAD_H
#define MT_IR_PAD_H

#include "lib/ir/model.h"

/* True when MoE layers of m differ in their number of experts. */
bool mt_model_uneven(const struct mt_model *m);

/* Gives every MoE layer of a plan `total` experts (0: as many as the layer with most). Dead experts
 * stand behind the live ones; where routers and selection biases grow, new records take their
 * place, which read the live ones: those are unlisted, and who left them pending sets the source of
 * the record that it has from mt_model_add. plan->live_experts then tells how many are true.
 * Before mt_model_rename. The walk calls it for plans whose family does not take them as they are.
 *
 * MT_E_UNSUPPORTED names the family and what lacks: a selection bias, one group, as many live
 * experts as act. */
MT_NODISCARD mt_status mt_model_pad_experts(struct mt_ctx *ctx, struct mt_model *plan, int total);
#endif
