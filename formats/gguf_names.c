/* Tensor names of GGUF and what they are (spec: formats, 4.3). */
#include "formats/gguf.h"

#include <stdio.h>
#include <string.h>

enum names_expert { NAMES_NONE, NAMES_SHARED, NAMES_STACK, NAMES_PAIR, NAMES_ONE };

struct names_row {
    const char *pattern; /* %l layer, %e expert; ".weight" and ".bias" follow by themselves */
    enum mt_role_kind kind;
    enum names_expert expert;
    const char *arch; /* NULL: all; "-x": all but x */
};

static const struct names_row names_rows[] = {
    {"token_embd", MT_ROLE_EMBED, NAMES_NONE, NULL},
    {"output_norm", MT_ROLE_FINAL_NORM, NAMES_NONE, NULL},
    {"output", MT_ROLE_LM_HEAD, NAMES_NONE, NULL},
    {"blk.%l.attn_norm", MT_ROLE_ATTN_NORM, NAMES_NONE, NULL},
    {"blk.%l.attn_q", MT_ROLE_ATTN_Q, NAMES_NONE, NULL},
    {"blk.%l.attn_k", MT_ROLE_ATTN_K, NAMES_NONE, NULL},
    {"blk.%l.attn_v", MT_ROLE_ATTN_V, NAMES_NONE, NULL},
    {"blk.%l.attn_output", MT_ROLE_ATTN_O, NAMES_NONE, NULL},
    {"blk.%l.attn_q_norm", MT_ROLE_Q_NORM, NAMES_NONE, NULL},
    {"blk.%l.attn_k_norm", MT_ROLE_K_NORM, NAMES_NONE, NULL},
    {"blk.%l.post_attention_norm", MT_ROLE_FFN_NORM, NAMES_NONE, "glm4moe"},
    {"blk.%l.ffn_norm", MT_ROLE_FFN_NORM, NAMES_NONE, "-glm4moe"},
    {"blk.%l.ffn_gate", MT_ROLE_FFN_GATE, NAMES_NONE, NULL},
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

static bool names_for(const struct names_row *row, const char *arch)
{
    if (row->arch == NULL)
        return true;
    return row->arch[0] == '-' ? strcmp(row->arch + 1, arch) != 0 : strcmp(row->arch, arch) == 0;
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

bool mt_gguf_print_name(const char *arch, struct mt_role role, char *buf, size_t n)
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
            (layer != NULL) != (role.layer >= 0))
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

bool mt_gguf_permuted(const char *arch, struct mt_role role)
{
    return strcmp(arch, "llama") == 0 &&
           (role.kind == MT_ROLE_ATTN_Q || role.kind == MT_ROLE_ATTN_K);
}

int64_t mt_gguf_permute(int64_t r, int64_t rows, int heads)
{
    int64_t dim = rows / heads, head = r / dim, at = r % dim, half = dim / 2;

    return head * dim + (at < half ? 2 * at : 2 * (at - half) + 1);
}
