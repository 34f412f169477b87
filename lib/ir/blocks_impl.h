/* blocks_impl.h: between blocks.c and blocks_pattern.c. */
#ifndef MT_IR_BLOCKS_IMPL_H
#define MT_IR_BLOCKS_IMPL_H

#include "lib/ir/blocks.h"

/* What a tensor is in its block. */
enum blocks_part {
    BLOCKS_GATE,
    BLOCKS_UP,
    BLOCKS_DOWN,
    BLOCKS_GATE_UP,
    BLOCKS_UP_GATE,
    BLOCKS_PARTS
};

#define BLOCKS_ITEMS_MAX 8
#define BLOCKS_STARS_MAX 4

struct blocks_item {
    enum blocks_part part;
    bool bias;
    char *pattern; /* the whole name, with `*` */
};

struct blocks_pattern {
    const char *text; /* as given */
    struct blocks_item items[BLOCKS_ITEMS_MAX];
    int n_items;
    void *regex; /* compiled; NULL: a glob */
};

/* What the `*` of a name stand for. */
struct blocks_key {
    int n;
    const char *at[BLOCKS_STARS_MAX]; /* within the name */
    int len[BLOCKS_STARS_MAX];
};

MT_NODISCARD mt_status blocks_pattern_parse(struct mt_ctx *ctx, const char *text,
                                            struct blocks_pattern *out);
void blocks_pattern_free(struct blocks_pattern *p);
/* Whether `name` is a tensor of a block. */
bool blocks_pattern_match(const struct blocks_pattern *p, const char *name, enum blocks_part *part,
                          bool *bias, struct blocks_key *key);
/* Order of blocks: numbers as numbers, texts as texts. */
int blocks_key_compare(const struct blocks_key *a, const struct blocks_key *b);
#endif
