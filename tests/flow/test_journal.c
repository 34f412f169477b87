#include "lib/flow/journal.h"

#include "lib/flow/walk.h"
#include "tests/t.h"

#include <stdlib.h>
#include <unistd.h>

static void key(struct t *t, struct mt_journal_key *k, const char *experts, const char *seed)
{
    *k = (struct mt_journal_key){0};
    T_OK(t, mt_journal_key_add(&t->ctx, k, "source model", "0123abcd"));
    T_OK(t, mt_journal_key_add(&t->ctx, k, "--experts", experts));
    if (seed != NULL)
        T_OK(t, mt_journal_key_add(&t->ctx, k, "--seed", seed));
}

static struct mt_json *facts(double loss)
{
    struct mt_json *j = mt_json_new_object(), *list;

    mt_json_set_num(mt_json_set_object(j, "pass"), "loss", loss);
    list = mt_json_set_array(j, "list");
    mt_json_add_str(list, "two\nlines   and \"spaces\"");
    mt_json_add_num(list, 0.1);
    return j;
}

static const char *journal_path(struct t *t)
{
    return t_path(t, MT_JOURNAL_NAME);
}

/* A journal with units 0, 1 and 3. */
static bool there(struct t *t)
{
    bool yes = false;

    return mt_journal_there(&t->ctx, t->dir, &yes) == MT_OK && yes;
}

static void make(struct t *t)
{
    struct mt_journal_key k;
    struct mt_journal *j;

    key(t, &k, "8", "1");
    T_OK(t, mt_journal_open(&t->ctx, t->dir, &k, 6, false, &j));
    T_OK(t, mt_journal_add(&t->ctx, j, 0, 0, NULL));
    T_OK(t, mt_journal_add(&t->ctx, j, 1, UINT64_MAX, facts(1.0 / 3)));
    T_OK(t, mt_journal_add(&t->ctx, j, 3, 0x123456789abcdef, facts(7)));
    mt_journal_close(j);
    mt_journal_key_free(&k);
}

static void reopen(struct t *t, struct mt_journal **j)
{
    struct mt_journal_key k;

    key(t, &k, "8", "1");
    T_OK(t, mt_journal_open(&t->ctx, t->dir, &k, 6, true, j));
    mt_journal_key_free(&k);
}

T_TEST(what_was_noted_comes_back)
{
    struct mt_journal *j = NULL;
    const struct mt_json *f;
    double v;

    T_CHECK(t, !there(t));
    make(t);
    T_CHECK(t, there(t));
    reopen(t, &j);
    T_CHECK(t, j != NULL);
    T_EQ_INT(t, mt_journal_count(j), 3);
    T_CHECK(t, mt_journal_has(j, 0) && mt_journal_has(j, 1) && !mt_journal_has(j, 2) &&
                   mt_journal_has(j, 3));
    T_CHECK(t, mt_json_kind(mt_journal_facts(j, 0)) != MT_JSON_OBJECT);
    f = mt_journal_facts(j, 1);
    T_CHECK(t, mt_json_number(mt_json_get(mt_json_get(f, "pass"), "loss"), &v));
    T_NEAR(t, v, 1.0 / 3, 0);
    T_EQ_STR(t, mt_json_text(mt_json_first(mt_json_get(f, "list"))), "two\nlines   and \"spaces\"");
    T_CHECK(t, mt_journal_sum(j, 0) == 0 && mt_journal_sum(j, 1) == UINT64_MAX &&
                   mt_journal_sum(j, 3) == 0x123456789abcdef);
    mt_journal_close(j);
}

/* Cut anywhere, the journal keeps the units whose lines are whole, and goes on after them. */
T_TEST(a_torn_end_is_dropped_wherever_it_is_torn)
{
    size_t n, head;
    char *text;

    make(t);
    text = t_read_file(journal_path(t), &n);
    T_CHECK(t, text != NULL);
    head = (size_t)(strstr(text, "\n\n") + 2 - text);
    for (size_t cut = 0; cut <= n; cut++) {
        struct mt_journal *j = NULL;
        int want = 0;
        t_write_file(t, journal_path(t), text, cut);
        if (cut < head) {
            T_CHECK(t, !there(t));
            continue;
        }
        for (size_t i = head; i < cut; i++)
            want += text[i] == '\n';
        reopen(t, &j);
        T_CHECK(t, j != NULL);
        T_EQ_INT(t, mt_journal_count(j), want);
        T_OK(t, mt_journal_add(&t->ctx, j, 4, 4, facts(2)));
        mt_journal_close(j);
        reopen(t, &j);
        T_EQ_INT(t, mt_journal_count(j), want + 1);
        T_CHECK(t, mt_journal_has(j, 4));
        mt_journal_close(j);
    }
    free(text);
}

/* A changed byte in a unit's line takes that unit and what follows out; in the head, all. */
T_TEST(a_changed_byte_is_noticed)
{
    size_t n;
    char *text;

    make(t);
    text = t_read_file(journal_path(t), &n);
    T_CHECK(t, text != NULL);
    for (size_t i = 0; i < n; i++) {
        struct mt_journal *j = NULL;
        struct mt_journal_key k;
        text[i] ^= 1;
        t_write_file(t, journal_path(t), text, n);
        text[i] ^= 1;
        key(t, &k, "8", "1");
        if (mt_journal_open(&t->ctx, t->dir, &k, 6, true, &j) == MT_OK) {
            T_CHECK(t, mt_journal_count(j) < 3);
            mt_journal_close(j);
        }
        mt_journal_key_free(&k);
    }
    free(text);
}

/* Checksums are told by their first digits, and the layout only where nothing else explains it. */
T_TEST(differences_are_told_briefly)
{
    static const char sum[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const char other[] = "f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct mt_journal_key k = {0};
    struct mt_journal *j;

    T_OK(t, mt_journal_key_add(&t->ctx, &k, "--data", sum));
    T_OK(t, mt_journal_key_add(&t->ctx, &k, "layout", sum));
    T_OK(t, mt_journal_open(&t->ctx, t->dir, &k, 6, false, &j));
    mt_journal_close(j);
    mt_journal_key_free(&k);
    T_OK(t, mt_journal_key_add(&t->ctx, &k, "--data", other));
    T_OK(t, mt_journal_key_add(&t->ctx, &k, "layout", other));
    T_FAILS(t, mt_journal_open(&t->ctx, t->dir, &k, 6, true, &j), MT_E_OPTION,
            "(--data: 0123456789ab then, f123456789ab now)");
    mt_journal_key_free(&k);
    T_OK(t, mt_journal_key_add(&t->ctx, &k, "--data", sum));
    T_OK(t, mt_journal_key_add(&t->ctx, &k, "layout", other));
    T_FAILS(t, mt_journal_open(&t->ctx, t->dir, &k, 6, true, &j), MT_E_OPTION,
            "(layout: 0123456789ab then, f123456789ab now)");
    mt_journal_key_free(&k);
}

T_TEST(other_settings_are_refused_and_named)
{
    struct mt_journal_key k;
    struct mt_journal *j;

    make(t);
    key(t, &k, "16", "1");
    T_FAILS(t, mt_journal_open(&t->ctx, t->dir, &k, 6, true, &j), MT_E_OPTION,
            "--experts: 8 then, 16 now");
    mt_journal_key_free(&k);
    key(t, &k, "8", NULL);
    T_FAILS(t, mt_journal_open(&t->ctx, t->dir, &k, 6, true, &j), MT_E_OPTION,
            "--seed: 1 then, not given now");
    mt_journal_key_free(&k);
    key(t, &k, "8", "1");
    T_OK(t, mt_journal_key_add(&t->ctx, &k, "--router", "ridge"));
    T_FAILS(t, mt_journal_open(&t->ctx, t->dir, &k, 6, true, &j), MT_E_OPTION,
            "--router: not given then, ridge now");
    mt_journal_key_free(&k);
    /* Nothing was touched: the right settings still go on. */
    reopen(t, &j);
    T_EQ_INT(t, mt_journal_count(j), 3);
    mt_journal_close(j);
}

T_TEST(a_value_cannot_make_a_line_of_its_own)
{
    struct mt_journal_key k = {0};

    T_OK(t, mt_journal_key_add(&t->ctx, &k, "--note", "a\n--experts = 9\n\nunit 0"));
    T_EQ_STR(t, k.text, "--note = a --experts = 9  unit 0\n");
    mt_journal_key_free(&k);
}
