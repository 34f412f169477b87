/* The patterns of blocks.h: globs with one list, or regular expressions with named groups. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/ir/blocks_impl.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#define PATTERN_MAX 400

static const struct {
    const char *name, *group; /* in a list, in an expression; NULL: only in the other */
    enum blocks_part part;
    bool bias;
} pattern_roles[] = {
    {"gate", "gate", BLOCKS_GATE, false},
    {"up", "up", BLOCKS_UP, false},
    {"in", NULL, BLOCKS_UP, false},
    {"down", "down", BLOCKS_DOWN, false},
    {"out", NULL, BLOCKS_DOWN, false},
    {"gate+up", "gate_up", BLOCKS_GATE_UP, false},
    {"up+gate", "up_gate", BLOCKS_UP_GATE, false},
    {NULL, "gate_bias", BLOCKS_GATE, true},
    {NULL, "up_bias", BLOCKS_UP, true},
    {NULL, "down_bias", BLOCKS_DOWN, true},
    {NULL, "gate_up_bias", BLOCKS_GATE_UP, true},
    {NULL, "up_gate_bias", BLOCKS_UP_GATE, true},
};
#define PATTERN_ROLES (sizeof pattern_roles / sizeof pattern_roles[0])

static mt_status pattern_wrong(struct mt_ctx *ctx, const struct blocks_pattern *p, const char *why)
{
    return mt_fail(ctx, MT_E_OPTION,
                   "--ffn '%s': %s; examples: 'h.*.mlp.{c_fc,c_proj}', "
                   "'layers.*.feed_forward.{gate=w1,up=w3,down=w2}'",
                   p->text, why);
}

/* "up.bias" */
static bool pattern_role(const char *s, size_t n, struct blocks_item *item)
{
    static const char bias[] = ".bias";
    const size_t nb = sizeof bias - 1;

    item->bias = n > nb && memcmp(s + n - nb, bias, nb) == 0;
    n -= item->bias ? nb : 0;
    for (size_t i = 0; i < PATTERN_ROLES; i++)
        if (pattern_roles[i].name != NULL && strlen(pattern_roles[i].name) == n &&
            memcmp(pattern_roles[i].name, s, n) == 0) {
            item->part = pattern_roles[i].part;
            return true;
        }
    return false;
}

/* One entry of the list, [s, end), between the pattern's two halves. */
static mt_status pattern_item(struct mt_ctx *ctx, struct blocks_pattern *p, const char *open,
                              const char *s, const char *end, const char *close, bool *named)
{
    const char *eq = memchr(s, '=', (size_t)(end - s)), *text = eq != NULL ? eq + 1 : s;
    struct blocks_item *item = &p->items[p->n_items];
    int stars = 0;

    if (p->n_items == BLOCKS_ITEMS_MAX)
        return pattern_wrong(ctx, p, "the list has too many entries");
    if (text == end)
        return pattern_wrong(ctx, p, "an entry of the list is empty");
    *named = eq != NULL;
    if (eq != NULL && !pattern_role(s, (size_t)(eq - s), item))
        return pattern_wrong(ctx, p,
                             "roles are gate, up (in), down (out), gate+up and up+gate, with .bias "
                             "behind them for biases");
    MT_TRY(mt_alloc0(ctx, strlen(p->text) + 1, 1, "a pattern", &item->pattern));
    p->n_items++;
    memcpy(item->pattern, p->text, (size_t)(open - p->text));
    memcpy(item->pattern + (open - p->text), text, (size_t)(end - text));
    memcpy(item->pattern + (open - p->text) + (end - text), close + 1, strlen(close + 1) + 1);
    if (memchr(text, '*', (size_t)(end - text)) != NULL)
        return pattern_wrong(ctx, p, "`*` cannot stand inside the list");
    for (const char *c = item->pattern; *c != 0; c++)
        stars += *c == '*';
    if (stars == 0 || stars > BLOCKS_STARS_MAX)
        return pattern_wrong(ctx, p, stars == 0 ? "there is no `*` for the layer" : "too many `*`");
    return MT_OK;
}

/* Entries without roles: two are in and out, three gate, up and down. */
static mt_status pattern_by_count(struct mt_ctx *ctx, struct blocks_pattern *p)
{
    static const enum blocks_part two[] = {BLOCKS_UP, BLOCKS_DOWN};
    static const enum blocks_part three[] = {BLOCKS_GATE, BLOCKS_UP, BLOCKS_DOWN};

    if (p->n_items != 2 && p->n_items != 3)
        return pattern_wrong(ctx, p,
                             "the list names two tensors (in, out) or three (gate, up, down), or "
                             "says role=name");
    for (int i = 0; i < p->n_items; i++)
        p->items[i].part = p->n_items == 2 ? two[i] : three[i];
    return MT_OK;
}

static mt_status pattern_glob(struct mt_ctx *ctx, struct blocks_pattern *p)
{
    const char *open = strchr(p->text, '{'), *close = open != NULL ? strchr(open, '}') : NULL;
    int n_named = 0;

    if (close == NULL || strchr(open + 1, '{') != NULL || strchr(close + 1, '}') != NULL ||
        memchr(p->text, '}', (size_t)(open - p->text)) != NULL)
        return pattern_wrong(ctx, p, "expected one {list} of the tensors of a block");
    for (const char *s = open + 1, *end; s <= close; s = end + 1) {
        bool named = false;
        end = memchr(s, ',', (size_t)(close - s));
        end = end != NULL ? end : close;
        MT_TRY(pattern_item(ctx, p, open, s, end, close, &named));
        n_named += named;
    }
    if (n_named == 0)
        return pattern_by_count(ctx, p);
    if (n_named != p->n_items)
        return pattern_wrong(ctx, p, "either all entries of the list say role=name, or none");
    return MT_OK;
}

static mt_status pattern_regex(struct mt_ctx *ctx, struct blocks_pattern *p)
{
    char why[160], sentence[240];
    PCRE2_SIZE at;
    int code, found = 0;

    p->regex = pcre2_compile((PCRE2_SPTR)p->text + 3, PCRE2_ZERO_TERMINATED,
                             PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DUPNAMES, &code, &at, NULL);
    if (p->regex == NULL) {
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        snprintf(sentence, sizeof sentence, "at character %zu: %s", (size_t)at + 4, why);
        return pattern_wrong(ctx, p, sentence);
    }
    for (size_t i = 0; i < PATTERN_ROLES; i++) {
        PCRE2_SPTR first, last;
        found += pattern_roles[i].group != NULL &&
                 pcre2_substring_nametable_scan(p->regex, (PCRE2_SPTR)pattern_roles[i].group,
                                                &first, &last) > 0;
    }
    if (found == 0)
        return pattern_wrong(ctx, p, "no group is named gate, up, down, gate_up or up_gate");
    return MT_OK;
}

mt_status blocks_pattern_parse(struct mt_ctx *ctx, const char *text, struct blocks_pattern *p)
{
    mt_status st;

    *p = (struct blocks_pattern){.text = text};
    if (strlen(text) > PATTERN_MAX)
        return mt_fail(ctx, MT_E_OPTION, "--ffn: the pattern has more than %d characters",
                       PATTERN_MAX);
    st = strncmp(text, "re:", 3) == 0 ? pattern_regex(ctx, p) : pattern_glob(ctx, p);
    if (st != MT_OK)
        blocks_pattern_free(p);
    return st;
}

void blocks_pattern_free(struct blocks_pattern *p)
{
    for (int i = 0; i < p->n_items; i++)
        mt_free(p->items[i].pattern);
    pcre2_code_free(p->regex);
    *p = (struct blocks_pattern){0};
}

/* `*` takes everything up to the next dot. */
static bool pattern_fits(const char *pattern, const char *name, size_t n, struct blocks_key *key)
{
    const char *end = name + n;

    key->n = 0;
    for (; *pattern != 0; pattern++) {
        size_t take = 0;
        if (*pattern != '*') {
            if (name == end || *name++ != *pattern)
                return false;
            continue;
        }
        while (name + take < end && name[take] != '.' && name[take] != pattern[1])
            take++;
        if (take == 0)
            return false;
        key->at[key->n] = name;
        key->len[key->n++] = (int)take;
        name += take;
    }
    return name == end;
}

static bool pattern_role_of_groups(const struct blocks_pattern *p, pcre2_match_data *md,
                                   enum blocks_part *part, bool *bias)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(md);

    for (size_t i = 0; i < PATTERN_ROLES; i++) {
        PCRE2_SPTR first, last;
        int entry;
        if (pattern_roles[i].group == NULL)
            continue;
        entry = pcre2_substring_nametable_scan(p->regex, (PCRE2_SPTR)pattern_roles[i].group, &first,
                                               &last);
        for (; entry > 0 && first <= last; first += entry)
            if (at[2 * (first[0] << 8 | first[1])] != PCRE2_UNSET) {
                *part = pattern_roles[i].part;
                *bias |= pattern_roles[i].bias;
                return true;
            }
    }
    return false;
}

/* Groups that name no role are the key. */
static void pattern_key_of_groups(const struct blocks_pattern *p, pcre2_match_data *md,
                                  const char *name, struct blocks_key *key)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(md);

    key->n = 0;
    for (uint32_t g = 1; g < pcre2_get_ovector_count(md) && key->n < BLOCKS_STARS_MAX; g++) {
        bool role = at[2 * g] == PCRE2_UNSET;
        for (size_t i = 0; i < PATTERN_ROLES && !role; i++) {
            PCRE2_SPTR first, last;
            int entry = pattern_roles[i].group == NULL
                            ? 0
                            : pcre2_substring_nametable_scan(
                                  p->regex, (PCRE2_SPTR)pattern_roles[i].group, &first, &last);
            for (; entry > 0 && first <= last; first += entry)
                role |= (uint32_t)(first[0] << 8 | first[1]) == g;
        }
        if (role)
            continue;
        key->at[key->n] = name + at[2 * g];
        key->len[key->n++] = (int)(at[2 * g + 1] - at[2 * g]);
    }
}

static bool pattern_regex_fits(const struct blocks_pattern *p, const char *name, size_t n,
                               enum blocks_part *part, bool *bias, struct blocks_key *key)
{
    pcre2_match_data *md = pcre2_match_data_create_from_pattern(p->regex, NULL);
    bool fits = md != NULL &&
                pcre2_match(p->regex, (PCRE2_SPTR)name, n, 0, PCRE2_NO_UTF_CHECK, md, NULL) > 0 &&
                pattern_role_of_groups(p, md, part, bias);

    if (fits)
        pattern_key_of_groups(p, md, name, key);
    pcre2_match_data_free(md);
    return fits;
}

static bool pattern_ends(const char *name, size_t n, const char *suffix)
{
    size_t len = strlen(suffix);

    return n > len && memcmp(name + n - len, suffix, len) == 0;
}

bool blocks_pattern_match(const struct blocks_pattern *p, const char *name, enum blocks_part *part,
                          bool *bias, struct blocks_key *key)
{
    size_t n = strlen(name), stem = n;
    bool ends_bias = pattern_ends(name, n, ".bias");

    stem -= ends_bias ? 5 : pattern_ends(name, n, ".weight") ? 7 : 0;
    *bias = ends_bias;
    if (p->regex != NULL)
        return pattern_regex_fits(p, name, stem, part, bias, key);
    for (int i = 0; i < p->n_items; i++) {
        const struct blocks_item *item = &p->items[i];
        *part = item->part;
        if (pattern_fits(item->pattern, name, n, key)) {
            *bias = item->bias;
            return true;
        }
        if (!item->bias && stem < n && pattern_fits(item->pattern, name, stem, key)) {
            *bias = ends_bias;
            return true;
        }
    }
    return false;
}

static bool pattern_is_number(const char *s, int n)
{
    for (int i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    return n > 0;
}

/* Digits of any length: longer is larger, leading zeros aside. */
static int pattern_compare_numbers(const char *a, int na, const char *b, int nb)
{
    for (; na > 1 && *a == '0'; na--)
        a++;
    for (; nb > 1 && *b == '0'; nb--)
        b++;
    return na != nb ? (na < nb ? -1 : 1) : memcmp(a, b, (size_t)na);
}

int blocks_key_compare(const struct blocks_key *a, const struct blocks_key *b)
{
    for (int i = 0; i < a->n && i < b->n; i++) {
        int na = a->len[i], nb = b->len[i], c;
        if (pattern_is_number(a->at[i], na) && pattern_is_number(b->at[i], nb))
            c = pattern_compare_numbers(a->at[i], na, b->at[i], nb);
        else
            c = memcmp(a->at[i], b->at[i], (size_t)(na < nb ? na : nb));
        if (c == 0 && na != nb && !pattern_is_number(a->at[i], na))
            c = na < nb ? -1 : 1;
        if (c != 0)
            return c;
    }
    return a->n - b->n;
}
