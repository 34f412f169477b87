/* runner.h: the forward pass, one layer at a time, written once for every device and family.
 *
 * A runner binds a model (read from a file or planned, so a *planned* model can be tested) to a
 * device. A layer is opened (weights loaded as the model's records say, fetched like a writer
 * fetches them), used on many batches, and closed. Weights that stand contiguous in a mapped file
 * are borrowed, not copied; experts load when tokens reach them.
 *
 *   x            hidden states [tokens, hidden] on the device
 *   layer_attn   x += attention(norm(x))        (caches filled where given)
 *   layer_norm   n  = ffn_norm(x)
 *   layer_ffn    x += ffn(n)                    or y = ffn(n)
 *   head         logits = lm_head(final_norm(x))
 *
 * Encoders (BERT, ViT) see whole sequences, both ways, and end with `final`, the last hidden
 * states. Where norms act on sums (BERT), the norm behind a layer is applied by what comes next:
 * between layers x is what the sum was. A padding mask is expressed by leaving padded tokens out.
 *
 * Sequences in a batch are described by `struct mt_seqs`: consecutive, causal, independent.
 *
 * Threads: one caller per runner. Numbers: router scores and weights in fp64 on the host from the
 * device's logits; norm statistics and softmax sums in fp64 (CPU).
 */
#ifndef MT_RUN_RUNNER_H
#define MT_RUN_RUNNER_H

#include "kernels/device.h"
#include "lib/ir/model.h"

struct mt_runner;
struct mt_run_layer;

struct mt_seqs {
    int n;              /* sequences */
    const int32_t *len; /* tokens of each; their sum is the batch's token count */
};

/* Routing of one layer for a batch, for observers and load statistics. Host memory, valid until
 * the next call on the layer. */
struct mt_routing {
    int64_t m;
    int k;
    const int32_t *expert; /* [m*k] in order of weight, heaviest first; -1 in slots left empty by a
                              threshold or by rows that share an expert: they stand last */
    const double *weight;  /* [m*k] after normalisation and scale; 0 in empty slots */
    const double *logits;  /* [m*n_rows] */
    int n_rows;            /* of the router: the number of experts, unless mt_ffn.map says else */
};

/* Keys and values of earlier positions, for generation. */
struct mt_kv_cache;

/* Fails with MT_E_UNSUPPORTED when the family has no forward pass. */
MT_NODISCARD mt_status mt_runner_open(struct mt_ctx *ctx, const struct mt_model *m,
                                      struct mt_device *dev, struct mt_runner **out);
/* As open, on the device and with the scratch buffers of `with`, which must outlive it: several
 * models side by side then need the scratch of one. */
MT_NODISCARD mt_status mt_runner_open_with(struct mt_ctx *ctx, const struct mt_model *m,
                                           struct mt_runner *with, struct mt_runner **out);
/* For the feed-forward blocks alone, also of models without a forward pass (blocks.h): layers take
 * mt_run_ffn and what looks at it, and nothing else. */
MT_NODISCARD mt_status mt_runner_open_blocks(struct mt_ctx *ctx, const struct mt_model *m,
                                             struct mt_device *dev, struct mt_runner **out);
void mt_runner_close(struct mt_runner *r);
const struct mt_model *mt_runner_model(const struct mt_runner *r);
struct mt_device *mt_runner_device(const struct mt_runner *r);

/* Anonymous bytes a batch of m tokens needs beside the weights (for planning). */
uint64_t mt_runner_batch_bytes(const struct mt_runner *r, int64_t m);
/* The same for models that share scratch buffers. */
uint64_t mt_runner_shared_bytes(const struct mt_runner *const *r, int n, int64_t m);
/* Takes those bytes now instead of at the first batch, so that what is left can be shared out. */
MT_NODISCARD mt_status mt_runner_reserve(struct mt_ctx *ctx, struct mt_runner *r, int64_t m);
/* Tokens per batch that make good use of the device: from the model's shapes alone (256 to 2048),
 * so that results do not depend on the memory limit. */
int64_t mt_runner_batch_tokens(const struct mt_runner *r);
/* Counted bytes that layer l takes while open with every expert loaded: weights that cannot be
 * borrowed from a file. */
uint64_t mt_runner_layer_bytes(const struct mt_runner *r, int layer);

/* Layer 0 then takes what the embedding layer gives (word, position and type vectors added up, and
 * their norm) instead of what mt_run_embed gives. Always so where a model has no token embeddings.
 */
void mt_runner_set_embedded(struct mt_runner *r, bool embedded);

/* x[m, hidden] = embedding rows of ids (host), of token type 0 where there are types. */
MT_NODISCARD mt_status mt_run_embed(struct mt_ctx *ctx, struct mt_runner *r, const int32_t *ids,
                                    int64_t m, mt_buf x);

MT_NODISCARD mt_status mt_run_layer_open(struct mt_ctx *ctx, struct mt_runner *r, int layer,
                                         struct mt_run_layer **out);
void mt_run_layer_close(struct mt_run_layer *l); /* also drops mapped pages */

/* `kv` NULL: every sequence starts at position 0. With a cache (one sequence), positions continue.
 * Where positions are learned, layer 0 adds them to x first. */
MT_NODISCARD mt_status mt_run_attn(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x,
                                   const struct mt_seqs *seqs, struct mt_kv_cache *kv);
MT_NODISCARD mt_status mt_run_ffn_norm(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x,
                                       int64_t m, mt_buf n);
/* y[m, hidden] = ffn(n), overwritten; behind it the family's norm of it, if it has one. hidden_out
 * (dense layers, may be NULL): act(Gx)*(Ux) [m, D]. Experts that tokens reach and whose bytes
 * cannot be borrowed are evaluated together and stay loaded; when half of the free budget does not
 * hold them they come and go in turn. The bits of y do not depend on that. */
MT_NODISCARD mt_status mt_run_ffn(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n, int64_t m,
                                  mt_buf y, mt_buf hidden_out);
/* Routing of the latest mt_run_ffn; m = 0 for a dense layer. */
const struct mt_routing *mt_run_routing(const struct mt_run_layer *l);

/* x[m, hidden] += residual_scale * y */
MT_NODISCARD mt_status mt_run_add(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, mt_buf y,
                                  int64_t m);

/* logits (host, [m, vocab]) of hidden states x. Callers pass small m: vocab is large. */
MT_NODISCARD mt_status mt_run_head(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m,
                                   float *logits);
MT_NODISCARD mt_status mt_run_head_f64(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m,
                                       double *logits);

/* y[m, hidden] = the last hidden states of x; y may be x. */
MT_NODISCARD mt_status mt_run_final(struct mt_ctx *ctx, struct mt_runner *r, mt_buf x, int64_t m,
                                    mt_buf y);

MT_NODISCARD mt_status mt_kv_create(struct mt_ctx *ctx, struct mt_runner *r, int64_t max_tokens,
                                    struct mt_kv_cache **out);
void mt_kv_free(struct mt_kv_cache *kv);

/* The rule of a router applied to logits[n] (host). Chosen experts in order of weight, heaviest
 * first, ties to the lowest index. bias NULL: none. With groups, an expert outside the best
 * `topk_group` is never selected; a group is worth the sum of its two best selection scores, or
 * for an unbiased softmax (DeepSeek-V2) its best one. Slots that the rule's threshold drops are -1
 * and stand last. Exposed because tests check it against
 * hand-computed vectors and passes simulate targets with it. Needs mt_router_fits. */
#define MT_ROUTER_EXPERTS_MAX 4096
#define MT_ROUTER_GROUPS_MAX 256
void mt_router_apply(const struct mt_router_rule *rule, const double *logits, const double *bias,
                     int n, int k, int32_t *expert, double *weight);
/* Chosen rows become the experts they stand for: rows of one expert become one slot with the sum
 * of their weights; slots left over are -1. */
void mt_router_join(const int32_t *map, int k, int32_t *expert, double *weight);
/* True when k experts of n can be chosen by the rule: sizes within the limits, whole groups, and
 * at least k experts in the groups that are kept. */
bool mt_router_fits(const struct mt_router_rule *rule, int n, int k);

/* Whole-model convenience for tests and tools: logits of one sequence, host [n, vocab]. */
MT_NODISCARD mt_status mt_run_logits(struct mt_ctx *ctx, const struct mt_model *m,
                                     struct mt_device *dev, const int32_t *ids, int n,
                                     double *logits);
#endif
