/* family.h: what a model family calls its tensors, reads from its config and can hold.
 *
 * One file per family under lib/ir/family/, one line in family.def. A family is data: rows that
 * map names to roles both ways, and three functions. The same row parses a name and prints it.
 *
 * Pattern letters: %l layer number, %e expert number. Both match decimal digits without leading
 * zeros.
 */
#ifndef MT_IR_FAMILY_H
#define MT_IR_FAMILY_H

#include "lib/ir/model.h"

enum mt_name_flags {
    MT_NAME_OPTIONAL = 1u << 0, /* may be absent (mt_model_verify) */
};

enum mt_name_expert { MT_NAME_NO_EXPERT, MT_NAME_ROUTED, MT_NAME_SHARED };

struct mt_name_row {
    const char *pattern;
    enum mt_role_kind kind;
    enum mt_part part;
    enum mt_name_expert expert;
    unsigned flags;
};

struct mt_family {
    const char *name;                /* config.model_type: "glm4_moe" */
    const char *architecture;        /* config.architectures[0]: "Glm4MoeForCausalLM" */
    const struct mt_name_row *names; /* ended by pattern NULL; the first matching row prints */
    bool moe;

    /* Fills m->hp and m->ffn (allocates [n_layers] in the arena) from m->config. Missing keys take
     * the family's documented defaults; nonsense is MT_E_FORMAT naming the key. */
    mt_status (*read_config)(struct mt_ctx *ctx, struct mt_model *m);

    /* For families that can be written. Checks that this family's modeling code computes what
     * m->hp (attention, norms, RoPE) and m->ffn say; MT_E_UNSUPPORTED tells the one thing it
     * cannot hold and a family that can. NULL: cannot be written. */
    mt_status (*can_hold)(struct mt_ctx *ctx, const struct mt_model *m);
    /* Writes every key this family's loaders need into `config`, which starts as a copy of the
     * source's; keys that would mislead a loader are removed. Both RoPE spellings. */
    mt_status (*write_config)(struct mt_ctx *ctx, const struct mt_model *m, struct mt_json *config);
};

/* By model_type; NULL when unknown. Names of all, NULL-ended, for messages and help. */
const struct mt_family *mt_family_find(const char *model_type);
const struct mt_family *const *mt_family_all(void); /* NULL-ended */

/* Name -> role. False when no row matches. */
bool mt_family_parse(const struct mt_family *f, const char *name, struct mt_role *role);
/* Role -> name in the arena of m. MT_E_UNSUPPORTED when the family has no such row. */
MT_NODISCARD mt_status mt_family_print(struct mt_ctx *ctx, const struct mt_family *f,
                                       struct mt_model *m, struct mt_role role, const char **name);

/* Binds names of all records to roles, reads the config, verifies. Unknown model_type: family
 * stays NULL, records stay `other`, no failure. Called by formats after listing records. */
MT_NODISCARD mt_status mt_model_bind(struct mt_ctx *ctx, struct mt_model *m);

/* Makes a plan's records carry the names of `f` (sets m->family, t->name). `other` records keep
 * their own. */
MT_NODISCARD mt_status mt_model_rename(struct mt_ctx *ctx, struct mt_model *m,
                                       const struct mt_family *f);

/* Shared pieces for family files (family_util.c). */
MT_NODISCARD mt_status mt_cfg_read_common(struct mt_ctx *ctx, struct mt_model *m);
MT_NODISCARD mt_status mt_cfg_read_rope(struct mt_ctx *ctx, const struct mt_json *cfg,
                                        struct mt_hparams *hp);
MT_NODISCARD mt_status mt_cfg_read_act(struct mt_ctx *ctx, const struct mt_json *cfg,
                                       const char *key, enum mt_act *act);
MT_NODISCARD mt_status mt_cfg_alloc_ffn(struct mt_ctx *ctx, struct mt_model *m);
void mt_cfg_write_common(const struct mt_model *m, struct mt_json *config);
void mt_cfg_write_rope(const struct mt_model *m, struct mt_json *config);
#endif
