#include "lib/base/opt.h"

#include "tests/t.h"

struct vals {
    bool quiet, loud;
    int trim;
    int64_t experts, any;
    uint64_t memory;
    double share, free_num;
    const char *out, *arch;
    int mode;
    struct mt_strlist data;
};

static const char *const mode_names[] = {"contiguous", "random", "cluster", NULL};
static const struct mt_opt rows[] = {
    MT_OPT_BOOL(struct vals, quiet, "quiet", 'q', "say less"),
    MT_OPT_BOOL(struct vals, loud, "loud", 'l', "say more"),
    MT_OPT_INT(struct vals, experts, "experts", 'e', "N", "8", 1, 256, "experts"),
    MT_OPT_INT(struct vals, any, "any", 0, "N", NULL, 0, 0, "anything"),
    MT_OPT_SIZE(struct vals, memory, "memory", 'm', "SIZE", "1G", "memory"),
    MT_OPT_NUM(struct vals, share, "share", 0, "X", "0.5", 0, 1, "share"),
    MT_OPT_NUM(struct vals, free_num, "free-num", 0, "X", NULL, 0, 0, "number"),
    MT_OPT_STR(struct vals, out, "out", 'o', "DIR", NULL, "output"),
    MT_OPT_STR(struct vals, arch, "arch", 0, "A", "mixtral", "architecture"),
    MT_OPT_ENUM(struct vals, mode, "mode", 0, "MODE", "cluster", mode_names, "mode"),
    MT_OPT_LIST(struct vals, data, "data", 'd', "FILE", "data"),
    MT_OPT_SWITCH(struct vals, trim, "trim", 't', "drop what is empty"),
    MT_OPT_END,
};

static mt_status opt_run(struct t *t, struct vals *v, struct mt_strlist *pos, const char *line)
{
    static char buf[8][512];
    static int turn;
    static char *argv[80];
    char *p = buf[turn++ % 8], *rest;
    struct mt_opt_table table = {rows, v};
    int argc = 0;

    snprintf(p, sizeof buf[0], "%s", line);
    for (char *w = strtok_r(p, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest))
        argv[argc++] = w;
    mt_opt_defaults(rows, v);
    return mt_opt_parse(&t->ctx, argc, argv, &table, 1, pos);
}

T_TEST(defaults_come_from_the_table)
{
    struct vals v;

    memset(&v, 0xee, sizeof v);
    mt_opt_defaults(rows, &v);
    T_CHECK(t, !v.quiet && v.experts == 8 && v.any == 0 && v.memory == 1u << 30);
    T_CHECK(t, v.share == 0.5 && v.free_num == 0 && v.out == NULL && v.mode == 2 && v.data.n == 0);
    T_EQ_STR(t, v.arch, "mixtral");
    for (const struct mt_opt *r = rows; r->name != NULL; r++)
        T_CHECK(t, !mt_opt_changed(r, &v));
}

T_TEST(every_kind_and_spelling_is_read)
{
    struct mt_strlist pos;
    struct vals v;

    T_OK(t,
         opt_run(t, &v, &pos,
                 "in --experts 16 -q --memory=512M --share 0.25 -o out --mode random -d a --data=b "
                 "--any -5 mid --free-num -1e-3 -- --not-an-option -x"));
    T_CHECK(t, v.quiet && v.experts == 16 && v.memory == 512u << 20 && v.mode == 1);
    T_CHECK(t, v.any == -5 && v.data.n == 2);
    T_NEAR(t, v.free_num, -1e-3, 0);
    T_NEAR(t, v.share, 0.25, 0);
    T_EQ_STR(t, v.out, "out");
    T_EQ_STR(t, v.data.v[1], "b");
    T_EQ_INT(t, pos.n, 4);
    T_EQ_STR(t, pos.v[1], "mid");
    T_EQ_STR(t, pos.v[2], "--not-an-option");
}

T_TEST(short_names_join_and_take_values)
{
    struct mt_strlist pos;
    struct vals v;

    T_OK(t, opt_run(t, &v, &pos, "-qle5 -oout -"));
    T_CHECK(t, v.quiet && v.loud && v.experts == 5 && pos.n == 1);
    T_EQ_STR(t, v.out, "out");
    T_EQ_STR(t, pos.v[0], "-");
}

T_TEST(booleans_are_switched_off)
{
    struct mt_strlist pos;
    struct vals v;

    T_OK(t, opt_run(t, &v, &pos, "--quiet --no-quiet --loud=yes"));
    T_CHECK(t, !v.quiet && v.loud);
    T_OK(t, opt_run(t, &v, &pos, "--loud --loud=off"));
    T_CHECK(t, !v.loud);
    T_FAILS(t, opt_run(t, &v, &pos, "--loud=maybe"), MT_E_OPTION,
            "--loud maybe: expected yes or no");
    T_FAILS(t, opt_run(t, &v, &pos, "--no-experts"), MT_E_OPTION, "--no-experts: unknown option");
}

T_TEST(sizes_take_units)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = {{"0", 0},
                {"1000", 1000},
                {"1k", 1024},
                {"1.5G", 3ull << 29},
                {"2GiB", 2ull << 30},
                {"3MB", 3u << 20},
                {"4T", 4ull << 40},
                {"17B", 17},
                {"9007199254740993", 9007199254740993ull}};
    static const char *const bad[] = {"", "G", "-1", "1X", "1GG", "nan", "1e30", " 1", "inf", NULL};
    struct vals v;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        T_OK(t, mt_opt_set(&t->ctx, rows, &v, "memory", good[i].text));
        T_CHECK(t, v.memory == good[i].want);
    }
    for (int i = 0; bad[i] != NULL; i++)
        T_FAILS(t, mt_opt_set(&t->ctx, rows, &v, "memory", bad[i]), MT_E_OPTION, "expected a size");
}

T_TEST(wrong_values_say_what_was_expected)
{
    struct mt_strlist pos;
    struct vals v;

    T_FAILS(t, opt_run(t, &v, &pos, "--experts 9x"), MT_E_OPTION,
            "--experts 9x: expected an integer");
    T_FAILS(t, opt_run(t, &v, &pos, "--experts 99999999999999999999"), MT_E_OPTION, "an integer");
    T_FAILS(t, opt_run(t, &v, &pos, "-e 0"), MT_E_OPTION, "-e 0: expected 1 to 256");
    T_FAILS(t, opt_run(t, &v, &pos, "--share 1.5"), MT_E_OPTION, "--share 1.5: expected 0 to 1");
    T_FAILS(t, opt_run(t, &v, &pos, "--share nan"), MT_E_OPTION, "expected a number");
    T_FAILS(t, opt_run(t, &v, &pos, "--mode fancy"), MT_E_OPTION,
            "--mode fancy: expected contiguous, random or cluster");
    T_FAILS(t, opt_run(t, &v, &pos, "in --out"), MT_E_OPTION, "--out: needs a value (DIR)");
}

T_TEST(unknown_names_suggest_the_nearest)
{
    struct mt_strlist pos;
    struct vals v;

    T_FAILS(t, opt_run(t, &v, &pos, "--expert 9"), MT_E_OPTION,
            "--expert: unknown option; did you mean --experts?");
    T_FAILS(t, opt_run(t, &v, &pos, "--memroy=9"), MT_E_OPTION, "did you mean --memory?");
    T_FAILS(t, opt_run(t, &v, &pos, "--something-else"), MT_E_OPTION,
            "--something-else: unknown option");
    T_CHECK(t, strstr(mt_error(&t->ctx), "did you mean") == NULL);
    T_FAILS(t, opt_run(t, &v, &pos, "-qz"), MT_E_OPTION, "-z: unknown option");
    T_FAILS(t, mt_opt_set(&t->ctx, rows, &v, "expert", "1"), MT_E_OPTION, "did you mean experts?");
}

T_TEST(several_tables_are_searched_in_order)
{
    struct other {
        bool force;
    } o = {false};
    static const struct mt_opt other_rows[] = {
        MT_OPT_BOOL(struct other, force, "force", 'f', "replace"), MT_OPT_END};
    struct vals v;
    struct mt_opt_table tables[2] = {{rows, &v}, {other_rows, &o}};
    char *argv[] = {"-f", "--experts", "3"};
    struct mt_strlist pos;

    mt_opt_defaults(rows, &v);
    T_OK(t, mt_opt_parse(&t->ctx, 3, argv, tables, 2, &pos));
    T_CHECK(t, o.force && v.experts == 3 && pos.n == 0);
    char *wrong[] = {"--forse"};
    T_FAILS(t, mt_opt_parse(&t->ctx, 1, wrong, tables, 2, &pos), MT_E_OPTION, "--force?");
}

T_TEST(too_many_of_a_list_is_told)
{
    struct vals v = {0};

    for (int i = 0; i < MT_STRLIST_MAX; i++)
        T_OK(t, mt_opt_set(&t->ctx, rows, &v, "data", "x"));
    T_FAILS(t, mt_opt_set(&t->ctx, rows, &v, "data", "x"), MT_E_OPTION, "more than 64 times");
}

T_TEST(values_print_as_text_that_reads_back)
{
    struct mt_strlist pos;
    struct vals a, b;
    char text[64];

    T_OK(t, opt_run(t, &a, &pos,
                    "-q -e77 --memory 3K --share 0.1 --free-num 1e-300 --mode random "
                    "--any -9 -o x/y"));
    mt_opt_defaults(rows, &b);
    for (const struct mt_opt *r = rows; r->name != NULL; r++) {
        mt_opt_print(r, &a, text, sizeof text);
        if (r->kind != MT_OPT_KIND_LIST)
            T_OK(t, mt_opt_set(&t->ctx, rows, &b, r->name, text));
        if (strcmp(r->name, "out") == 0)
            T_EQ_STR(t, text, "x/y");
    }
    T_CHECK(t, a.quiet == b.quiet && a.experts == b.experts && a.memory == b.memory);
    T_CHECK(t,
            a.share == b.share && a.free_num == b.free_num && a.mode == b.mode && a.any == b.any);
    T_CHECK(t, mt_opt_changed(&rows[0], &a) && mt_opt_changed(&rows[2], &a));
    T_CHECK(t, !mt_opt_changed(&rows[1], &a) && !mt_opt_changed(&rows[8], &a));
    T_CHECK(t, mt_opt_changed(&rows[7], &a));
}

T_TEST(a_switch_decides_unless_it_is_told)
{
    static const struct {
        char *arg;
        int is;
        const char *text;
    } ways[] = {
        {"--trim", MT_SWITCH_ON, "true"},        {"-t", MT_SWITCH_ON, "true"},
        {"--no-trim", MT_SWITCH_OFF, "false"},   {"--trim=no", MT_SWITCH_OFF, "false"},
        {"--trim=auto", MT_SWITCH_AUTO, "auto"}, {"--trim=1", MT_SWITCH_ON, "true"},
    };
    const struct mt_opt *row = rows;
    struct mt_strlist pos;
    struct vals v, back;
    char text[16];

    while (strcmp(row->name, "trim") != 0)
        row++;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct mt_opt_table table = {rows, &v};
        char *argv[] = {ways[i].arg};
        mt_opt_defaults(rows, &v);
        mt_opt_defaults(rows, &back);
        T_EQ_INT(t, v.trim, MT_SWITCH_AUTO);
        T_OK(t, mt_opt_parse(&t->ctx, 1, argv, &table, 1, &pos));
        T_EQ_INT(t, v.trim, ways[i].is);
        T_CHECK(t, mt_opt_changed(row, &v) == (v.trim != MT_SWITCH_AUTO));
        mt_opt_print(row, &v, text, sizeof text);
        T_EQ_STR(t, text, ways[i].text);
        T_OK(t, mt_opt_set(&t->ctx, rows, &back, "trim", text));
        T_EQ_INT(t, back.trim, v.trim);
    }
    T_FAILS(t, mt_opt_set(&t->ctx, rows, &v, "trim", "perhaps"), MT_E_OPTION, "yes, no or auto");
}

T_TEST(the_nearest_name_is_near)
{
    static const char *const names[] = {"inspect", "convert", "validate", "eval", NULL};

    T_EQ_STR(t, mt_nearest_name("convrt", names), "convert");
    T_EQ_STR(t, mt_nearest_name("valdiate", names), "validate");
    T_EQ_STR(t, mt_nearest_name("evil", names), "eval");
    T_CHECK(t, mt_nearest_name("xyz", names) == NULL);
    T_CHECK(t, mt_nearest_name("", names) == NULL);
}
