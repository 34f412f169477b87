/* stats.h: profiles (lib/flow/profile.h) as files.
 *
 * The profile file is a safetensors file of its own kind (stats_write.c, stats_read.c), described
 * in docs/formats.md: F64 tensors "layers.L.<role>.<statistic>.<domain>", beside those of sums an
 * I64 tensor "exact.<the same name>" [..., 2] with the 128-bit integers that make merging exact,
 * and
 * __metadata__ with the identities. It is written part by part and appears whole or not at all.
 *
 * imatrix.gguf (stats_imatrix.c) is llama.cpp's file of importance: per matrix the sum of squares
 * of each input column and the tokens behind it. JSON (stats_json.c) carries scores of experts and
 * neurons. Both are read into profiles; imatrix.gguf is written too.
 *
 * Every number in a file is a claim: shapes are checked against each other and the model. Threads:
 * one per file.
 */
#ifndef MT_FORMATS_STATS_H
#define MT_FORMATS_STATS_H

#include "lib/flow/profile.h"

#define MT_STATS_KIND "moetool-profile" /* __metadata__["format"] */
#define MT_STATS_VERSION "1"

struct mt_stats_writer;

/* Lays out what `p` declares; the parts follow. Refuses an existing `path` without `force`. The
 * writer borrows p. */
MT_NODISCARD mt_status mt_stats_open(struct mt_ctx *ctx, const char *path, bool force,
                                     const struct mt_profile *p, struct mt_stats_writer **w);
MT_NODISCARD mt_status mt_stats_put(struct mt_ctx *ctx, struct mt_stats_writer *w,
                                    const struct mt_profile *p, int layer, enum mt_stat s,
                                    int domain);
/* Every declared part has been put. */
MT_NODISCARD mt_status mt_stats_commit(struct mt_ctx *ctx, struct mt_stats_writer *w);
void mt_stats_close(struct mt_stats_writer *w); /* without commit nothing stays */
/* Length of the file that mt_stats_open would lay out. */
MT_NODISCARD mt_status mt_stats_bytes(struct mt_ctx *ctx, const struct mt_profile *p,
                                      uint64_t *bytes);

/* Opens a profile file. MT_E_FORMAT when it is something else. */
MT_NODISCARD mt_status mt_stats_read(struct mt_ctx *ctx, const char *path, struct mt_profile **out);

/* imatrix.gguf or its older binary form, or JSON scores, made for m: what does not fit the model is
 * refused by name. Told apart by their first bytes; *out carries no identity of the model. */
MT_NODISCARD mt_status mt_stats_import_imatrix(struct mt_ctx *ctx, const char *path,
                                               const struct mt_model *m, struct mt_profile **out);
MT_NODISCARD mt_status mt_stats_import_json(struct mt_ctx *ctx, const char *path,
                                            const struct mt_model *m, struct mt_profile **out);
/* Any of the three kinds; profile files are checked against m as well. */
MT_NODISCARD mt_status mt_stats_import(struct mt_ctx *ctx, const char *path,
                                       const struct mt_model *m, struct mt_profile **out);

/* The statistics of p that llama.cpp knows as imatrix.gguf. MT_E_UNSUPPORTED when the model has no
 * GGUF architecture. */
MT_NODISCARD mt_status mt_stats_export_imatrix(struct mt_ctx *ctx, const char *path, bool force,
                                               const struct mt_profile *p,
                                               const struct mt_model *m);

#endif
