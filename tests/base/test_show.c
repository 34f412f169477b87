#include "lib/base/show.h"

#include "tests/t.h"

T_TEST(names_are_shown_on_one_line)
{
    char buf[MT_SHOW_BYTES], longer[400];

    T_EQ_STR(t, mt_show_name("a\x1b[31m\nb\x7f", buf), "a?[31m?b?");
    memset(longer, 'x', sizeof longer);
    mt_show_text(longer, sizeof longer, buf);
    T_CHECK(t, strlen(buf) < MT_SHOW_BYTES && strcmp(buf + strlen(buf) - 4, "x...") == 0);
    /* A character is not cut in two, whether it begins at an even byte or an odd one. */
    for (size_t odd = 0; odd < 2; odd++) {
        for (size_t i = odd; i + 1 < sizeof longer; i += 2) {
            longer[i] = '\xc3';
            longer[i + 1] = '\xbc';
        }
        mt_show_text(longer, sizeof longer - 2, buf);
        T_CHECK(t, (unsigned char)buf[strlen(buf) - 4] == 0xbc);
        longer[0] = 'x';
    }
}

static void show_keep(void *self, enum mt_log_level level, const char *text)
{
    (void)level;
    snprintf(self, 64, "%s", text);
}

T_TEST(log_lines_and_failures_are_one_line)
{
    char seen[64] = "";
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 1,
                                                    .sink = {.self = seen, .log = show_keep}}));
    mt_log(&ctx, MT_LOG_WARN, "the file %s", "a\n\x1b[2J\xc3\xbc");
    T_EQ_STR(t, seen, "the file a??[2J\xc3\xbc");
    T_FAILS(t, mt_fail(&ctx, MT_E_IO, "the file %s", "a\nb"), MT_E_IO, "");
    T_EQ_STR(t, mt_error(&ctx), "the file a?b");
    mt_ctx_close(&ctx);
}
