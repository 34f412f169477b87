/* planted.h: a dense FFN whose neurons belong to groups that fire on tokens of their own class, for
 * tests of what divides neurons and chooses experts: the right answer is known.
 *
 * Gate and up rows of a group point along its class's direction, tokens along their class's, with
 * noise of `noise` on both; neurons are shuffled. With `common` more neurons that fire on every
 * token.
 */
#ifndef MT_TESTS_PLANTED_H
#define MT_TESTS_PLANTED_H

#include "passes/convert/method.h"
#include "tests/t.h"

#define PLANTED_TOKENS 1200
#define PLANTED_HIDDEN 32

struct planted_spec {
    int groups, per_group, common; /* common: a multiple of per_group */
    int run; /* tokens of one class in a row, classes by turns; 0: any class at any time */
    double noise;
    bool relu; /* plain FFN with ReLU and without biases; else SwiGLU */
    uint64_t seed;
};

struct planted {
    struct mt_model *m;
    struct mt_dense_ffn dense;
    struct mt_moe_shape shape;
    struct mt_convert_opts o;
    char *options;
    struct mt_convert_at at;
    int32_t *group;   /* [width]; -1: common */
    int *class_of;    /* [PLANTED_TOKENS] */
    float *x, *h, *y; /* [PLANTED_TOKENS, hidden | width | hidden] */
};

/* options: "name=value ..." of convert-ffn. False after a failure, which fails the test. */
bool planted_open(struct t *t, const struct planted_spec *spec, const char *options,
                  struct planted *p);
void planted_close(struct planted *p);

/* Shows the data to a method's hooks in blocks and lets it decide. */
bool planted_divide(struct t *t, struct planted *p, const char *method,
                    struct mt_convert_division *out);
void planted_division_free(struct mt_convert_division *d);
/* True when each expert's list is exactly one group, and the shared list all common neurons. */
bool planted_found(const struct planted *p, const struct mt_split *s);
#endif
