#include "lib/text/dataset.h"

#include "lib/base/hash.h"
#include "tests/t.h"

#include <stdlib.h>
#include <sys/stat.h>

/* One token per letter a..z (0..25), one for the line end (26); "<s>" is 27, and 28 stands before
 * each text when `bos` is in the file. */
static struct mt_tokenizer *letters(struct t *t, bool bos)
{
    static const char template[] =
        ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
        "{\"SpecialToken\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}],"
        "\"special_tokens\":{\"B\":{\"ids\":[28]}}}";
    char json[4000], vocab[600];
    struct mt_tokenizer *k = NULL;
    int n = 0;

    for (int i = 0; i < 26; i++)
        n += snprintf(vocab + n, sizeof vocab - (size_t)n, "\"%c\":%d,", 'a' + i, i);
    snprintf(json, sizeof json,
             "{\"added_tokens\":[{\"id\":27,\"content\":\"<s>\",\"special\":true,"
             "\"normalized\":false}],\"model\":{\"type\":\"BPE\",\"merges\":[],"
             "\"vocab\":{%s\"\\n\":26}}%s}",
             vocab, bos ? template : "");
    if (mt_tokenizer_parse(&t->ctx, json, strlen(json), "letters", &k) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return k;
}

static void put(struct t *t, const char *name, const char *text)
{
    t_write_file(t, t_path(t, name), text, strlen(text));
}

/* Opens sources (NULL-ended) with the letters' tokenizer. */
static mt_status opens(struct t *t, bool bos, const char *const *sources, struct mt_dataset_opts o,
                       struct mt_dataset *d)
{
    struct mt_tokenizer *k = letters(t, bos);
    struct mt_strlist list = {0};
    mt_status st;

    for (; *sources != NULL; sources++)
        list.v[list.n++] = *sources;
    st = mt_dataset_open(&t->ctx, k, &list, &o, d);
    mt_tokenizer_free(k);
    return st;
}

#define OPENS(t, bos, o, d, ...) opens(t, bos, (const char *const[]){__VA_ARGS__, NULL}, o, d)

/* Windows as "domain:letters" joined by spaces; BOS as ^, line end as /. */
static void holds(struct t *t, const struct mt_dataset *d, const char *want)
{
    char got[600] = "";
    size_t n = 0, tokens = 0;

    for (size_t i = 0; i < d->n_windows; i++) {
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%s:", i > 0 ? " " : "",
                              d->domains[d->windows[i].domain]);
        for (int k = 0; k < d->windows[i].n; k++) {
            int id = d->windows[i].ids[k];
            got[n++] = (char)(id < 26 ? 'a' + id : id == 26 ? '/' : '^');
        }
        got[n] = '\0';
        tokens += (size_t)d->windows[i].n;
    }
    T_EQ_STR(t, got, want);
    T_EQ_INT(t, d->n_tokens, tokens);
}

T_TEST(documents_are_joined_and_cut)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = 28};
    struct mt_dataset d;

    put(t, "x.jsonl", "{\"text\":\"abc\"}\n\n{\"text\":\"de\",\"id\":3}\r\n{\"text\":\"fghi\"}");
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "x.jsonl")));
    holds(t, &d, "x:^abc x:^de^ x:fghi");
    T_EQ_INT(t, d.window_len_max, 4);
    mt_dataset_free(&d);
    /* The tokenizer's own BOS is not doubled; without any there is none. */
    T_OK(t, OPENS(t, true, o, &d, t_path(t, "x.jsonl")));
    holds(t, &d, "x:^abc x:^de^ x:fghi");
    mt_dataset_free(&d);
    o.bos_id = -1;
    o.seq_len = 5;
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "x.jsonl")));
    holds(t, &d, "x:abcde x:fghi");
    mt_dataset_free(&d);
    o.seq_len = 8; /* the last window, one id, is left out */
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "x.jsonl")));
    holds(t, &d, "x:abcdefgh");
    mt_dataset_free(&d);
}

T_TEST(sources_name_domains)
{
    struct mt_dataset_opts o = {.seq_len = 100, .bos_id = -1};
    struct mt_dataset d;
    char named[400];

    put(t, "one.b.txt", "ab\nc");
    put(t, "one.a.txt", "de");
    put(t, "two=2.txt", "fg");
    mkdir(t_path(t, "dir"), 0777);
    put(t, "dir/z.txt", "hi");
    put(t, "dir/y.jsonl", "{\"text\":\"jk\"}\n");
    put(t, "dir/.hidden", "nothing");
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "one.b.txt"), t_path(t, "two=2.txt"),
                  t_path(t, "one.a.txt")));
    holds(t, &d, "one:ab/cde two=2:fg");
    mt_dataset_free(&d);
    snprintf(named, sizeof named, "mine=%s", t_path(t, "one.a.txt"));
    T_OK(t, OPENS(t, false, o, &d, named, t_path(t, "dir")));
    holds(t, &d, "mine:de y:jk z:hi");
    mt_dataset_free(&d);
    snprintf(named, sizeof named, "mine=%s", t_path(t, "dir"));
    T_OK(t, OPENS(t, false, o, &d, named));
    holds(t, &d, "mine:jkhi");
    mt_dataset_free(&d);
}

T_TEST(samples_are_shared_and_spread)
{
    struct mt_dataset_opts o = {.seq_len = 2, .bos_id = -1};
    struct mt_dataset d;

    put(t, "a.txt", "aabbccddeeffgghhii"); /* 9 windows */
    put(t, "b.txt", "zz");
    put(t, "c.txt", "kkllmmnnoo");
    o.samples = 3;
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "a.txt")));
    holds(t, &d, "a:bb a:ee a:hh");
    mt_dataset_free(&d);
    o.samples = 1;
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "a.txt")));
    holds(t, &d, "a:ee");
    mt_dataset_free(&d);
    o.samples = 9; /* b has one of its three; the two left over go to a and c */
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "a.txt"), t_path(t, "b.txt"), t_path(t, "c.txt")));
    holds(t, &d, "a:bb a:dd a:ff a:hh b:zz c:kk c:ll c:nn c:oo");
    mt_dataset_free(&d);
    o.samples = 1000;
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "a.txt"), t_path(t, "c.txt")));
    T_EQ_INT(t, d.n_windows, 14);
    mt_dataset_free(&d);
    o.samples = 2; /* fewer than domains: the first ones */
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "a.txt"), t_path(t, "b.txt"), t_path(t, "c.txt")));
    holds(t, &d, "a:ee b:zz");
    mt_dataset_free(&d);
}

T_TEST(the_hash_is_of_all_bytes_in_order)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = -1};
    struct mt_dataset d;
    struct mt_sha256 s;
    char want[65];

    put(t, "a.txt", "ab");
    put(t, "b.jsonl", "{\"text\":\"c\"}\n");
    mt_sha256_begin(&s);
    mt_sha256_add(&s, "ab{\"text\":\"c\"}\n", 15);
    mt_sha256_hex(&s, want);
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "a.txt"), t_path(t, "b.jsonl")));
    T_EQ_STR(t, d.sha256, want);
    mt_dataset_free(&d);
}

/* Lines longer than the piece of a file that is scanned at once, and lines across its border. */
T_TEST(long_lines_are_whole)
{
    size_t half = (size_t)3 << 20, n = 0;
    char *text = malloc(4 * half);
    struct mt_dataset_opts o = {.seq_len = (int64_t)half, .bos_id = -1};
    struct mt_dataset d;

    T_CHECK(t, text != NULL);
    for (int i = 0; i < 3; i++) {
        n += (size_t)snprintf(text + n, 20, "{\"text\":\"");
        memset(text + n, 'a' + i, half);
        n += half;
        n += (size_t)snprintf(text + n, 20, "\"}\n");
    }
    t_write_file(t, t_path(t, "long.jsonl"), text, n);
    free(text);
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "long.jsonl")));
    T_EQ_INT(t, d.n_windows, 3);
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < half; k++)
            T_EQ_INT(t, d.windows[i].ids[k], i);
    mt_dataset_free(&d);
}

static void refuses(struct t *t, struct mt_dataset_opts o, const char *source, mt_status st,
                    const char *part)
{
    struct mt_dataset d;

    T_FAILS(t, OPENS(t, false, o, &d, source), st, part);
    T_CHECK(t, d.windows == NULL && d.storage == NULL);
}

/* The template's BOS stands where the template has it, and none is added. */
T_TEST(messages_become_text)
{
    struct mt_dataset_opts o = {.seq_len = 100, .bos_id = 28};
    struct mt_dataset d;

    put(t, "c.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"},"
        "{\"role\":\"assistant\",\"content\":\"c\"}]}\n{\"text\":\"z\"}\n");
    o.chat = (struct mt_chat){.template_text = "<start_of_turn>", .bos = "<s>"};
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "c.jsonl")));
    T_EQ_INT(t, d.n_windows, 1);
    /* The letters of "<start_of_turn>user" and so on that have tokens. */
    T_EQ_INT(t, d.windows[0].ids[0], 27);
    T_EQ_INT(t, d.windows[0].ids[1], 's' - 'a');
    T_EQ_INT(t, d.windows[0].ids[d.windows[0].n - 2], 28);
    T_EQ_INT(t, d.windows[0].ids[d.windows[0].n - 1], 25);
    mt_dataset_free(&d);
    o.chat.template_text = NULL;
    T_OK(t, OPENS(t, false, o, &d, t_path(t, "c.jsonl")));
    holds(t, &d, "c:ab/c/^z");
    mt_dataset_free(&d);
}

T_TEST(files_of_ids_are_taken_as_they_are)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = 28};
    struct mt_dataset d;

    t_write_file(t, t_path(t, "x.u16"), "\0\0\1\0\2\0\3\0\32\0\4\0", 12);
    t_write_file(t, t_path(t, "x.u32"), "\5\0\0\0\6\0\0\0", 8);
    T_OK(t, OPENS(t, true, o, &d, t_path(t, "x.u16"), t_path(t, "x.u32")));
    holds(t, &d, "x:abcd x:/efg");
    mt_dataset_free(&d);
    t_write_file(t, t_path(t, "x.u16"), "\0\0\1", 3);
    refuses(t, o, t_path(t, "x.u16"), MT_E_FORMAT, "3 bytes are no whole number of 2-byte ids");
    t_write_file(t, t_path(t, "x.u32"), "\0\0\0\0\1\0\1\0", 8);
    refuses(t, o, t_path(t, "x.u32"), MT_E_FORMAT, "id 1 is 65537, but the vocabulary has 28");
    o.vocab = 3;
    t_write_file(t, t_path(t, "x.u16"), "\3\0", 2);
    refuses(t, o, t_path(t, "x.u16"), MT_E_FORMAT, "id 0 is 3, but the vocabulary has 3");
}

T_TEST(failures_name_the_file_and_the_line)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = -1};

    put(t, "x.jsonl", "{\"text\":\"abc\"}\n\n{\"text\":3}\n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "x.jsonl: line 3: the field \"text\"");
    put(t, "x.jsonl", "{\"text\":\"abc\"}\n{\"text\":\n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "x.jsonl: line 2: ");
    put(t, "x.jsonl", "{\"messages\":[]}\n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "line 1: \"messages\" holds no message");
    put(t, "x.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n");
    o.chat.template_text = "odd";
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_UNSUPPORTED, "line 1: the model's chat template");
    o.chat.template_text = NULL;
    put(t, "x.jsonl", "{\"question\":\"a\"}\n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "the first field is \"question\"");
    put(t, "x.jsonl", "{}\n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "without fields");
    put(t, "x.jsonl", "[1]\n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "not an object");
    put(t, "x.jsonl", "\n \n");
    refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "holds no text");
    put(t, "x.txt", "");
    refuses(t, o, t_path(t, "x.txt"), MT_E_FORMAT, "holds no text");
    refuses(t, o, t_path(t, "missing"), MT_E_ABSENT, "missing");
    refuses(t, o, "=x", MT_E_OPTION, "no domain name");
    mkdir(t_path(t, "empty"), 0777);
    refuses(t, o, t_path(t, "empty"), MT_E_ABSENT, "no files");
    put(t, "x.txt", "az");
    o.vocab = 20;
    refuses(t, o, t_path(t, "x.txt"), MT_E_FORMAT,
            "makes id 25, but the model's vocabulary has 20");
    o.seq_len = 1;
    refuses(t, o, t_path(t, "x.txt"), MT_E_OPTION, "--seq-len");
}

/* The lowest line's failure is reported, whichever thread meets it. */
T_TEST(the_first_bad_line_wins)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = -1};
    char text[4000];
    size_t n = 0;

    for (int i = 0; i < 100; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s",
                              i < 40 ? "{\"text\":\"abc\"}\n" : "{\"text\":1}\n");
    put(t, "x.jsonl", text);
    for (int i = 0; i < 20; i++)
        refuses(t, o, t_path(t, "x.jsonl"), MT_E_FORMAT, "line 41:");
}

T_TEST(cancelling_stops_it)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = -1};

    put(t, "x.txt", "abc");
    t->cancel = 1;
    refuses(t, o, t_path(t, "x.txt"), MT_E_CANCELLED, "");
    t->cancel = 0;
}

T_TEST(running_out_of_memory_is_one_failure)
{
    struct mt_dataset_opts o = {.seq_len = 4, .bos_id = 28};
    struct mt_tokenizer *k = letters(t, false);
    struct mt_strlist list = {.n = 2};

    put(t, "x.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"de\"}\n");
    put(t, "y.txt", "fg");
    list.v[0] = t_path(t, "x.jsonl");
    list.v[1] = t_path(t, "y.txt");
    for (uint64_t i = 1;; i++) {
        struct mt_dataset d;
        mt_fault_alloc(i);
        mt_status st = mt_dataset_open(&t->ctx, k, &list, &o, &d);
        mt_fault_alloc(0);
        if (st == MT_OK) {
            mt_dataset_free(&d);
            break;
        }
        T_EQ_INT(t, st, MT_E_NOMEM);
        T_CHECK(t, i < 1000);
    }
    mt_tokenizer_free(k);
}

T_TEST(thread_counts_do_not_matter)
{
    const char *p = t_data("models/tinymix-dense/tokenizer.json");
    struct mt_dataset_opts o = {.seq_len = 128, .samples = 50, .bos_id = 0, .vocab = 4096};
    struct mt_strlist list = {.n = 2};
    struct mt_dataset d[2];
    struct mt_ctx ctx[2];
    struct mt_tokenizer *k;

    if (p == NULL)
        T_SKIP(t, "no shared data");
    list.v[0] = t_data("text/mix/math.eval.jsonl");
    list.v[1] = t_data("text/mix/wiki.eval.jsonl");
    for (int i = 0; i < 2; i++) {
        T_OK(t, mt_ctx_open(&ctx[i], &(struct mt_ctx_opts){.n_threads = i == 0 ? 1 : 5}));
        T_OK(t, mt_tokenizer_open(&ctx[i], p, &k));
        T_OK(t, mt_dataset_open(&ctx[i], k, &list, &o, &d[i]));
        mt_tokenizer_free(k);
        T_EQ_INT(t, d[i].n_windows, 50);
        T_EQ_INT(t, d[i].n_domains, 2);
    }
    T_EQ_INT(t, d[0].n_tokens, d[1].n_tokens);
    T_CHECK(t,
            memcmp(d[0].windows[0].ids, d[1].windows[0].ids, d[0].n_tokens * sizeof(int32_t)) == 0);
    T_EQ_STR(t, d[0].sha256, d[1].sha256);
    for (int i = 0; i < 2; i++) {
        mt_dataset_free(&d[i]);
        mt_ctx_close(&ctx[i]);
    }
}
