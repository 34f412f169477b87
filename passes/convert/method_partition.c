/* method_partition.c
 * partition: experts by place, by lot, or by balanced k-means on gate rows (--partition).
 *
 * The shared neurons of a clustering are those that act most: known after a first look at the
 * activations.
 */
#include "passes/convert/method.h"
#include "passes/lib/partition.h"

static enum mt_partition_how partition_how(const struct mt_convert_at *at)
{
    return at->o->partition > 0 ? (enum mt_partition_how)(at->o->partition - 1)
                                : MT_PARTITION_CLUSTER;
}

static bool partition_wants_sums(const struct mt_convert_at *at)
{
    return partition_how(at) == MT_PARTITION_CLUSTER && at->shape->n_shared > 0;
}

/* Sums measured before the conversion spare a look. */
static bool partition_knows_sums(const struct mt_convert_at *at)
{
    return partition_wants_sums(at) && mt_neuron_sums_has(at->src, MT_NEURON_ABS);
}

static int partition_rounds(const struct mt_convert_at *at)
{
    return partition_wants_sums(at) && !partition_knows_sums(at) ? 1 : 0;
}

static uint64_t partition_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width,
             n = (uint64_t)at->shape->n_experts;

    return partition_how(at) == MT_PARTITION_CLUSTER ? w * d * 4 + w * n * 52 + n * d * 4 + w * 8
                                                     : w * 16;
}

static mt_status partition_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    struct mt_neuron_sums *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "neuron sums", &s));
    *state = s;
    s->width = at->shape->width;
    if (!partition_wants_sums(at))
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, (size_t)s->width, sizeof(*s->abs), "neuron sums", &s->abs));
    return partition_knows_sums(at) ? mt_neuron_sums_read(ctx, at->src, at->layer, s) : MT_OK;
}

static mt_status partition_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                   const struct mt_observation *ob)
{
    (void)at;
    return mt_neuron_sums_add(ctx, state, ob->m, ob->h);
}

static mt_status partition_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  struct mt_convert_division *out)
{
    const struct mt_neuron_sums *sums = state;

    if (partition_how(at) == MT_PARTITION_CLUSTER && at->shape->n_shared > 0)
        out->shared_by = sums->tokens > 0 ? MT_SHARED_BY_ACTIVATIONS : MT_SHARED_BY_WEIGHTS;
    return mt_partition_ffn(ctx, partition_how(at), at->dense, sums, at->shape->n_experts,
                            at->shape->n_shared, (uint64_t)at->layer, &out->split);
}

static void partition_end(void *state)
{
    struct mt_neuron_sums *s = state;

    if (s != NULL)
        mt_free(s->abs);
    mt_free(s);
}

const struct mt_convert_method mt_convert_method_partition = {
    .name = "partition",
    .summary = "cut by place, by lot, or by k-means on gate rows",
    .help = "partition shares the neurons that act most and groups the others by balanced k-means "
            "on their gate rows with an exact assignment (after MoEfication, arXiv 2110.01786, and "
            "LLaMA-MoE); --partition takes them as they stand or by lot instead.",
    .router = "ridge",
    .refit = "none",
    .needs = MT_NEED_HIDDEN,
    .rounds = partition_rounds,
    .memory = partition_memory,
    .begin = partition_begin,
    .observe = partition_observe,
    .decide = partition_decide,
    .end = partition_end,
};
