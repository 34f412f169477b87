/* Tensor names of GGUF and what they are (spec: formats, 4.3). */
#include "formats/gguf_arch.h"

#include <stdio.h>
#include <string.h>

enum names_expert { NAMES_NONE, NAMES_SHARED, NAMES_STACK, NAMES_PAIR, NAMES_ONE };

struct names_row {
    const char *pattern; /* %l layer, %e expert; ".weight" and ".bias" follow by themselves */
    enum mt_role_kind kind;
    enum names_expert expert;
    const char *arch; /* NULL: all; "x y": those; "-x y": all but those */
};

#define NAMES_FUSED_QKV "phi3 gpt2"
/* The norm behind attention: of Gemma it is one more, elsewhere the one before the FFN. */
#define NAMES_GEMMA "gemma2 gemma3"

static const struct names_row names_rows[] = {
    {"token_embd", MT_ROLE_EMBED, NAMES_NONE, NULL},
    {"position_embd", MT_ROLE_POS_EMBED, NAMES_NONE, "gpt2"},
    {"output_norm", MT_ROLE_FINAL_NORM, NAMES_NONE, NULL},
    {"output", MT_ROLE_LM_HEAD, NAMES_NONE, NULL},
    {"blk.%l.attn_norm", MT_ROLE_ATTN_NORM, NAMES_NONE, NULL},
    {"blk.%l.attn_qkv", MT_ROLE_ATTN_Q, NAMES_NONE, NAMES_FUSED_QKV},
    {"blk.%l.attn_qkv", MT_ROLE_ATTN_K, NAMES_NONE, NAMES_FUSED_QKV},
    {"blk.%l.attn_qkv", MT_ROLE_ATTN_V, NAMES_NONE, NAMES_FUSED_QKV},
    {"blk.%l.attn_q_b", MT_ROLE_ATTN_Q, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_q", MT_ROLE_ATTN_Q, NAMES_NONE, NULL},
    {"blk.%l.attn_k", MT_ROLE_ATTN_K, NAMES_NONE, "-deepseek2"},
    {"blk.%l.attn_v", MT_ROLE_ATTN_V, NAMES_NONE, "-deepseek2"},
    {"blk.%l.attn_output", MT_ROLE_ATTN_O, NAMES_NONE, NULL},
    {"blk.%l.attn_q_a", MT_ROLE_ATTN_Q_A, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_q_a_norm", MT_ROLE_Q_A_NORM, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_kv_a_mqa", MT_ROLE_ATTN_KV_A, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_kv_a_norm", MT_ROLE_KV_A_NORM, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_k_b", MT_ROLE_ATTN_K_B, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_v_b", MT_ROLE_ATTN_V_B, NAMES_NONE, "deepseek2"},
    /* The older layout, in one tensor. Read, never written. */
    {"blk.%l.attn_kv_b", MT_ROLE_ATTN_KV_B, NAMES_NONE, "deepseek2"},
    {"blk.%l.attn_sinks", MT_ROLE_ATTN_SINKS, NAMES_NONE, "gpt-oss"},
    {"blk.%l.attn_q_norm", MT_ROLE_Q_NORM, NAMES_NONE, NULL},
    {"blk.%l.attn_k_norm", MT_ROLE_K_NORM, NAMES_NONE, NULL},
    {"blk.%l.post_attention_norm", MT_ROLE_FFN_NORM, NAMES_NONE, "glm4moe gpt-oss"},
    {"blk.%l.post_attention_norm", MT_ROLE_ATTN_POST_NORM, NAMES_NONE, NAMES_GEMMA},
    {"blk.%l.post_ffw_norm", MT_ROLE_FFN_POST_NORM, NAMES_NONE, NAMES_GEMMA},
    {"blk.%l.ffn_norm", MT_ROLE_FFN_NORM, NAMES_NONE, "-glm4moe gpt-oss"},
    {"blk.%l.ffn_up", MT_ROLE_FFN_GATE, NAMES_NONE, "phi3"}, /* above those of the up matrix */
    {"blk.%l.ffn_gate", MT_ROLE_FFN_GATE, NAMES_NONE, "-phi3"},
    {"blk.%l.ffn_up", MT_ROLE_FFN_UP, NAMES_NONE, NULL},
    {"blk.%l.ffn_down", MT_ROLE_FFN_DOWN, NAMES_NONE, NULL},
    {"blk.%l.ffn_gate_inp", MT_ROLE_ROUTER, NAMES_NONE, NULL},
    {"blk.%l.exp_probs_b", MT_ROLE_ROUTER_BIAS, NAMES_NONE, NULL},
    {"blk.%l.ffn_gate_exps", MT_ROLE_FFN_GATE, NAMES_STACK, NULL},
    {"blk.%l.ffn_up_exps", MT_ROLE_FFN_UP, NAMES_STACK, NULL},
    {"blk.%l.ffn_down_exps", MT_ROLE_FFN_DOWN, NAMES_STACK, NULL},
    {"blk.%l.ffn_gate_up_exps", MT_ROLE_FFN_GATE, NAMES_PAIR, NULL},
    {"blk.%l.ffn_gate_shexp", MT_ROLE_FFN_GATE, NAMES_SHARED, NULL},
    {"blk.%l.ffn_up_shexp", MT_ROLE_FFN_UP, NAMES_SHARED, NULL},
    {"blk.%l.ffn_down_shexp", MT_ROLE_FFN_DOWN, NAMES_SHARED, NULL},
    {"blk.%l.ffn_gate_inp_shexp", MT_ROLE_SHARED_GATE, NAMES_NONE, NULL},
    /* One tensor per expert: Mixtral before stacks. Read, never written. */
    {"blk.%l.ffn_gate.%e", MT_ROLE_FFN_GATE, NAMES_ONE, "llama"},
    {"blk.%l.ffn_up.%e", MT_ROLE_FFN_UP, NAMES_ONE, "llama"},
    {"blk.%l.ffn_down.%e", MT_ROLE_FFN_DOWN, NAMES_ONE, "llama"},
};
#define NAMES_ROWS (sizeof names_rows / sizeof names_rows[0])

/* Whether `arch` is a word of the list. */
static bool names_listed(const char *list, const char *arch)
{
    size_t n = strlen(arch);

    for (const char *p = list; (p = strstr(p, arch)) != NULL; p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0))
            return true;
    return false;
}

static bool names_for(const struct names_row *row, const char *arch)
{
    if (row->arch == NULL)
        return true;
    return row->arch[0] == '-' ? !names_listed(row->arch + 1, arch) : names_listed(row->arch, arch);
}

static const char *names_number(const char *s, int32_t *out)
{
    int n = 0;

    *out = 0;
    for (; s[n] >= '0' && s[n] <= '9' && n < 9; n++)
        *out = *out * 10 + (s[n] - '0');
    return n == 0 || (s[0] == '0' && n > 1) ? NULL : s + n;
}

static bool names_match(const struct names_row *row, const char *name, struct mt_role *role)
{
    *role = mt_role(row->kind, -1, MT_EXPERT_NONE);
    for (const char *p = row->pattern; *p != 0; p++) {
        if (*p != '%') {
            if (*name++ != *p)
                return false;
            continue;
        }
        name = names_number(name, *++p == 'l' ? &role->layer : &role->expert);
        if (name == NULL)
            return false;
    }
    if (strcmp(name, ".bias") == 0)
        role->part = row->kind == MT_ROLE_ROUTER_BIAS ? MT_PART_WEIGHT : MT_PART_BIAS;
    else if (strcmp(name, ".weight") != 0 || row->kind == MT_ROLE_ROUTER_BIAS)
        return false;
    return true;
}

bool mt_gguf_parse_name(const char *arch, const char *name, struct mt_role *role, int *stacked)
{
    for (size_t i = 0; i < NAMES_ROWS; i++) {
        const struct names_row *row = &names_rows[i];
        if (!names_for(row, arch) || !names_match(row, name, role))
            continue;
        *stacked = row->expert == NAMES_STACK ? 1 : row->expert == NAMES_PAIR ? 2 : 0;
        if (*stacked > 0)
            role->expert = 0;
        else if (row->expert == NAMES_SHARED)
            role->expert = MT_EXPERT_SHARED;
        return true;
    }
    return false;
}

/* Queries of latent attention have a second matrix where they have a latent vector. */
static bool names_fits(const struct names_row *row, const struct mt_model *m)
{
    return row->kind != MT_ROLE_ATTN_Q || m->hp.mla.kv_rank == 0 ||
           (strstr(row->pattern, "q_b") != NULL) == (m->hp.mla.q_rank > 0);
}

bool mt_gguf_print_name(const char *arch, const struct mt_model *m, struct mt_role role, char *buf,
                        size_t n)
{
    enum names_expert want = role.expert == MT_EXPERT_SHARED ? NAMES_SHARED
                             : role.expert >= 0              ? NAMES_STACK
                                                             : NAMES_NONE;
    const char *end =
        role.part == MT_PART_BIAS || role.kind == MT_ROLE_ROUTER_BIAS ? ".bias" : ".weight";

    for (size_t i = 0; i < NAMES_ROWS; i++) {
        const struct names_row *row = &names_rows[i];
        const char *layer = strstr(row->pattern, "%l");
        if (!names_for(row, arch) || row->kind != role.kind || row->expert != want ||
            (layer != NULL) != (role.layer >= 0) || !names_fits(row, m))
            continue;
        if (layer == NULL)
            snprintf(buf, n, "%s%s", row->pattern, end);
        else
            snprintf(buf, n, "%.*s%d%s%s", (int)(layer - row->pattern), row->pattern, role.layer,
                     layer + 2, end);
        return true;
    }
    return false;
}

int mt_gguf_kinds(const char *arch, const char *name, enum mt_role_kind kinds[MT_FUSED_MAX])
{
    struct mt_role role;
    int n = 0;

    for (size_t i = 0; i < NAMES_ROWS && n < MT_FUSED_MAX; i++)
        if (names_for(&names_rows[i], arch) && names_rows[i].expert == NAMES_NONE &&
            names_match(&names_rows[i], name, &role))
            kinds[n++] = names_rows[i].kind;
    return n;
}

bool mt_gguf_permuted(const struct mt_gguf_arch *a, struct mt_role role)
{
    return (a->does & MT_GGUF_PERMUTED) != 0 &&
           (role.kind == MT_ROLE_ATTN_Q || role.kind == MT_ROLE_ATTN_K);
}

int64_t mt_gguf_permute(int64_t r, int64_t rows, int heads)
{
    int64_t dim = rows / heads, head = r / dim, at = r % dim, half = dim / 2;

    return head * dim + (at < half ? 2 * at : 2 * (at - half) + 1);
}
