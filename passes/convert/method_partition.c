/* method_partition.c
 * partition: experts as --partition says, by balanced k-means on gate rows unasked.
 *
 * The shared neurons of a clustering are those that act most: known after a first look at the
 * activations.
 */
#include "lib/base/mem.h"
#include "passes/convert/slices.h"

static enum mt_partition_how partition_how(const struct mt_convert_at *at)
{
    return at->o->partition > 0 ? (enum mt_partition_how)(at->o->partition - 1)
                                : MT_PARTITION_CLUSTER;
}

static bool partition_wants_sums(const struct mt_convert_at *at)
{
    return mt_partition_clusters(partition_how(at)) && at->shape->n_shared > 0;
}

/* Sums measured before the conversion spare a look. */
static bool partition_knows_sums(const struct mt_convert_at *at)
{
    return partition_wants_sums(at) && mt_neuron_sums_has(at->src, MT_NEURON_ABS);
}

static int partition_rounds(const struct mt_convert_at *at)
{
    if (mt_divider_asked(at->o) != NULL)
        return mt_slices_rounds(at);
    return partition_wants_sums(at) && !partition_knows_sums(at) ? 1 : 0;
}

/* Sums of |h|, or what a way to divide keeps that looks at activations. */
struct partition_state {
    struct mt_neuron_sums sums;
    void *slices;
};

static mt_status partition_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    struct partition_state *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "neuron sums", &s));
    *state = s;
    MT_TRY(mt_slices_begin(ctx, at, &s->slices));
    s->sums.width = at->shape->width;
    if (!partition_wants_sums(at))
        return MT_OK;
    MT_TRY(
        mt_alloc0(ctx, (size_t)s->sums.width, sizeof(*s->sums.abs), "neuron sums", &s->sums.abs));
    return partition_knows_sums(at) ? mt_neuron_sums_read(ctx, at->src, at->layer, &s->sums)
                                    : MT_OK;
}

static mt_status partition_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                   const struct mt_observation *ob)
{
    struct partition_state *s = state;

    if (s->slices != NULL)
        return mt_slices_observe(ctx, at, s->slices, ob);
    return mt_neuron_sums_add(ctx, &s->sums, ob->m, ob->h);
}

static mt_status partition_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  struct mt_convert_division *out)
{
    const struct partition_state *s = state;

    if (s->slices != NULL)
        return mt_slices_decide(ctx, at, s->slices, partition_how(at), 1, out);
    if (partition_wants_sums(at))
        out->shared_by = s->sums.tokens > 0 ? MT_SHARED_BY_ACTIVATIONS : MT_SHARED_BY_WEIGHTS;
    return mt_partition_ffn(ctx, partition_how(at), at->dense, &s->sums, at->shape->n_experts,
                            at->shape->n_shared, (uint64_t)at->layer, &out->split);
}

static void partition_end(void *state)
{
    struct partition_state *s = state;

    if (s != NULL) {
        mt_slices_end(s->slices);
        mt_free(s->sums.abs);
    }
    mt_free(s);
}

const struct mt_convert_method mt_convert_method_partition = {
    .name = "partition",
    .summary = "cut by place, by lot, by rows or by activations",
    .help = "partition shares the neurons that act most and groups the others by balanced k-means "
            "on their gate rows with an exact assignment (after MoEfication, arXiv 2110.01786, and "
            "LLaMA-MoE); --partition takes other rows, or neurons as they stand, by lot, by what "
            "is active together or by what matters to kinds of text.",
    .router = "ridge",
    .refit = "none",
    .needs = MT_DIVIDER_NEEDS,
    .rounds = partition_rounds,
    .memory = mt_slices_memory,
    .begin = partition_begin,
    .observe = partition_observe,
    .decide = partition_decide,
    .end = partition_end,
};
