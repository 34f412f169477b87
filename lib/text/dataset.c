#include "lib/text/dataset.h"

#include "lib/base/hash.h"
#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DATASET_CHUNK ((size_t)4 << 20)
#define DATASET_WINDOW_MIN 2
#define DATASET_LOOK_BYTES ((uint64_t)4096)

struct dataset_file {
    struct mt_map *map;
    int domain;
    bool jsonl;
    int id_bytes; /* of each id; 0: text */
};

struct dataset_doc {
    size_t file;
    uint64_t at, n, line; /* line counts from 1; 0: the whole file */
    struct mt_ids ids;
};

/* Everything that lives only while a data set is opened. */
struct dataset_build {
    const struct mt_tokenizer *tokenizer;
    const struct mt_dataset_opts *opts;
    struct dataset_file *files;
    size_t n_files, cap_files;
    struct dataset_doc *docs;
    size_t n_docs, cap_docs;
    uint64_t *tokens; /* [n_domains] ids in all documents */
    uint64_t *take;   /* [n_domains] windows to keep */
    struct mt_sha256 sha;
};

/* What outlives it: the ids and the windows' storage. */
struct dataset_storage {
    int32_t *ids;
    struct mt_arena arena;
    int cap_domains;
};

/* --- sources to files --- */

static mt_status dataset_domain(struct mt_ctx *ctx, struct mt_dataset *d, const char *name,
                                size_t n, int *out)
{
    struct dataset_storage *s = d->storage;
    char *kept;

    for (int i = 0; i < d->n_domains; i++)
        if (strlen(d->domains[i]) == n && memcmp(d->domains[i], name, n) == 0) {
            *out = i;
            return MT_OK;
        }
    if (d->n_domains == s->cap_domains) {
        int cap = s->cap_domains * 2 + 8;
        MT_TRY(mt_realloc(ctx, (size_t)cap, sizeof *d->domains, "domains", &d->domains));
        s->cap_domains = cap;
    }
    MT_TRY(mt_arena_alloc(ctx, &s->arena, n + 1, 1, &kept));
    memcpy(kept, name, n);
    d->domains[d->n_domains] = kept;
    *out = d->n_domains++;
    return MT_OK;
}

static bool dataset_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);

    return n >= k && strcmp(s + n - k, suffix) == 0;
}

static int dataset_id_bytes(const char *path)
{
    if (dataset_has_suffix(path, ".u16"))
        return 2;
    return dataset_has_suffix(path, ".u32") ? 4 : 0;
}

bool mt_dataset_is_ids(const char *source)
{
    return dataset_id_bytes(source) > 0;
}

/* Weights or an archive given for a text would be calibrated on without a word. */
static mt_status dataset_check_text(struct mt_ctx *ctx, const struct mt_map *m, const char *path)
{
    size_t n = m->bytes < DATASET_LOOK_BYTES ? (size_t)m->bytes : DATASET_LOOK_BYTES;
    const unsigned char *zero = n > 0 ? memchr(m->base, 0, n) : NULL;

    if (zero == NULL)
        return MT_OK;
    return mt_fail(ctx, MT_E_FORMAT,
                   "%s: not a text: byte %zu is zero; texts are UTF-8, and files of token ids end "
                   "in .u16 or .u32",
                   path, (size_t)(zero - (const unsigned char *)m->base));
}

static mt_status dataset_add_file(struct mt_ctx *ctx, struct dataset_build *b, struct mt_dataset *d,
                                  const char *path, const char *name, size_t n_name)
{
    struct dataset_file f = {.jsonl = dataset_has_suffix(path, ".jsonl"),
                             .id_bytes = dataset_id_bytes(path)};

    if (n_name == 0) {
        name = mt_path_base(path);
        n_name = strcspn(name, ".");
    }
    if (n_name == 0)
        n_name = strlen(name); /* ".hidden" */
    MT_TRY(dataset_domain(ctx, d, name, n_name, &f.domain));
    MT_TRY(mt_grow(ctx, b->n_files, &b->cap_files, sizeof f, "data files", &b->files));
    MT_TRY(mt_map_open(ctx, path, &f.map));
    b->files[b->n_files++] = f;
    if (f.id_bytes == 0 && b->tokenizer == NULL)
        return mt_fail(ctx, MT_E_ABSENT, "%s: without a tokenizer no text is turned into tokens",
                       path);
    return f.id_bytes > 0 ? MT_OK : dataset_check_text(ctx, f.map, path);
}

static mt_status dataset_add_dir(struct mt_ctx *ctx, struct dataset_build *b, struct mt_dataset *d,
                                 const char *dir, const char *name, size_t n_name)
{
    char **names;
    size_t n, used = 0;
    mt_status st;

    MT_TRY(mt_path_list(ctx, dir, &names, &n));
    st = MT_OK;
    for (size_t i = 0; i < n && st == MT_OK; i++) {
        char *path;
        if (names[i][0] == '.')
            continue;
        used++;
        st = mt_path_join(ctx, dir, names[i], &path);
        if (st == MT_OK)
            st = dataset_add_file(ctx, b, d, path, name, n_name);
        mt_free(path);
    }
    mt_free(names);
    if (st == MT_OK && used == 0)
        st = mt_fail(ctx, MT_E_ABSENT, "%s: the directory holds no files", dir);
    return st;
}

/* A path that exists is one, also with '=' in it. */
static mt_status dataset_add_source(struct mt_ctx *ctx, struct dataset_build *b,
                                    struct mt_dataset *d, const char *source)
{
    const char *equals = mt_path_exists(source) ? NULL : strchr(source, '=');
    const char *path = equals != NULL ? equals + 1 : source;
    size_t n_name = equals != NULL ? (size_t)(equals - source) : 0;

    if (equals == source)
        return mt_fail(ctx, MT_E_OPTION, "%s: no domain name before \"=\"", source);
    if (mt_path_is_dir(path))
        return dataset_add_dir(ctx, b, d, path, source, n_name);
    return dataset_add_file(ctx, b, d, path, source, n_name);
}

/* --- files to documents --- */

static mt_status dataset_add_doc(struct mt_ctx *ctx, struct dataset_build *b, size_t file,
                                 uint64_t at, uint64_t n, uint64_t line)
{
    MT_TRY(mt_grow(ctx, b->n_docs, &b->cap_docs, sizeof *b->docs, "documents", &b->docs));
    b->docs[b->n_docs++] = (struct dataset_doc){file, at, n, line, {0}};
    return MT_OK;
}

static bool dataset_blank(const unsigned char *p, uint64_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++;
        n--;
    }
    return n == 0;
}

/* Hashes a file and finds its lines, a chunk at a time; lines are parsed later, by the pool. */
static mt_status dataset_scan(struct mt_ctx *ctx, struct dataset_build *b, size_t number)
{
    const struct dataset_file *f = &b->files[number];
    const unsigned char *base = f->map->base;
    uint64_t begin = 0, line = 0;

    for (uint64_t at = 0; at < f->map->bytes; at += DATASET_CHUNK) {
        uint64_t end = f->map->bytes - at < DATASET_CHUNK ? f->map->bytes : at + DATASET_CHUNK;
        const unsigned char *p = base + at;
        MT_TRY(mt_check_cancel(ctx));
        mt_sha256_add(&b->sha, p, (size_t)(end - at));
        while (f->jsonl && p < base + end) {
            const unsigned char *nl = memchr(p, '\n', (size_t)(base + end - p));
            if (nl == NULL && end < f->map->bytes)
                break; /* the line goes on in the next chunk */
            uint64_t stop = nl != NULL ? (uint64_t)(nl - base) : end;
            line++;
            if (!dataset_blank(base + begin, stop - begin))
                MT_TRY(dataset_add_doc(ctx, b, number, begin, stop - begin, line));
            if (nl == NULL)
                break;
            begin = stop + 1;
            p = nl + 1;
        }
        mt_map_drop(f->map, at, end - at);
    }
    if (!f->jsonl && f->map->bytes > 0)
        MT_TRY(dataset_add_doc(ctx, b, number, 0, f->map->bytes, 0));
    return MT_OK;
}

/* --- documents to ids --- */

static mt_status dataset_no_text(struct mt_ctx *ctx, const struct mt_json *j)
{
    const struct mt_json *first = mt_json_first(j);

    if (mt_json_kind(j) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "not an object with a field \"text\"");
    if (mt_json_get(j, "text") != NULL)
        return mt_fail(ctx, MT_E_FORMAT, "the field \"text\" is not a string");
    if (first == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "an object without fields; \"text\" is needed");
    return mt_fail(ctx, MT_E_FORMAT,
                   "no field \"text\" or \"messages\"; the first field is \"%.60s\"",
                   mt_json_key(first));
}

static mt_status dataset_check(struct mt_ctx *ctx, const struct dataset_build *b,
                               const struct mt_ids *ids)
{
    const struct mt_dataset_opts *o = b->opts;

    for (size_t i = 0; o->vocab > 0 && i < ids->n; i++)
        if (ids->v[i] >= o->vocab)
            return mt_fail(ctx, MT_E_FORMAT,
                           "the tokenizer makes id %" PRId32
                           ", but the model's vocabulary has %" PRId64
                           " entries; is this the model's tokenizer?",
                           ids->v[i], o->vocab);
    return MT_OK;
}

static mt_status dataset_encode(struct mt_ctx *ctx, const struct dataset_build *b, const char *text,
                                size_t n, struct mt_ids *ids)
{
    const struct mt_dataset_opts *o = b->opts;

    if (o->bos_id >= 0 && !mt_tokenizer_adds_bos(b->tokenizer))
        MT_TRY(mt_ids_push(ctx, ids, o->bos_id));
    MT_TRY(mt_tokenizer_encode(ctx, b->tokenizer, text, n, MT_ENCODE_SPECIAL, ids));
    return dataset_check(ctx, b, ids);
}

/* The template writes BOS and the like itself. */
static mt_status dataset_chat(struct mt_ctx *ctx, const struct dataset_build *b,
                              const struct mt_json *messages, struct mt_ids *ids)
{
    struct mt_text text = {0};
    mt_status st = mt_chat_render(ctx, &b->opts->chat, messages, &text);

    if (st == MT_OK)
        st = mt_tokenizer_encode(ctx, b->tokenizer, text.n > 0 ? text.s : "", text.n, 0, ids);
    mt_text_end(&text);
    return st == MT_OK ? dataset_check(ctx, b, ids) : st;
}

/* A file of ids. */
static mt_status dataset_ids(struct mt_ctx *ctx, const struct dataset_build *b,
                             const unsigned char *p, uint64_t n, int bytes, struct mt_ids *ids)
{
    int64_t vocab = b->opts->vocab > 0 ? b->opts->vocab : mt_tokenizer_vocab(b->tokenizer);

    if (n % (unsigned)bytes != 0)
        return mt_fail(ctx, MT_E_FORMAT, "%" PRIu64 " bytes are no whole number of %d-byte ids", n,
                       bytes);
    for (uint64_t i = 0; i < n; i += (unsigned)bytes) {
        uint32_t id = bytes == 2 ? (uint32_t)p[i] | (uint32_t)p[i + 1] << 8 : mt_le32(p + i);
        if (id >= vocab)
            return mt_fail(ctx, MT_E_FORMAT,
                           "id %" PRIu64 " is %" PRIu32 ", but the vocabulary has %" PRId64
                           " entries; were the ids made for this model?",
                           i / (unsigned)bytes, id, vocab);
        MT_TRY(mt_ids_push(ctx, ids, (int32_t)id));
    }
    return MT_OK;
}

static mt_status dataset_line(struct mt_ctx *ctx, const struct dataset_build *b, const char *line,
                              size_t n, struct mt_ids *ids)
{
    struct mt_json *j;
    const struct mt_json *messages;
    const char *text;
    mt_status st;

    MT_TRY(mt_json_parse(ctx, line, n, "JSON", &j));
    text = mt_json_text(mt_json_get(j, "text"));
    messages = mt_json_get(j, "messages");
    if (text != NULL)
        st = dataset_encode(ctx, b, text, strlen(text), ids);
    else if (messages != NULL)
        st = dataset_chat(ctx, b, messages, ids);
    else
        st = dataset_no_text(ctx, j);
    mt_json_free(j);
    return st;
}

static mt_status dataset_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct dataset_build *b = arg;
    struct dataset_doc *doc = &b->docs[i];
    const struct mt_map *map = b->files[doc->file].map;
    const char *p = (const char *)map->base + doc->at;

    MT_TRY(mt_check_cancel(ctx));
    if (b->files[doc->file].id_bytes > 0)
        MT_TRY(mt_wrap(ctx,
                       dataset_ids(ctx, b, map->base + doc->at, doc->n,
                                   b->files[doc->file].id_bytes, &doc->ids),
                       "%s", map->path));
    else if (doc->line == 0)
        MT_TRY(mt_wrap(ctx, dataset_encode(ctx, b, p, (size_t)doc->n, &doc->ids), "%s", map->path));
    else
        MT_TRY(mt_wrap(ctx, dataset_line(ctx, b, p, (size_t)doc->n, &doc->ids), "%s: line %" PRIu64,
                       map->path, doc->line));
    mt_map_drop(map, doc->at, doc->n);
    mt_progress_add(ctx, doc->n);
    return MT_OK;
}

static mt_status dataset_tokenize(struct mt_ctx *ctx, struct dataset_build *b)
{
    uint64_t bytes = 0;
    mt_status st;

    for (size_t i = 0; i < b->n_docs; i++)
        bytes += b->docs[i].n;
    mt_progress_begin(ctx, "tokenize", "B", bytes);
    st = mt_pool_run(ctx, (int64_t)b->n_docs, dataset_job, b);
    mt_progress_end(ctx);
    return st;
}

/* --- ids to windows --- */

static uint64_t dataset_windows(uint64_t tokens, uint64_t len)
{
    return tokens / len + (tokens % len >= DATASET_WINDOW_MIN);
}

/* Equal shares of `samples`; what a small domain leaves over goes to the others, first come first
 * served. */
static void dataset_share(const struct dataset_build *b, int n_domains, uint64_t len)
{
    uint64_t left = (uint64_t)b->opts->samples;
    bool all = left == 0, any = true;

    for (int i = 0; i < n_domains; i++)
        b->take[i] = all ? dataset_windows(b->tokens[i], len) : 0;
    while (left > 0 && any) {
        uint64_t open = 0, each;
        any = false;
        for (int i = 0; i < n_domains; i++)
            open += b->take[i] < dataset_windows(b->tokens[i], len);
        each = open == 0 || left < open ? 1 : left / open;
        for (int i = 0; i < n_domains && left > 0; i++) {
            uint64_t more = dataset_windows(b->tokens[i], len) - b->take[i];
            more = more < each ? more : each;
            more = more < left ? more : left;
            b->take[i] += more;
            left -= more;
            any = any || more > 0;
        }
    }
}

/* Walks the joined ids of a domain. */
struct dataset_reader {
    const struct dataset_build *b;
    int domain;
    size_t doc, at;
};

static size_t dataset_read(struct dataset_reader *r, int32_t *to, uint64_t want)
{
    size_t got = 0;

    while (got < want && r->doc < r->b->n_docs) {
        const struct dataset_doc *doc = &r->b->docs[r->doc];
        size_t n = doc->ids.n - r->at;
        if (r->b->files[doc->file].domain != r->domain || n == 0) {
            r->doc++;
            r->at = 0;
            continue;
        }
        n = n < want - got ? n : (size_t)(want - got);
        if (to != NULL)
            memcpy(to + got, doc->ids.v + r->at, n * sizeof *to);
        r->at += n;
        got += n;
    }
    return got;
}

/* Windows at equal distances: the middles of `take` equal stretches of the domain's windows. */
static void dataset_cut(const struct dataset_build *b, struct mt_dataset *d, int domain,
                        uint64_t len, int32_t **to)
{
    struct dataset_reader r = {.b = b, .domain = domain};
    uint64_t all = dataset_windows(b->tokens[domain], len), next = 0;

    for (uint64_t i = 0; i < b->take[domain]; i++) {
        uint64_t w = (2 * i + 1) * all / (2 * b->take[domain]);
        (void)dataset_read(&r, NULL, (w - next) * len);
        size_t n = dataset_read(&r, *to, len);
        d->windows[d->n_windows++] = (struct mt_window){*to, (int32_t)n, (int32_t)domain};
        d->n_tokens += n;
        if ((int32_t)n > d->window_len_max)
            d->window_len_max = (int32_t)n;
        *to += n;
        next = w + 1;
    }
}

static mt_status dataset_finish(struct mt_ctx *ctx, struct dataset_build *b, struct mt_dataset *d)
{
    struct dataset_storage *s = d->storage;
    uint64_t len = (uint64_t)b->opts->seq_len, windows = 0, ids = 0;
    int32_t *to;

    MT_TRY(mt_alloc0(ctx, (size_t)d->n_domains, sizeof *b->tokens, "domains", &b->tokens));
    MT_TRY(mt_alloc0(ctx, (size_t)d->n_domains, sizeof *b->take, "domains", &b->take));
    for (size_t i = 0; i < b->n_docs; i++)
        b->tokens[b->files[b->docs[i].file].domain] += b->docs[i].ids.n;
    dataset_share(b, d->n_domains, len);
    for (int i = 0; i < d->n_domains; i++) {
        uint64_t most = b->take[i] * len;
        windows += b->take[i];
        ids += most < b->tokens[i] ? most : b->tokens[i];
    }
    if (windows == 0)
        return mt_fail(ctx, MT_E_FORMAT, "the data holds no text (at least %d tokens are needed)",
                       DATASET_WINDOW_MIN);
    MT_TRY(mt_alloc(ctx, (size_t)windows, sizeof *d->windows, "windows", &d->windows));
    MT_TRY(mt_alloc(ctx, (size_t)ids, sizeof *s->ids, "token ids", &s->ids));
    to = s->ids;
    for (int i = 0; i < d->n_domains; i++)
        dataset_cut(b, d, i, len, &to);
    return MT_OK;
}

static mt_status dataset_build(struct mt_ctx *ctx, struct dataset_build *b,
                               const struct mt_strlist *sources, struct mt_dataset *d)
{
    struct dataset_storage *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "data set", &s));
    mt_arena_init(&s->arena);
    d->storage = s;
    for (int i = 0; i < sources->n; i++)
        MT_TRY(dataset_add_source(ctx, b, d, sources->v[i]));
    mt_sha256_begin(&b->sha);
    for (size_t i = 0; i < b->n_files; i++)
        MT_TRY(dataset_scan(ctx, b, i));
    mt_sha256_hex(&b->sha, d->sha256);
    MT_TRY(dataset_tokenize(ctx, b));
    return dataset_finish(ctx, b, d);
}

mt_status mt_dataset_open(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                          const struct mt_strlist *sources, const struct mt_dataset_opts *opts,
                          struct mt_dataset *out)
{
    struct dataset_build b = {.tokenizer = t, .opts = opts};
    mt_status st;

    *out = (struct mt_dataset){0};
    if (opts->seq_len < DATASET_WINDOW_MIN || opts->seq_len > INT32_MAX || opts->samples < 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "windows of %" PRId64 " tokens: at least %d are needed (--seq-len)",
                       opts->seq_len, DATASET_WINDOW_MIN);
    if (sources->n == 0)
        return mt_fail(ctx, MT_E_OPTION, "no data; give --data FILE");
    st = dataset_build(ctx, &b, sources, out);
    for (size_t i = 0; i < b.n_docs; i++)
        mt_ids_free(&b.docs[i].ids);
    for (size_t i = 0; i < b.n_files; i++)
        mt_map_close(b.files[i].map);
    mt_free(b.docs);
    mt_free(b.files);
    mt_free(b.tokens);
    mt_free(b.take);
    if (st != MT_OK)
        mt_dataset_free(out);
    return st;
}

void mt_dataset_free(struct mt_dataset *d)
{
    struct dataset_storage *s = d->storage;

    mt_free(d->windows);
    mt_free(d->domains);
    if (s != NULL) {
        mt_free(s->ids);
        mt_arena_free(&s->arena);
        mt_free(s);
    }
    *d = (struct mt_dataset){0};
}
