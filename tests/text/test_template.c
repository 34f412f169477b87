#include "lib/text/template.h"
#include "tests/t.h"

static mt_status opens(struct t *t, const char *json, struct mt_template *out)
{
    struct mt_json *j;
    mt_status st = mt_json_parse(&t->ctx, json, strlen(json), "test", &j);

    if (st != MT_OK)
        return st;
    st = mt_template_open(&t->ctx, j, out);
    mt_json_free(j);
    return st;
}

#define SPECIAL(x) "{\"SpecialToken\":{\"id\":\"" x "\",\"type_id\":0}}"
#define A "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define TEMPLATE(x)                                                                                \
    "{\"type\":\"TemplateProcessing\",\"single\":[" x "],\"pair\":[],\"special_tokens\":{"         \
    "\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]},"                                   \
    "\"E\":{\"id\":\"E\",\"ids\":[7,8],\"tokens\":[\"x\",\"y\"]}}}"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":false}"

T_TEST(what_stands_before_and_behind)
{
    struct mt_template m = {0};

    T_OK(t, opens(t, TEMPLATE(SPECIAL("<s>") "," A "," SPECIAL("E")), &m));
    T_CHECK(t, m.before.n == 1 && m.before.v[0] == 1);
    T_CHECK(t, m.after.n == 2 && m.after.v[0] == 7 && m.after.v[1] == 8);
    mt_template_end(&m);
    T_OK(t, opens(t, "null", &m));
    T_OK(t, opens(t, BYTES, &m));
    T_CHECK(t, m.before.n == 0 && m.after.n == 0);
    mt_template_end(&m);
}

T_TEST(a_later_template_encloses_an_earlier_one)
{
    struct mt_template m = {0};

    T_OK(t, opens(t,
                  "{\"type\":\"Sequence\",\"processors\":[" BYTES
                  "," TEMPLATE(SPECIAL("<s>") "," A "," SPECIAL("<s>")) "," TEMPLATE(
                      SPECIAL("E") "," A "," SPECIAL("E")) "]}",
                  &m));
    T_CHECK(t, m.before.n == 3 && m.before.v[0] == 7 && m.before.v[2] == 1);
    T_CHECK(t, m.after.n == 3 && m.after.v[0] == 1 && m.after.v[2] == 8);
    mt_template_end(&m);
}

T_TEST(cls_and_sep_enclose_the_text)
{
    static const char bert[] =
        "{\"type\":\"BertProcessing\",\"sep\":[\"S\",102],\"cls\":[\"C\",101]}";
    static const char both[] =
        "{\"type\":\"Sequence\",\"processors\":["
        "{\"type\":\"RobertaProcessing\",\"sep\":[\"e\",2],\"cls\":[\"s\",0],"
        "\"trim_offsets\":true,\"add_prefix_space\":false},"
        "{\"type\":\"BertProcessing\",\"sep\":[\"S\",9],\"cls\":[\"C\",8]}]}";
    struct mt_template m = {0};

    T_OK(t, opens(t, bert, &m));
    T_CHECK(t, m.before.n == 1 && m.before.v[0] == 101 && m.after.n == 1 && m.after.v[0] == 102);
    mt_template_end(&m);
    T_OK(t, opens(t, both, &m));
    T_CHECK(t, m.before.n == 2 && m.before.v[0] == 8 && m.before.v[1] == 0);
    T_CHECK(t, m.after.n == 2 && m.after.v[0] == 2 && m.after.v[1] == 9);
    mt_template_end(&m);
}

static void refuses(struct t *t, const char *json, mt_status st, const char *part)
{
    struct mt_template m = {0};

    T_FAILS(t, opens(t, json, &m), st, part);
    mt_template_end(&m);
}

T_TEST(nonsense_is_refused)
{
    refuses(t, TEMPLATE(""), MT_E_FORMAT, "names the sequence 0 times");
    refuses(t, TEMPLATE(A "," A), MT_E_FORMAT, "2 times");
    refuses(t, TEMPLATE("{\"Sequence\":{\"id\":\"B\"}}"), MT_E_FORMAT, "neither");
    refuses(t, TEMPLATE("3"), MT_E_FORMAT, "neither");
    refuses(t, TEMPLATE(A "," SPECIAL("Q")), MT_E_FORMAT, "\"Q\"");
    refuses(t, "{\"type\":\"TemplateProcessing\",\"single\":3}", MT_E_FORMAT, "not an array");
    refuses(t,
            "{\"type\":\"TemplateProcessing\",\"single\":[" SPECIAL(
                "x") "," A "],\"special_tokens\":{\"x\":{\"ids\":[-1]}}}",
            MT_E_FORMAT, "not within");
    refuses(t, "{\"type\":\"PairProcessing\"}", MT_E_UNSUPPORTED,
            "post_processor \"PairProcessing\"");
    refuses(t, "{\"type\":\"BertProcessing\"}", MT_E_FORMAT, "\"cls\" is not a token and its id");
    refuses(t, "{\"type\":\"BertProcessing\",\"cls\":[\"x\",1],\"sep\":[\"x\",-1]}", MT_E_FORMAT,
            "\"sep\"");
    refuses(t, "{\"type\":\"RobertaProcessing\",\"cls\":[1,\"x\"]}", MT_E_FORMAT, "\"cls\"");
}
