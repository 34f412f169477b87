/* pass_run.h: passes run on small models without an output, and how far results are apart. */
#ifndef MT_TESTS_PASS_RUN_H
#define MT_TESTS_PASS_RUN_H

#include "lib/flow/walk.h"
#include "tests/t.h"

/* "name=value name=value" into a pass's options, defaults first. `text` is cut up and must outlive
 * the options, which point into it. */
mt_status pass_options(struct mt_ctx *ctx, const struct mt_pass *p, char *text, void *opts);

/* Runs one pass with options "name=value name=value" as a measuring walk. `data` may be NULL.
 * End `out` with mt_walk_result_free. */
mt_status run_pass(struct mt_ctx *ctx, const char *pass, const char *options,
                   const struct mt_model *src, const struct mt_dataset *data,
                   struct mt_walk_result *out);

/* The same into a safetensors directory, or a GGUF file by its suffix; without data. */
mt_status write_pass(struct mt_ctx *ctx, const char *pass, const char *options,
                     const struct mt_model *src, const char *out_path);

/* What a pass said of a layer; NULL: nothing. */
const struct mt_json *layer_numbers(const struct mt_walk_result *r, const char *pass, int layer);
/* A member of an object: NAN, "(none)" where it is no number, no text, or not there. */
double json_number(const struct mt_json *j, const char *key);
const char *json_word(const struct mt_json *j, const char *key);

/* A data set of random ids below vocab, in windows of 64, ready for the walk. */
#define RANDOM_WINDOWS_MAX 64
struct noise_data {
    struct mt_dataset set;
    struct mt_window windows[RANDOM_WINDOWS_MAX];
    int32_t ids[RANDOM_WINDOWS_MAX * 64];
    char *domain;
};
void noise_data(struct noise_data *d, int n_windows, int vocab, uint64_t seed);

/* Relative L2 distance of the two models' logits over 24 random ids on a device. Fails with the
 * forward pass. */
mt_status logits_distance(struct mt_ctx *ctx, const char *device, const struct mt_model *a,
                          const struct mt_model *b, double *out);

/* Largest relative L2 distance of any layer's FFN output on random inputs of n tokens, cpu. */
mt_status ffn_distance(struct mt_ctx *ctx, const struct mt_model *a, const struct mt_model *b,
                       int n, double *out);

/* Bound on ffn_distance for two summation orders over D neurons (spec dense_to_moe section 2). */
double ffn_tolerance(int64_t width);
#endif
