/* profile_impl.h: the inside of a profile, for profile*.c alone. */
#ifndef MT_FLOW_PROFILE_IMPL_H
#define MT_FLOW_PROFILE_IMPL_H

#include "lib/flow/profile.h"

struct profile_cell {
    struct mt_profile_part part;
    bool owned;
};

struct profile_shape {
    int64_t rows, cols; /* 0: not declared */
};

struct mt_profile {
    struct mt_arena arena; /* texts and sources */
    struct mt_profile_info info;
    struct mt_profile_source *sources; /* ordered by domain, then hashes */
    int n_sources;
    const char **domains; /* ordered */
    int n_domains;
    struct profile_shape *shapes; /* [n_layers][MT_STAT_COUNT_ALL] */
    struct profile_cell *cells;   /* [n_layers][MT_STAT_COUNT_ALL][n_domains] */
    struct mt_map *map;
};

struct profile_shape *profile_shape(const struct mt_profile *p, int layer, enum mt_stat s);
struct profile_cell *profile_cell(const struct mt_profile *p, int layer, enum mt_stat s,
                                  int domain);
/* "layers.3.ffn.h_abs" */
const char *profile_label(int layer, enum mt_stat s, char buf[64]);
/* Number of a domain by its name; -1: none. */
int profile_find_domain(const struct mt_profile *p, const char *name);

#endif
