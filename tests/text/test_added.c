#include "lib/text/added.h"
#include "tests/t.h"

struct set {
    struct mt_vocab_table vocab;
    struct mt_normalizer norm;
    struct mt_added added;
};

static mt_status set_open(struct t *t, const char *json, struct set *s)
{
    struct mt_json *j;
    mt_status st = mt_json_parse(&t->ctx, json, strlen(json), "test", &j);

    *s = (struct set){0};
    if (st == MT_OK)
        st = mt_vocab_add(&t->ctx, &s->vocab, "known", 5, 3);
    if (st == MT_OK)
        st = mt_normalizer_open(&t->ctx, NULL, &s->norm);
    if (st == MT_OK)
        st = mt_added_open(&t->ctx, j, &s->vocab, &s->norm, &s->added);
    mt_json_free(j);
    return st;
}

static void set_close(struct set *s)
{
    mt_added_end(&s->added);
    mt_normalizer_end(&s->norm);
    mt_vocab_end(&s->vocab);
}

/* Parts joined by '|'; tokens as <id:text>. */
static void parts(struct t *t, const char *json, const char *in, bool skip, const char *want)
{
    struct set s;
    struct mt_added_cursor c = {0};
    struct mt_added_part p;
    char got[512] = "";

    T_OK(t, set_open(t, json, &s));
    while (mt_added_next(&s.added.raw, in, strlen(in), skip, &c, &p)) {
        char *end = got + strlen(got);
        size_t room = sizeof got - strlen(got);
        if (p.token != NULL)
            snprintf(end, room, "<%d:%.*s>", (int)p.token->id, (int)p.n, in + p.at);
        else
            snprintf(end, room, "%s%.*s", got[0] == '\0' ? "" : "|", (int)p.n, in + p.at);
    }
    if (strcmp(got, want) != 0)
        t_fail(t, __FILE__, __LINE__, "\"%s\" splits into \"%s\", wanted \"%s\"", in, got, want);
    set_close(&s);
}

#define TOKEN(id, content, more)                                                                   \
    "{\"id\":" id ",\"content\":\"" content "\",\"normalized\":false" more "}"

T_TEST(leftmost_then_longest)
{
    static const char json[] = "[" TOKEN("10", "ab", "") "," TOKEN("11", "abcd", "") "," TOKEN(
        "12", "bcde", "") "," TOKEN("13", "b", "") "]";

    parts(t, json, "", false, "");
    parts(t, json, "xyz", false, "xyz");
    parts(t, json, "ab", false, "<10:ab>");
    parts(t, json, "abcde", false, "<11:abcd>|e");
    parts(t, json, "abcx", false, "<10:ab>|cx");
    parts(t, json, "xbcdey", false, "x<12:bcde>|y");
    parts(t, json, "xbcdy", false, "x<13:b>|cdy");
    parts(t, json, "abab", false, "<10:ab><10:ab>");
}

T_TEST(flags_widen_and_refuse)
{
    static const char strip[] = "[" TOKEN("10", "<l>", ",\"lstrip\":true") "," TOKEN(
        "11", "<r>", ",\"rstrip\":true") "," TOKEN("12", "w", ",\"single_word\":true") "]";

    parts(t, strip, "a \t<l> b", false, "a<10: \t<l>>| b");
    parts(t, strip, "a <r> \n b", false, "a <11:<r> \n >|b");
    parts(t, strip, "<r>  <l>", false, "<11:<r>  ><10:<l>>");
    parts(t, strip, "a\xE2\x80\x83<l>", false, "a<10:\xE2\x80\x83<l>>");
    parts(t, strip, "w w. ww \xC3\xA9w w\xC3\xA9", false,
          "<12:w>| <12:w>|. ww \xC3\xA9w w\xC3\xA9");
}

T_TEST(special_tokens_can_be_left_in_the_text)
{
    static const char json[] =
        "[" TOKEN("10", "<s>", ",\"special\":true") "," TOKEN("11", "<x>", "") "]";

    parts(t, json, "a<s><x>", false, "a<10:<s>><11:<x>>");
    parts(t, json, "a<s><x>", true, "a<s><11:<x>>");
}

T_TEST(the_vocabularys_id_wins_with_a_warning)
{
    parts(t, "[" TOKEN("9", "known", "") "]", "known", false, "<3:known>");
    T_CHECK(t, strstr(t->log, "says id 9") != NULL);
    parts(t, "[" TOKEN("3", "known", "") "]", "known", false, "<3:known>");
}

static void refuses(struct t *t, const char *json, mt_status st, const char *part)
{
    struct set s;

    T_FAILS(t, set_open(t, json, &s), st, part);
    set_close(&s);
}

T_TEST(nonsense_is_refused)
{
    refuses(t, "{}", MT_E_FORMAT, "not an array");
    refuses(t, "[3]", MT_E_FORMAT, "not an object");
    refuses(t, "[{\"id\":1}]", MT_E_FORMAT, "\"content\"");
    refuses(t, "[{\"content\":\"a\"}]", MT_E_FORMAT, "\"id\"");
    refuses(t, "[{\"content\":\"a\",\"id\":1,\"odd\":1}]", MT_E_UNSUPPORTED, "\"odd\"");
    refuses(t, "[" TOKEN("3", "other", "") "]", MT_E_FORMAT, "id 3, which is \"known\"'s");
    refuses(t, "[" TOKEN("-3", "a", "") "]", MT_E_FORMAT, "outside");
    refuses(t, "[" TOKEN("1e15", "a", "") "]", MT_E_FORMAT, "outside");
    refuses(t, "[" TOKEN("8", "a", "") "," TOKEN("8", "b", "") "]", MT_E_FORMAT, "two tokens");
    refuses(t, "[" TOKEN("8", "a", "") "," TOKEN("9", "a", "") "]", MT_E_FORMAT, "two ids");
    refuses(t, "[" TOKEN("8", "a", ",\"lstrip\":1") "]", MT_E_FORMAT, "lstrip");
}
