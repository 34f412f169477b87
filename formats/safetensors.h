/* safetensors.h: safetensors files and Hugging Face directories, for the formats room alone.
 *
 * safetensors.c reads one file (st_header.h has the checks, st_file.c the config it may carry),
 * hf_dir.c a directory of them, hf_index.c the index of shards, hub.c finds directories in the
 * local cache, st_write.c writes both. Threads: one per model.
 */
#ifndef MT_FORMATS_SAFETENSORS_H
#define MT_FORMATS_SAFETENSORS_H

#include "lib/flow/format.h"

#define MT_ST_SUFFIX ".safetensors"
#define MT_ST_SINGLE "model.safetensors"
#define MT_ST_INDEX "model.safetensors.index.json"
/* In __metadata__ of a file that is a model by itself: its config.json, as text. */
#define MT_ST_CONFIG_KEY "moetool.config"
/* What files of an output carry until it is whole (outdir.h). */
#define MT_PARTIAL ".partial"

bool mt_name_ends(const char *name, const char *suffix);

/* Maps a file and adds its tensors to m as records of role other, in the order of their bytes:
 * m->tensors[n_tensors before ..]. The model owns the map. */
MT_NODISCARD mt_status mt_st_add_file(struct mt_ctx *ctx, struct mt_model *m, const char *path);
/* The same, and the config that the file carries becomes that of m. */
MT_NODISCARD mt_status mt_st_add_model(struct mt_ctx *ctx, struct mt_model *m, const char *path);
/* Row-major strides. */
void mt_st_strides(const struct mt_tensor *t, int64_t stride[MT_RANK_MAX]);

/* st_file.c: that config, when `h` has one; MT_E_FORMAT when it is no object. */
struct mt_st_header;
MT_NODISCARD mt_status mt_st_carried_config(struct mt_ctx *ctx, struct mt_model *m,
                                            const char *path, const struct mt_st_header *h);
/* The readers of struct mt_format, for files and directories. */
MT_NODISCARD mt_status mt_st_open(struct mt_ctx *ctx, const char *path, struct mt_model **out);
MT_NODISCARD mt_status mt_st_open_lenient(struct mt_ctx *ctx, const char *path,
                                          struct mt_model **out);

/* config.json, weights and sidecars of a directory; bound and verified. */
MT_NODISCARD mt_status mt_hf_dir_open(struct mt_ctx *ctx, const char *dir, struct mt_model **out);
/* lenient: see model.h. */
MT_NODISCARD mt_status mt_hf_dir_open_as(struct mt_ctx *ctx, const char *dir, bool lenient,
                                         struct mt_model **out);
/* Pieces of the above for a single file whose directory has a config. */
MT_NODISCARD mt_status mt_hf_read_config(struct mt_ctx *ctx, struct mt_model *m, const char *dir);
MT_NODISCARD mt_status mt_hf_read_sidecars(struct mt_ctx *ctx, struct mt_model *m, const char *dir);
/* Only those of the tokenizer and of generation, for files that are models by themselves. */
MT_NODISCARD mt_status mt_hf_read_tokenizer(struct mt_ctx *ctx, struct mt_model *m,
                                            const char *dir);

/* The shards that an index (model.safetensors.index.json, pytorch_model.bin.index.json) names:
 * plain names that end in `suffix`. Names in the caller's arena; *given*. */
struct mt_hf_entry {
    const char *name, *file;
};
struct mt_hf_index {
    const char *name;      /* of the index: the base of `path`, borrowed */
    struct mt_hf_entry *v; /* sorted by file, then name; names are unique */
    size_t n, cap;
    bool has_metadata, has_total;
    uint64_t total; /* metadata.total_size: tensor bytes or file bytes, as producers please */
};
MT_NODISCARD mt_status mt_hf_index_read(struct mt_ctx *ctx, const char *path, const char *suffix,
                                        struct mt_arena *arena, struct mt_hf_index *out);
void mt_hf_index_free(struct mt_hf_index *ix);

/* The writing half (st_write.c); see format.h. */
MT_NODISCARD mt_status mt_st_plan(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                                  const struct mt_write_opts *opts, struct mt_writer **w);
/* As one file, which carries the config. */
MT_NODISCARD mt_status mt_st_plan_file(struct mt_ctx *ctx, struct mt_outdir *out,
                                       struct mt_model *m, const struct mt_write_opts *opts,
                                       struct mt_writer **w);
MT_NODISCARD mt_status mt_st_put(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                                 uint64_t offset, const void *bytes, size_t n);
MT_NODISCARD mt_status mt_st_sync(struct mt_ctx *ctx, struct mt_writer *w);
MT_NODISCARD mt_status mt_st_end(struct mt_ctx *ctx, struct mt_writer *w,
                                 const struct mt_json *config);
MT_NODISCARD mt_status mt_st_reread(struct mt_ctx *ctx, struct mt_writer *w, struct mt_tensor *t);
void mt_st_where(const struct mt_writer *w, const struct mt_tensor *t,
                 const struct mt_outfile **file, uint64_t *offset, uint64_t *bytes);
void mt_st_writer_free(struct mt_writer *w);
#endif
