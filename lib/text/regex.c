/* Patterns written for Oniguruma (Ruby syntax), translated and compiled for PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/text/pretok.h"

#include <pcre2.h>
#include <string.h>

/* White_Space: PCRE2's \s with UCP also holds U+180E. */
#define REGEX_SPACE                                                                                \
    "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"        \
    "\\x{205F}\\x{3000}"
/* Oniguruma's word characters: Alphabetic, M, Nd, Pc. PCRE2's \w lacks marks. */
#define REGEX_WORD                                                                                 \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"                    \
    "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"

static mt_status regex_refuse(struct mt_ctx *ctx, const char *pattern, const char *at, int n)
{
    return mt_fail(ctx, MT_E_UNSUPPORTED,
                   "regular expression \"%.200s\": \"%.*s\" is not supported", pattern, n, at);
}

static mt_status regex_puts(struct mt_ctx *ctx, struct mt_text *out, const char *s)
{
    return mt_text_add(ctx, out, s, strlen(s));
}

/* \p{...} and \P{...}: general categories have the same names in both engines; a script's name
 * means its extensions too in PCRE2, unless it says sc:. */
static mt_status regex_property(struct mt_ctx *ctx, const char *pattern, const char *p,
                                struct mt_text *out, size_t *used)
{
    size_t n =
        p[2] == '{' ? strspn(p + 3, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz") : 0;

    if (n == 0 || p[3 + n] != '}')
        return regex_refuse(ctx, pattern, p, 3);
    *used = n + 4;
    MT_TRY(mt_text_add(ctx, out, p, 3));
    if (n > 2)
        MT_TRY(regex_puts(ctx, out, "sc:"));
    return mt_text_add(ctx, out, p + 3, n + 1);
}

/* One backslash escape at p; *used: its length. */
static mt_status regex_escape(struct mt_ctx *ctx, const char *pattern, const char *p, bool class,
                              struct mt_text *out, size_t *used)
{
    char c = p[1];

    *used = 2;
    switch (c) {
    case 's':
        return regex_puts(ctx, out, class ? REGEX_SPACE : "[" REGEX_SPACE "]");
    case 'w':
        return regex_puts(ctx, out, class ? REGEX_WORD : "[" REGEX_WORD "]");
    case 'S':
    case 'W':
        if (class)
            return regex_refuse(ctx, pattern, p, 2);
        return regex_puts(ctx, out, c == 'S' ? "[^" REGEX_SPACE "]" : "[^" REGEX_WORD "]");
    case 'v':
        return regex_puts(ctx, out, "\\x0B");
    case 'u':
        if (strspn(p + 2, "0123456789abcdefABCDEF") < 4)
            return regex_refuse(ctx, pattern, p, 2);
        *used = 6;
        MT_TRY(regex_puts(ctx, out, "\\x{"));
        MT_TRY(mt_text_add(ctx, out, p + 2, 4));
        return regex_puts(ctx, out, "}");
    case 'p':
    case 'P':
        return regex_property(ctx, pattern, p, out, used);
    case 'd':
    case 'D':
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'x':
        return mt_text_add(ctx, out, p, 2);
    default:
        if (c == '\0' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
            (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80)
            return regex_refuse(ctx, pattern, p, c == '\0' ? 1 : 2);
        return mt_text_add(ctx, out, p, 2);
    }
}

/* Length of an interval {n}, {n,}, {,m} or {n,m} at p; 0: a literal brace. */
static size_t regex_interval(const char *p)
{
    size_t n = 1 + strspn(p + 1, "0123456789,");

    return n > 1 && p[n] == '}' ? n + 1 : 0;
}

/* Text outside of classes and escapes. */
static mt_status regex_plain(struct mt_ctx *ctx, const char *pattern, const char *p,
                             struct mt_text *out, size_t *used)
{
    *used = 1;
    if (p[0] == '{' && regex_interval(p) > 0) {
        *used = regex_interval(p);
        /* {n,m}+ is possessive in PCRE2, a repeated repetition in Oniguruma; {,m} differs too. */
        if (p[*used] == '+' || p[1] == ',')
            return regex_refuse(ctx, pattern, p, (int)*used + 1);
    } else if (p[0] == '(' && p[1] == '?') {
        size_t n = 2 + strspn(p + 2, "i-");
        bool group = p[n] == ':' || strncmp(p + 2, "=", 1) == 0 || strncmp(p + 2, "!", 1) == 0 ||
                     strncmp(p + 2, "<=", 2) == 0 || strncmp(p + 2, "<!", 2) == 0 ||
                     strncmp(p + 2, ">", 1) == 0;
        if (!group)
            return regex_refuse(ctx, pattern, p, 3);
        *used = 2;
    } else if (p[0] == '(' && p[1] == '*') {
        return regex_refuse(ctx, pattern, p, 2); /* PCRE2's verbs */
    }
    return mt_text_add(ctx, out, p, *used);
}

mt_status mt_regex_translate(struct mt_ctx *ctx, const char *pattern, struct mt_text *out)
{
    bool class = false;
    const char *class_start = NULL;
    size_t used;

    for (const char *p = pattern; *p != '\0'; p += used) {
        used = 1;
        if (*p == '\\') {
            MT_TRY(regex_escape(ctx, pattern, p, class, out, &used));
        } else if (!class) {
            class = *p == '[';
            class_start = p[1] == '^' ? p + 2 : p + 1;
            MT_TRY(regex_plain(ctx, pattern, p, out, &used));
        } else {
            if (*p == '[' || (p[0] == '&' && p[1] == '&') || (*p == ']' && p == class_start))
                return regex_refuse(ctx, pattern, p, *p == '&' ? 2 : 1);
            class = *p != ']';
            MT_TRY(mt_text_add(ctx, out, p, 1));
        }
    }
    return mt_text_add(ctx, out, "", 1);
}

static mt_status regex_compile(struct mt_ctx *ctx, const char *shown, const char *pattern,
                               uint32_t flags, void **out)
{
    PCRE2_SIZE at;
    int error;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, flags, &error, &at, NULL);

    if (code == NULL) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(error, text, sizeof text);
        return mt_fail(ctx, MT_E_FORMAT, "regular expression \"%.200s\": %s", shown,
                       (const char *)text);
    }
    /* Where the processor has no JIT, the interpreter runs. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *out = code;
    return MT_OK;
}

mt_status mt_regex_open(struct mt_ctx *ctx, const char *pattern, bool literal, void **out)
{
    struct mt_text t = {0};
    mt_status st;

    if (literal)
        return regex_compile(ctx, pattern, pattern, PCRE2_UTF | PCRE2_LITERAL, out);
    st = mt_regex_translate(ctx, pattern, &t);
    if (st == MT_OK)
        st = regex_compile(ctx, pattern, t.s, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, out);
    mt_text_end(&t);
    return st;
}

/* Empty matches move on by one character, and one right behind the last match does not count. */
static mt_status regex_replace(struct mt_ctx *ctx, const void *regex, pcre2_match_data *match,
                               struct mt_text *out, const char *s, size_t n, const char *to,
                               size_t n_to)
{
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(match);
    size_t kept = 0, from = 0, last = SIZE_MAX;

    while (from <= n) {
        int rc = pcre2_match(regex, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, match, NULL);
        bool again;
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return mt_fail(ctx, MT_E_LIMIT, "the normalizer's regular expression gave up (%d)", rc);
        again = span[0] == span[1] && span[1] == last;
        if (!again) {
            MT_TRY(mt_text_add(ctx, out, s + kept, span[0] - kept));
            MT_TRY(mt_text_add(ctx, out, to, n_to));
            kept = span[1];
        }
        last = from = span[1];
        if (span[0] == span[1]) {
            if (from == n)
                break;
            (void)mt_utf8_next(s, n, &from);
            last = SIZE_MAX;
        }
    }
    return mt_text_add(ctx, out, s + kept, n - kept);
}

mt_status mt_regex_replace(struct mt_ctx *ctx, const void *regex, struct mt_text *out,
                           const char *s, size_t n, const char *to, size_t n_to)
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    mt_status st;

    if (match == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for regular expressions");
    st = regex_replace(ctx, regex, match, out, s, n, to, n_to);
    pcre2_match_data_free(match);
    return st;
}

void mt_regex_free(void *regex)
{
    pcre2_code_free(regex);
}
