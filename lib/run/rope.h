/* rope.h: inverse frequencies of rotary positions, by every rule a config.json can name.
 *
 * Sources: RoPE (Su et al., arXiv 2104.09864), position interpolation (Chen et al., 2306.15595),
 * NTK-aware scaling as "dynamic", YaRN (Peng et al., 2309.00071), LongRoPE (Ding et al.,
 * 2402.13753), Llama 3.1's blend. The formulas are those of the models' own Python code;
 * angles stay in fp64 here.
 *
 * Threads: pure functions.
 */
#ifndef MT_RUN_ROPE_H
#define MT_RUN_ROPE_H

#include "kernels/device.h"
#include "lib/ir/model.h"

/* Features of a head that rotate: head_dim times the partial share, whole (0 where positions are
 * learned; latent attention has its own count). MT_E_UNSUPPORTED when that is odd or not within
 * [0, head_dim]. */
MT_NODISCARD mt_status mt_rope_dim(struct mt_ctx *ctx, const struct mt_hparams *hp, int *rot_dim);

/* Fills inv_freq[rot_dim/2] and *amplitude for a sequence of n_positions (only "dynamic" and
 * "longrope" look at the length, and only beyond a limit). hp->rope is used, not
 * rope_local. Settings that give no finite frequency are MT_E_FORMAT. */
MT_NODISCARD mt_status mt_rope_frequencies(struct mt_ctx *ctx, const struct mt_hparams *hp,
                                           int64_t n_positions, int rot_dim, double *inv_freq,
                                           double *amplitude);
#endif
