/* gguf.h: GGUF files, for the formats room alone.
 *
 * gguf_header.c believes a header only after the checks below, gguf_split.c finds the parts of a
 * file, gguf.c makes records; gguf_config.c and gguf_config_moe.c turn metadata into a config,
 * gguf_arch.c tells what the architectures of llama.cpp compute, gguf_names.c maps names to roles
 * both ways, gguf_shape.c values that are kept otherwise than families keep them; gguf_put.c,
 * gguf_meta.c and gguf_put_vocab.c make a header, gguf_layout.c lays files out, gguf_write.c writes
 * them.
 *
 * Layout (spec: formats, 4.1): "GGUF", u32 version, i64 tensors, i64 pairs; the pairs (string key,
 * i32 type, value); the tensors (name, u32 dimensions, i64 each innermost first, i32 type, u64
 * offset); data from the next multiple of general.alignment on. Every number is a claim. Refused:
 *   versions but 2 and 3, byte-swapped files, negative counts
 *   keys that are empty, longer than 65535 bytes or there twice; types unknown; nested arrays;
 *   strings and arrays above 64 MiB or past the end of the file; booleans but 0 and 1
 *   alignment that is no u32, no power of two or above 1 MiB
 *   tensor names that are empty, there twice or of 64 bytes and more; more than 4 dimensions;
 *   negative ones; products that overflow; rows that do not fill blocks; types unknown
 *   offsets that are not the padded sum of the sizes before; data past the end of the file
 * Keys and names must be UTF-8 without NUL. A file that ends before its data begins is a header by
 * itself: it can be looked at (`headers_only`), and reading a tensor's data fails.
 *
 * Memory: names and pairs in the caller's arena and a growing list; values stay in the map.
 * Threads: one per file.
 */
#ifndef MT_FORMATS_GGUF_H
#define MT_FORMATS_GGUF_H

#include "lib/flow/format.h"

#define MT_GGUF_SUFFIX ".gguf"
#define MT_GGUF_ALIGNMENT 32u
#define MT_GGUF_ALIGNMENT_MAX (1u << 20)
#define MT_GGUF_VALUE_MAX ((uint64_t)64 << 20)
#define MT_GGUF_NAME_MAX 63
#define MT_GGUF_KEY_MAX 65535
#define MT_GGUF_DIMS_MAX 4

enum mt_gguf_type {
    MT_GGUF_U8,
    MT_GGUF_I8,
    MT_GGUF_U16,
    MT_GGUF_I16,
    MT_GGUF_U32,
    MT_GGUF_I32,
    MT_GGUF_F32,
    MT_GGUF_BOOL,
    MT_GGUF_STRING,
    MT_GGUF_ARRAY,
    MT_GGUF_U64,
    MT_GGUF_I64,
    MT_GGUF_F64,
    MT_GGUF_TYPE_COUNT
};

struct mt_gguf_pair {
    const char *key;
    const unsigned char *at; /* the value; the text of a string; the first item of an array */
    uint64_t n;              /* bytes of a string, items of an array, else 1 */
    uint64_t bytes;          /* that the value takes from `at` on */
    uint8_t type, item;      /* enum mt_gguf_type; item only of arrays */
};

struct mt_gguf_record {
    const char *name;
    uint64_t ne[MT_GGUF_DIMS_MAX]; /* innermost first */
    uint64_t begin, bytes;         /* from the start of the data */
    uint32_t line;                 /* position in the header */
    uint8_t rank, dtype;           /* enum mt_dtype */
};

struct mt_gguf {
    const struct mt_map *map;
    uint32_t version, alignment;
    struct mt_gguf_pair *pairs; /* ordered by key */
    size_t n_pairs, cap_pairs;
    struct mt_gguf_record *v; /* in file order */
    size_t n, cap;
    uint64_t data_offset;
    bool headers_only;
};

/* *out is valid for mt_gguf_header_free also after a failure; it borrows map and arena. */
MT_NODISCARD mt_status mt_gguf_header_read(struct mt_ctx *ctx, const struct mt_map *map,
                                           struct mt_arena *arena, struct mt_gguf *out);
void mt_gguf_header_free(struct mt_gguf *g);

/* GGML's number of a type; -1 for types it has none for. */
int mt_gguf_type_of(enum mt_dtype t);
bool mt_gguf_dtype_of(int32_t type, enum mt_dtype *out);

const struct mt_gguf_pair *mt_gguf_find(const struct mt_gguf *g, const char *key); /* or NULL */
/* Values with a default when absent; MT_E_FORMAT naming the key when of another type. An array of
 * equal values, one for each layer, reads as the value; one of different values is
 * MT_E_UNSUPPORTED. Integers of any width; a number may be an integer. f32 values read as the
 * shortest decimal that rounds to them, which is what was meant: 1e-05, not 9.99999975e-06. */
MT_NODISCARD mt_status mt_gguf_int(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                                   int64_t dflt, int64_t *out);
MT_NODISCARD mt_status mt_gguf_num(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                                   double dflt, double *out);
MT_NODISCARD mt_status mt_gguf_bool(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                                    bool dflt, bool *out);
/* The f32 at `at` as the shortest decimal says it. */
double mt_gguf_f32(const unsigned char *at);
/* NULL when absent; in the arena. */
MT_NODISCARD mt_status mt_gguf_str(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                                   struct mt_arena *arena, const char **out);

/* ---- gguf_split.c ---- */

#define MT_GGUF_SPLITS_MAX 65535

/* The headers of a model's files, in order; the maps are the model's. */
struct mt_gguf_set {
    struct mt_model *m;
    struct mt_gguf *v;
    size_t n;
};
/* Reads `path` and, when it is the first of several parts, the others beside it. Refused: another
 * part than the first, parts that are missing or say another number or count, a sum of tensors
 * other than the announced, names that are in two parts. *out is valid for mt_gguf_set_free also
 * after a failure. */
MT_NODISCARD mt_status mt_gguf_set_read(struct mt_ctx *ctx, struct mt_model *m, const char *path,
                                        struct mt_gguf_set *out);
void mt_gguf_set_free(struct mt_gguf_set *o);
/* "x.gguf", 0, 3 -> "x-00001-of-00003.gguf". */
void mt_gguf_part_name(const char *name, size_t no, size_t count, char *buf, size_t n);

struct mt_gguf_arch;

/* ---- gguf_config.c ---- */

/* What a config.json of the same model would say; *given*. MT_E_UNSUPPORTED where the architecture
 * or something about it is not known here. */
MT_NODISCARD mt_status mt_gguf_config(struct mt_ctx *ctx, const struct mt_gguf *const *files,
                                      size_t n_files, const struct mt_gguf_arch **arch,
                                      struct mt_json **out);

/* ---- gguf_rope.c ---- */

#define MT_GGUF_ROPE_FREQS "rope_freqs.weight"
#define MT_GGUF_ROPE_LONG "rope_factors_long.weight"
#define MT_GGUF_ROPE_SHORT "rope_factors_short.weight"
/* What each frequency is divided by, [head_dim / 2]. */
MT_NODISCARD mt_status mt_gguf_rope_factors(struct mt_ctx *ctx, const struct mt_hparams *hp,
                                            float *out);
/* What longrope multiplies cosines and sines by beyond its original context. */
double mt_gguf_rope_amplitude(const struct mt_rope_params *r);
/* Settings of hp->rope that give the factors in tensor `r` of `file`; hp has head_dim and theta.
 * MT_E_UNSUPPORTED when there are none. `g` has the metadata. */
MT_NODISCARD mt_status mt_gguf_rope_guess(struct mt_ctx *ctx, const struct mt_gguf *g,
                                          const struct mt_gguf *file,
                                          const struct mt_gguf_record *r, struct mt_hparams *hp);

/* ---- gguf_names.c ---- */

/* Name -> role. Stacks of experts give the role of expert 0 and *stacked = 1; 2 for gate and up in
 * one stack (the role is the gate's). */
bool mt_gguf_parse_name(const char *arch, const char *name, struct mt_role *role, int *stacked);
/* Role -> name; the stack's name for a routed expert. False when the architecture has none. */
bool mt_gguf_print_name(const char *arch, const struct mt_model *m, struct mt_role role, char *buf,
                        size_t n);
/* What a tensor without experts holds: more than one role where an architecture keeps their rows
 * one after the other (q, k and v; gate and up). The number of kinds; 0 for other names. */
int mt_gguf_kinds(const char *arch, const char *name, enum mt_role_kind kinds[MT_FUSED_MAX]);
/* True for rows that the architecture keeps in pairs instead of halves (rotary positions of
 * neighbours). */
bool mt_gguf_permuted(const struct mt_gguf_arch *a, struct mt_role role);
/* Where row r of a q or k matrix of `rows` rows in `heads` heads stands in the file. */
int64_t mt_gguf_permute(int64_t r, int64_t rows, int heads);

/* ---- gguf_put.c: a header being made ---- */

/* Bytes that grow; the first failure stays in `st` and later calls do nothing. *p is mt_free'd. */
struct mt_gguf_out {
    struct mt_ctx *ctx;
    mt_status st;
    unsigned char *p;
    size_t n, cap;
    uint64_t n_pairs;
};
void mt_gguf_put_raw(struct mt_gguf_out *o, const void *bytes, size_t n);
void mt_gguf_put_u32(struct mt_gguf_out *o, uint32_t v);
void mt_gguf_put_u16(struct mt_gguf_out *o, uint16_t v);
void mt_gguf_put_u64(struct mt_gguf_out *o, uint64_t v);
void mt_gguf_put_text(struct mt_gguf_out *o, const char *s, size_t n);
/* Pairs; a key is given with its architecture in front or with NULL. */
void mt_gguf_put_key(struct mt_gguf_out *o, const char *arch, const char *key, uint32_t type);
void mt_gguf_pair_u32(struct mt_gguf_out *o, const char *arch, const char *key, int64_t v);
void mt_gguf_pair_f32(struct mt_gguf_out *o, const char *arch, const char *key, double v);
void mt_gguf_pair_bool(struct mt_gguf_out *o, const char *arch, const char *key, bool v);
void mt_gguf_pair_text(struct mt_gguf_out *o, const char *arch, const char *key, const char *v);
void mt_gguf_pair_array(struct mt_gguf_out *o, const char *key, uint32_t item, uint64_t n);

/* ---- gguf_meta.c, gguf_put_vocab.c ---- */

/* Adds the model's pairs; the plan has passed mt_gguf_prepare. */
MT_NODISCARD mt_status mt_gguf_put_model(struct mt_ctx *ctx, const struct mt_model *m,
                                         struct mt_gguf_out *o);
/* Adds the tokenizer of the files beside the model, or of the GGUF file it comes from. */
MT_NODISCARD mt_status mt_gguf_put_vocab(struct mt_ctx *ctx, const struct mt_model *m,
                                         struct mt_gguf_out *o);

/* ---- gguf_write.c: the writing half of the format ---- */
MT_NODISCARD mt_status mt_gguf_plan(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                                    const struct mt_write_opts *opts, struct mt_writer **w);
MT_NODISCARD mt_status mt_gguf_put(struct mt_ctx *ctx, struct mt_writer *w,
                                   const struct mt_tensor *t, uint64_t offset, const void *bytes,
                                   size_t n);
void mt_gguf_where(const struct mt_writer *w, const struct mt_tensor *t,
                   const struct mt_outfile **file, uint64_t *offset, uint64_t *bytes);
MT_NODISCARD mt_status mt_gguf_sync(struct mt_ctx *ctx, struct mt_writer *w);
MT_NODISCARD mt_status mt_gguf_end(struct mt_ctx *ctx, struct mt_writer *w,
                                   const struct mt_json *config);
void mt_gguf_writer_free(struct mt_writer *w);

#endif
