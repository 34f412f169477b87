/* check.h: would an engine load this model, and would it compute what the model says?
 *
 * Rules are rows of tables: check_files.c has those of any format, check_hf.c those of safetensors
 * and config.json, check_gguf.c those of GGUF. A rule names the engines it speaks of, how bad a hit
 * is and what to do about it; its function looks at headers, config and small tensors and reports
 * what it finds with mt_check_found. A new rule is one function and one row.
 *
 * Where the facts come from: spec formats, 3 to 6, and the engines' own sources. A rule says what
 * an engine is known to do; silence means that no rule speaks against the model, not that it was
 * run. Models of architectures that are not known here are checked as files only.
 *
 * The same rules run at the end of every write (mt_check_written). Cost: headers are read once
 * more, and of tensors a few pages. Threads: one per check.
 */
#ifndef MT_FORMATS_CHECK_H
#define MT_FORMATS_CHECK_H

#include "formats/gguf.h"
#include "formats/st_header.h"

enum mt_engine {
    MT_ENGINE_TRANSFORMERS, /* version 5 */
    MT_ENGINE_VLLM,
    MT_ENGINE_LLAMA_CPP,
    MT_ENGINE_MOETOOL,
    MT_ENGINE_COUNT
};
extern const char *const mt_engine_names[MT_ENGINE_COUNT + 1]; /* NULL-ended */

/* Sets of engines. */
#define MT_FOR_TRANSFORMERS (1u << MT_ENGINE_TRANSFORMERS)
#define MT_FOR_VLLM (1u << MT_ENGINE_VLLM)
#define MT_FOR_LLAMA_CPP (1u << MT_ENGINE_LLAMA_CPP)
#define MT_FOR_MOETOOL (1u << MT_ENGINE_MOETOOL)
#define MT_FOR_HF (MT_FOR_TRANSFORMERS | MT_FOR_VLLM)
#define MT_FOR_HF_MOETOOL (MT_FOR_HF | MT_FOR_MOETOOL)
#define MT_FOR_ALL ((1u << MT_ENGINE_COUNT) - 1)

enum mt_severity {
    MT_SEVERITY_NONE,
    MT_SEVERITY_REMARK,  /* it loads and computes the same; worth knowing */
    MT_SEVERITY_WRONG,   /* it loads and computes something else */
    MT_SEVERITY_REFUSED, /* it does not load */
};
const char *mt_severity_name(enum mt_severity s); /* "remark" */
/* "loads", "loads, with remarks", "loads, but computes something else", "does not load" */
const char *mt_severity_verdict(enum mt_severity s);

struct mt_check;

struct mt_check_rule {
    const char *name; /* "selection-bias-dtype" */
    const char
        *formats;     /* of the model: "safetensors", "gguf", "hf" (safetensors or torch); NULL:
                         any, also when it cannot be read. The native layout has the last alone */
    unsigned engines; /* MT_FOR_... */
    enum mt_severity severity;
    const char *summary; /* what is wrong when it hits */
    const char *remedy;  /* what to do */
    mt_status (*run)(struct mt_ctx *ctx, struct mt_check *c);
    bool source; /* the source lacks it, too, and it can be added later: writing goes on */
};
#define MT_RULE(name, formats, for_, severity, summary, remedy, run)                               \
    {                                                                                              \
        name, formats, MT_FOR_##for_, MT_SEVERITY_##severity, summary, remedy, run, false          \
    }
#define MT_RULE_SOURCE(name, formats, for_, severity, summary, remedy, run)                        \
    {                                                                                              \
        name, formats, MT_FOR_##for_, MT_SEVERITY_##severity, summary, remedy, run, true           \
    }
#define MT_RULES_END                                                                               \
    {                                                                                              \
        NULL, NULL, 0, MT_SEVERITY_NONE, NULL, NULL, NULL, false                                   \
    }
extern const struct mt_check_rule *const mt_check_tables[]; /* each ended by a NULL name; so is the
                                                               list */

struct mt_check_finding {
    const struct mt_check_rule *rule;
    const char *subject; /* the tensor, key or file it is about */
    const char *what;    /* what the engine makes of it */
    size_t more;         /* further findings of the rule that are not listed */
};

#define MT_CHECK_LISTED_MAX 4 /* findings of one rule */

struct mt_check {
    struct mt_arena arena;
    const char *path;
    unsigned engines;         /* asked for */
    const struct mt_model *m; /* opened leniently; NULL when it cannot be read at all */
    struct mt_model *owned;
    const char *flaw;        /* why it cannot be read, or m->flaw */
    struct mt_st_header *st; /* of the maps of m, when it is safetensors; not of native ones */
    size_t n_st;
    struct mt_gguf *gguf; /* of the maps of m, when it is GGUF */
    size_t n_gguf;
    const struct mt_check_rule *rule; /* that runs now */
    size_t n_hits;                    /* of it */
    struct mt_check_finding *v;
    size_t n, cap;
};

/* Reads the model at `path` and runs all rules for `engines` (0: those that take its format).
 * Fails when there is no such model; a model that cannot be read is a finding. *out is *given*. */
MT_NODISCARD mt_status mt_check_path(struct mt_ctx *ctx, const char *path, unsigned engines,
                                     struct mt_check **out);
/* The same for a model that is open, which the check borrows. */
MT_NODISCARD mt_status mt_check_model(struct mt_ctx *ctx, const struct mt_model *m,
                                      unsigned engines, struct mt_check **out);
void mt_check_free(struct mt_check *c); /* NULL is fine */

/* The worst that was found for an engine. */
enum mt_severity mt_check_worst(const struct mt_check *c, enum mt_engine e);
bool mt_check_is_native(const struct mt_model *m);
/* Engines that take the model's format. */
unsigned mt_check_engines_of(const struct mt_model *m);

/* mt_format.check of formats that engines read. Engines that do not know the architecture are not
 * what the file is meant for. */
MT_NODISCARD mt_status mt_check_written(struct mt_ctx *ctx, const struct mt_model *result);

/* ---- for rules ---- */

MT_NODISCARD mt_status mt_check_found(struct mt_ctx *ctx, struct mt_check *c, const char *subject,
                                      const char *fmt, ...) MT_PRINTF(4, 5);
/* architectures[0] of the config, or NULL. */
const char *mt_check_architecture(const struct mt_check *c);
/* Whether vLLM has code of its own for a class name; whether llama.cpp has for an architecture. */
bool mt_check_vllm_knows(const char *architecture);
bool mt_check_llama_cpp_knows(const char *arch);

/* A text of the metadata, in the check's arena; NULL when absent or of another type. */
MT_NODISCARD mt_status mt_check_gguf_text(struct mt_ctx *ctx, struct mt_check *c, const char *key,
                                          const char **out);
/* check_gguf_tensors.c: the tensors that the architecture's loader asks for. */
MT_NODISCARD mt_status mt_check_gguf_missing(struct mt_ctx *ctx, struct mt_check *c);
MT_NODISCARD mt_status mt_check_gguf_shapes(struct mt_ctx *ctx, struct mt_check *c);
MT_NODISCARD mt_status mt_check_gguf_surplus(struct mt_ctx *ctx, struct mt_check *c);
/* Whether they are known here. */
bool mt_check_gguf_judged(struct mt_check *c, const char *arch);

extern const struct mt_check_rule mt_check_files[], mt_check_hf[], mt_check_gguf[];
#endif
