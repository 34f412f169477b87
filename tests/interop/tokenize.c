/* tokenize TOKENIZER.json FILE: the ids of every line of FILE, for comparison with other programs.
 *
 * FILE holds one JSON string a line. One line of ids goes to stdout for each; with --special the
 * post-processor runs. --decode prints the text of the ids as a JSON-like line instead (bytes
 * outside 32..126, the quote and the backslash as \xNN). --time prints nothing but the seconds of
 * opening and of encoding. */
#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/text/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_text(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 32 || c > 126 || c == '"' || c == '\\')
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    putchar('\n');
}

struct options {
    unsigned flags;
    bool cased; /* a vocab.txt that is not lowered */
    bool decode, quiet;
    size_t n_ids;
};

static mt_status one(struct mt_ctx *ctx, const struct mt_tokenizer *t, const char *line, size_t n,
                     struct options *o)
{
    struct mt_json *j;
    struct mt_ids ids = {0};
    const char *text;
    mt_status st;

    MT_TRY(mt_json_parse(ctx, line, n, "line", &j));
    text = mt_json_text(j);
    if (text == NULL) {
        mt_json_free(j);
        return mt_fail(ctx, MT_E_FORMAT, "a line is not a JSON string");
    }
    st = mt_tokenizer_encode(ctx, t, text, strlen(text), o->flags, &ids);
    o->n_ids += ids.n;
    if (st == MT_OK && o->decode) {
        char *back;
        size_t len;
        st = mt_tokenizer_decode(ctx, t, ids.v, ids.n, false, &back, &len);
        if (st == MT_OK)
            print_text(back, len);
        mt_free(back);
    } else if (st == MT_OK && !o->quiet) {
        for (size_t i = 0; i < ids.n; i++)
            printf(i == 0 ? "%d" : " %d", (int)ids.v[i]);
        putchar('\n');
    }
    mt_ids_free(&ids);
    mt_json_free(j);
    return st;
}

static mt_status run(struct mt_ctx *ctx, const char *tokenizer, const char *file, struct options *o)
{
    struct mt_tokenizer *t;
    struct mt_map *map;
    double t0 = now(), t1;
    mt_status st;

    if (strstr(tokenizer, "vocab.txt") != NULL)
        MT_TRY(mt_tokenizer_open_bert(ctx, tokenizer, !o->cased, &t));
    else
        MT_TRY(mt_tokenizer_open(ctx, tokenizer, &t));
    t1 = now();
    st = mt_map_open(ctx, file, &map);
    if (st == MT_OK) {
        const char *p = (const char *)map->base, *end = p + map->bytes;
        while (st == MT_OK && p < end) {
            const char *nl = memchr(p, '\n', (size_t)(end - p));
            size_t n = (size_t)((nl != NULL ? nl : end) - p);
            st = one(ctx, t, p, n, o);
            p += n + 1;
        }
        mt_map_close(map);
    }
    if (o->quiet && st == MT_OK)
        printf("open %.6f encode %.6f ids %zu\n", t1 - t0, now() - t1, o->n_ids);
    mt_tokenizer_free(t);
    return st;
}

int main(int argc, char **argv)
{
    struct mt_ctx ctx;
    struct mt_ctx_opts opts = {.n_threads = 1};
    struct options o = {0};
    mt_status st;
    int i = 1;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--special") == 0)
            o.flags |= MT_ENCODE_SPECIAL;
        o.decode = o.decode || strcmp(argv[i], "--decode") == 0;
        o.cased = o.cased || strcmp(argv[i], "--cased") == 0;
        o.quiet = o.quiet || strcmp(argv[i], "--time") == 0;
    }
    if (argc - i != 2) {
        fprintf(stderr,
                "usage: tokenize [--special] [--cased] [--decode | --time] TOKENIZER LINES\n");
        return 2;
    }
    if (mt_ctx_open(&ctx, &opts) != MT_OK)
        return 1;
    st = run(&ctx, argv[i], argv[i + 1], &o);
    if (st != MT_OK)
        fprintf(stderr, "tokenize: %s\n", mt_error(&ctx));
    mt_ctx_close(&ctx);
    return st == MT_OK ? 0 : 1;
}
